"""What all adapters do around a call: bound it, reserve, and settle what it used, known or estimated."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from inspect import isawaitable
from typing import Any

from budgeteer.core.errors import InvalidInput, UnknownPrice
from budgeteer.core.meter import Prices, meters
from budgeteer.core.usage import Usage
from budgeteer.metering.estimate import Bounds, Estimator, State
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.protocol import Allowance, Handle
from budgeteer.metering.settlement import Answer, Planned, Settlement, tags

STEP = 256
"""Tokens of output by which a stream extends its reservation, lest it asks the ledger for every one."""
_BOUNDS = Bounds()
_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Metering:
    """Bounds, meters and what was learnt; shared by the calls of one client and safe across its threads.

    Without an estimator every call reserves its worst case: the budget is hard as far as the bound holds. With one it
    reserves a learnt quantile, more calls fit, and a call can use more than it reserved, at most its bound; streams
    extend their reservation as they grow beyond it, or are cut.

    Attributes:
        allowance: what is drawn on; None for those who plan and settle here and reserve by themselves.
        kinds: of the units, such as ``("output", "money")``; those that the allowance counts.
        prices: for ``money``.
        bounds: see :class:`budgeteer.metering.estimate.Bounds`.
        estimator: None reserves the worst case.
        state: what the estimator learnt; save it with ``state.to_json()`` and hand it in again.
        on_settle: called with every :class:`Settlement`, such as :func:`budgeteer.adapters.otel.recorder`.
    """

    allowance: Allowance | None
    kinds: Iterable[str] = ("all",)
    prices: Prices | None = None
    bounds: Bounds = _BOUNDS
    estimator: Estimator | None = None
    state: State = field(default_factory=State)
    on_settle: Callable[[Settlement], object] | None = None
    _meters: Any = field(init=False, repr=False)
    _lock: Any = field(init=False, repr=False, default_factory=threading.Lock)
    _thinkers: set[str] = field(init=False, repr=False, default_factory=set)
    _open: set[str] = field(init=False, repr=False, default_factory=set)

    def __post_init__(self) -> None:
        if isinstance(self.kinds, str):
            raise InvalidInput(f"kinds is {self.kinds!r}; give a sequence of kinds, such as ({self.kinds!r},)")
        self._meters = meters(self.kinds, self.prices)
        if not self._meters:
            raise InvalidInput("no kind of units to reserve; give at least one, such as all or money")

    def plan(self, provider: str, operation: str, model: str, worst: Usage, service: str = "", **about: Any) -> Planned:
        """What to reserve of a call.

        Raises:
            UnknownPrice: money is counted and the model has no price.
        """
        reserve, state = worst, self.state
        if self.estimator is not None and worst.input is not None and worst.output is not None:
            output = self.estimator.reserve(state, f"{model} output", worst.output)
            reserve = Usage(
                input=self.estimator.reserve(state, f"{model} input", worst.input), output=min(output, worst.output)
            )
            reserve = replace(
                reserve, audio_input=worst.audio_input and reserve.input,
                audio_output=worst.audio_output and reserve.output,
            )  # fmt: skip
        amounts = self.most(reserve, model, service)
        if self.estimator is not None:
            for kind, units in amounts.items():
                amounts[kind] = min(units, self.estimator.reserve(state, f"{model} units of {kind}", units))
        return Planned(provider, operation, model, service, worst, reserve, amounts, **about)

    def most(self, usage: Usage, model: str, service: str) -> dict[str, int]:
        """Units that these totals can come to."""
        return {meter.kind: meter.worst(usage, model, service) for meter in self._meters}

    def settlement(self, planned: Planned, answer: Answer, started: int = 0, ended: int = 0) -> Settlement:
        """What to charge for a call between two times. What the provider did not say is estimated, never taken to be 0:

        - no answer, so that the call may have run: what was reserved;
        - output unknown: the text seen, at most the bound, unless that was passed for certain; all that was reserved
          if nothing was seen, or more may be hidden;
        - input unknown: what was reserved for it.
        """
        known = answer.usage or Usage()
        unsaid = False
        if answer.outcome == Outcome.REJECTED:
            usage, estimated = Usage(input=0, output=0), False
        else:
            seen, reserve = answer.seen or 0, planned.reserve
            unsaid = known.output is None and (answer.seen is None or self._may_hide(planned.model, answer))
            usage = known
            if known.input is None:
                usage = replace(
                    usage, input=reserve.input, cached=None, written=None, written_long=None,
                    audio_input=reserve.audio_input,
                )  # fmt: skip
            if known.output is None:
                made, most = max(seen, reserve.output or 0) if unsaid else seen, planned.worst.output or 0
                made = min(made, most) if answer.least <= most else max(made, answer.least)
                usage = replace(usage, output=made, reasoning=None, audio_output=None)
            estimated = usage is not known
        if estimated and answer.outcome == Outcome.UNKNOWN and answer.least <= (planned.worst.output or 0):
            amounts = dict(planned.amounts)
        elif unsaid:
            amounts = self._fully(planned, answer, usage)
        else:
            amounts = self._charge(planned, answer, usage)
        if answer.outcome == Outcome.REJECTED:
            amounts = dict.fromkeys(amounts, 0)
        elif not estimated:
            self._learn(planned, answer, usage, amounts)
        return Settlement(
            planned.provider, planned.operation, planned.model, answer.model, usage, planned.amounts, amounts,
            estimated, answer.outcome, planned.attempt, planned.cap, planned.choices, started, ended, planned.stage,
        )  # fmt: skip

    def _fully(self, planned: Planned, answer: Answer, usage: Usage) -> dict[str, int]:
        """Units of an answer of whose output nothing is known: text, thoughts or speech, whatever comes to most; and no
        less than was reserved if nothing is known of its input either."""
        may_be = [usage, replace(usage, reasoning=usage.output)]
        if planned.worst.audio_output:
            may_be.append(replace(usage, audio_output=usage.output))
        charges = [self._charge(planned, answer, one) for one in may_be]
        if answer.usage is None or answer.usage.input is None:
            charges.append(dict(planned.amounts))
        return {kind: max(charge[kind] for charge in charges) for kind in planned.amounts}

    def _charge(self, planned: Planned, answer: Answer, usage: Usage) -> dict[str, int]:
        """Units, at the price of the model and class of service that answered, else of those that were asked.

        What was asked is what this attempt called, so one that fails over is charged at its own model. Of its name and
        the answer's, which may be dated or another model's, that counts which the first price table holds; and an
        answer's name is one of the provider that the asked name says before its slash.
        """
        services = [answer.service, planned.service] if answer.service else [planned.service]
        model = planned.model
        if answer.model and answer.model != model and self.prices is not None:
            provider = model[: model.rfind("/") + 1]
            model = self.prices.first_known((provider + answer.model.removeprefix(provider), model))
        for name, service in [(m, s) for s in services for m in dict.fromkeys((model, planned.model))]:
            try:
                return {meter.kind: meter(usage, name, service) for meter in self._meters}
            except UnknownPrice:
                continue
        return {meter.kind: meter(usage, planned.model, planned.service) for meter in self._meters}

    def _learn(self, planned: Planned, answer: Answer, usage: Usage, amounts: Mapping[str, int]) -> None:
        """Both sides' tokens, and what the units come to beside their most: how much is cached, for one."""
        if usage.reasoning:
            self._thinkers.add(planned.model)
        elif usage.reasoning is None and answer.outcome == Outcome.OK and 0 < (usage.output or 0) <= answer.shown:
            self._open.add(planned.model)
        if self.estimator is None or usage.input is None or usage.output is None:
            return
        model = planned.model
        seen = [(f"{model} {s}", getattr(planned.worst, s) or 0, getattr(usage, s)) for s in ("input", "output")]
        try:
            most = self.most(usage, model, answer.service or planned.service)
        except UnknownPrice:  # served in a class that the model's own price does not list
            most = {}
        seen += [(f"{model} units of {kind}", units, amounts[kind]) for kind, units in most.items()]
        with self._lock:
            for key, bound, actual in seen:
                self.state = self.estimator.observe(self.state, key, bound, actual)

    def tell(self, settlement: Settlement) -> None:
        """Hand a settlement to whoever watches. What goes wrong there is logged: the answer is paid for, and kept."""
        if self.on_settle is not None:
            try:
                self.on_settle(settlement)
            except Exception:
                _LOG.exception("on_settle failed on %r", settlement)

    def _may_hide(self, model: str, answer: Answer) -> bool:
        """Whether more may have been generated than what was seen of an answer.

        Of a cut one that is so until a whole answer of the model was no longer than what it showed, by a provider that
        does not count reasoning apart; and again once reasoning is counted. A count of 0 proves nothing: the next
        question may be harder. A whole answer without its usage is taken for what it shows, unless the model is
        known to think.
        """
        if answer.hides is not None:
            return answer.hides
        if model in self._thinkers:
            return True
        return answer.outcome == Outcome.CUT and model not in self._open


