"""Reads recorded requests: the CSV or JSON of the admin API, the log, a store's file, or a store by its address."""

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
from budgeteer.gateway.record import COLUMNS, JSON, MAPS, NAMES, AttemptRecord, Record, columns
from budgeteer.gateway.stores import connect, exists
from budgeteer.ledger.limit import LAST

_SQLITE = b"SQLite format 3\x00"
_WHOLE = frozenset(column.name for column in COLUMNS if column.kind == "whole")
_OPTIONAL = frozenset(column.name for column in COLUMNS if column.optional)
_OF_ATTEMPTS = columns(AttemptRecord)


@dataclass(frozen=True, slots=True)
class Logged:
    """A recorded request; ``asked`` has its prompt and ``answer`` the texts of its answer, if the file has them."""

    record: Record
    asked: Mapping[str, Any] = field(default_factory=dict)
    answer: tuple[str, ...] | None = None


def read(place: str) -> tuple[list[Logged], list[str]]:
    """The requests of a file or a store in the order in which they came, and its keys as texts, if it has any.

    Args:
        place: a path, or the address of a store such as ``redis://HOST``.

    Raises:
        InvalidInput: it has no records, or they cannot be read.
    """
    keys: list[str] = []
    try:
        if "://" in place:
            if not exists(place):
                raise InvalidInput(f"{without_password(place)} has no store of a gateway; {_HINT}")
            store = connect(place)
            try:
                requests = [
                    Logged(Record.of_row(row)) for row in store.select(f"SELECT {', '.join(NAMES)} FROM records")
                ]
                keys = store.all_keys()
            finally:
                store.close()
        else:
            with open(place, "rb") as file:
                first = file.read(len(_SQLITE))
            if first == _SQLITE:
                requests, keys = _stored(Path(place))
            else:
                requests = _written(Path(place).read_text(encoding="utf-8-sig"))
    except (OSError, sqlite3.Error, UnicodeDecodeError, csv.Error, *WRONG) as error:
        raise InvalidInput(
            f"{without_password(place)} cannot be read as records of a gateway ({error}); {_HINT}"
        ) from None
    if not requests:
        raise InvalidInput(f"{without_password(place)} has no records of requests; {_HINT}")
    for logged in requests:
        _check(logged, without_password(place))
    by_id = {logged.record.id: logged for logged in requests}
    return sorted(by_id.values(), key=lambda logged: _order(logged.record)), keys


_HINT = (
    "give what /admin/api/requests.csv or /admin/api/requests answers, the log's JSON lines, or the gateway's store "
    "(LEDGER.gateway, postgresql://..., redis://...)"
)


def _check(logged: Logged, place: str) -> None:
    """Refuse a record whose values are not what a gateway writes, as those of a file changed by other programs.

    Raises:
        InvalidInput: naming the record and the field.
    """
    record = logged.record
    values = {column.name: (column.kind, getattr(record, column.name), column.optional) for column in COLUMNS}
    values |= {
        f"calls.{column.name}": (column.kind, getattr(call, column.name), False)
        for call in record.calls
        for column in _OF_ATTEMPTS
    }
    for name, (kind, value, optional) in values.items():
        if not (_fits(kind, value) or (optional and value is None)) or (name == "id" and not value):
            raise InvalidInput(f"record {str(record.id)[:80]!r} of {place} has {name} {str(value)[:80]!r}; {_HINT}")
    if record.at > LAST:
        raise InvalidInput(f"record {record.id!r} of {place} has at {record.at}, after the year 9999; {_HINT}")
    asked, answer = logged.asked, logged.answer
    if not isinstance(asked, Mapping) or not all(isinstance(text, str) for text in answer or ()):
        raise InvalidInput(f"record {record.id!r} of {place} has asked or answer in another form; {_HINT}")


def _fits(kind: str, value: object) -> bool:
    """Whether a value can stand in a column of a kind."""
    if kind == "text":
        return isinstance(value, str)
    if kind == "whole":
        return type(value) is int and 0 <= value < 2**63
    if kind == "units":
        return isinstance(value, Mapping) and all(type(units) is int and units >= 0 for units in value.values())
    return True  # attempts, whose own columns are looked at


def keys_beside(ledger: str) -> list[str]:
    """The keys in the store beside a ledger, as texts; none if there is no such store yet, and none is created."""
    if not exists(ledger):
        return []
    store = connect(ledger)
    try:
        return store.all_keys()
    finally:
        store.close()


def _order(record: Record) -> tuple[int, int, str]:
    """Sorts by time, and within a millisecond by the number that the replica gave the request."""
    number = record.id.rpartition("-")[2]
    return record.at, int(number) if number.isdigit() else 0, record.id


def _stored(path: Path) -> tuple[list[Logged], list[str]]:
    """Records and keys of a store's file, which may be in use and is not changed; it may lack newer columns."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as db:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA query_only = ON")
        present = {row["name"] for row in db.execute("PRAGMA table_info(records)")}
        if not present:
            raise ValueError("this database has no table of records; the ledger's own file has none")
        names = [name for name in NAMES if name in present]
        rows = db.execute(f"SELECT {', '.join(names)} FROM records").fetchall()
        parsed = [{n: orjson.loads(row[n]) if n in JSON else row[n] for n in names} for row in rows]
        return [Logged(Record.of_json(data)) for data in parsed], [
            row["data"] for row in db.execute("SELECT data FROM keys")
        ]


def _written(text: str) -> list[Logged]:
    start = text.lstrip()[:1]
    if start in ("{", "["):
        try:
            whole = orjson.loads(text)
        except ValueError:  # the log: an object a line, and other lines between them
            return [_logged(entry) for entry in _lines(text) if entry.get("event") == "request"]
        if isinstance(whole, dict):
            whole = whole.get("requests", [whole])
        return [_logged(entry) for entry in whole]
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if rows.fieldnames is None or not {"id", "at", "outcome"} <= set(rows.fieldnames):
        requests = [
            _logged(entry) for entry in _lines(text) if entry.get("event") == "request"
        ]  # a log that begins with text
        if not requests:
            raise ValueError("it is neither JSON nor a table with the columns id, at and outcome")
        return requests
    return [_logged(_of_cells(row)) for row in rows]


def _lines(text: str) -> Iterable[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                entry = orjson.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry


def _logged(data: Mapping[str, Any]) -> Logged:
    answer = data.get("answer")
    return Logged(Record.of_json(data), data.get("asked") or {}, None if answer is None else tuple(answer))


def _of_cells(row: Mapping[str, str]) -> dict[str, Any]:
    """A record's JSON from its row of the CSV file: see :func:`budgeteer.gateway.queries.Queries.table`."""
    if None in row or None in row.values():
        raise ValueError(
            f"the row that begins with {str(next(iter(row.values())))[:80]!r} has other cells than its head"
        )
    data: dict[str, Any] = {}
    for head, cell in row.items():
        if head in _WHOLE:
            if cell:
                data[head] = int(cell)
            elif head in _OPTIONAL:
                data[head] = None
        elif head in NAMES:
            data[head] = cell[1:] if cell[:1] == "'" and cell[1:2] in ("=", "+", "-", "@", "\t", "\r") else cell
        else:
            name, _, kind = head.partition("_")
            if name in MAPS and kind and int(cell or 0):
                data.setdefault(name, {})[kind] = int(cell)
    return data
