"""The store of a gateway, by the address of its ledger."""

from __future__ import annotations

from pathlib import Path

from budgeteer.gateway.redis_store import RedisStore
from budgeteer.gateway.store import SqliteStore, Store
from budgeteer.ledger import address


def connect(url: str, keep: int = 100_000) -> Store:
    """Open the store beside a ledger: the file ``URL.gateway``, the same database, the same Redis, or memory.

    Args:
        url: of the ledger.
        keep: how many records of paid requests are kept.
    """
    kind = address.kind_of(url)
    if kind == address.POSTGRES:
        from budgeteer.gateway.postgres_store import PostgresStore

        return PostgresStore(url, keep)
    if kind == address.REDIS:
        return RedisStore(url, keep)
    return SqliteStore(":memory:" if kind == address.MEMORY else f"{url}.gateway", keep)


def exists(url: str) -> bool:
    """Whether a gateway has kept anything beside a ledger; nothing is created. In Redis a store needs no creation."""
    kind = address.kind_of(url)
    if kind == address.POSTGRES:
        from budgeteer.gateway.postgres_store import PostgresStore

        return PostgresStore.exists(url)
    return kind == address.REDIS or (kind == address.SQLITE and Path(f"{url}.gateway").exists())
