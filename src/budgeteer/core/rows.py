"""Rows of a file, for all who read one: JSON lines, JSON, CSV or Parquet, the text formats also gzipped."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import json
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from budgeteer.core.errors import InvalidInput, MissingExtra

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
"""What a file's name ends in; .gz may follow all but .parquet."""
STDIN = "-"
LONGEST = 1 << 26
"""Characters of a line at most: what has no ends of lines is no JSON lines and would fill the memory."""
LARGEST = 1 << 30
"""Characters of a JSON array at most."""

Row = tuple[str, Any]
"""Where in the file it stands, such as ``line 3``, and its fields."""


def kind_of(source: str) -> str:
    """How a file is read, one of FORMATS, by its name; what has another name is JSON lines."""
    ending = Path(source.removesuffix(".gz")).suffix
    return ending if ending in FORMATS else ".jsonl"


def where(source: str) -> str:
    """The file's name in messages."""
    return "standard input" if source == STDIN else source


def read(source: str) -> Iterator[Row]:
    """The rows of a file, one after the other.

    Args:
        source: path, or ``-`` for JSON lines on standard input. Cells of CSV are texts.

    Raises:
        InvalidInput: the file cannot be read or is none; names file and row.
        MissingExtra: Parquet without polars and pyarrow.
    """
    name = where(source)
    try:
        if source == STDIN:
            if sys.stdin is None:
                raise InvalidInput("standard input is closed; send rows to it, or name a file instead of -")
            yield from lines(_bounded(sys.stdin, name), name)
            return
        path, kind = Path(source), kind_of(source)
        _check_file(path, name)
        if kind == ".parquet":
            yield from _parquet(path, name)
            return
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="" if kind == ".csv" else None)
            if kind == ".csv":
                yield from _csv(text, name)
            elif kind == ".json":
                yield from _json(text, name)
            else:
                yield from lines(_bounded(text, name), name)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"cannot read {name}: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"cannot read {name}: not UTF-8 text ({error}); save it as UTF-8") from error
    except ValueError as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"cannot read {name!r}: {error}") from error  # such as a name with a NUL


def lines(texts: Iterable[str], name: str) -> Iterator[Row]:
    """The rows of JSON lines; empty lines are skipped.

    Args:
        texts: an open file or a list.
        name: of the source, for errors.
    """
    for number, line in enumerate(texts, 1):
        line = line.removeprefix("\ufeff")
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # also thousands of digits, or of brackets
            raise InvalidInput(f"{name}, line {number}: not JSON ({error}); write one object a line") from error
        yield f"line {number}", row


def _check_file(path: Path, name: str) -> None:
    """Refuse what is no file; a device, for one, may never end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise InvalidInput(f"cannot read {name}: it is a folder; name a file in it")
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise InvalidInput(f"cannot read {name}: neither a regular file nor a pipe; name a file, or - for stdin")


def _bounded(text: TextIO, name: str) -> Iterator[str]:
    """The lines of a file, none longer than LONGEST."""
    number = 0
    while line := text.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise InvalidInput(f"{name}, line {number}: longer than {LONGEST:,} characters; write one object a line")
        yield line


def _json(text: TextIO, name: str) -> Iterator[Row]:
    """An array of objects; also what is JSON lines in truth."""
    content = text.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise InvalidInput(f"{name}: longer than {LARGEST:,} characters; write JSON lines instead, one object a line")
    if not content.lstrip().startswith("["):
        yield from lines(io.StringIO(content), name)
        return
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}: not a JSON array of objects ({error})") from error
    yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))


def _csv(text: TextIO, name: str) -> Iterator[Row]:
    reader = csv.DictReader(_bounded(text, name))
    try:
        names = reader.fieldnames or ()
        if twice := {field for field in names if names.count(field) > 1}:
            raise InvalidInput(
                f"{name}, line 1: names {', '.join(map(repr, sorted(twice)))} twice; make names distinct"
            )
        for row in reader:
            if None in row or None in row.values():
                raise InvalidInput(f"{name}, line {reader.line_num}: not as many fields as the first line names")
            yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise InvalidInput(f"{name}, line {reader.line_num}: {error}") from error


def _parquet(path: Path, name: str) -> Iterator[Row]:
    path.open("rb").close()  # the same error as of other files
    rows: list[dict[str, Any]]
    try:
        if importlib.util.find_spec("polars") is not None:
            import polars

            rows = polars.read_parquet(path, glob=False).to_dicts()
        elif importlib.util.find_spec("pyarrow") is not None:
            from pyarrow import parquet

            rows = parquet.read_table(path).to_pylist()
        else:
            raise MissingExtra("polars", "parquet")
    except MissingExtra:
        raise
    except Exception as error:  # each library has its own
        raise InvalidInput(f"cannot read {name} as Parquet: {error}") from error
    yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))
