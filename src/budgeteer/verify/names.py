"""Verifiers by name, as on a command line."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput, UnknownName, VerifierError
from budgeteer.core.method import Method
from budgeteer.verify.protocol import Verifier
from budgeteer.verify.sandbox import Sandbox, file_of

__all__ = ["identity", "known", "named"]


def known() -> dict[str, Method]:
    """Registered verifiers by name, those of other installed packages included."""
    return registry.of("verifier")


def named(text: str) -> Verifier:
    """The registered verifier of a name, or a function of a Python file.

    ``python:FILE.py`` means its function ``verify(answer, reference) -> score``, ``python:FILE.py:NAME`` its function
    NAME; it is called in a process of its own, with limits of time and memory (:mod:`budgeteer.verify.sandbox`).

    >>> named("number")("1,200", "1200")
    1.0

    Raises:
        UnknownName: no verifier has this name.
        InvalidInput: the file cannot be loaded or has no such function.
    """
    if text.startswith("python:"):
        return Sandbox(text)
    registered = known()
    if text not in registered:
        raise UnknownName("verifier", text, [*registered, "python:FILE.py"])
    return _checked(text, registry.load(registered[text]))


def identity(text: str) -> str:
    """A text that identifies a verifier's scores: its name, and for a Python file a digest of the content, too."""
    if not text.startswith("python:"):
        return text
    path, name = file_of(text)
    try:
        return f"python:{name}:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError as error:
        raise InvalidInput(f"verifier {text!r}: cannot read {path}: {error}") from error


def _checked(name: str, verifier: Verifier) -> Verifier:
    """The verifier; errors and impossible scores of it become a VerifierError.

    Raises:
        VerifierError: it raised, or its score is not in 0 to 1.
    """

    def verify(answer: str | None, reference: str) -> float:
        try:
            given: Any = verifier(answer, reference)
        except (Exception, SystemExit) as error:
            raise VerifierError(f"verifier {name!r} raised on reference {reference[:80]!r}: {error!r}") from error
        try:
            score = float(given)
        except Exception:  # None, a text, or an object whose conversion raises
            score = math.nan
        if not 0 <= score <= 1:
            raise VerifierError(
                f"verifier {name!r} returned {given!r:.60} on reference {reference[:80]!r}; return 0 to 1"
            )
        return score

    return verify
