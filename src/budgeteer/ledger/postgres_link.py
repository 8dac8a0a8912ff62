"""A connection to PostgreSQL with timeouts and clear errors, for the ledger and for the gateway's store."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from budgeteer.core.errors import LedgerUnavailable, MissingExtra
from budgeteer.core.urls import without_password

try:
    import psycopg
    from psycopg import errors
    from psycopg.conninfo import conninfo_to_dict
except ImportError as error:
    raise MissingExtra("psycopg", "postgres") from error

logging.getLogger("psycopg").addHandler(logging.NullHandler())  # its warnings after an error say nothing new
T = TypeVar("T")
OLDEST = 12
"""The oldest version of the server that can be used."""
_HINTS = {
    "password authentication failed": "give the right user and password in the address",
    "no password supplied": "give the password in the address, as postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
    "no pg_hba.conf entry": "let the server's pg_hba.conf admit this user from this machine",
    "does not exist": "make it first (createdb, createuser)",
}
"""Part of the server's message when it refuses a connection -> what to do. Messages in other languages have no hint."""


class Connection(psycopg.Connection[Any]):
    """A connection that waits for the server until ``deadline`` (of ``time.monotonic``); psycopg has no such limit."""

    deadline = math.inf

    def wait(self, gen: Any, *args: Any, **named: Any) -> Any:
        return super().wait(self._until(gen), *args, **named)

    def _until(self, steps: Any) -> Generator[Any, Any, Any]:
        try:
            wanted = next(steps)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > self.deadline:
                    raise LateError("no answer in time")
                wanted = steps.send(ready)
        except StopIteration as done:
            return done.value


class LateError(psycopg.OperationalError):
    """The server did not answer before the deadline."""


