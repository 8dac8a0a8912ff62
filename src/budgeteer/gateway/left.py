"""What is left of a path's limits, for the headers of answers: at most a second old, without a read for each answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from budgeteer.core.amounts import exact_number, is_money
from budgeteer.core.errors import BudgeteerError
from budgeteer.ledger import Ledger

FRESH = 1.0
"""Seconds for which a reading of the ledger is used; this process's own reservations are added to it meanwhile."""
_PATIENCE = 0.02
"""The longest wait for the ledger, in seconds."""
_MOST = 10_000


@dataclass(slots=True)
class _Reading:
    at: float
    left: dict[str, int | None]


class Left:
    """What is left at each path, by kind; None = that kind is not limited there.

    Args:
        ledger: to read from.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._read: dict[str, _Reading] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}

    def reserved(self, path: str, amounts: Mapping[str, int]) -> None:
        """Note a new reservation at a path, and read the path again while the upstream works if the last is old."""
        if not self._ledger.waits:
            return
        known = self._read.get(path)
        if known is not None and time.monotonic() - known.at < FRESH:
            _add(known, amounts, -1)
        else:
            self._start(path)

    def settled(self, path: str, reserved: Mapping[str, int], used: Mapping[str, int]) -> None:
        """Note that a reservation has ended."""
        known = self._read.get(path)
        if known is not None:
            _add(known, reserved, 1)
            _add(known, used, -1)

    def known(self, path: str) -> Mapping[str, int | None]:
        """What is left at a path, as far as it is known without waiting."""
        if not self._ledger.waits:
            try:
                return self._ledger.remaining(path)
            except BudgeteerError:
                return {}
        known = self._read.get(path)
        fresh = known is not None and (path not in self._reading or time.monotonic() - known.at < FRESH)
        return known.left if known is not None and fresh else {}

    async def of(self, path: str) -> Mapping[str, int | None]:
        """The same; reads the path if nobody has read it lately, for requests that reserved nothing."""
        known = self._read.get(path)
        if self._ledger.waits and (known is None or time.monotonic() - known.at >= FRESH):
            self._start(path)
        await self.wait(path)
        return self.known(path)

    async def wait(self, path: str) -> None:
        """Wait a moment for a reading that is under way; an answer never waits longer for its headers."""
        if path in self._reading:
            await asyncio.wait([self._reading[path]], timeout=_PATIENCE)

    def _start(self, path: str) -> None:
        if path not in self._reading:
            self._reading[path] = asyncio.ensure_future(self._ask(path))

    async def _ask(self, path: str) -> None:
        try:
            left = await self._ledger.aio.remaining(path)
            if len(self._read) >= _MOST:
                self._read.clear()
            self._read[path] = _Reading(time.monotonic(), left)
        except BudgeteerError:
            self._read.pop(path, None)
        finally:
            del self._reading[path]


def _add(known: _Reading, amounts: Mapping[str, int], sign: int) -> None:
    for kind, units in amounts.items():
        left = known.left.get(kind)
        if left is not None:
            known.left[kind] = left + sign * units


def header(name: str, units: Mapping[str, int | None], kinds: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """The header ``x-budgeteer-NAME``: kind=units by comma, money in dollars; none if there is nothing to say.

    >>> header("left", {"all": 12, "money": 4_990_000_000_000, "requests": None}, ("all", "money", "requests"))
    [(b'x-budgeteer-left', b'all=12, money=4.99')]
    >>> header("left", {"learnt.money": -25 * 10**9}, ("learnt.money",))
    [(b'x-budgeteer-left', b'learnt.money=-0.025')]
    """
    shown = [
        f"{kind}={exact_number(amount) if is_money(kind) else amount}"
        for kind in kinds
        if (amount := units.get(kind)) is not None
    ]
    return [(f"x-budgeteer-{name}".encode(), ", ".join(shown).encode())] if shown else []
