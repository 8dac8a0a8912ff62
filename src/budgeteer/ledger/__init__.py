"""Ledgers and allowances: budgets that cannot be overspent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.ledger.allowance import Allowance
    from budgeteer.ledger.core import Reservation
    from budgeteer.ledger.limit import Limit
    from budgeteer.ledger.memory import MemoryLedger
    from budgeteer.ledger.postgres import PostgresLedger
    from budgeteer.ledger.protocol import AsyncLedger, Ledger
    from budgeteer.ledger.redis import RedisLedger
    from budgeteer.ledger.sqlite import SqliteLedger

__all__ = [
    "Allowance",
    "AsyncLedger",
    "Ledger",
    "Limit",
    "MemoryLedger",
    "PostgresLedger",
    "RedisLedger",
    "Reservation",
    "SqliteLedger",
]

__getattr__ = lazy(
    __name__,
    {
        "Allowance": "allowance",
        "AsyncLedger": "protocol",
        "Ledger": "protocol",
        "Limit": "limit",
        "MemoryLedger": "memory",
        "PostgresLedger": "postgres",
        "RedisLedger": "redis",
        "Reservation": "core",
        "SqliteLedger": "sqlite",
    },
)