def metering_of(allowance: Allowance | Metering, options: Mapping[str, Any]) -> Metering:
    """The metering that was given, or a new one of an allowance and options."""
    if not isinstance(allowance, Metering):
        return Metering(allowance, **options)
    if options:
        raise InvalidInput(f"options {', '.join(options)} beside a Metering; give them to the Metering")
    return allowance


class Running:
    """A planned call while it runs: how much output is reserved for it, and what it comes to in the end.

    Who holds the reservation holds it elsewhere: a :class:`Call` at an allowance, the gateway at its ledger.
    """

    __slots__ = ("_covered", "metering", "planned", "started")

    def __init__(self, metering: Metering, planned: Planned) -> None:
        self.metering, self.planned = metering, planned
        self.started = 0
        self._covered = planned.reserve.output or 0

    def needs_more(self, tokens: int, least: int) -> bool:
        """Whether output goes beyond what is reserved: ``tokens`` as counted, which counts up to the bound, or
        ``least``, the tokens that there are for certain, which counts beyond it."""
        return self._covered < least or self._covered < min(tokens, self.planned.worst.output or 0)

    def more(self, tokens: int) -> dict[str, int]:
        """Units to reserve for a stream that has so many tokens of output: some more, at most the bound while it is
        kept."""
        planned, most = self.planned, self.planned.worst.output or 0
        self._covered = min(most, tokens + STEP) if tokens <= most else tokens + STEP
        return self.metering.most(replace(planned.reserve, output=self._covered), planned.model, planned.service)

    def settlement(self, answer: Answer) -> Settlement:
        """What to charge for the call, which has just ended."""
        return self.metering.settlement(self.planned, answer, self.started, time.time_ns())


