"""Problems from a file: JSON lines, JSON, CSV or Parquet, the text formats also gzipped."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.lab.tasks.base import Item

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
"""What a file's name ends in; .gz may follow all but .parquet."""
STDIN = "-"

Row = tuple[str, Any]
"""Where in the file it stands, such as ``line 3``, and its fields."""


def is_file(source: str) -> bool:
    """Whether a task's name is that of a file, there or not; ``-`` is standard input."""
    return source == STDIN or source.removesuffix(".gz").endswith(FORMATS) or Path(source).is_file()


def final(text: str) -> str:
    """A reference answer without the solution before it: what follows the last ``####``, as in GSM8K."""
    return text.rsplit("####", 1)[-1].strip()


def read(source: str, question: str, answer: str, limit: int | None) -> tuple[str, list[Item]]:
    """The task's short name and its items.

    Args:
        source: path, or ``-`` for JSON lines on standard input.
        question, answer: names of the fields. An answer with ``####`` keeps what follows it; rows without one become
            items without a reference. A field ``id`` names the item.
        limit: the first so many.

    Raises:
        InvalidInput: the file cannot be read, a row lacks the question, ids repeat; names file and row.
        MissingExtra: Parquet without polars and pyarrow.
    """
    path = Path(source)
    name, where = ("stdin", "standard input") if source == STDIN else (path.name.split(".")[0], source)
    items: dict[str, Item] = {}
    answered = False
    fields: dict[str, None] = {}
    for place, row in islice(_rows(source, where), limit):
        if not isinstance(row, dict):
            raise InvalidInput(f"{where}, {place}: not an object with fields but {_short(row)}")
        fields.update(dict.fromkeys(map(str, row)))
        text = row.get(question)
        if question not in row or text is None:
            raise InvalidInput(
                f"{where}, {place}: no field {question!r}; it has {_listed(row)}; name yours with --question-field"
            )
        if not isinstance(text, str) or not text.strip():
            raise InvalidInput(f"{where}, {place}: field {question!r} holds {_short(text)} and no text")
        key = str(row["id"]) if row.get("id") is not None else f"{name}:{len(items) + 1}"
        if key in items:
            raise InvalidInput(f"{where}, {place}: the id {key!r} is there already; make ids distinct")
        given = row.get(answer)
        reference = None if given is None or given == "" else final(str(given))
        answered |= reference is not None
        items[key] = Item(key, text, reference, name, dict(row))
    if not items:
        raise InvalidInput(f"{where} holds no questions; give a row with a field {question!r} for each")
    if not answered and answer != "answer":
        raise InvalidInput(f"{where}: no row has a field {answer!r}; they have {_listed(fields)}; see --answer-field")
    return name, list(items.values())


def fields_of(items: Iterable[Item]) -> str:
    """The fields of a file's items, for messages."""
    return _listed(dict.fromkeys(name for item in items for name in item.entry))


def _listed(fields: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in islice(fields, 12)) or "none"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _rows(source: str, where: str) -> Iterator[Row]:
    if source == STDIN:
        yield from _lines(sys.stdin, where)
        return
    path, kind = Path(source), Path(source.removesuffix(".gz")).suffix
    try:
        if kind == ".parquet":
            yield from _parquet(path, where)
            return
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="" if kind == ".csv" else None)
            if kind == ".csv":
                yield from _csv(text, where)
            elif kind == ".json":
                yield from _json(text, where)
            else:
                yield from _lines(text, where)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"cannot read {where}: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"cannot read {where}: not UTF-8 text ({error}); save it as UTF-8") from error


def _lines(lines: Iterable[str], where: str) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        line = line.removeprefix("\ufeff")
        if line.strip():
            yield f"line {number}", _object(line, f"{where}, line {number}")


def _object(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: not a JSON object a line ({error})") from error


def _json(text: io.TextIOWrapper, where: str) -> Iterator[Row]:
    """An array of objects; also what is JSON lines in truth."""
    content = text.read()
    if not content.lstrip().startswith("["):
        yield from _lines(content.splitlines(), where)
        return
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: not a JSON array of objects ({error})") from error
    yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))


def _csv(text: io.TextIOWrapper, where: str) -> Iterator[Row]:
    reader = csv.DictReader(text)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise InvalidInput(f"{where}, line {reader.line_num}: not as many fields as the first line names")
            yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise InvalidInput(f"{where}, line {reader.line_num}: {error}") from error


def _parquet(path: Path, where: str) -> Iterator[Row]:
    path.open("rb").close()  # the same error as of other files
    rows: list[dict[str, Any]]
    try:
        if importlib.util.find_spec("polars") is not None:
            import polars

            rows = polars.read_parquet(path).to_dicts()
        elif importlib.util.find_spec("pyarrow") is not None:
            from pyarrow import parquet

            rows = parquet.read_table(path).to_pylist()
        else:
            raise MissingExtra("polars", "parquet")
    except MissingExtra:
        raise
    except Exception as error:  # each library has its own
        raise InvalidInput(f"cannot read {where} as Parquet: {error}") from error
    yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))
