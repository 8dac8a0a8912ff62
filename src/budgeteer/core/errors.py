"""Errors of budgeteer. Every message says what was given, why it fails and what to do instead."""

from __future__ import annotations

from collections.abc import Iterable


class BudgeteerError(Exception):
    """Base of all errors that budgeteer raises on purpose."""


class InvalidInput(BudgeteerError, ValueError):
    """An argument, file or item that cannot be used as given."""


class UnknownZone(InvalidInput):
    """A time zone that this machine's database does not have."""


class UnknownName(BudgeteerError, KeyError):
    """A name that no registry holds; the message lists the nearest known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        import difflib  # here: most programs never need it, and all of them import this module

        self.kind, self.name = kind, name
        self.known = sorted(set(known))
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
        used, requested, limit: integers in units of ``kind``; a ledger's ``used`` counts open reservations too.
        held: the part of ``used`` that is reserved and may come back when other calls end.
        window: of the limit: "hour", "day", "month", one of these in a time zone ("day@Europe/Berlin"), or the seconds
            of a rolling one; None = it has none.
        resets_at: when the limit's window makes room, in milliseconds since 1970 (UTC); None: not by waiting.
        hint: what to do; "" = nothing is known.
    """

    def __init__(
        self,
        *,
        kind: str,
        scope: str,
        used: int,
        requested: int,
        limit: int,
        held: int = 0,
        hint: str = "",
        window: str | int | None = None,
        resets_at: int | None = None,
    ) -> None:
        self.kind, self.scope, self.used, self.requested, self.limit = kind, scope, used, requested, limit
        self.held, self.window, self.resets_at, self.hint = held, window, resets_at, hint
        from decimal import ROUND_FLOOR  # here, as above

        from budgeteer.core import amounts

        why = amounts.shortage(kind, limit - used, requested, limit, window)
        spent, reserved = (amounts.amount(kind, units, ROUND_FLOOR) for units in (used - held, held))
        text = f"{scope}: {why} ({spent} used, {reserved} reserved)"
        super().__init__(f"{text}; {hint}" if hint else text)

    def also(self, hint: str) -> BudgetExceeded:
        """The same error, which says this, too."""
        if not hint:
            return self
        return BudgetExceeded(
            kind=self.kind,
            scope=self.scope,
            used=self.used,
            requested=self.requested,
            limit=self.limit,
            held=self.held,
            hint=f"{self.hint}; {hint}" if self.hint else hint,
            window=self.window,
            resets_at=self.resets_at,
        )


class LedgerError(BudgeteerError):
    """A ledger operation that was not carried out; nothing was booked."""


class WrongKinds(InvalidInput):
    """A reservation that names other kinds of units than the accounts of its path.

    Attributes:
        needed: the kinds that the accounts name.
    """

    def __init__(self, message: str, needed: Iterable[str]) -> None:
        self.needed = tuple(needed)
        super().__init__(message)


class UnknownAccount(LedgerError, KeyError):
    """A path with a scope that no account was opened for."""

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownReservation(LedgerError, KeyError):
    """An id that was never reserved, or was settled so long ago that the ledger has forgotten it."""

    def __str__(self) -> str:
        return str(self.args[0])


class IdConflict(LedgerError):
    """An id used again with other contents than the first time."""


class ReservationClosed(LedgerError):
    """An operation on a reservation that was settled, released or has expired."""


class LedgerUnavailable(LedgerError):
    """The ledger's store did not answer, or lost data: do not spend. Retrying with the same id is safe."""


class JournalBroken(LedgerError):
    """A journal whose hash chain does not hold, or whose balances are not those of the store."""


class AllowanceError(BudgeteerError):
    """An allowance that was copied, pickled, or used after it was delegated or closed."""


class Diverged(BudgeteerError):
    """A training whose loss or gradient is no finite number any more.

    Args:
        step: in which it was seen, from 1; its update was not made.
        fault: the number that is not finite, with its value.
        change: what to change.
    """

    def __init__(self, step: int, fault: str, change: str) -> None:
        self.step = step
        super().__init__(f"training stopped in step {step}: {fault}; the weights are still finite. {change}")


class CheckpointError(BudgeteerError):
    """A checkpoint that is missing, truncated or of another run."""


class VerifierError(BudgeteerError):
    """A verifier that raised or returned something that is not a finite number."""


class MissingExtra(BudgeteerError, ImportError):
    """An optional dependency that is not installed; the message has the command that installs it.

    Args:
        module: that is missing.
        extra: of this package that has it, or what else it needs.
        alone: the requirement to install without its dependencies, where one of these would have to be compiled and is
            not needed.
    """

    def __init__(self, module: str, extra: str, alone: str | None = None) -> None:
        then = f" && pip install --no-deps {alone}" if alone else ""
        super().__init__(f"this needs {module!r}, which is not installed: pip install 'budgeteer[{extra}]'{then}")


class UnknownPrice(BudgeteerError, KeyError):
    """A model without a price; it is never taken to be free.

    Args:
        model: as it was given.
        source: of the table.
        hint: a sentence that says why, or what to write instead.

    Attributes:
        problem: the message without the advice, for those whose prices are not of Python.
    """

    def __init__(self, model: str, source: str, hint: str) -> None:
        self.model = model
        self.problem = f"{source}: no price of model {model!r}; {hint}"
        self.message = (
            f"{self.problem} Name it in a TOML of your own, or choose a price for unknown models (with_fallback)"
        )
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class ModelError(BudgeteerError):
    """A call of a model that failed.

    Attributes:
        billed: it may have run, so what was reserved for it is charged; False: it was refused before it ran.
        again: another attempt may succeed. It is one more to pay for, so a model leaves it to who holds the budget.
    """

    def __init__(self, message: str, *, billed: bool, again: bool = False) -> None:
        self.billed, self.again = billed, again
        super().__init__(message)


class EndpointDown(ModelError):
    """No connection to a model's endpoint could be made, after all attempts; nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, billed=False)
