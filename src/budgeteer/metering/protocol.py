"""What a meter draws on: the right to spend, as far as a meter has to know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Handle(Protocol):
    """A reservation in hand.

    What these return may be awaitable; it is awaited where the call is asynchronous. A handle whose ``extend`` blocks
    may have an ``aextend`` for there. A settlement may be booked at once or when the block is left.
    """

    def settle(self, actual: Mapping[str, int], **tags: str) -> object:
        """Charge units per kind and give back the rest; more than was reserved is booked as overshoot."""

    def release(self) -> object:
        """Give everything back."""

    def extend(self, amounts: Mapping[str, int]) -> object:
        """Raise the reservation to these totals, or raise BudgetExceeded and leave it as it is."""


class Reserving(Protocol):
    """A context manager, synchronous and asynchronous.

    Entering reserves; leaving gives back what was released, and what a settlement left over.
    """

    def __enter__(self) -> Handle: ...

    def __exit__(self, kind: None, error: None, at: None, /) -> object: ...

    async def __aenter__(self) -> Handle: ...

    async def __aexit__(self, kind: None, error: None, at: None, /) -> object: ...


class Allowance(Protocol):
    """The right to spend that a meter draws on, such as :class:`budgeteer.ledger.Allowance`."""

    def reserve(self, amounts: Mapping[str, int], *, id: str | None = None) -> Reserving:
        """Hold units per kind, or raise BudgetExceeded."""
