"""Which store the address of a ledger names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from budgeteer.core.errors import InvalidInput
from budgeteer.core.urls import without_password

if TYPE_CHECKING:
    from budgeteer.ledger.protocol import Ledger

MEMORY, POSTGRES, REDIS, SQLITE = "memory", "postgres", "redis", "sqlite"
_POSTGRES = ("postgresql://", "postgres://")
_REDIS = ("redis://", "rediss://", "unix://")
_OTHER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:file|sqlite|memory):")


def kind_of(address: str) -> str:
    """The kind of store that an address names: MEMORY, POSTGRES, REDIS or SQLITE.

    Args:
        address: ``memory:``; a URL of PostgreSQL (postgresql://, postgres://) or Redis (redis://, rediss://, unix://);
            or else the path of an SQLite file.

    Raises:
        InvalidInput: a URL with another scheme, which would otherwise be taken for the name of a file, or one whose
            host or port cannot be.

    >>> kind_of("redis://127.0.0.1/0"), kind_of("postgresql://db/spending"), kind_of("spending/ledger.db")
    ('redis', 'postgres', 'sqlite')
    """
    if address == "memory:":
        return MEMORY
    if address.startswith((*_POSTGRES, *_REDIS)):
        kind = POSTGRES if address.startswith(_POSTGRES) else REDIS
        try:
            parts = urlsplit(address)
            if "," not in parts.netloc:  # PostgreSQL takes several hosts
                _ = parts.port  # the stores' clients find these faults only as they connect
        except ValueError:  # its text may hold a part of a password
            form = "postgresql://HOST:PORT/DATABASE" if kind == POSTGRES else "redis://HOST:PORT/0"
            raise InvalidInput(
                f"the ledger's address {without_password(address)!r} cannot be used: its host or port cannot be; write "
                f"{form}, with %23 for a # in a password"
            ) from None
        return kind
    if _OTHER.match(address):
        raise InvalidInput(
            f"no ledger is kept at {without_password(address)!r}; give the path of an SQLite file, redis://HOST:PORT/0 "
            "or postgresql://HOST:PORT/DATABASE"
        )
    return SQLITE


def connect(address: str, **options: Any) -> Ledger:
    """Open the ledger at an address; it is created if it does not exist.

    Args:
        address: as that of :func:`kind_of`.
        options: arguments of the ledger's class, such as ``create`` and ``timeout``.

    Raises:
        InvalidInput: no ledger has such an address.
        LedgerUnavailable: the store does not answer or cannot be used.
        MissingExtra: the package that the store needs is not installed.
    """
    kind = kind_of(address)
    if kind == MEMORY:
        from budgeteer.ledger.memory import MemoryLedger

        return MemoryLedger(**options)
    if kind == POSTGRES:
        from budgeteer.ledger.postgres import PostgresLedger

        return PostgresLedger(address, **options)
    if kind == REDIS:
        from budgeteer.ledger.redis import RedisLedger

        return RedisLedger(address, **options)
    from budgeteer.ledger.sqlite import SqliteLedger

    return SqliteLedger(address, **options)
