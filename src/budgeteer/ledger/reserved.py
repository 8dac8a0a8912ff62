"""The life of a reservation beside its call: reserved before it, renewed while it runs, settled or released after it.

The calls of an :class:`~budgeteer.ledger.Allowance` and the attempts of the gateway are reservations of this kind; an
adapter and the runner hold calls of an allowance. So there is one rule: a reservation that nobody renews any more is
abandoned, and charged in full unless its maker said otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from budgeteer.core.errors import LedgerUnavailable, ReservationClosed
from budgeteer.ledger import upkeep
from budgeteer.ledger.core import Reservation
from budgeteer.ledger.limit import check_amounts
from budgeteer.ledger.protocol import (
    MAX_SECONDS,
    TTL,
    Command,
    Ledger,
    OnAbandon,
    check_seconds,
    new_id,
    settle_command,
)

_LOG = logging.getLogger(__name__)


class Reserved:
    """Units that one call holds in a ledger.

    If the ledger does not answer, another thread asks it again: to release units that it may have reserved all the
    same, and to book the end of a call, which is over and paid, and whose result must not be lost.

    Args:
        ledger: any Ledger.
        path: of an open account.
        amounts: units per kind.
        id: of the reservation; None: a new one.
        ttl: seconds for which it lives without being renewed; None: 10 minutes, or for ever in a ledger that dies with
            this process, where nobody could find it abandoned.
        on_abandon: as in :meth:`Ledger.reserve`.

    Attributes:
        amounts: units per kind that are held.
        reservation: as the ledger returned it; None before it was made. Status "settled" means that this id was charged
            before.
    """

    __slots__ = ("__weakref__", "_kept", "_on_abandon", "_path", "_ttl", "amounts", "id", "ledger", "reservation")

    def __init__(
        self,
        ledger: Ledger,
        path: str,
        amounts: Mapping[str, int],
        id: str | None,
        ttl: int | None,
        on_abandon: OnAbandon,
    ) -> None:
        self.ledger, self._path, self._on_abandon = ledger, path, on_abandon
        self.amounts = dict(check_amounts(amounts))
        self.id = new_id() if id is None else id
        if ttl is None:
            ttl = TTL if ledger.outlives else MAX_SECONDS
        self._ttl = check_seconds(ttl, "ttl")
        self._kept: upkeep.Upkeep | None = None
        self.reservation: Reservation | None = None

    def _reserve(self) -> None:
        """Hold the units, or raise what the ledger raises."""
        try:
            self.reservation = self.ledger.reserve(
                self._path, self.amounts, id=self.id, ttl=self._ttl, on_abandon=self._on_abandon
            )
        except LedgerUnavailable as error:
            self._unheard(error)
            raise
        self._keep()

    async def _areserve(self) -> None:
        """``_reserve`` without blocking the event loop."""
        try:
            self.reservation = await self.ledger.aio.reserve(
                self._path, self.amounts, id=self.id, ttl=self._ttl, on_abandon=self._on_abandon
            )
        except LedgerUnavailable as error:
            self._unheard(error)
            raise
        self._keep()

    def _unheard(self, error: LedgerUnavailable) -> None:
        """The ledger did not answer: the units may be held all the same, and are given back when it does."""
        upkeep.here().owe(self.ledger, ("release", self.id), error)

    def _keep(self) -> None:
        if self._ttl < MAX_SECONDS:
            self._kept = upkeep.here()
            self._kept.keep(self, self.id, self._ttl)

    def _raise_to(self, amounts: dict[str, int]) -> None:
        """Hold these totals instead, or raise BudgetExceeded and hold what was held."""
        self.reservation = self.ledger.extend(self.id, amounts, ttl=self._ttl)
        self.amounts = amounts

    async def _araise_to(self, amounts: dict[str, int]) -> None:
        """``_raise_to`` without blocking the event loop."""
        self.reservation = await self.ledger.aio.extend(self.id, amounts, ttl=self._ttl)
        self.amounts = amounts

    def _end(self) -> None:
        """The call is over: renew no more."""
        if self._kept is not None:
            self._kept.drop(self.id, self._ttl)

    def _closing(self, actual: Mapping[str, int] | None, tags: Mapping[str, str], released: bool) -> Command:
        """The command that books the end of the call."""
        return ("release", self.id) if released else settle_command(self.id, actual, tags)

    def _book(self, actual: Mapping[str, int] | None, tags: Mapping[str, str], released: bool) -> None:
        """Charge what was used (None: all that is held), or give it back; later, if the ledger does not answer."""
        try:
            if released:
                self.reservation = self.ledger.release(self.id)
            else:
                self.reservation = self.ledger.settle(self.id, actual, tags=tags)
        except (LedgerUnavailable, OSError, ReservationClosed) as error:  # OSError: of somebody else's ledger
            self._not_booked(error, actual, tags, released)

    async def _abook(self, actual: Mapping[str, int] | None, tags: Mapping[str, str], released: bool) -> None:
        """``_book`` without blocking the event loop; given up while it waits, it is booked all the same."""
        ledger = self.ledger.aio
        booking = ledger.release(self.id) if released else ledger.settle(self.id, actual, tags=tags)
        try:
            self.reservation = await booking
        except (LedgerUnavailable, OSError, ReservationClosed) as error:  # OSError: of somebody else's ledger
            self._not_booked(error, actual, tags, released)

    def _not_booked(self, error: BaseException, *closing: Any) -> None:
        if isinstance(error, ReservationClosed):  # a release of what was found abandoned, and is charged
            _LOG.error("%s", error)
            return
        upkeep.here().owe(self.ledger, self._closing(*closing), error)
