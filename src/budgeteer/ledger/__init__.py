"""Ledgers and allowances: budgets that cannot be overspent."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from budgeteer.ledger.allowance import Allowance
    from budgeteer.ledger.core import Reservation
    from budgeteer.ledger.limit import Limit
    from budgeteer.ledger.memory import MemoryLedger
    from budgeteer.ledger.protocol import AsyncLedger, Ledger
    from budgeteer.ledger.redis import RedisLedger
    from budgeteer.ledger.sqlite import SqliteLedger

__all__ = [
    "Allowance",
    "AsyncLedger",
    "Ledger",
    "Limit",
    "MemoryLedger",
    "RedisLedger",
    "Reservation",
    "SqliteLedger",
]

_HOME = {
    "Allowance": "allowance",
    "AsyncLedger": "protocol",
    "Ledger": "protocol",
    "Limit": "limit",
    "MemoryLedger": "memory",
    "RedisLedger": "redis",
    "Reservation": "core",
    "SqliteLedger": "sqlite",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: nobody pays for a store that is not used."""
    if name not in _HOME:
        raise AttributeError(f"module 'budgeteer.ledger' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"budgeteer.ledger.{_HOME[name]}"), name)
    globals()[name] = value
    return value