class Call(Running):
    """One reservation from its start to its settlement, which may lie outside any ``with`` block.

    ``finish`` or ``afinish`` once, in any case; a second one does nothing. Entering raises BudgetExceeded.
    """

    __slots__ = ("_handle", "_lock", "_reserving")

    def __init__(self, metering: Metering, planned: Planned) -> None:
        super().__init__(metering, planned)
        if metering.allowance is None:
            raise InvalidInput("a metering without an allowance has nothing to reserve from; give it one")
        self._reserving = metering.allowance.reserve(planned.amounts)
        self._handle: Handle | None = None
        self._lock = threading.Lock()

    def start(self) -> Call:
        """Reserve."""
        self.started, self._handle = time.time_ns(), self._reserving.__enter__()
        return self

    async def astart(self) -> Call:
        """Reserve."""
        self.started, self._handle = time.time_ns(), await self._reserving.__aenter__()
        return self

    @property
    def finished(self) -> bool:
        """Whether it is settled or released, or was never started."""
        return self._handle is None

    def extend(self, tokens: int) -> None:
        """Reserve so many tokens of output and some more, or raise BudgetExceeded."""
        if self._handle is not None:
            self._handle.extend(self.more(tokens))

    async def aextend(self, tokens: int) -> None:
        """Reserve so many tokens of output and some more, or raise BudgetExceeded."""
        if self._handle is not None:
            extend = getattr(self._handle, "aextend", self._handle.extend)
            await _done(extend(self.more(tokens)))

    def _taken(self) -> Handle | None:
        """The handle, for the first who asks."""
        with self._lock:
            handle, self._handle = self._handle, None
        return handle

    def finish(self, answer: Answer) -> None:
        """Settle, or release what was not run."""
        handle = self._taken()
        if handle is None:
            return
        settlement = self.settlement(answer)
        if answer.outcome == Outcome.REJECTED:
            handle.release()
        else:  # if this fails the block is not left, so that the reservation stays held until it counts as abandoned
            handle.settle(settlement.amounts, **tags(settlement))
        self._reserving.__exit__(None, None, None)
        self.metering.tell(settlement)

    async def afinish(self, answer: Answer) -> None:
        """Settle, or release what was not run. Given up while it is booked, it is booked and told all the same."""
        handle = self._taken()
        if handle is None:
            return
        settlement = self.settlement(answer)
        if answer.outcome == Outcome.REJECTED:
            await _done(handle.release())
        else:
            await _done(handle.settle(settlement.amounts, **tags(settlement)))
        try:
            await self._reserving.__aexit__(None, None, None)
        except asyncio.CancelledError:
            self.metering.tell(settlement)
            raise
        self.metering.tell(settlement)


async def _done(result: object) -> None:
    if isawaitable(result):
        await result
