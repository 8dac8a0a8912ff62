"""Records of a file: the CSV or JSON of the admin API, the log's lines, a store's file, or a store by its address."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from budgeteer.core.errors import InvalidInput
from budgeteer.core.urls import without_password
from budgeteer.gateway.damage import WRONG
from budgeteer.gateway.record import COLUMNS, JSON, MAPS, NAMES, Record
from budgeteer.gateway.store import connect

_SQLITE = b"SQLite format 3\x00"
_WHOLE = frozenset(column.name for column in COLUMNS if column.kind == "whole")
_OPTIONAL = frozenset(column.name for column in COLUMNS if column.optional)


@dataclass(frozen=True, slots=True)
class Told:
    """One request as it was: its record, and what was asked and answered if the log has it, else empty."""

    record: Record
    asked: Mapping[str, Any] = field(default_factory=dict)
    answer: tuple[str, ...] | None = None


def read(place: str) -> tuple[list[Told], list[str]]:
    """The requests of a file or a store in the order in which they came, and the texts of its keys if it has any.

    Args:
        place: a path, or the address of a store such as ``redis://HOST``.

    Raises:
        InvalidInput: it has no records, or nobody can read them.
    """
    keys: list[str] = []
    try:
        if "://" in place:
            store = connect(place)
            try:
                found = [Told(Record.of_row(row)) for row in store.select(f"SELECT {', '.join(NAMES)} FROM records")]
                keys = store.all_keys()
            finally:
                store.close()
        else:
            with open(place, "rb") as file:
                first = file.read(len(_SQLITE))
            if first == _SQLITE:
                found, keys = _stored(Path(place))
            else:
                found = _written(Path(place).read_text(encoding="utf-8-sig"))
    except (OSError, sqlite3.Error, UnicodeDecodeError, csv.Error, *WRONG) as error:
        raise InvalidInput(
            f"{without_password(place)} cannot be read as records of a gateway ({error}); {_HINT}"
        ) from None
    if not found:
        raise InvalidInput(f"{without_password(place)} has no records of requests; {_HINT}")
    known = {told.record.id: told for told in found}
    return sorted(known.values(), key=lambda told: _order(told.record)), keys


_HINT = (
    "give what /admin/api/requests.csv or /admin/api/requests answers, the log's JSON lines, or the gateway's store "
    "(LEDGER.gateway, redis://...)"
)


def _order(record: Record) -> tuple[int, int, str]:
    """By time; those of one millisecond in the order in which their replica counted them."""
    number = record.id.rpartition("-")[2]
    return record.at, int(number) if number.isdigit() else 0, record.id


def _stored(path: Path) -> tuple[list[Told], list[str]]:
    """Of a store's file, which may be in use; nothing is written to it. Columns that it has not yet are left out."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as db:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA query_only = ON")
        present = {row["name"] for row in db.execute("PRAGMA table_info(records)")}
        if not present:
            raise ValueError("this database has no table of records; the ledger's own file has none")
        names = [name for name in NAMES if name in present]
        rows = db.execute(f"SELECT {', '.join(names)} FROM records").fetchall()
        parsed = [{n: orjson.loads(row[n]) if n in JSON else row[n] for n in names} for row in rows]
        return [Told(Record.of_json(data)) for data in parsed], [
            row["data"] for row in db.execute("SELECT data FROM keys")
        ]


def _written(text: str) -> list[Told]:
    start = text.lstrip()[:1]
    if start in ("{", "["):
        try:
            whole = orjson.loads(text)
        except ValueError:  # the log: an object a line, and other lines between them
            return [_told(one) for one in _lines(text) if one.get("event") == "request"]
        if isinstance(whole, dict):
            whole = whole.get("requests", [whole])
        return [_told(one) for one in whole]
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if rows.fieldnames is None or not {"id", "at", "outcome"} <= set(rows.fieldnames):
        found = [_told(one) for one in _lines(text) if one.get("event") == "request"]  # a log that begins with text
        if not found:
            raise ValueError("it is neither JSON nor a table with the columns id, at and outcome")
        return found
    return [_told(_of_cells(row)) for row in rows]


def _lines(text: str) -> Iterable[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                one = orjson.loads(line)
            except ValueError:
                continue
            if isinstance(one, dict):
                yield one


def _told(data: Mapping[str, Any]) -> Told:
    answer = data.get("answer")
    return Told(Record.of_json(data), data.get("asked") or {}, None if answer is None else tuple(answer))


def _of_cells(row: Mapping[str, str]) -> dict[str, Any]:
    """A record's JSON from its row of the CSV file: see :func:`budgeteer.gateway.queries.Queries.table`."""
    found: dict[str, Any] = {}
    for head, cell in row.items():
        if head in _WHOLE:
            if cell:
                found[head] = int(cell)
            elif head in _OPTIONAL:
                found[head] = None
        elif head in NAMES:
            found[head] = cell[1:] if cell[:1] == "'" and cell[1:2] in ("=", "+", "-", "@", "\t", "\r") else cell
        else:
            name, _, kind = head.partition("_")
            if name in MAPS and kind and int(cell or 0):
                found.setdefault(name, {})[kind] = int(cell)
    return found
