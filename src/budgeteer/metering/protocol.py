"""What a :class:`~budgeteer.metering.call.Metering` needs to know of an allowance, from which it reserves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Handle(Protocol):
    """One reservation, while it is held.

    The methods may return an awaitable, which asynchronous calls await. If ``extend`` blocks, a handle may have an
    ``aextend``, which asynchronous calls then use. A settlement may be booked at once or when the block is left.
    """

    def settle(self, actual: Mapping[str, int], **tags: str) -> object:
        """Charge units per kind and give back the rest; more than was reserved is booked as overshoot."""

    def release(self) -> object:
        """Give back all that is held; nothing is charged."""

    def extend(self, amounts: Mapping[str, int]) -> object:
        """Raise the reservation to these totals, or raise BudgetExceeded and leave it as it is."""


class Reserving(Protocol):
    """A synchronous and asynchronous context manager around one call.

    Entering reserves; leaving gives back units that were released, and those that a settlement left over.
    """

    def __enter__(self) -> Handle: ...

    def __exit__(self, kind: None, error: None, at: None, /) -> object: ...

    async def __aenter__(self) -> Handle: ...

    async def __aexit__(self, kind: None, error: None, at: None, /) -> object: ...


class Allowance(Protocol):
    """The right to spend that a meter draws on, such as :class:`budgeteer.ledger.Allowance`."""

    def reserve(self, amounts: Mapping[str, int], *, id: str | None = None) -> Reserving:
        """A context manager that holds these units per kind; entering it raises BudgetExceeded if they are not left."""
