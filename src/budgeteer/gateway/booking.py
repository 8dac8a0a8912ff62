"""Reserve and settle the units of a request: one reservation for each attempt, which is always booked at its end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from copy import copy
from typing import Any

from budgeteer.core.amounts import LEARNT, OF, base
from budgeteer.core.errors import (
    BudgetExceeded,
    LedgerError,
    LedgerUnavailable,
    UnknownAccount,
    UnknownReservation,
    WrongKinds,
)
from budgeteer.core.usage import Usage
from budgeteer.gateway.accounts import Accounts, model_kinds
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.body import Aside
from budgeteer.gateway.config import PARALLEL, REQUESTS, Config, Model, names_of
from budgeteer.gateway.learnt import BudgetEnded, Learnt, learnt_amounts, plain, with_learnt
from budgeteer.gateway.left import Left
from budgeteer.gateway.live import Live
from budgeteer.gateway.prepare import longest, prepare
from budgeteer.gateway.prepared import Prepared
from budgeteer.ledger import Ledger, MemoryLedger, upkeep
from budgeteer.ledger.limit import MAX_UNITS
from budgeteer.ledger.protocol import Clock, Command
from budgeteer.ledger.reserved import Reserved
from budgeteer.metering.call import STEP, Metering, Running
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.reading import Reading
from budgeteer.metering.settlement import Answer, Planned, Settlement, tags

_LOG = logging.getLogger(__name__)
_STALE = 500
"""Milliseconds for which policies are told the same spent share."""
_LINGER = 0.01
"""Seconds that a settlement waits at most for a reservation to share its commit with."""
_RELEASES = 15
"""Attempts to release a reservation, over about a minute; after them nothing waits for the release any longer."""


class Hold(Reserved):
    """The reservation of one attempt. Its owner has to call ``finish`` in any case; later calls do nothing.

    A first attempt that did not run is settled with 0 tokens rather than released, so that it counts as a request:
    limits of requests then also hold for clients that only send what upstreams refuse.
    """

    __slots__ = ("_booking", "_done", "_kinds", "_likely", "_live", "_model", "_prepared", "_priced", "_running")

    def __init__(
        self,
        booking: Booking,
        live: Live,
        name: str,
        path: str,
        model: Model,
        prepared: Prepared,
        kinds: Collection[str],
    ) -> None:
        self._kinds, self._model, self._prepared, groups = kinds, model, prepared, booking.config.groups
        amounts = {
            **prepared.planned.amounts,
            **learnt_amounts(prepared.likely, booking.config.learnt),
            REQUESTS: 0 if live.counted else 1,
            PARALLEL: 1,
        }
        running = [PARALLEL, *(kind for kind in kinds if base(kind) == PARALLEL)]
        spread = groups.spread(amounts, kinds, model.name)
        super().__init__(booking.ledger, path, spread, name, booking.config.ttl, running)
        self._booking, self._live, self._done = booking, live, False
        self._priced: tuple[Answer, Settlement] | None = None
        self._running = Running(booking.metering, prepared.planned)
        self._likely = None if prepared.likely is None else Running(booking.metering, prepared.likely)

    async def reserve(self) -> None:
        """Reserve the units of the attempt.

        Raises:
            BudgetExceeded, UnknownAccount, LedgerUnavailable: as the ledger raises them.
        """
        await self._areserve()
        self._live.open += 1
        self._booking.left.reserved(self._path, self.amounts)
        self._live.held = plain(self.amounts)
        self._running.started = time.time_ns()

    def _unheard(self, error: LedgerUnavailable) -> None:
        self._live.open += 1
        self._booking.book(("release", self.id), self._live)

    async def extend(self, reading: Reading, cancels: bool) -> None:
        """Reserve more units if a stream has grown beyond what is held: what was learnt, or in hard limits its cap.

        Args:
            reading: of the stream so far.
            cancels: whether the upstream stops when its connection closes. If it does not, cutting the stream saves
                nothing: it is passed on, and what a learnt limit has no room for becomes its overshoot.

        Raises:
            BudgetEnded: the budget does not cover them.
        """
        if self._likely is not None:
            await self._extend_likely(self._likely, max(reading.least, reading.likely), cancels)
        if not self._running.needs_more(0, reading.least):
            return
        least = reading.least
        try:
            await self._araise_to(self._spread({**self.amounts, **self._running.more(least)}))
        except BudgetExceeded as error:
            raise BudgetEnded(f"the stream went on beyond its cap, and the budget does not cover it: {error}") from None

    async def _extend_likely(self, likely: Running, tokens: int, cancels: bool) -> None:
        """Reserve more in learnt limits: some tokens ahead, or else what is there by now."""
        if not likely.needs_more(tokens, tokens):
            return
        kinds = self._booking.config.learnt
        for ahead in (STEP, 0):
            more = likely.more(tokens, ahead)
            try:
                await self._araise_to(self._spread({**self.amounts, **{LEARNT + kind: more[kind] for kind in kinds}}))
                return
            except BudgetExceeded as error:
                refused = error
        if cancels:
            raise BudgetEnded(f"the budget ended while the answer was written: {refused}")
        self._likely = None

    def _spread(self, amounts: Mapping[str, int]) -> dict[str, int]:
        """Units of the plain kinds, and with them those of the kinds that are limited by model."""
        return self._booking.config.groups.spread(amounts, self._kinds, self._model.name)

    def _used(self, amounts: Mapping[str, int]) -> dict[str, int]:
        """Units of all kinds that a settlement of these is booked with."""
        used = {**amounts, REQUESTS: self.amounts[REQUESTS], PARALLEL: 0}
        return self._spread(with_learnt(used, self._booking.config.learnt))

    @property
    def left(self) -> Mapping[str, int | None]:
        """What is left at its path, by kind, as far as it is known."""
        return self._booking.left.known(self._path)

    async def look(self) -> None:
        """Wait a moment for the ledger to say what is left, which it was asked when the call was reserved."""
        await self._booking.left.wait(self._path)

    def price(self, answer: Answer | None) -> None:
        """Say in the answer's headers what the request costs, what is reserved for it and what is left.

        Args:
            answer: that is going to be booked; None = its cost is not known yet, as of a stream.
        """
        live = self._live
        live.room = self.left
        if answer is None:
            live.cost = None
            return
        self._priced = answer, self._running.settlement(answer)
        used = self._used(self._priced[1].amounts)
        live.cost = {kind: live.units.get(kind, 0) + units for kind, units in plain(used).items()}
        live.room = {
            kind: left if left is None else left + self.amounts.get(kind, 0) - used.get(kind, 0)
            for kind, left in live.room.items()
        }

    def finish(self, answer: Answer) -> Mapping[str, int]:
        """Book what the attempt used; release the reservation if it did not run and another attempt was counted.

        Returns:
            What is charged, by kind; nothing if it was booked before.
        """
        if self._done:
            return {}
        self._done = True
        self._end()
        live, booking = self._live, self._booking
        priced = self._priced
        settlement = priced[1] if priced and priced[0] is answer else self._running.settlement(answer)
        booking.metering.tell(settlement)
        usage = settlement.usage
        if not settlement.estimated and answer.outcome == Outcome.OK:
            booking.learnt.ended(self._prepared.planned, self._model, usage.output or 0, self._prepared.chose_cap)
        # an upstream may report any number
        used = {kind: min(units, MAX_UNITS) for kind, units in settlement.amounts.items()}
        wasted = (usage.total or 0) if answer.outcome in (Outcome.CUT, Outcome.UNKNOWN) or live.left else 0
        live.called(answer.outcome, usage, used, settlement.estimated, wasted)
        if answer.outcome == Outcome.REJECTED and live.counted:
            booking.left.settled(self._path, self.amounts, {})
            booking.book(self._closing(None, {}, True), live)
            return {}
        spent = {**used, REQUESTS: self.amounts[REQUESTS], PARALLEL: 0}
        amounts = self._used(used)
        live.counted = True
        live.answered = settlement.response_model or live.answered
        live.charge(spent, self.amounts, settlement.estimated)
        live.cost = dict(live.units)
        booking.left.settled(self._path, self.amounts, amounts)
        about = tags(settlement)
        about["attempt"] = str(live.attempts - 1)
        for name, value in (("stage", live.stage), ("run", live.session), ("upstream", live.upstream)):
            if value:
                about[name] = value[:256]
        booking.book(self._closing(amounts, about, False), live)
        return amounts


class Booking:
    """Reserves and settles units for the requests of a gateway.

    Args:
        config: the gateway's configuration.
        ledger: where units are reserved and settled.
        accounts: the accounts of that ledger.
        metering: counts the units of requests and answers.
        aside: the thread in which large bodies are written.
        over: called with each request that has ended, once all its attempts are booked.
        clock: milliseconds since 1970 (UTC), for the spent share that policies see.

    Attributes:
        left: what is left of the limits, for the headers of answers.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        accounts: Accounts,
        metering: Metering,
        aside: Aside,
        over: Callable[[Live], None],
        clock: Clock,
    ) -> None:
        self.config, self.ledger, self.accounts, self.metering = config, ledger, accounts, metering
        self._aside, self._over, self._clock = aside, over, clock
        self._names = names_of(config.upstreams)
        self._remaining: dict[str, tuple[int, dict[str, int | None]]] = {}
        self.learnt = Learnt(metering)
        self._inline = isinstance(ledger, MemoryLedger)
        self.left = Left(ledger)
        self._waiting: list[tuple[Command, Live]] = []
        self._booking: set[asyncio.Future[Any]] = set()

    def renewed(self, config: Config, metering: Metering) -> Booking:
        """The same bookings for requests by another configuration; what waits to be booked is shared."""
        other = copy(self)
        other.config, other.metering, other._names = config, metering, names_of(config.upstreams)
        self.learnt.follow(metering)
        return other

    async def spent(self, ask: Ask) -> float:
        """The largest spent or reserved share (0 to 1) of the limits of tokens or money that apply to the request.

        It may be half a second old.
        """
        now, largest = self._clock(), 0.0
        for path, limits in ask.chain:
            counted = [limit for limit in limits or () if limit.amount and self._weighs(limit.kind, ask.model)]
            if not counted:
                continue
            known = self._remaining.get(path)
            if known is None or not known[0] <= now <= known[0] + _STALE:
                if len(self._remaining) > 10_000:
                    self._remaining.clear()
                known = self._remaining[path] = (now, await self.ledger.aio.remaining(path))
            for limit in counted:
                left = known[1].get(limit.kind)
                if left is not None and limit.amount:
                    largest = max(largest, 1 - left / limit.amount)
        return min(1.0, largest)

    def _weighs(self, kind: str, model: str) -> bool:
        """Whether a limit of this kind counts tokens or money of a model, by a name or alias of it."""
        name = self._names.get(model, model)
        return base(kind).removeprefix(LEARNT) in self.config.kinds and self.config.groups.covers(kind, name)

    async def reserve(self, ask: Ask, live: Live, model: Model, name: str) -> tuple[Prepared, Hold]:
        """Prepare an attempt at a model, and reserve the most that it may use.

        Args:
            ask, live: the request, and its state.
            model: the model, as the upstream that is called has it.
            name: the id of the reservation.

        Raises:
            BudgetExceeded: a limit of its path does not cover it, even with the cap lowered as far as policies allow.
            Refused, UnknownPrice: as ``prepare`` raises them.
        """
        most: int | None = None
        kinds = model_kinds(ask.chain)
        for again in range(4):
            prepared = await self._aside.do(
                len(ask.raw), prepare, ask, model, self.metering, ask.dialect, most, self.learnt
            )
            planned = prepared.planned
            live.bounds = {
                "bound": planned.worst.input, "choices": planned.choices, "cap": planned.cap, "cap_asked": ask.cap_asked
            }  # fmt: skip
            hold = Hold(self, live, name, ask.chain[-1][0], model, prepared, kinds)
            if not self._inline:
                self.book_waiting()
            try:
                await hold.reserve()
            except UnknownAccount:
                if again:
                    raise
                self.accounts.forget(ask.chain)
                await self.accounts.open(ask.chain)
                continue
            except WrongKinds as error:  # a replica has just changed the limits of models: what the ledger says counts
                if again == 3:
                    raise
                kinds = tuple(kind for kind in error.needed if OF in kind)
                continue
            except BudgetExceeded as error:
                counted = base(error.kind) in (REQUESTS, PARALLEL)
                refused = error if counted else error.also(planned.hint)
                if not ask.tightens or error.kind.startswith(LEARNT) or counted or again == 3:
                    raise refused from None
                most = await self._affordable(ask, planned, kinds, model.name)
                if most < ask.tightens:
                    raise refused from None
                continue
            tightened = () if most is None else (f"tighten={most}",)
            live.policy = ",".join((*ask.notes, *prepared.notes, *tightened))
            return prepared, hold
        raise AssertionError("unreachable")

    async def _affordable(self, ask: Ask, planned: Planned, kinds: Collection[str], model: str) -> int:
        """The output tokens a choice, up to its cap, that the budget covers."""
        left = await self.ledger.aio.remaining(ask.chain[-1][0])

        def covered(usage: Usage) -> bool:
            plain = self.metering.most(usage, planned.model, planned.service)
            needed = self.config.groups.spread(plain, kinds, model)
            return all(left[kind] is None or units <= (left[kind] or 0) for kind, units in needed.items())

        return longest(planned, covered)

    def book(self, command: Command, live: Live) -> None:
        """Send a settlement or release to the ledger without waiting for it.

        A ledger that commits to disk or network gets it together with the next reservation of this process, or alone
        if none comes within 10 ms. A ledger that does not answer is asked again until it does.
        """
        if self._inline:
            self._booked(live, self.ledger.execute(command))
            return
        if not self._waiting:
            asyncio.get_running_loop().call_later(_LINGER, self.book_waiting)
        self._waiting.append((command, live))

    def book_waiting(self) -> None:
        """Submit all waiting settlements and releases to the ledger now."""
        waiting = self._waiting[:]
        self._waiting.clear()  # the list stays: bookings of other configurations share it
        for command, live in waiting:
            task = asyncio.ensure_future(self._insist(command, live, self.ledger.submit(command)))
            self._booking.add(task)
            task.add_done_callback(self._booking.discard)

    async def _insist(self, command: Command, live: Live, answer: Awaitable[Any]) -> None:
        for again in itertools.count():
            try:
                self._booked(live, await answer)
                return
            except LedgerUnavailable as error:
                if again == 0:
                    _LOG.error("%s is not booked yet: %s", command[1], error)
                if command[0] == "release" and again == _RELEASES:
                    upkeep.here().owe(self.ledger, command, error)
                    self._booked(live, None)
                    return
                await asyncio.sleep(upkeep.AGAIN[min(again, len(upkeep.AGAIN) - 1)])
                answer = self.ledger.submit(command)
            except LedgerError as error:
                if command[0] != "release" or not isinstance(error, UnknownReservation):
                    _LOG.exception("%s could not be booked", command)
                self._booked(live, None)
                return

    def _booked(self, live: Live, entry: Any) -> None:
        for kind, units in () if entry is None else entry[7]:
            live.overshoot[kind] = live.overshoot.get(kind, 0) + units
        live.open -= 1
        if live.closed and not live.open:
            self._over(live)

    async def drained(self, seconds: float) -> None:
        """Wait at most ``seconds`` until all is booked; another replica charges in full what is not booked by then."""
        self.book_waiting()
        if self._booking:
            await asyncio.wait(self._booking, timeout=seconds)
