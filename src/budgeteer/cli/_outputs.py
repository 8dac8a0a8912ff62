"""Test before any work is done that a command can write its files and folders. The test leaves nothing behind."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from budgeteer.core.errors import InvalidInput

FOLDER, FILE, FILE_ONLY = "folder", "file", "file, in a folder that is there"
OUTPUTS: dict[tuple[str, str], str] = {
    ("agent", "out"): FILE_ONLY,
    ("allocate", "plot"): FILE_ONLY,
    ("bench", "out"): FOLDER,
    ("cache", "out"): FILE,
    ("cache", "report"): FILE_ONLY,
    ("compare", "out"): FOLDER,
    ("data", "out"): FILE,
    ("evidence", "out"): FOLDER,
    ("frontier", "out"): FOLDER,
    ("heads", "out"): FOLDER,
    ("heads", "traces"): FOLDER,
    ("lab", "gguf"): FILE,
    ("lab", "out"): FOLDER,
    ("lab", "plot"): FILE_ONLY,
    ("ledger", "out"): FILE_ONLY,
    ("profile", "out"): FILE,
    ("report", "out"): FILE,
    ("route", "out"): FILE_ONLY,
    ("solve", "out"): FILE,
    ("train", "out"): FOLDER,
    ("train", "save_model"): FOLDER,
}
"""(command, option as argparse names it) -> what it names. Missing folders are made, but for ``FILE_ONLY``."""


def check(command: str, args: argparse.Namespace) -> None:
    """Test that the outputs of a command can be written.

    Raises:
        InvalidInput: an output cannot be written; names the option.
    """
    for (of, name), kind in OUTPUTS.items():
        path = getattr(args, name, None) if of == command else None
        if path is not None:
            require("--" + name.replace("_", "-"), path, kind)


def require(option: str, path: Path, kind: str) -> None:
    """Test that one output can be written, such as one that is made up of other options.

    Raises:
        InvalidInput: it cannot; names the option that chooses another.
    """
    try:
        if kind == FOLDER:
            _write_in(path)
        elif not path.exists():
            if kind == FILE_ONLY and not path.parent.is_dir():
                raise InvalidInput(f"{option} {path}: there is no folder {path.parent}; make it, or choose another")
            _write_in(path.parent)
        elif not path.is_file():
            raise InvalidInput(f"{option} {path} is not a regular file; choose the name of a file")
        else:
            path.open("ab").close()
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        why = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{option} {path} cannot be written ({why}); choose another {option}") from error


def _write_in(folder: Path) -> None:
    with _made(folder), tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\n")
        file.flush()


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder with those above it; what was not there before is gone afterwards."""
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    made: list[Path] = []
    try:
        for above in reversed(missing):
            above.mkdir()
            made.append(above)
        yield
    finally:
        for above in reversed(made):
            with contextlib.suppress(OSError):  # somebody else uses it already
                above.rmdir()
