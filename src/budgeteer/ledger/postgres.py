"""A ledger in a PostgreSQL database: durable, shared by replicas on many machines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from budgeteer.core.errors import LedgerUnavailable
from budgeteer.ledger import core, journal, rows
from budgeteer.ledger.group import GroupLedger
from budgeteer.ledger.limit import check_name
from budgeteer.ledger.postgres_link import Connection, Link, has_table
from budgeteer.ledger.protocol import REMEMBER, Clock, Command, check_seconds, damaged

T = TypeVar("T")
FORMAT = 1
_TABLES = f"""
CREATE TABLE ledger.meta (
    format integer NOT NULL, seq bigint NOT NULL, head text NOT NULL, now bigint NOT NULL, swept bigint NOT NULL
);
CREATE TABLE ledger.accounts (
    key text COLLATE "C" PRIMARY KEY, path text NOT NULL, limits text NOT NULL, books text NOT NULL
) WITH (fillfactor = 70);
CREATE TABLE ledger.reservations (
    id text COLLATE "C" PRIMARY KEY, path text NOT NULL, amounts text NOT NULL, expires bigint NOT NULL,
    status text NOT NULL, asked text NOT NULL, actual text NOT NULL, over text NOT NULL, at bigint NOT NULL,
    detail text NOT NULL
);
CREATE INDEX due ON ledger.reservations (expires) WHERE status = 'open';
CREATE INDEX closed ON ledger.reservations (at) WHERE status <> 'open';
CREATE TABLE ledger.journal (seq bigint PRIMARY KEY, line text NOT NULL, hash text NOT NULL);
INSERT INTO ledger.meta VALUES ({FORMAT}, 0, '{journal.GENESIS}', 0, 0)
"""
_META = "SELECT format, seq, head, now FROM ledger.meta"
_LOCK = f"{_META} FOR UPDATE"
"""Locks the row until the transaction ends, so that replicas wait for each other here."""
_RESERVATION = ("id", "path", "amounts", "expires", "status", "asked", "actual", "over", "at", "detail")
_COLUMNS = ", ".join(_RESERVATION)
_OPEN = f"SELECT {_COLUMNS} FROM ledger.reservations WHERE status = 'open'"
_READ = f"""
WITH t AS MATERIALIZED (
    SELECT coalesce(%s::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) AS clock, now, swept
    FROM ledger.meta
)
SELECT '', '', '', clock, '', '', '', '', swept, '' FROM t
UNION ALL SELECT {_COLUMNS} FROM ledger.reservations WHERE id = ANY(%s)
UNION ALL (
    SELECT {_COLUMNS} FROM ledger.reservations
    WHERE status = 'open' AND expires > (SELECT swept FROM t) AND expires <= (SELECT greatest(clock, now) FROM t)
    ORDER BY expires, id LIMIT %s
)
"""
"""Clock and ``swept``; the reservations of the commands; the reservations that have expired.

