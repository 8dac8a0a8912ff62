"""An append-only file of JSON lines that survives kill -9: an incomplete last line is cut off, no other is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budgeteer.core.errors import InvalidInput


class Lines:
    """A file with one JSON object per line.

    A line is written by one system call to a file opened for appending. A killed process leaves at most an incomplete
    last line, which the next process cuts off; with ``sync`` a line also survives a power cut once ``append`` has
    returned.

    Args:
        path: of the file; made with its folder if it is not there.
        sync: whether ``append`` waits until the line is on the disk.

    Attributes:
        earlier: the objects that the file held when it was opened.

    Raises:
        InvalidInput: the file cannot be read or written, or a line in its middle is no JSON object.
    """

    def __init__(self, path: Path, *, sync: bool) -> None:
        self.path, self._sync = path, sync
        self.earlier: list[dict[str, Any]] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            whole = path.read_bytes()
            good = 0
            for number, line in enumerate(whole.splitlines(keepends=True), 1):
                row = _object(line)
                if row is None and good + len(line) < len(whole):
                    os.close(self._file)
                    raise InvalidInput(f"{path}, line {number}: not a JSON object; repair the file or remove the line")
                if row is None or not line.endswith(b"\n"):
                    break
                if row:
                    self.earlier.append(row)
                good += len(line)
            if good < len(whole):
                os.ftruncate(self._file, good)
        except OSError as error:
            raise InvalidInput(f"cannot open {path} for appending: {error}") from error

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one object.

        Raises:
            InvalidInput: the disk is full, or the file cannot be written any more.
        """
        unwritten = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        try:
            while unwritten:
                unwritten = unwritten[os.write(self._file, unwritten) :]
            if self._sync:
                os.fsync(self._file)
        except OSError as error:
            raise InvalidInput(f"cannot write {self.path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _object(line: bytes) -> dict[str, Any] | None:
    """The object of a line; {} for a blank line, None if the line is no object."""
    if not line.strip():
        return {}
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
