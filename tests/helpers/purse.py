"""A small allowance for tests of adapters: the protocol of ``budgeteer.metering.call``, and what was called."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Self

from budgeteer.core.errors import BudgetExceeded


class Purse:
    """Units per kind, reserved and settled under one lock."""

    def __init__(self, **limits: int) -> None:
        self.limits, self.spent, self.held = limits, dict.fromkeys(limits, 0), dict.fromkeys(limits, 0)
        self.settled: list[tuple[dict[str, int], dict[str, str]]] = []
        self.released = self.extended = self.refused = 0
        self.lock = threading.Lock()

    def reserve(self, amounts: Mapping[str, int], *, id: str | None = None) -> _Reserving:
        return _Reserving(self, dict(amounts))

    def hold(self, amounts: Mapping[str, int]) -> None:
        with self.lock:
            for kind, units in amounts.items():
                used = self.spent[kind] + self.held[kind]
                if used + units > self.limits[kind]:
                    self.refused += 1
                    raise BudgetExceeded(
                        kind=kind, scope="test", used=used, requested=units, limit=self.limits[kind]
                    )  # fmt: skip
            for kind, units in amounts.items():
                self.held[kind] += units

    def give_back(self, amounts: Mapping[str, int]) -> None:
        with self.lock:
            for kind, units in amounts.items():
                self.held[kind] -= units

    @property
    def left(self) -> dict[str, int]:
        """Nothing may stay held once every call is over."""
        assert not any(self.held.values()), self.held
        return {kind: limit - self.spent[kind] for kind, limit in self.limits.items()}


class _Reserving:
    """Synchronous handle; the asynchronous one has coroutines, as a ledger over a network has."""

    def __init__(self, purse: Purse, amounts: dict[str, int]) -> None:
        self.purse, self.amounts, self.open = purse, amounts, False

    def __enter__(self) -> Self:
        self.purse.hold(self.amounts)
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        if self.open:
            self.release()

    async def __aenter__(self) -> _AsyncHandle:
        self.__enter__()
        return _AsyncHandle(self)

    async def __aexit__(self, *error: object) -> None:
        self.__exit__(*error)

    def settle(self, amounts: Mapping[str, int], **tags: str) -> None:
        assert self.open
        assert all(isinstance(value, str) for value in tags.values())
        assert amounts.keys() == self.amounts.keys()
        self.open = False
        self.purse.give_back(self.amounts)
        with self.purse.lock:
            for kind, units in amounts.items():
                self.purse.spent[kind] += units
        self.purse.settled.append((dict(amounts), tags))

    def release(self) -> None:
        assert self.open
        self.open = False
        self.purse.give_back(self.amounts)
        self.purse.released += 1

    def extend(self, amounts: Mapping[str, int]) -> None:
        assert self.open
        more = {kind: max(0, units - self.amounts[kind]) for kind, units in amounts.items()}
        self.purse.hold(more)
        self.amounts = {kind: self.amounts[kind] + units for kind, units in more.items()}
        self.purse.extended += 1


class _AsyncHandle:
    def __init__(self, inner: _Reserving) -> None:
        self.inner = inner

    async def settle(self, amounts: Mapping[str, int], **tags: str) -> None:
        self.inner.settle(amounts, **tags)

    async def release(self) -> None:
        self.inner.release()

    async def extend(self, amounts: Mapping[str, int]) -> None:
        self.inner.extend(amounts)
