"""Errors of budgeteer. Every message says what was given, why it fails and what to do instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BudgeteerError(Exception):
    """Base of all errors that budgeteer raises on purpose."""


class InvalidInput(BudgeteerError, ValueError):
    """An argument, file or item that cannot be used as given."""


class UnknownName(BudgeteerError, KeyError):
    """A name that no registry holds; the message lists the nearest known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name = kind, name
        self.known = sorted(known)
        near = difflib.get_close_matches(name, self.known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(self.known)}"
        self.message = f"unknown {kind} {name!r}; {hint}"
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class BudgetExceeded(BudgeteerError):
    """A spend that does not fit its budget.

    Attributes:
        kind: unit of the budget, such as ``"tokens"``.
        scope: which budget, such as ``"step"`` or ``"run"``.
        used, requested, limit: integers in units of ``kind``.
    """

    def __init__(self, *, kind: str, scope: str, used: int, requested: int, limit: int, hint: str = "") -> None:
        self.kind, self.scope, self.used, self.requested, self.limit = kind, scope, used, requested, limit
        text = f"{scope} budget of {limit:,} {kind} does not cover {requested:,} more ({used:,} used)"
        super().__init__(f"{text}; {hint}" if hint else text)


class CheckpointError(BudgeteerError):
    """A checkpoint that is missing, truncated or of another run."""


class VerifierError(BudgeteerError):
    """A verifier that raised or returned something that is not a finite number."""


class MissingExtra(BudgeteerError, ImportError):
    """An optional dependency that is not installed; the message names the extra to install."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"this needs {module!r}, which is not installed: pip install 'budgeteer[{extra}]'")


class UnknownPrice(UnknownName):
    """A model without a price; it is never taken to be free."""

    def __init__(self, model: str, known: Iterable[str], source: str) -> None:
        super().__init__("price of model", model, known)
        near = difflib.get_close_matches(model, self.known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"{len(self.known)} models are known."
        self.message = (
            f"{source}: no price of model {model!r}; {hint} "
            f"Name it in a TOML of your own, or choose a price for unknown models (with_fallback)"
        )
        self.args = (self.message,)
