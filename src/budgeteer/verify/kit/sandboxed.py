"""Body of the process in which :mod:`budgeteer.verify.sandbox` runs a user's verifier.

python sandboxed.py FILE.py NAME BYTES SECONDS: reads lines ``[answer, reference]`` and writes lines ``{"score": x}`` or
``{"error": "why"}``, the first one when the file is loaded. It imports nothing of budgeteer, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

WRITTEN = 1 << 24
"""Bytes of one file that the verifier may write."""


def limit(memory: int) -> None:
    """Limit this process and those that it starts."""
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, WRITTEN),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # not on this system, or limited below that already
            resource.setrlimit(kind, (most, most))


def private() -> tuple[Any, Any]:
    """The streams to and from the parent, out of the way of what the verifier reads and prints: that goes nowhere."""
    requests, replies = os.fdopen(os.dup(0), "r", encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    return requests, replies


def loaded(path: Path, name: str) -> Any:
    """The function of the file."""
    sys.path[0] = str(path.parent)  # as if it was run; not the folder of this script
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise TypeError(f"{path} has no function {name}(answer, reference) -> score in 0 to 1")
    return function


def scored(function: Any, answer: str | None, reference: str) -> dict[str, Any]:
    """What the function says of an answer."""
    try:
        given = function(answer, reference)
        shown = repr(given)[:60]
    except (Exception, SystemExit) as error:
        return {"error": f"raised {error!r}"[:300]}
    try:
        score = float(given)
    except Exception:  # None, a text, or an object whose conversion raises
        score = math.nan
    if not 0 <= score <= 1:
        return {"error": f"returned {shown}, not 0 to 1,"}
    return {"score": score}


def main() -> None:
    """Answer until the parent closes the stream."""
    path, name, memory = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    late = math.ceil(float(sys.argv[4])) + 1  # the parent ends a call before; this is for one that was killed
    requests, replies = private()

    def reply(content: dict[str, Any]) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    limit(memory)
    try:
        function = loaded(path, name)
    except (Exception, SystemExit) as error:
        reply({"error": f"cannot be loaded: {type(error).__name__}: {error}"[:300]})
        return
    reply({"score": 0.0})
    for line in requests:
        signal.alarm(late)
        said = scored(function, *json.loads(line))
        signal.alarm(0)
        reply(said)


if __name__ == "__main__":
    main()
