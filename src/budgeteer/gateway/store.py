"""The store beside the gateway's ledger: keys, records of requests, heartbeats of replicas, marks of sent alerts.

Its calls block, so the gateway makes them in threads. Records are queried by SQL of SQLite in all stores: those on a
server first read the records of all replicas into a table in memory.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.urls import without_password
from budgeteer.gateway.damage import Asking
from budgeteer.gateway.record import COLUMNS, NAMES, PAID, Column, Record
from budgeteer.ledger.protocol import wall_clock

READ = 1000
"""Records that are read from a stream in one call."""
FREE = 10
"""Records of requests without a charge (refused, answered from the cache, rejected) have a limit of their own, lower by
this factor, so that they cannot push out records of paid requests."""
_PAID = " + ".join(PAID)
_TABLES = f"""
CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS instances (name TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    n INTEGER PRIMARY KEY AUTOINCREMENT, {", ".join(f"{column.name} {column.sql}" for column in COLUMNS)}
);
"""
_INDEXES = f"""
CREATE UNIQUE INDEX IF NOT EXISTS records_id ON records (id);
CREATE INDEX IF NOT EXISTS records_at ON records (at);
CREATE INDEX IF NOT EXISTS records_key ON records (key, n);
CREATE INDEX IF NOT EXISTS records_conversation ON records (conversation, n) WHERE conversation != '';
CREATE INDEX IF NOT EXISTS records_paid ON records (n) WHERE {_PAID} > 0;
CREATE INDEX IF NOT EXISTS records_free ON records (n) WHERE {_PAID} = 0;
"""
_INSERT = f"INSERT OR IGNORE INTO records ({', '.join(NAMES)}) VALUES ({', '.join('?' * len(NAMES))})"


class Store(ABC):
    """Keeps keys, records, heartbeats and marks.

    Every method raises LedgerUnavailable if the store does not answer or is damaged.
    """

    @abstractmethod
    def get_key(self, name: str) -> str | None:
        """The text of the key with this id; None if there is none."""

    @abstractmethod
    def all_keys(self) -> list[str]:
        """The texts of all keys, ordered by id."""

    @abstractmethod
    def add_key(self, name: str, data: str) -> None:
        """Store the text of a new key under its id."""

    @abstractmethod
    def change_key(self, name: str, change: Callable[[str], str]) -> str:
        """Replace the text of a key by ``change(text)``, in one transaction, so that no other change is lost.

        Returns:
            The new text.

        Raises:
            InvalidInput: there is no such key. Errors of ``change`` are passed on, and change nothing.
        """

    @abstractmethod
    def beat(self, name: str, at: int | None) -> dict[str, int]:
        """Store the heartbeat of a replica.

        Args:
            name: the replica.
            at: milliseconds since 1970 (UTC); None = the replica has ended, and is removed.

        Returns:
            Replica -> its latest heartbeat, in milliseconds since 1970 (UTC).
        """

    @abstractmethod
    def claim(self, name: str, now: int, until: int) -> int | None:
        """Set a mark that expires at a time, unless the mark is set already.

        Of any number of replicas that claim a mark at the same time, exactly one gets it.

        Args:
            name: of the mark.
            now, until: milliseconds since 1970 (UTC).

        Returns:
            None if the caller has set the mark; else when the mark that is set already expires.
        """

    @abstractmethod
    def mark(self, name: str, until: int | None) -> None:
        """Set a mark, whoever has set it before, until a time in milliseconds since 1970 (UTC); None removes it."""

    @abstractmethod
    def note(self, name: str) -> str | None:
        """The text of a note; None if there is none."""

    @abstractmethod
    def set_note(self, name: str, text: str) -> None:
        """Store the text of a note, in place of the one before."""

    @abstractmethod
    def add(self, records: Sequence[Record]) -> None:
        """Store records, except those whose id is there already, and delete the oldest above the limit: paid requests
        and those without a charge have a limit each."""

    @abstractmethod
    def select(self, sql: str, values: Iterable[Any] = ()) -> list[dict[str, Any]]:
        """The rows of a SELECT over the table ``records``; ``values`` are for its placeholders."""

    @abstractmethod
    def close(self) -> None:
        """Close files and connections."""


class SqliteStore(Store):
    """A store in an SQLite file.

    Args:
        path: of the file; ``:memory:`` keeps it in memory only.
        keep: how many records of paid requests are kept.
    """

    def __init__(self, path: str | Path, keep: int = 100_000) -> None:
        self._path, self._keep, self._lock = str(path), {"> 0": keep, "= 0": keep // FREE}, threading.Lock()
        self._added = 0
        with self._asking():
            self._db = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_TABLES)
            self._db.execute("BEGIN IMMEDIATE")
            present = {row["name"] for row in self._db.execute("PRAGMA table_info(records)")}
            for column in COLUMNS:  # an older store has no columns for newer fields
                if column.name not in present:
                    self._db.execute(
                        f"ALTER TABLE records ADD COLUMN {column.name} {column.sql} DEFAULT {_empty(column)}"
                    )
            self._db.execute("COMMIT")
            self._db.executescript(_INDEXES)
            self._reader, self._reading = self._db, self._lock
            if self._path != ":memory:":  # a connection of its own: a long SELECT must not keep keys from requests
                self._reader = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
                self._reader.row_factory = sqlite3.Row
                self._reader.execute("PRAGMA query_only = ON")
                self._reading = threading.Lock()

    def _asking(self, reading: bool = False) -> Asking:
        return Asking(self._reading if reading else self._lock, f"the gateway's store {self._path!r}")

    def get_key(self, name: str) -> str | None:
        with self._asking():
            row = self._db.execute("SELECT data FROM keys WHERE id = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def all_keys(self) -> list[str]:
        with self._asking():
            return [row[0] for row in self._db.execute("SELECT data FROM keys ORDER BY id")]

    def add_key(self, name: str, data: str) -> None:
        with self._asking():
            self._db.execute("INSERT INTO keys VALUES (?, ?)", (name, data))

    def change_key(self, name: str, change: Callable[[str], str]) -> str:
        with self._asking():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                row = self._db.execute("SELECT data FROM keys WHERE id = ?", (name,)).fetchone()
                if row is None:
                    raise no_key(name)
                data = change(row[0])
                self._db.execute("UPDATE keys SET data = ? WHERE id = ?", (data, name))
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        return data

    def beat(self, name: str, at: int | None) -> dict[str, int]:
        with self._asking():
            if at is None:
                self._db.execute("DELETE FROM instances WHERE name = ?", (name,))
            else:
                self._db.execute("INSERT OR REPLACE INTO instances VALUES (?, ?)", (name, at))
            return dict(map(tuple, self._db.execute("SELECT name, at FROM instances")))

    def claim(self, name: str, now: int, until: int) -> int | None:
        with self._asking():
            self._db.execute("DELETE FROM marks WHERE until <= ?", (now,))
            if self._db.execute("INSERT OR IGNORE INTO marks VALUES (?, ?)", (name, until)).rowcount == 1:
                return None
            row = self._db.execute("SELECT until FROM marks WHERE name = ?", (name,)).fetchone()
        return now if row is None else int(row[0])  # None: it was dropped a moment ago

    def mark(self, name: str, until: int | None) -> None:
        with self._asking():
            if until is None:
                self._db.execute("DELETE FROM marks WHERE name = ?", (name,))
            else:
                self._db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, until))

    def note(self, name: str) -> str | None:
        with self._asking():
            row = self._db.execute("SELECT text FROM notes WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_note(self, name: str, text: str) -> None:
        with self._asking():
            self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, text))

    def add(self, records: Sequence[Record]) -> None:
        with self._asking():
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(_INSERT, [record.as_row() for record in records])
            self._added += len(records)
            if self._added > self._keep["= 0"] // 2:
                self._added = 0
                for kind, keep in self._keep.items():
                    condition = f"{_PAID} {kind}"
                    first = f"(SELECT n FROM records WHERE {condition} ORDER BY n DESC LIMIT 1 OFFSET ?)"
                    self._db.execute(f"DELETE FROM records WHERE {condition} AND n <= {first}", (keep,))
            self._db.execute("COMMIT")

    def select(self, sql: str, values: Iterable[Any] = ()) -> list[dict[str, Any]]:
        with self._asking(reading=True):
            return [dict(row) for row in self._reader.execute(sql, tuple(values))]

    def close(self) -> None:
        self._reader.close()
        self._db.close()


class RedisStore(Store):
    """A store in the ledger's Redis; records are in two streams, which are read into a table in memory for queries.

    Args:
        url: of Redis.
        keep: how many records of paid requests are kept.
        name: part of the keys in Redis, the same as the ledger's.
    """

    def __init__(self, url: str, keep: int = 100_000, name: str = "budgeteer") -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise MissingExtra("redis", "redis") from error
        self._url, self._keep, self._lock = url, keep, threading.Lock()
        self._client = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 1)
        )
        self._keys, self._instances, self._marks, self._notes, self._paid, self._free = (
            f"budgeteer:{{{name}}}:gateway:{part}"
            for part in ("keys", "instances", "marks", "notes", "records", "records:free")
        )
        self._mirror, self._last = SqliteStore(":memory:", keep), dict.fromkeys((self._paid, self._free), "0-0")

    def _asking(self) -> Asking:
        return Asking(self._lock, f"the gateway's store at {without_password(self._url)}")

    def get_key(self, name: str) -> str | None:
        with self._asking():
            text: Any = self._client.hget(self._keys, name)
        return None if text is None else str(text)

    def all_keys(self) -> list[str]:
        with self._asking():
            texts: Any = self._client.hgetall(self._keys)
        return [texts[name] for name in sorted(texts)]

    def add_key(self, name: str, data: str) -> None:
        with self._asking():
            self._client.hset(self._keys, name, data)

    def change_key(self, name: str, change: Callable[[str], str]) -> str:
        def replace(pipe: Any) -> str:
            text = pipe.hget(self._keys, name)
            if text is None:
                raise no_key(name)
            data = change(text)
            pipe.multi()
            pipe.hset(self._keys, name, data)
            return data

        with self._asking():
            return str(self._client.transaction(replace, self._keys, value_from_callable=True))  # type: ignore[arg-type]

    def beat(self, name: str, at: int | None) -> dict[str, int]:
        with self._asking():
            if at is None:
                self._client.hdel(self._instances, name)
            else:
                self._client.hset(self._instances, name, str(at))
            beats: Any = self._client.hgetall(self._instances)
        return {replica: int(seen) for replica, seen in beats.items()}

    def claim(self, name: str, now: int, until: int) -> int | None:
        with self._asking():  # the server drops it in time, by its own clock
            if self._client.set(f"{self._marks}:{name}", "", nx=True, px=max(1, until - now)):
                return None
            left: Any = self._client.pttl(f"{self._marks}:{name}")
        return now + max(0, int(left))

    def mark(self, name: str, until: int | None) -> None:
        with self._asking():
            if until is None:
                self._client.delete(f"{self._marks}:{name}")
            else:
                self._client.set(f"{self._marks}:{name}", "", px=max(1, until - wall_clock()))

    def note(self, name: str) -> str | None:
        with self._asking():
            found: Any = self._client.hget(self._notes, name)
        return None if found is None else str(found)

    def set_note(self, name: str, text: str) -> None:
        with self._asking():
            self._client.hset(self._notes, name, text)

    def add(self, records: Sequence[Record]) -> None:
        with self._asking(), self._client.pipeline(transaction=False) as pipe:
            for record in records:
                stream, keep = (self._paid, self._keep) if record.paid else (self._free, self._keep // FREE)
                pipe.xadd(stream, {"r": orjson.dumps(record.as_json())}, maxlen=keep, approximate=True)
            pipe.execute()

    def select(self, sql: str, values: Iterable[Any] = ()) -> list[dict[str, Any]]:
        while True:
            with self._asking():
                entries: list[tuple[tuple[int, ...], str, Any]] = []  # (order, stream, (id, record))
                frontier: tuple[int, ...] | None = None  # up to here both streams are read whole
                for stream, last in self._last.items():
                    batch: Any = self._client.xrange(stream, f"({last}", "+", count=READ)
                    entries += [(_order(id), stream, (id, fields["r"])) for id, fields in batch]
                    if len(batch) == READ:
                        ends = _order(batch[-1][0])
                        frontier = ends if frontier is None else min(frontier, ends)
                entries = sorted(entry for entry in entries if frontier is None or entry[0] <= frontier)
                self._last |= {stream: id for _, stream, (id, _) in entries}
                if entries:
                    self._mirror.add([Record.of_json(json.loads(text)) for _, _, (_, text) in entries])
            if frontier is None:
                return self._mirror.select(sql, values)

    def close(self) -> None:
        self._client.close()
        self._mirror.close()


def _order(id: str) -> tuple[int, ...]:
    """The id of a stream's entry in a form that sorts by time."""
    return tuple(map(int, id.split("-")))


def _empty(column: Column) -> str:
    """A field's default as a literal of SQL."""
    if column.default is None:
        return "NULL"
    if column.kind == "whole":
        return str(column.default)
    return f"'{orjson.dumps(column.default).decode() if column.is_json else column.default}'"


def no_key(name: str) -> InvalidInput:
    return InvalidInput(f"there is no key {name!r}; budgeteer keys list shows those there are")