None that expires up to ``swept`` is open any more. Without this bound, each batch would read the index from its
beginning and pass the entries of all closed reservations that no vacuum has removed yet.
"""
_ACCOUNTS = "SELECT path, limits, books FROM ledger.accounts WHERE key = ANY(%s)"
_WRITE = f"""
WITH a AS (
    INSERT INTO ledger.accounts (key, path, limits, books)
    SELECT * FROM json_to_recordset(%s::json) AS x (key text, path text, limits text, books text)
    ON CONFLICT (key) DO UPDATE SET limits = excluded.limits, books = excluded.books
), r AS (
    INSERT INTO ledger.reservations ({_COLUMNS})
    SELECT * FROM json_to_recordset(%s::json) AS x (
        id text, path text, amounts text, expires bigint, status text, asked text, actual text, over text, at bigint,
        detail text
    )
    ON CONFLICT (id) DO UPDATE SET
        path = excluded.path, amounts = excluded.amounts, expires = excluded.expires, status = excluded.status,
        asked = excluded.asked, actual = excluded.actual, over = excluded.over, at = excluded.at,
        detail = excluded.detail
), j AS (
    INSERT INTO ledger.journal (seq, line, hash)
    SELECT * FROM json_to_recordset(%s::json) AS x (seq bigint, line text, hash text)
)
UPDATE ledger.meta SET seq = %s, head = %s, now = %s, swept = %s
"""
"""Writes all changes. JSON takes less than half the time of arrays, or of one statement for each row."""
_FORGET = """
DELETE FROM ledger.reservations WHERE id IN (
    SELECT id FROM ledger.reservations WHERE status <> 'open' AND at <= %s LIMIT 5000
)
"""
_LINES = "SELECT seq, line, hash FROM ledger.journal WHERE seq >= %s AND seq < %s ORDER BY seq LIMIT %s"
_ACCOUNT = ("key", "path", "limits", "books")
_LINE = ("seq", "line", "hash")
_PAGE = 10_000
_PATHS = 100_000
"""Most open reservations whose path a process remembers, so that it can read them and their accounts at once."""
_LONG = 600
"""Longest path, in letters, that is its own key; an index holds up to 2,700 bytes, so longer ones are hashed."""
_PATIENCE = 60.0
"""Seconds that reports and verifications wait for one answer."""


class PostgresLedger(GroupLedger):
    """A ledger for replicas on several machines; what it answered survives a crash of the server's machine.

    Concurrent commands share a transaction, which takes two round trips and one fsync. Transactions follow each other,
    since the journal is one chain. Time is the server's, so replicas need no common clock. If the server does not
    answer, or answers from a state older than one seen before (a standby that took over without the last entries, a
    backup), every operation raises LedgerUnavailable: fail closed.

    Durability is the server's: with ``synchronous_commit = on``, its default, nothing that was answered is lost. All
    tables are in one schema with the ledger's name; it is created if it does not exist.

    Args:
        url: such as postgresql://user:password@localhost:5432/database.
        name: of the ledger, for several in one database.
        create: make the ledger if the database has none of this name; False: an error.
        clock: milliseconds since 1970 (UTC); None: the server's time.
        remember: seconds for which the ids of closed reservations are known.
        timeout: seconds to wait for an answer.

    Raises:
        LedgerUnavailable: the server does not answer, or this user may not use or create the ledger.
        MissingExtra: the package psycopg is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "budgeteer",
        create: bool = True,
        clock: Clock | None = None,
        remember: int = REMEMBER,
        timeout: float = 5.0,
    ) -> None:
        self._clock, self._remember = clock, check_seconds(remember, "remember") * 1000
        self._name, self._seen, self._forgot = check_name(name), 0, 0
        subject = f"the ledger {name!r}"
        self._link = Link(url, subject, timeout, by_index=True)
        self._reader = Link(url, subject, timeout, max(timeout, _PATIENCE))
        super().__init__()
        if create:
            self._link.make(name, "meta", self._sql(_TABLES).split(b";"))
        self._link.run(self._look)

    def _fresh(self) -> None:
        super()._fresh()
        self._accounts = rows.Accounts()
        self._paths: dict[str, str] = {}

    def _look(self, connection: Connection) -> None:
        """Check that there is a ledger of this format."""
        if not has_table(connection, self._name, "meta"):
            raise LedgerUnavailable(
                f"there is no {self._link.subject.removeprefix('the ')}; make one with: budgeteer ledger init --ledger "
                "ADDRESS, or pass create=True"
            )
        self._meta(connection.execute(self._sql(_META)).fetchone())

    def _sql(self, statement: str) -> bytes:
        return statement.replace("ledger.", f'"{self._name}".').encode()

    def _meta(self, row: tuple[Any, ...] | None, seen: int = 0) -> tuple[int, str, int]:
        """Number of journal entries, hash of the last one, time of the last change.

        Raises:
            LedgerUnavailable: there are fewer entries than the ``seen`` that this process has written before.
        """
        if row is not None and row[0] != FORMAT:
            raise self._link.of_other_version(f"its format is {row[0]}, not {FORMAT}")
        seq, head, now = self._read(rows.check_meta, row and row[1:])
        if seq < seen:
            raise LedgerUnavailable(
                f"{self._link.subject} has lost entries: {seen:,} were written, {seq:,} are there. Restore it, "
                "or connect anew to go on with what is there"
            )
        return seq, head, now

    def _read(self, read: Callable[..., T], *of: Any) -> T:
        try:
            return read(*of)
        except rows.DamagedError as error:
            raise damaged(self._link.subject, error) from error

    def run_batch(self, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands in one transaction."""
        return self._link.run(lambda connection: self._transact(connection, commands))

    def _transact(self, connection: Connection, commands: Sequence[Command]) -> list[Any]:
        given = None if self._clock is None else self._clock()
        named = [
            name for name in rows.ids(commands) if "\0" not in name
        ]  # PostgreSQL's texts cannot hold it, so no such id is known
        guessed = rows.scopes(commands, [self._paths[name] for name in named if name in self._paths])
        with connection.pipeline() as pipeline:
            connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            meta = connection.execute(self._sql(_LOCK))
            read = connection.execute(self._sql(_READ), (given, named, core.SWEEP))
            accounts = connection.execute(self._sql(_ACCOUNTS), (list(map(_key, guessed)),))
            pipeline.sync()  # after a flush alone the server would not see that it waits, and never end it
            seq, head, booked = self._meta(meta.fetchone(), self._seen)
            (_, _, _, clock, _, _, _, _, swept, _), *reservations = read.fetchall()
            now = max(clock, booked)
            entries = [self._read(rows.entry_of, row) for row in reservations]
            loaded = {entry[0]: entry for entry in entries if entry[4] == core.OPEN or entry[8] > now - self._remember}
            due = [entry for entry in loaded.values() if entry[4] == core.OPEN and entry[3] <= now]
            state = rows.state_of(booked, sorted(due, key=lambda entry: (entry[3], entry[0])), loaded)
            before = {path: (limits, books) for path, limits, books in accounts.fetchall()}
            more = rows.scopes(commands, [entry[1] for entry in loaded.values()]) - guessed
            if more:  # of reservations that another process has made, or that have expired
                accounts = connection.execute(self._sql(_ACCOUNTS), (list(map(_key, more)),))
                pipeline.sync()
                before |= {path: (limits, books) for path, limits, books in accounts.fetchall()}
            for path, row in before.items():
                state.accounts[path] = self._read(self._accounts.take, path, row)
            outcomes = rows.outcomes(state, clock, self._remember, commands)
            if not state.journal:  # what only reads is not worth an fsync
                connection.execute("ROLLBACK")
                return outcomes
            kinds = {command[0] for command in commands}
            if len(due) < core.SWEEP and kinds != {"reset"}:
                swept = max(swept, now)
            if "reset" in kinds:  # the clock may have gone back: what is reserved next may expire before ``swept``
                swept = min(swept, clock)
            changes = rows.changes(state, loaded, before, seq, head, self.algorithm)
            self._write(connection, changes, swept)
        self._seen = changes.seq
        self._accounts.keep(changes)
        self._keep_paths(state.journal)
        return outcomes

    def _write(self, connection: Connection, changes: rows.Changes, swept: int) -> None:
        accounts = [(_key(row[0]), *row) for row in changes.accounts]
        values = (
            _json(_ACCOUNT, accounts),
            _json(_RESERVATION, changes.reservations),
            _json(_LINE, changes.journal),
            changes.seq,
            changes.head,
            changes.now,
            swept,
        )
        connection.execute(self._sql(_WRITE), values)
        if abs(changes.now - self._forgot) >= 1000:  # once a second: reading leaves them out anyway
            self._forgot = changes.now
            connection.execute(self._sql(_FORGET), (changes.now - self._remember,))
        connection.execute("COMMIT")

    def _keep_paths(self, entries: Iterable[core.Entry]) -> None:
        if len(self._paths) > _PATHS:
            self._paths.clear()
        for entry in entries:
            if entry[4] == core.OPEN:
                self._paths[entry[0]] = entry[1]
            else:
                self._paths.pop(entry[0], None)

    def lines(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[str, str]]:
        """(line, hash) of the journal, read in pages."""
        last = 1 << 62 if stop is None else stop
        query = self._sql(_LINES)
        while True:
            page = self._reader.run(partial(_rows, query, (first, last, _PAGE)))
            for _, line, digest in page:
                yield line, digest
            if len(page) < _PAGE:
                return
            first = page[-1][0] + 1

    def snapshot(self) -> tuple[int, core.State]:
        """The number of journal entries, and the accounts and open reservations at that point."""
        seq, state, (reservations,) = self._at_once(
            ("SELECT path, limits, books FROM ledger.accounts", None), (_OPEN, None)
        )
        for row in reservations:
            state.reservations[row[0]] = self._read(rows.entry_of, row)
        return seq, state

    def accounts(self, paths: Collection[str]) -> core.State:
        """A copy of some accounts at one point in time."""
        return self._at_once((_ACCOUNTS, (list(map(_key, paths)),)))[1]

    def _at_once(self, *queries: tuple[str, tuple[Any, ...] | None]) -> tuple[int, core.State, list[list[Any]]]:
        """What queries find at one point in time; the first one is for accounts.

        Returns:
            The number of journal entries, a state with these accounts, and the rows of the other queries.
        """
        seen = self._seen  # before the reading begins: another thread may add entries while it is under way

        def read(connection: Connection) -> list[list[Any]]:
            with connection.pipeline():
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                cursors = [connection.execute(self._sql(query), values) for query, values in ((_META, None), *queries)]
                connection.execute("COMMIT")
            return [cursor.fetchall() for cursor in cursors]

        meta, accounts, *others = self._reader.run(read)
        state = core.State()
        seq, _, state.now = self._meta(meta[0] if meta else None, seen)
        for path, limits, books in accounts:
            state.accounts[path] = self._read(rows.account_of, path, limits, books)
        return seq, state, others

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self._link.close()
        self._reader.close()


def _rows(query: bytes, values: tuple[Any, ...], connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(query, values).fetchall()


def _key(path: str) -> str:
    """The key of an account's row."""
    return path if len(path) <= _LONG else f"#{hashlib.sha256(path.encode()).hexdigest()}"


def _json(names: Sequence[str], of: Iterable[Sequence[Any]]) -> str:
    """Rows as a list of objects."""
    return json.dumps([dict(zip(names, row, strict=True)) for row in of])
