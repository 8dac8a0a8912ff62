"""Which store the address of a ledger names."""

from __future__ import annotations

import re

from budgeteer.core.errors import InvalidInput
from budgeteer.core.urls import without_password

MEMORY, REDIS, SQLITE = "memory", "redis", "sqlite"
_REDIS = ("redis://", "rediss://", "unix://")
_OTHER = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:file|sqlite|memory):")


def kind_of(address: str) -> str:
    """The kind of store that an address names: MEMORY, REDIS or SQLITE.

    Args:
        address: ``memory:``; a URL of Redis that begins with redis://, rediss:// or unix://; or else the path of an
            SQLite file.

    Raises:
        InvalidInput: a URL with another scheme, which would otherwise be taken for the name of a file.

    >>> kind_of("redis://127.0.0.1/0"), kind_of("spending/ledger.db")
    ('redis', 'sqlite')
    """
    if address == "memory:":
        return MEMORY
    if address.startswith(_REDIS):
        return REDIS
    if _OTHER.match(address):
        raise InvalidInput(
            f"no ledger is kept at {without_password(address)!r}; give the path of an SQLite file, or redis://HOST:PORT/0"
        )
    return SQLITE
