"""A ledger in an SQLite file: durable, for the processes of one machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from budgeteer.core.errors import BudgeteerError, LedgerUnavailable
from budgeteer.ledger import core, journal
from budgeteer.ledger.group import GroupLedger
from budgeteer.ledger.limit import check_path, decode_limits, encode_limits
from budgeteer.ledger.protocol import REMEMBER, Clock, Command, check_seconds, damaged, wall_clock

try:
    import fcntl
except ImportError:  # Windows: SQLite's own lock has to do, which waits by polling
    fcntl = None  # type: ignore[assignment]

_TABLES = """
CREATE TABLE meta (seq INTEGER NOT NULL, head TEXT NOT NULL, now INTEGER NOT NULL);
CREATE TABLE accounts (path TEXT PRIMARY KEY, limits TEXT NOT NULL, books TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE reservations (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, amounts TEXT NOT NULL, expires INTEGER NOT NULL, status TEXT NOT NULL,
    asked TEXT NOT NULL, actual TEXT NOT NULL, over TEXT NOT NULL, at INTEGER NOT NULL, detail TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX due ON reservations (expires) WHERE status = 'open';
CREATE INDEX closed ON reservations (at) WHERE status != 'open';
CREATE TABLE journal (seq INTEGER PRIMARY KEY, line TEXT NOT NULL, hash TEXT NOT NULL);
PRAGMA user_version = 1;
"""
_FORMAT = 1
_KEPT = 10_000
"""Accounts that a process remembers at most, to save reading them from text."""
_DAMAGE = ("malformed", "Could not decode to UTF-8", "no such table", "no such column")
"""What SQLite says of a file that is damaged, or was a ledger once."""
_LAST = 253_402_300_799_999
"""Milliseconds since 1970 of the end of the year 9999."""
_TYPES = (str, str, str, int, str, str, str, str, int, str)
_WRONG = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
"""What reading a damaged row raises."""
_HAS_ID = ("reserve", "extend", "settle", "release")


class SqliteLedger(GroupLedger):
    """A ledger for several processes on one machine; what it answered survives a crash of the machine.

    Every batch of concurrent commands is one transaction with one fsync, so throughput grows with the number of
    callers, not with the speed of the disk alone. The file has to be on a local disk (WAL does not work on network
    file systems). ``PATH.lock`` beside it lets processes queue for the file instead of polling.

    Args:
        path: of the database.
        create: make the file if it is not there; False: an error.
        read_only: nothing is written, not even a lock, so that the folder may be read-only.
        clock: milliseconds since 1970 (UTC).
        remember: seconds for which the ids of closed reservations are known.
        timeout: seconds to wait for other processes.

    Raises:
        LedgerUnavailable: the file cannot be opened or is no ledger.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        create: bool = True,
        read_only: bool = False,
        clock: Clock = wall_clock,
        remember: int = REMEMBER,
        timeout: float = 30.0,
    ) -> None:
        self._path, self._clock, self._timeout = Path(path), clock, timeout
        self._remember = check_seconds(remember, "remember") * 1000
        self._read_only = read_only
        if not (create and not read_only) and not self._path.exists():
            raise LedgerUnavailable(f"no ledger at {str(path)!r}; make one with: budgeteer ledger init --ledger {path}")
        super().__init__()
        if read_only:
            with self._reading() as db:
                self._check_format(db)
        else:
            self._connection()

    def _fresh(self) -> None:
        super()._fresh()
        self._db: sqlite3.Connection | None = None  # a connection must not be used, nor closed, across a fork
        self._lock_file: int | None = None
        self._kept: dict[str, tuple[Any, core.Account]] = {}

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            try:
                if fcntl is not None:
                    self._lock_file = os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR, 0o644)
                db = sqlite3.connect(
                    self._path,
                    timeout=self._timeout,
                    isolation_level=None,
                    check_same_thread=False,
                    cached_statements=64,
                )
                with self._exclusive():
                    db.execute("PRAGMA journal_mode = WAL")
                    db.execute("PRAGMA synchronous = FULL")
                    version = db.execute("PRAGMA user_version").fetchone()[0]
                    empty = not db.execute("SELECT 1 FROM sqlite_master").fetchone()
                    if empty and version == 0:
                        db.executescript(f"BEGIN IMMEDIATE; {_TABLES}")
                        db.execute("INSERT INTO meta VALUES (0, ?, 0)", (journal.GENESIS,))
                        db.execute("COMMIT")
                    else:
                        self._check_format(db)
            except (sqlite3.Error, OSError) as error:
                raise self._failed(error, f"cannot open the ledger {str(self._path)!r}: {error}") from error
            self._db = db
        return self._db

    def _failed(self, error: Exception, otherwise: str) -> LedgerUnavailable:
        """What an error of the store means: the file is damaged, or what ``otherwise`` says."""
        said = str(error)
        if isinstance(error, _DamagedError) or any(part in said for part in _DAMAGE):
            return damaged(f"the ledger {str(self._path)!r}", said)
        return LedgerUnavailable(otherwise)

    def _check_format(self, db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
            raise LedgerUnavailable(f"{str(self._path)!r} is no ledger of format {_FORMAT}; give another file")

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Queue for the file: the kernel wakes the next process at once, where SQLite would poll every few ms."""
        if fcntl is None or self._lock_file is None:
            yield
            return
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def run_batch(self, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands in one transaction."""
        if self._read_only:
            raise LedgerUnavailable(f"the ledger {str(self._path)!r} was opened only to look at; open it for writing")
        try:
            db = self._connection()
            with self._exclusive():
                db.execute("BEGIN IMMEDIATE")
                try:
                    outcomes, saved = self._transact(db, commands)
                    db.execute("COMMIT")
                    self._kept.update(saved)
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
        except (sqlite3.Error, OSError, _DamagedError) as error:
            raise self._failed(
                error, f"the ledger {str(self._path)!r} did not answer ({error}); nothing was booked, so do not spend"
            ) from error
        return outcomes

    def _transact(
        self, db: sqlite3.Connection, commands: Sequence[Command]
    ) -> tuple[list[Any], dict[str, tuple[Any, core.Account]]]:
        """Outcomes, and the accounts that were written: path -> (row, account)."""
        state = core.State()
        seq, head, state.now = _meta(db)
        clock = self._clock()
        now = max(clock, state.now)
        db.execute("DELETE FROM reservations WHERE status != 'open' AND at <= ?", (now - self._remember,))
        due = db.execute(
            "SELECT * FROM reservations WHERE status = 'open' AND expires <= ? ORDER BY expires, id LIMIT ?",
            (now, core.SWEEP),
        )
        loaded = {row[0]: _entry(row) for row in due}
        for name, entry in loaded.items():  # sorted by time, hence a heap
            if entry[3] not in state.due:
                state.times.append(entry[3])
            state.due.setdefault(entry[3], []).append(name)
        for command in commands:
            if command[0] in _HAS_ID and command[1] not in loaded:
                row = db.execute("SELECT * FROM reservations WHERE id = ?", (command[1],)).fetchone()
                if row is not None:
                    loaded[row[0]] = _entry(row)
        state.reservations = loaded.copy()
        before = self._load_accounts(db, state, commands)
        outcomes: list[Any] = []
        for command in commands:
            try:
                outcomes.append(core.run(state, clock, self._remember, command))
            except BudgeteerError as refused:
                outcomes.append(refused)
        if not state.journal:  # what only reads is not worth an fsync
            return outcomes, {}
        return outcomes, self._save(db, state, loaded, before, seq, head)

    def _load_accounts(self, db: sqlite3.Connection, state: core.State, commands: Sequence[Command]) -> dict[str, Any]:
        """Accounts that the commands and what expires touch; returns their rows as they were.

        One whose row is as this process left it is not read from text again. It leaves ``_kept`` for the transaction,
        which may change it and fail.
        """
        if len(self._kept) > _KEPT:
            self._kept.clear()
        paths = {entry[1] for entry in state.reservations.values()}
        for command in commands:
            paths.add(command[2] if command[0] == "reserve" else command[1] if command[0] not in _HAS_ID else "")
        before = {}
        for scope in {scope for path in paths - {""} for scope in check_path(path)}:
            row = db.execute("SELECT limits, books FROM accounts WHERE path = ?", (scope,)).fetchone()
            before[scope], kept = row, self._kept.pop(scope, None)
            if row is not None:
                state.accounts[scope] = kept[1] if kept is not None and kept[0] == row else _account(scope, *row)
        return before

    def _save(
        self,
        db: sqlite3.Connection,
        state: core.State,
        loaded: dict[str, core.Entry],
        before: dict[str, Any],
        seq: int,
        head: str,
    ) -> dict[str, tuple[Any, core.Account]]:
        rows = [(path, encode_limits(account.limits), _books(account)) for path, account in state.accounts.items()]
        db.executemany(
            "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", [r for r in rows if r[1:] != before.get(r[0])]
        )
        changed = [_row(entry) for name, entry in state.reservations.items() if entry is not loaded.get(name)]
        db.executemany("INSERT OR REPLACE INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", changed)
        lines = [journal.encode(seq + i, entry) for i, entry in enumerate(state.journal)]
        hashes = list(journal.chain(lines, self.algorithm, head))
        db.executemany(
            "INSERT INTO journal VALUES (?, ?, ?)",
            [(seq + i, *pair) for i, pair in enumerate(zip(lines, hashes, strict=True))],
        )
        db.execute("UPDATE meta SET seq = ?, head = ?, now = ?", (seq + len(lines), [head, *hashes][-1], state.now))
        return {row[0]: (row[1:], state.accounts[row[0]]) for row in rows}

    def lines(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[str, str]]:
        """(line, hash) of the journal."""
        with self._reading() as db:
            query = "SELECT line, hash FROM journal WHERE seq >= ? AND seq < ? ORDER BY seq"
            for line, digest in db.execute(query, (first, 1 << 62 if stop is None else stop)):
                if type(line) is not str or type(digest) is not str:
                    raise _DamagedError("a line of the journal is no text")
                yield line, digest

    def snapshot(self) -> tuple[int, core.State]:
        """The number of journal entries, and the accounts and open reservations at that point."""
        state = core.State()
        with self._reading() as db:
            db.execute("BEGIN")
            seq, _, state.now = _meta(db)
            for path, limits, books in db.execute("SELECT * FROM accounts"):
                state.accounts[path] = _account(path, limits, books)
            for row in db.execute("SELECT * FROM reservations WHERE status = 'open'"):
                state.reservations[row[0]] = _entry(row)
            db.execute("COMMIT")
        return seq, state

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, so that a long read keeps nobody waiting."""
        try:
            with contextlib.ExitStack() as stack:
                yield stack.enter_context(contextlib.closing(self._reader(stack)))
        except (sqlite3.Error, OSError, _DamagedError) as error:
            raise self._failed(error, f"cannot read the ledger {str(self._path)!r}: {error}") from error

    def _reader(self, stack: contextlib.ExitStack) -> sqlite3.Connection:
        """Open to read, also where nothing can be written: readers of a WAL file write an index beside it.

        Where they cannot, the file is read as it is; what its log holds, too, is read from a copy of both.
        """
        try:
            # to write as well, if that can be: whoever closes last then takes the log and its index away
            db = _open_to_read(self._path, "mode=rw")
        except sqlite3.OperationalError:
            log = Path(f"{self._path}-wal")
            if not log.exists() or not log.stat().st_size:
                return _open_to_read(self._path, "mode=ro&immutable=1")
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for file in (self._path, log):
                shutil.copyfile(file, folder / file.name)
            db = _open_to_read(folder / self._path.name, "mode=rw")
        return db

    def close(self) -> None:
        """Close the file."""
        super().close()
        if os.getpid() == self._pid and self._db is not None:
            self._db.close()
            if self._lock_file is not None:
                os.close(self._lock_file)
            self._db = self._lock_file = None


def _open_to_read(path: Path, options: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True, isolation_level=None)
    try:
        db.execute("PRAGMA query_only = 1")
        db.execute("SELECT 1 FROM sqlite_master").fetchone()  # what cannot be opened shows at the first read
    except sqlite3.Error:
        db.close()
        raise
    return db


class _DamagedError(Exception):
    """A row that no ledger has written."""


def _meta(db: sqlite3.Connection) -> tuple[int, str, int]:
    """Number of journal entries, hash of the last one, time of the last change."""
    row = db.execute("SELECT seq, head, now FROM meta").fetchone()
    if row is None or tuple(map(type, row)) != (int, str, int) or not (row[0] >= 0 and 0 <= row[2] <= _LAST):
        raise _DamagedError(f"its state is {row!r}")
    return row  # type: ignore[no-any-return]


def _entry(row: tuple[Any, ...]) -> core.Entry:
    name, path, amounts, expires, status, asked, actual, over, at, detail = row
    read = journal.decode_amounts
    try:
        if tuple(map(type, row)) != _TYPES:
            raise TypeError("a field has another type")
        return (name, path, read(amounts), expires, status, read(asked), read(actual), read(over), at, detail)
    except _WRONG as error:
        raise _DamagedError(f"reservation {name!r} cannot be read: {error}") from error


def _row(entry: core.Entry) -> tuple[Any, ...]:
    name, path, amounts, expires, status, asked, actual, over, at, detail = entry
    text = journal.encode_amounts
    return (name, path, text(amounts), expires, status, text(asked), text(actual), text(over), at, detail)


def _account(path: str, limits: str, books: str) -> core.Account:
    try:
        if not (type(path) is type(limits) is type(books) is str):
            raise TypeError("a field is no text")
        return _read_account(path, limits, books)
    except _WRONG as error:
        raise _DamagedError(f"account {path!r} cannot be read: {error}") from error


def _read_account(path: str, limits: str, books: str) -> core.Account:
    account = core.Account(path)
    stored = json.loads(books)
    for kind, (spent, held, over, _) in stored.items():
        if not (type(spent) is type(held) is type(over) is int):
            raise TypeError(f"a balance of {kind} is no whole number")
        account.books[kind] = core.Book(spent, held, over)
    account.set_limits(decode_limits(limits), 0)
    for kind, (_, _, _, windows) in stored.items():
        account.books[kind].restore(
            {name: {int(index): units for index, units in buckets.items()} for name, buckets in windows.items()}
        )
    return account


def _books(account: core.Account) -> str:
    """Balances as JSON text, whose integers have no bound: kind -> [spent, held, over, {window: {bucket: units}}]."""
    return json.dumps(
        {
            kind: [book.spent, book.held, book.over, {window.name: window.buckets for window in book.counted}]
            for kind, book in account.books.items()
        },
        separators=(",", ":"),
    )
