"""The store beside the gateway's ledger: keys and their changes, records of requests, what references to answers
stand for, heartbeats of replicas, marks of sent alerts, notes.

Its calls block, so the gateway makes them in threads. Records are queried by SQL of SQLite in all stores: those on a
server first read the records of all replicas into a table in memory.
"""

from __future__ import annotations

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from budgeteer.core.errors import InvalidInput
from budgeteer.gateway.damage import Asking
from budgeteer.gateway.record import COLUMNS, NAMES, PAID, Column, Record

READ = 1000
"""Records that are read from a stream in one call."""
FREE = 10
"""Records of requests without a charge (refused, answered from the cache, rejected) have a limit of their own, lower by
this factor, so that they cannot push out records of paid requests."""
ANSWERS, ANSWERS_OF_KEY = 200_000, 20_000
"""References to answers that are kept, of all keys and of one; each response has one, and so has each of its items."""
TRIM_AFTER = 256
"""Answers that are kept between two looks for those above these limits."""
CHANGES = 100_000
"""The most changes of keys that are kept."""
Entry = Callable[[str, str], str]
"""The texts of a key before and after a change -> the text that is kept about the change."""
_PAID = " + ".join(PAID)
_TABLES = f"""
CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS instances (name TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, key TEXT NOT NULL, until INTEGER NOT NULL, data TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS changes (n INTEGER PRIMARY KEY AUTOINCREMENT, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS records (
    n INTEGER PRIMARY KEY AUTOINCREMENT, {", ".join(f"{column.name} {column.sql}" for column in COLUMNS)}
);
"""
_INDEXES = f"""
CREATE UNIQUE INDEX IF NOT EXISTS records_id ON records (id);
CREATE INDEX IF NOT EXISTS records_at ON records (at);
CREATE INDEX IF NOT EXISTS records_key ON records (key, n);
CREATE INDEX IF NOT EXISTS records_conversation ON records (conversation, n) WHERE conversation != '';
CREATE UNIQUE INDEX IF NOT EXISTS answers_id ON answers (id, key);
CREATE INDEX IF NOT EXISTS answers_key ON answers (key, n);
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
    def add_key(self, name: str, data: str, entry: str = "") -> None:
        """Store the text of a new key under its id and, in the same transaction, what is kept about that."""

    @abstractmethod
    def change_key(self, name: str, change: Callable[[str], str], entry: Entry | None = None) -> str:
        """Replace the text of a key by ``change(text)``, in one transaction, so that no other change is lost.

        Args:
            name: the key's id.
            change: makes the new text of the old one.
            entry: makes what is kept about the change, in the same transaction, of both; None keeps nothing.

        Returns:
            The new text.

        Raises:
            InvalidInput: there is no such key. Errors of ``change`` are passed on, and change nothing.
        """

    @abstractmethod
    def changes(self, before: str, count: int) -> list[tuple[str, str]]:
        """What is kept about changes of keys, the newest first: (cursor, text) of each.

        Args:
            before: a cursor, to go on after it; "" begins with the newest.
            count: the most that are returned.
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
    def change_note(self, name: str, change: Callable[[str | None], str]) -> None:
        """Replace the text of a note, None = there is none, by ``change(text)``, in one transaction.

        ``change`` may be called again where another replica has changed the note meanwhile.
        """

    @abstractmethod
    def keep_answer(self, key: str, known: Mapping[str, str], now: int, until: int) -> None:
        """Keep what references to an answer stand for.

        The oldest above ANSWERS_OF_KEY of a key, and above ANSWERS of all, are dropped now and then.

        Args:
            key: the id of the key that got the answer.
            known: id of the response or of one of its items -> text.
            now, until: milliseconds since 1970 (UTC); until when it is kept.
        """

    @abstractmethod
    def answers(self, ids: Sequence[str], now: int) -> dict[str, dict[str, str]]:
        """Id -> key -> text, of these ids as far as they are kept."""

    @abstractmethod
    def forget_answer(self, key: str, id: str) -> None:
        """Forget what a reference of a key stands for."""

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
        self._added = self._answered = 0
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

    def add_key(self, name: str, data: str, entry: str = "") -> None:
        with self._asking():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.execute("INSERT INTO keys VALUES (?, ?)", (name, data))
                self._keep_change(entry)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def _keep_change(self, entry: str) -> None:
        if entry:
            n = self._db.execute("INSERT INTO changes (data) VALUES (?)", (entry,)).lastrowid or 0
            self._db.execute("DELETE FROM changes WHERE n <= ?", (n - CHANGES,))

    def changes(self, before: str, count: int) -> list[tuple[str, str]]:
        first = int(before) if before else 2**63 - 1
        select = "SELECT n, data FROM changes WHERE n < ? ORDER BY n DESC LIMIT ?"
        with self._asking():
            return [(str(row[0]), row[1]) for row in self._db.execute(select, (first, count))]

    def change_key(self, name: str, change: Callable[[str], str], entry: Entry | None = None) -> str:
        with self._asking():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                row = self._db.execute("SELECT data FROM keys WHERE id = ?", (name,)).fetchone()
                if row is None:
                    raise no_key(name)
                data = change(row[0])
                self._db.execute("UPDATE keys SET data = ? WHERE id = ?", (data, name))
                self._keep_change(entry(row[0], data) if entry else "")
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

    def change_note(self, name: str, change: Callable[[str | None], str]) -> None:
        with self._asking():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                row = self._db.execute("SELECT text FROM notes WHERE name = ?", (name,)).fetchone()
                text = change(None if row is None else row[0])
                self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, text))
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def keep_answer(self, key: str, known: Mapping[str, str], now: int, until: int) -> None:
        with self._asking():
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO answers (id, key, until, data) VALUES (?, ?, ?, ?)",
                [(id, key, until, text) for id, text in known.items()],
            )
            self._answered += len(known)
            if self._answered >= TRIM_AFTER:
                self._answered = 0
                self._db.execute("DELETE FROM answers WHERE until <= ?", (now,))
                last = "SELECT n FROM answers {} ORDER BY n DESC LIMIT 1 OFFSET ?"
                of_key = f"DELETE FROM answers WHERE key = ? AND n <= ({last.format('WHERE key = ?')})"
                self._db.execute(of_key, (key, key, ANSWERS_OF_KEY))
                self._db.execute(f"DELETE FROM answers WHERE n <= ({last.format('')})", (ANSWERS,))
            self._db.execute("COMMIT")

    def answers(self, ids: Sequence[str], now: int) -> dict[str, dict[str, str]]:
        select = "SELECT id, key, data FROM answers WHERE id IN (SELECT value FROM json_each(?)) AND until > ?"
        texts: dict[str, dict[str, str]] = {}
        with self._asking():
            for id, key, data in self._db.execute(select, (orjson.dumps(list(ids)).decode(), now)):
                texts.setdefault(id, {})[key] = data
        return texts

    def forget_answer(self, key: str, id: str) -> None:
        with self._asking():
            self._db.execute("DELETE FROM answers WHERE key = ? AND id = ?", (key, id))

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


def _empty(column: Column) -> str:
    """A field's default as a literal of SQL."""
    if column.default is None:
        return "NULL"
    if column.kind == "whole":
        return str(column.default)
    return f"'{orjson.dumps(column.default).decode() if column.is_json else column.default}'"


def no_key(name: str) -> InvalidInput:
    return InvalidInput(f"there is no key {name!r}; budgeteer keys list shows those there are")
