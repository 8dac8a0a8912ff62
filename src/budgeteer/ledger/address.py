"""What kind of ledger an address names."""

from __future__ import annotations

import re

from budgeteer.core.errors import InvalidInput
from budgeteer.core.urls import without_password

MEMORY, POSTGRES, REDIS, SQLITE = "memory", "postgres", "redis", "sqlite"
_POSTGRES = ("postgresql://", "postgres://")
_REDIS = ("redis://", "rediss://", "unix://")
_OTHER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:file|sqlite|memory):")


def kind_of(address: str) -> str:
    """MEMORY, POSTGRES, REDIS or SQLITE.

    Args:
        address: ``memory:``, postgresql:// or postgres://, redis://, rediss:// or unix:// of Redis, or else a path.

    Raises:
        InvalidInput: another scheme, which would be taken for the name of a file.

    >>> kind_of("redis://127.0.0.1/0"), kind_of("spending/ledger.db")
    ('redis', 'sqlite')
    """
    if address == "memory:":
        return MEMORY
    if address.startswith(_POSTGRES):
        return POSTGRES
    if address.startswith(_REDIS):
        return REDIS
    if _OTHER.match(address):
        raise InvalidInput(
            f"no ledger is kept at {without_password(address)!r}; give the path of an SQLite file, redis://HOST:PORT/0 "
            "or postgresql://HOST:PORT/DATABASE"
        )
    return SQLITE
