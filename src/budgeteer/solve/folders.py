"""Folders of work that can be stopped and goes on: one process at a time, with the settings that it began with."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from budgeteer.core.errors import InvalidInput


def lock(folder: Path, stack: contextlib.ExitStack) -> None:
    """Make a folder and lock it for one process at a time; the kernel releases the lock when a process dies.

    Raises:
        InvalidInput: it cannot be written, or another process has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context((folder / "lock").open("a"))
    except OSError as error:
        raise InvalidInput(f"cannot write to {folder}: {error}") from error
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InvalidInput(f"another process is writing to {folder}; wait for it or stop it") from error


def same_settings(path: Path, identity: Mapping[str, str]) -> None:
    """Write the settings that work begins with, or refuse to go on with other ones.

    Raises:
        InvalidInput: a setting differs, or the file cannot be read.
    """
    if not path.exists():
        whole = path.with_suffix(".tmp")
        whole.write_text(json.dumps(dict(identity), indent=1) + "\n", encoding="utf-8")
        os.replace(whole, path)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
    other = [
        f"{name} = {before.get(name)!r}, not {identity.get(name)!r}"
        for name in sorted({*before, *identity})
        if before.get(name) != identity.get(name)
    ]
    if other:
        raise InvalidInput(
            f"this output was begun with {'; with '.join(other)}; go on with the same settings, or choose another "
            "output"
        )
