"""Checks of the protocols' rules, for our own methods and for those of others: one protocol a file.

>>> from budgeteer.allocate import uniform
>>> check_allocator(uniform())
>>> from budgeteer.ledger import MemoryLedger
>>> check_ledger(MemoryLedger)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.check._allocator import check_allocator
    from budgeteer.check._common import CheckFailed
    from budgeteer.check._ledger import check_ledger
    from budgeteer.check._method import check_method
    from budgeteer.check._online import check_online
    from budgeteer.check._stopper import check_stopper
    from budgeteer.check._strategy import check_strategy

__all__ = [
    "CheckFailed", "check_allocator", "check_ledger", "check_method", "check_online", "check_stopper", "check_strategy",
]  # fmt: skip

__getattr__ = lazy(
    __name__,
    {
        "CheckFailed": "_common",
        "check_allocator": "_allocator",
        "check_ledger": "_ledger",
        "check_method": "_method",
        "check_online": "_online",
        "check_stopper": "_stopper",
        "check_strategy": "_strategy",
    },
)
