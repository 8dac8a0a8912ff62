"""The gateway's store in the PostgreSQL database of its ledger."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from budgeteer.gateway.damage import WRONG, damaged_store
from budgeteer.gateway.record import Record
from budgeteer.gateway.store import (
    ANSWERS,
    ANSWERS_OF_KEY,
    CHANGES,
    FREE,
    READ,
    TRIM_AFTER,
    Entry,
    SqliteStore,
    Store,
    no_key,
)
from budgeteer.ledger.postgres_link import Connection, Link, has_table

FORMAT = 2
_TIMEOUT = 5.0
_TABLES = f"""
CREATE TABLE store.gateway (format integer NOT NULL);
CREATE TABLE store.keys (id text COLLATE "C" PRIMARY KEY, data text NOT NULL);
CREATE TABLE store.instances (name text PRIMARY KEY, at bigint NOT NULL);
CREATE TABLE store.marks (name text PRIMARY KEY, until bigint NOT NULL);
CREATE TABLE store.notes (name text PRIMARY KEY, text text NOT NULL);
CREATE TABLE store.changes (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, data text NOT NULL);
CREATE TABLE store.records (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE, paid boolean NOT NULL,
    data text NOT NULL
);
CREATE INDEX records_paid ON store.records (paid, n);
INSERT INTO store.gateway VALUES ({FORMAT})
"""
_ANSWERS = """
CREATE TABLE store.answers (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text COLLATE "C" NOT NULL, key text NOT NULL,
    until bigint NOT NULL, data text NOT NULL, UNIQUE (id, key)
);
CREATE INDEX answers_key ON store.answers (key, n)
"""
_KEEP = """
INSERT INTO store.answers (id, key, until, data)
SELECT id, %s, %s, data FROM json_to_recordset(%s::json) AS x (id text, data text)
ON CONFLICT (id, key) DO UPDATE SET until = excluded.until, data = excluded.data
"""
_DROP_OF_KEY = """
DELETE FROM store.answers WHERE key = %s AND n <= (
    SELECT n FROM store.answers WHERE key = %s ORDER BY n DESC LIMIT 1 OFFSET %s
)
"""
_DROP = "DELETE FROM store.answers WHERE n <= (SELECT n FROM store.answers ORDER BY n DESC LIMIT 1 OFFSET %s)"
_ADD = """
INSERT INTO store.records (id, paid, data)
SELECT * FROM json_to_recordset(%s::json) AS x (id text, paid boolean, data text) ON CONFLICT (id) DO NOTHING
"""
_TRIM = """
DELETE FROM store.records WHERE paid = %s AND n <= (
    SELECT n FROM store.records WHERE paid = %s ORDER BY n DESC LIMIT 1 OFFSET %s
)
"""
_EXPIRE = """
DELETE FROM store.marks WHERE name IN (
    SELECT name FROM store.marks WHERE until <= %s AND name <> %s FOR UPDATE SKIP LOCKED
)
"""
_CLAIM = """
INSERT INTO store.marks VALUES (%s, %s)
ON CONFLICT (name) DO UPDATE SET until = excluded.until WHERE marks.until <= %s
"""
_MARK = "INSERT INTO store.marks VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET until = excluded.until"
_NOTE = "INSERT INTO store.notes VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET text = excluded.text"
_ADD_KEY = "INSERT INTO store.keys VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET data = excluded.data"
_KEEP_CHANGE = f"""
WITH kept AS (INSERT INTO store.changes (data) VALUES (%s) RETURNING n)
DELETE FROM store.changes WHERE n <= (SELECT n FROM kept) - {CHANGES}
"""
_BEAT = "INSERT INTO store.instances VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET at = excluded.at"


class PostgresStore(Store):
    """A store in the schema of the ledger. Records are queried in a table in memory, as those in Redis.

    Args:
        url: of the database.
        keep: how many records of paid requests are kept.
        name: of the ledger and of its schema.

    Raises:
        LedgerUnavailable: the server does not answer, or this user may not use or create the tables.
    """

    def __init__(self, url: str, keep: int = 100_000, name: str = "budgeteer") -> None:
        self._name, self._keep = name, {True: keep, False: keep // FREE}
        self._added = self._answered = 0
        subject = "the gateway's store"
        self._link, self._reader = (Link(url, subject, _TIMEOUT, by_index=True) for _ in range(2))
        self._link.make(name, "gateway", self._sql(_TABLES).split(b";"))
        self._link.make(name, "answers", self._sql(_ANSWERS).split(b";"))
        self._link.run(lambda c: self._check(c.execute(self._sql("SELECT format FROM store.gateway")).fetchone()))
        self._mirror, self._last, self._lock = SqliteStore(":memory:", keep), 0, threading.Lock()

    @staticmethod
    def exists(url: str, name: str = "budgeteer") -> bool:
        """Whether there is a store; none is created."""
        link = Link(url, "the gateway's store", _TIMEOUT)
        exists = link.run(lambda connection: has_table(connection, name, "gateway"))
        link.close()
        return exists

    def _sql(self, statement: str) -> bytes:
        return statement.replace("store.", f'"{self._name}".').encode()

    def _check(self, row: tuple[Any, ...] | None) -> None:
        if row != (FORMAT,):
            raise self._link.of_other_version(f"its format is {row[0] if row else 'not said'}, not {FORMAT}")

    def get_key(self, name: str) -> str | None:
        if "\0" in name:  # PostgreSQL's texts cannot hold it, so there is no such key
            return None
        row = self._link.run(
            lambda c: c.execute(self._sql("SELECT data FROM store.keys WHERE id = %s"), (name,)).fetchone()
        )
        return None if row is None else str(row[0])

    def all_keys(self) -> list[str]:
        rows = self._link.run(lambda c: c.execute(self._sql("SELECT data FROM store.keys ORDER BY id")).fetchall())
        return [row[0] for row in rows]

    def add_key(self, name: str, data: str, entry: str = "") -> None:
        def write(connection: Connection) -> None:
            with connection.pipeline():
                connection.execute("BEGIN")
                connection.execute(self._sql(_ADD_KEY), (name, data))
                if entry:
                    connection.execute(self._sql(_KEEP_CHANGE), (entry,))
                connection.execute("COMMIT")

        self._link.run(write)

    def change_key(self, name: str, change: Callable[[str], str], entry: Entry | None = None) -> str:
        def replace(connection: Connection) -> str:
            connection.execute("BEGIN")
            select = self._sql("SELECT data FROM store.keys WHERE id = %s FOR UPDATE")
            row = connection.execute(select, (name,)).fetchone()
            if row is None:
                raise no_key(name)
            data = change(row[0])
            with connection.pipeline():
                connection.execute(self._sql("UPDATE store.keys SET data = %s WHERE id = %s"), (data, name))
                if entry:
                    connection.execute(self._sql(_KEEP_CHANGE), (entry(row[0], data),))
                connection.execute("COMMIT")
            return data

        return self._link.run(replace)

    def changes(self, before: str, count: int) -> list[tuple[str, str]]:
        select = self._sql("SELECT n, data FROM store.changes WHERE n < %s ORDER BY n DESC LIMIT %s")
        first = int(before) if before else 2**63 - 1
        rows = self._link.run(lambda c: c.execute(select, (first, count)).fetchall())
        return [(str(n), data) for n, data in rows]

    def beat(self, name: str, at: int | None) -> dict[str, int]:
        def say(connection: Connection) -> list[tuple[Any, ...]]:
            with connection.pipeline():
                if at is None:
                    connection.execute(self._sql("DELETE FROM store.instances WHERE name = %s"), (name,))
                else:
                    connection.execute(self._sql(_BEAT), (name, at))
                seen = connection.execute(self._sql("SELECT name, at FROM store.instances"))
            return seen.fetchall()

        return dict(self._link.run(say))

    def claim(self, name: str, now: int, until: int) -> int | None:
        def ask(connection: Connection) -> tuple[int, tuple[Any, ...] | None]:
            with connection.pipeline():
                connection.execute(self._sql(_EXPIRE), (now, name))
                made = connection.execute(self._sql(_CLAIM), (name, until, now))
                row = connection.execute(self._sql("SELECT until FROM store.marks WHERE name = %s"), (name,))
            return made.rowcount, row.fetchone()

        made, row = self._link.run(ask)
        if made:
            return None
        return now if row is None else int(row[0])  # None: it was removed a moment ago

    def mark(self, name: str, until: int | None) -> None:
        if until is None:
            self._link.run(lambda c: c.execute(self._sql("DELETE FROM store.marks WHERE name = %s"), (name,)))
        else:
            self._link.run(lambda c: c.execute(self._sql(_MARK), (name, until)))

    def note(self, name: str) -> str | None:
        select = self._sql("SELECT text FROM store.notes WHERE name = %s")
        row = self._link.run(lambda c: c.execute(select, (name,)).fetchone())
        return None if row is None else str(row[0])

    def change_note(self, name: str, change: Callable[[str | None], str]) -> None:
        def replace(connection: Connection) -> None:
            connection.execute("BEGIN")
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (name,))  # there may be no row to lock
            select = self._sql("SELECT text FROM store.notes WHERE name = %s")
            row = connection.execute(select, (name,)).fetchone()
            connection.execute(self._sql(_NOTE), (name, change(None if row is None else str(row[0]))))
            connection.execute("COMMIT")

        self._link.run(replace)

    def keep_answer(self, key: str, known: Mapping[str, str], now: int, until: int) -> None:
        rows = json.dumps(
            [{"id": id, "data": known[id]} for id in sorted(known)]
        )  # in one order: no two wait in a ring
        self._answered += len(known)
        trims = self._answered >= TRIM_AFTER

        def write(connection: Connection) -> None:
            connection.execute(self._sql(_KEEP), (key, until, rows))
            if trims:
                connection.execute(self._sql("DELETE FROM store.answers WHERE until <= %s"), (now,))
                connection.execute(self._sql(_DROP_OF_KEY), (key, key, ANSWERS_OF_KEY))
                connection.execute(self._sql(_DROP), (ANSWERS,))

        self._link.run(write)
        if trims:
            self._answered = 0

    def answers(self, ids: Sequence[str], now: int) -> dict[str, dict[str, str]]:
        select = self._sql("SELECT id, key, data FROM store.answers WHERE id = ANY(%s) AND until > %s")
        texts: dict[str, dict[str, str]] = {}
        for id, key, data in self._link.run(lambda c: c.execute(select, (list(ids), now)).fetchall()):
            texts.setdefault(id, {})[key] = data
        return texts

    def forget_answer(self, key: str, id: str) -> None:
        statement = self._sql("DELETE FROM store.answers WHERE key = %s AND id = %s")
        self._link.run(lambda c: c.execute(statement, (key, id)))

    def add(self, records: Sequence[Record]) -> None:
        rows = [
            {"id": record.id, "paid": record.paid, "data": orjson.dumps(record.as_json()).decode()}
            for record in records
        ]
        self._added += len(records)
        trims = self._added > self._keep[False] // 2

        def write(connection: Connection) -> None:
            with connection.pipeline():
                connection.execute("BEGIN")
                # one replica at a time, so that records become visible in the order of their numbers
                connection.execute(self._sql("SELECT format FROM store.gateway FOR UPDATE"))
                connection.execute(self._sql(_ADD), (json.dumps(rows),))
                if trims:
                    for paid, keep in self._keep.items():
                        connection.execute(self._sql(_TRIM), (paid, paid, keep))
                connection.execute("COMMIT")

        self._link.run(write)
        if trims:
            self._added = 0

    def select(self, sql: str, values: Iterable[Any] = ()) -> list[dict[str, Any]]:
        query = self._sql("SELECT n, data FROM store.records WHERE n > %s ORDER BY n LIMIT %s")
        while True:
            with self._lock:
                rows = self._reader.run(lambda c: c.execute(query, (self._last, READ)).fetchall())
                try:
                    self._mirror.add([Record.of_json(orjson.loads(data)) for _, data in rows])
                except WRONG as error:
                    raise damaged_store(self._link.subject, error) from error
                if rows:
                    self._last = rows[-1][0]
            if len(rows) < READ:
                return self._mirror.select(sql, values)

    def close(self) -> None:
        self._link.close()
        self._reader.close()
        self._mirror.close()
