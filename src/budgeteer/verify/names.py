"""Verifiers by name, as on a command line."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput, UnknownName, VerifierError
from budgeteer.core.method import Method
from budgeteer.verify.protocol import Verifier

__all__ = ["identity", "known", "named"]


def known() -> dict[str, Method]:
    """Registered verifiers by name, those of other installed packages included."""
    return registry.of("verifier")


def named(text: str) -> Verifier:
    """The registered verifier of a name, or a function of a Python file.

    ``python:FILE.py`` means its function ``verify(answer, reference) -> score``, ``python:FILE.py:NAME`` its function
    NAME.

    >>> named("number")("1,200", "1200")
    1.0

    Raises:
        UnknownName: no verifier has this name.
        InvalidInput: the file cannot be loaded or has no such function.
    """
    if text.startswith("python:"):
        path, name = file_of(text)
        return _checked(text, _function(text, path, name))
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


def file_of(text: str) -> tuple[Path, str]:
    """The file and the name of the function in ``python:FILE.py`` or ``python:FILE.py:NAME``."""
    rest = text.removeprefix("python:")
    path, colon, name = rest.rpartition(":")
    if colon and path.endswith(".py"):
        return Path(path), name
    return Path(rest), "verify"


def _function(text: str, path: Path, name: str) -> Callable[..., Any]:
    registered = getattr(module_of(path, f"verifier {text!r}"), name, None)
    if not callable(registered):
        raise InvalidInput(f"verifier {text!r}: {path} has no function {name}(answer, reference) -> score in 0 to 1")
    return registered  # type: ignore[no-any-return]


def module_of(path: Path, subject: str) -> Any:
    """The module of a Python file, which is run once as long as its content stays the same.

    Raises:
        InvalidInput: it cannot be read or raises when it runs; ``subject`` begins the message.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{subject}: cannot read {path}: {error}") from error
    return _run(path.resolve(), hashlib.sha256(content).hexdigest(), subject)


@lru_cache(maxsize=64)
def _run(path: Path, digest: str, subject: str) -> Any:
    name = f"budgeteer_user_{path.stem}_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"{subject}: {path} is no Python file; its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles of the file look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that ends by sys.exit would end the command
        del sys.modules[name]
        raise InvalidInput(f"{subject}: {path} raised {error!r} when it was loaded") from error
    return module


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
