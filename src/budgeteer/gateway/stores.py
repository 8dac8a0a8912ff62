"""The store of a gateway, by the address of its ledger."""

from __future__ import annotations

from budgeteer.gateway.store import RedisStore, SqliteStore, Store
from budgeteer.ledger import address


def connect(url: str, keep: int = 100_000) -> Store:
    """The store beside a ledger: a file beside its file, keys beside its keys, or tables beside its tables."""
    kind = address.kind_of(url)
    if kind == address.POSTGRES:
        from budgeteer.gateway.postgres_store import PostgresStore

        return PostgresStore(url, keep)
    if kind == address.REDIS:
        return RedisStore(url, keep)
    return SqliteStore(":memory:" if kind == address.MEMORY else f"{url}.gateway", keep)
