"""One line: what the right to spend does beside reserving and settling.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from typing import Any

from budgeteer.ledger import Allowance


class Counting(Allowance):
    """An allowance that counts the calls that were reserved on it.

    Helps when somebody asks how many calls a budget paid for; does not limit them (a limit of turns does).

    >>> from budgeteer.ledger import Limit, MemoryLedger
    >>> ledger = MemoryLedger()
    >>> ledger.open("me", [Limit("all", 100)])
    >>> allowance = Counting(ledger, "me", {"all": 100})
    >>> with allowance.reserve({"all": 60}) as call:
    ...     call.settle({"all": 20})
    >>> allowance.calls, allowance.remaining
    (1, {'all': 80})
    """

    calls = 0

    def reserve(self, *args: Any, **kwargs: Any) -> Any:
        """As an allowance does, and counted."""
        self.calls += 1
        return super().reserve(*args, **kwargs)