class Link:
    """One connection to a server, which threads use in turn.

    It is opened when it is needed, and opened again after an error. Connecting takes at most ``timeout`` seconds, a
    call at most ``patience``, whether the server is gone, hangs or is busy. If this process hangs within a transaction,
    the server ends the transaction after half of ``patience``, so that others do not wait for it for long. A forked
    child opens a connection of its own.

    Args:
        url: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with any parameters of libpq.
        subject: what is kept there, for error messages: ``the ledger 'budgeteer'``.
        timeout: seconds for connecting.
        patience: seconds for one call; None: ``timeout``.
        by_index: whether rows are looked up by an index, however small the server believes the tables to be. It plans
            prepared statements once, and those that it planned for empty tables would read whole tables for minutes.
    """

    def __init__(
        self, url: str, subject: str, timeout: float, patience: float | None = None, by_index: bool = False
    ) -> None:
        self._url, self._timeout, self._by_index = url, timeout, by_index
        self._patience = timeout if patience is None else patience
        self.subject = f"{subject} at {without_password(url)}"
        self._fresh()

    def _fresh(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._connection: Connection | None = None  # psycopg does not close that of the parent in a forked child

    def run(self, work: Callable[[Connection], T]) -> T:
        """Call ``work`` with the connection and return its result.

        Each statement outside BEGIN and COMMIT is a transaction of its own. After any error the connection is closed.
        If it was lost while it was idle, ``work`` is called again with a new one, so it must be safe to repeat.

        Raises:
            LedgerUnavailable: the server cannot be reached, does not answer in time, or refuses.
        """
        if os.getpid() != self._pid:
            self._fresh()
        with self._lock:
            while True:
                known = self._connection
                try:
                    connection = known or self._connect()
                    connection.deadline = time.monotonic() + self._patience
                    return work(connection)
                except psycopg.Error as error:
                    died = known is not None and known.closed and not isinstance(error, LateError)
                    self._drop()
                    if not died:
                        raise self._failed(error) from error
                except BaseException:
                    self._drop()
                    raise

    def _connect(self) -> Connection:
        try:
            named = conninfo_to_dict(self._url)
            if self._url.partition("?")[0].count("@") > 1:  # libpq would take the rest of the password for the host
                raise psycopg.ProgrammingError
        except psycopg.ProgrammingError:  # whose text may hold a part of the password
            raise LedgerUnavailable(
                f"{self.subject} cannot be found: the address is none of PostgreSQL. Write "
                "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with signs such as @ / : % in the password as %40 %2F "
                "%3A %25"
            ) from None
        options: dict[str, Any] = {"client_encoding": "utf8", "fallback_application_name": "budgeteer"}
        if "connect_timeout" not in named:
            options["connect_timeout"] = max(2, math.ceil(self._timeout))
        try:
            self._connection = connection = Connection.connect(self._url, autocommit=True, **options)
        except psycopg.Error as error:
            said = _line(error)
            hint = next((f": {hint}" for text, hint in _HINTS.items() if text in said), "")
            raise LedgerUnavailable(f"{self.subject} did not answer ({said}){hint}; do not spend") from error
        version = connection.info.server_version // 10_000
        if version < OLDEST:
            raise LedgerUnavailable(f"{self.subject} is in PostgreSQL {version}; {OLDEST} or newer is needed")
        connection.deadline = time.monotonic() + self._timeout
        milliseconds = max(2, int(self._patience * 1000))
        settings = {
            "statement_timeout": str(milliseconds),
            "idle_in_transaction_session_timeout": str(milliseconds // 2),
            "jit": "off",
            **({"enable_seqscan": "off"} if self._by_index else {}),
        }
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _failed(self, error: psycopg.Error) -> LedgerUnavailable:
        """The error to raise for an error of the server."""
        said = _line(error)
        if isinstance(error, errors.InsufficientPrivilege):
            return LedgerUnavailable(
                f"{self.subject} is not for this user ({said}): let a user that may create schemas make it, and grant "
                "this one USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its tables; do not spend"
            )
        if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
            return LedgerUnavailable(f"{self.subject} is not there any more ({said}); do not spend")
        if isinstance(error, errors.UndefinedColumn | errors.DatatypeMismatch):
            return self.of_other_version(said)
        if isinstance(error, errors.ReadOnlySqlTransaction):
            return LedgerUnavailable(
                f"{self.subject} can only be read ({said}): give the address of the primary server, or those of all "
                "with ?target_session_attrs=read-write; do not spend"
            )
        return LedgerUnavailable(f"{self.subject} did not answer ({said}); do not spend")

    def of_other_version(self, why: str) -> LedgerUnavailable:
        """The error for tables that another version of budgeteer has made."""
        return LedgerUnavailable(
            f"{self.subject} is of another version of budgeteer ({why}): use the version that made it, or give another "
            "database; do not spend"
        )

    def make(self, schema: str, table: str, statements: Sequence[bytes]) -> None:
        """Create tables and their schema unless they exist. Replicas that do this at once wait for each other.

        Args:
            schema: its name: lower case letters, digits and _.
            table: one of the tables; if it exists, all do.
            statements: that create the tables.

        Raises:
            LedgerUnavailable: see ``run``; or the database does not use UTF8.
        """

        def make(connection: Connection) -> None:
            if has_table(connection, schema, table):
                return
            (encoding,) = connection.execute("SELECT current_setting('server_encoding')").fetchone() or ("",)
            if encoding != "UTF8":
                raise LedgerUnavailable(
                    f"{self.subject} cannot be made: the database is in {encoding}, which does not hold all names. "
                    "Give one in UTF8 (createdb --encoding UTF8 --template template0)"
                )
            connection.execute("BEGIN")
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"budgeteer {schema}",))
            if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone():
                connection.execute(f'CREATE SCHEMA "{schema}"'.encode())
            if not has_table(connection, schema, table):
                for statement in statements:
                    connection.execute(statement)
            connection.execute("COMMIT")

        self.run(make)

    def close(self) -> None:
        """Close the connection."""
        if os.getpid() == self._pid:
            with self._lock:
                self._drop()


def has_table(connection: Connection, schema: str, table: str) -> bool:
    """Whether a table exists."""
    return connection.execute("SELECT to_regclass(%s)", (f'"{schema}".{table}',)).fetchone() != (None,)


def _line(error: psycopg.Error) -> str:
    """The message of the server or of libpq in one line, without a password."""
    return without_password(" ".join(str(error).split()))
