"""A connection to a PostgreSQL server that says what is wrong: for the ledger and for the gateway's store beside it."""

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

logging.getLogger("psycopg").addHandler(logging.NullHandler())  # it logs what it could not end, after the error itself
T = TypeVar("T")
OLDEST = 12
"""The first version of the server that has all that is asked of it."""
_HINTS = {
    "password authentication failed": "give the right user and password in the address",
    "no password supplied": "give the password in the address, as postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
    "no pg_hba.conf entry": "let the server's pg_hba.conf admit this user from this machine",
    "does not exist": "make it first (createdb, createuser)",
}
"""What helps where a server refuses a connection, by what it says; in other languages its text has to do."""


class Connection(psycopg.Connection[Any]):
    """Waits for the server until ``deadline`` (of ``time.monotonic``), where psycopg would wait for ever."""

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
    """The deadline is over."""


class Link:
    """One connection, made when it is needed and made anew when it broke; calls of several threads take turns.

    Nothing is tried longer than ``timeout``, whether the server is gone, hangs or is busy. A server that finds this
    process standing still in a transaction ends the transaction after half of that time, so that a replica that hangs
    holds up no other for long. A forked child makes a connection of its own.

    Args:
        url: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or any other that libpq takes.
        what: is asked for, for errors: ``the ledger 'budgeteer'``.
        timeout: seconds of connecting.
        patience: seconds of one call; None: as many.
    """

    def __init__(self, url: str, what: str, timeout: float, patience: float | None = None) -> None:
        self._url, self._timeout = url, timeout
        self._patience = timeout if patience is None else patience
        self.what = f"{what} at {without_password(url)}"
        self._fresh()

    def _fresh(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._connection: Connection | None = None  # of the parent of a fork: psycopg leaves it open in the child

    def run(self, work: Callable[[Connection], T]) -> T:
        """What ``work`` makes of the connection, which commits every statement that is not between BEGIN and COMMIT.

        After any error the connection is closed. If it turns out to have died while it was idle, the work is done once
        more on a new one, so it has to be such that twice is as good as once.

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
                f"{self.what} cannot be found: the address is none of PostgreSQL. Write "
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
            raise LedgerUnavailable(f"{self.what} did not answer ({said}){hint}; do not spend") from error
        version = connection.info.server_version // 10_000
        if version < OLDEST:
            raise LedgerUnavailable(f"{self.what} is in PostgreSQL {version}; {OLDEST} or newer is needed")
        connection.deadline = time.monotonic() + self._timeout
        milliseconds = max(2, int(self._patience * 1000))
        connection.execute(
            "SELECT set_config('statement_timeout', %s, false), "
            "set_config('idle_in_transaction_session_timeout', %s, false)",
            (str(milliseconds), str(milliseconds // 2)),
        )
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _failed(self, error: psycopg.Error) -> LedgerUnavailable:
        """What an error of the server means, in one line and without a password."""
        said = _line(error)
        if isinstance(error, errors.InsufficientPrivilege):
            return LedgerUnavailable(
                f"{self.what} is not for this user ({said}): let one that may create schemas make it, and grant this "
                "one USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its tables; do not spend"
            )
        if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
            return LedgerUnavailable(f"{self.what} is not there any more ({said}); do not spend")
        if isinstance(error, errors.UndefinedColumn | errors.DatatypeMismatch):
            return self.of_other_version(said)
        if isinstance(error, errors.ReadOnlySqlTransaction):
            return LedgerUnavailable(
                f"{self.what} can only be read ({said}): give the address of the primary server, or those of all with "
                "?target_session_attrs=read-write; do not spend"
            )
        return LedgerUnavailable(f"{self.what} did not answer ({said}); do not spend")

    def of_other_version(self, why: str) -> LedgerUnavailable:
        """The error of tables that another version has made."""
        return LedgerUnavailable(
            f"{self.what} is of another version of budgeteer ({why}): use the version that made it, or give another "
            "database; do not spend"
        )

    def make(self, schema: str, table: str, statements: Sequence[bytes]) -> None:
        """Make tables, and the schema around them, unless they are there; replicas that do so at once take turns.

        Args:
            schema: lower case letters, digits and _.
            table: one of the tables, by which the others are known to be there.
            statements: that make them.

        Raises:
            LedgerUnavailable: as ``run`` does, and where the database does not hold all letters.
        """

        def there(connection: Connection) -> bool:
            return connection.execute("SELECT to_regclass(%s)", (f'"{schema}".{table}',)).fetchone() != (None,)

        def make(connection: Connection) -> None:
            if there(connection):
                return
            (encoding,) = connection.execute("SELECT current_setting('server_encoding')").fetchone() or ("",)
            if encoding != "UTF8":
                raise LedgerUnavailable(
                    f"{self.what} cannot be made: the database is in {encoding}, which does not hold all names. Give "
                    "one in UTF8 (createdb --encoding UTF8 --template template0)"
                )
            connection.execute("BEGIN")
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"budgeteer {schema}",))
            if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone():
                connection.execute(f'CREATE SCHEMA "{schema}"'.encode())
            if not there(connection):
                for statement in statements:
                    connection.execute(statement)
            connection.execute("COMMIT")

        self.run(make)

    def close(self) -> None:
        """Close the connection."""
        if os.getpid() == self._pid:
            with self._lock:
                self._drop()


def _line(error: psycopg.Error) -> str:
    """What the server or libpq says, in one line."""
    return without_password(" ".join(str(error).split()))
