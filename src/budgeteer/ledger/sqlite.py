"""A ledger in an SQLite file: durable, for the processes of one machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from budgeteer.core.errors import LedgerUnavailable
from budgeteer.ledger import core, journal, rows
from budgeteer.ledger.group import GroupLedger
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
_DAMAGE = ("malformed", "Could not decode to UTF-8", "no such table", "no such column")
"""What SQLite says of a file that is damaged, or was a ledger once."""


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
        self._accounts = rows.Accounts()

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
        if isinstance(error, rows.DamagedError) or any(part in said for part in _DAMAGE):
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
                    outcomes, written = self._transact(db, commands)
                    db.execute("COMMIT")
                    if written is not None:
                        self._accounts.keep(written)
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
        except (sqlite3.Error, OSError, rows.DamagedError) as error:
            raise self._failed(
                error, f"the ledger {str(self._path)!r} did not answer ({error}); nothing was booked, so do not spend"
            ) from error
        return outcomes

    def _transact(self, db: sqlite3.Connection, commands: Sequence[Command]) -> tuple[list[Any], rows.Changes | None]:
        """Outcomes, and what was written, None if that is nothing."""
        seq, head, booked = _meta(db)
        clock = self._clock()
        now = max(clock, booked)
        db.execute("DELETE FROM reservations WHERE status != 'open' AND at <= ?", (now - self._remember,))
        due = db.execute(
            "SELECT * FROM reservations WHERE status = 'open' AND expires <= ? ORDER BY expires, id LIMIT ?",
            (now, core.SWEEP),
        )
        expired = [rows.entry_of(row) for row in due]
        loaded = {entry[0]: entry for entry in expired}
        for name in rows.ids(commands):
            if name not in loaded:
                row = db.execute("SELECT * FROM reservations WHERE id = ?", (name,)).fetchone()
                if row is not None:
                    loaded[name] = rows.entry_of(row)
        state, before = rows.state_of(booked, expired, loaded), {}
        for scope in rows.scopes(commands, [entry[1] for entry in loaded.values()]):
            row = db.execute("SELECT limits, books FROM accounts WHERE path = ?", (scope,)).fetchone()
            if row is not None:
                before[scope] = row
                state.accounts[scope] = self._accounts.take(scope, row)
        outcomes = rows.outcomes(state, clock, self._remember, commands)
        if not state.journal:  # what only reads is not worth an fsync
            return outcomes, None
        changes = rows.changes(state, loaded, before, seq, head, self.algorithm)
        db.executemany("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", changes.accounts)
        db.executemany(
            "INSERT OR REPLACE INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", changes.reservations
        )
        db.executemany("INSERT INTO journal VALUES (?, ?, ?)", changes.journal)
        db.execute("UPDATE meta SET seq = ?, head = ?, now = ?", (changes.seq, changes.head, changes.now))
        return outcomes, changes

    def lines(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[str, str]]:
        """(line, hash) of the journal."""
        with self._reading() as db:
            query = "SELECT line, hash FROM journal WHERE seq >= ? AND seq < ? ORDER BY seq"
            for line, digest in db.execute(query, (first, 1 << 62 if stop is None else stop)):
                if type(line) is not str or type(digest) is not str:
                    raise rows.DamagedError("a line of the journal is no text")
                yield line, digest

    def snapshot(self) -> tuple[int, core.State]:
        """The number of journal entries, and the accounts and open reservations at that point."""
        state = core.State()
        with self._reading() as db:
            db.execute("BEGIN")
            seq, _, state.now = _meta(db)
            for path, limits, books in db.execute("SELECT * FROM accounts"):
                state.accounts[path] = rows.account_of(path, limits, books)
            for row in db.execute("SELECT * FROM reservations WHERE status = 'open'"):
                state.reservations[row[0]] = rows.entry_of(row)
            db.execute("COMMIT")
        return seq, state

    def accounts(self, paths: Collection[str]) -> core.State:
        """A copy of some accounts at one point in time."""
        state = core.State()
        with self._reading() as db:
            db.execute("BEGIN")
            _, _, state.now = _meta(db)
            for path in paths:
                row = db.execute("SELECT limits, books FROM accounts WHERE path = ?", (path,)).fetchone()
                if row is not None:
                    state.accounts[path] = rows.account_of(path, *row)
            db.execute("COMMIT")
        return state

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, so that a long read keeps nobody waiting."""
        try:
            with contextlib.ExitStack() as stack:
                yield stack.enter_context(contextlib.closing(self._reader(stack)))
        except (sqlite3.Error, OSError, rows.DamagedError) as error:
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


def _meta(db: sqlite3.Connection) -> tuple[int, str, int]:
    """Number of journal entries, hash of the last one, time of the last change."""
    return rows.check_meta(db.execute("SELECT seq, head, now FROM meta").fetchone())
