"""What the programs of the Python clients share: see tests/helpers/clients.py, which runs them."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

BASE_URL, KEY, SPENT_KEY, MODEL = (os.environ[name] for name in ("BASE_URL", "KEY", "SPENT_KEY", "MODEL"))
HELLO, SUM, WHO = "Hello", "What is 2 + 3?", "Who wrote the first program, and how old was she?"
SUMS = ("What is 1 + 2?", "What is 3 + 4?", "What is 5 + 6?")
called: list[list[int]] = []
"""Arguments with which the tool was called, in order."""


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first number.
        b: the second number.
    """
    called.append([a, b])
    return a + b


def streamed(pieces: Any) -> dict[str, Any]:
    """The text of a stream, and whether it came in several pieces."""
    texts = [piece for piece in pieces if piece]
    return {"text": "".join(texts), "several": len(texts) > 1}


def refused(call: Callable[[], Any]) -> dict[str, Any]:
    """What the client raises where the budget is spent, by a call: its class, the status, and whether it says why."""
    try:
        said = call()
    except Exception as error:
        name = f"{type(error).__module__}.{type(error).__qualname__}".removesuffix(".")
        says = "tokens left of" in str(error)
        return {"error": name, "status": status_of(error), "says": says, "message": str(error)[:500]}
    return {"failed": f"no error, but {said!r}"}


def status_of(error: Any) -> int | None:
    """The HTTP status of an error, or of what caused it."""
    while error is not None:
        for name in ("status_code", "status"):
            if hasattr(error, name):
                return getattr(error, name)
        error = error.__cause__
    return None


def run(**cases: Callable[[], dict[str, Any]]) -> None:
    """Do the cases whose names come line by line, and write what came of each as a line of JSON."""
    out, sys.stdout = sys.stdout, sys.stderr  # some libraries print
    for line in sys.stdin:
        called.clear()
        try:
            found = cases[line.strip()]()
        except BaseException:
            found = {"failed": traceback.format_exc()[-3000:]}
        out.write(json.dumps(found) + "\n")
        out.flush()
