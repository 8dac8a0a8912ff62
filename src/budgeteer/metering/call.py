"""What all adapters do around a call: bound it, reserve, and settle what it used, be it known or estimated."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from inspect import isawaitable
from typing import Any

from budgeteer.core.amounts import MONEY
from budgeteer.core.errors import BudgetExceeded, InvalidInput, UnknownPrice
from budgeteer.core.meter import Prices, meters
from budgeteer.core.usage import Usage
from budgeteer.metering.estimate import Bounds, Estimator, State
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.protocol import Allowance, Handle
from budgeteer.metering.references import Recent
from budgeteer.metering.settlement import Answer, Planned, Settlement, as_planned, tags, with_uses

STEP = 256
"""Tokens of output by which a stream extends its reservation, so that it does not ask the ledger for every one."""
_BOUNDS = Bounds()
_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Metering:
    """How the calls of one client are bounded, reserved and charged. Its threads may share it.

    Without an estimator every call reserves its worst case: the budget is hard as far as the bound holds. With an
    estimator it reserves a quantile of what earlier calls used. More calls fit, but a call can use more than it
    reserved, at most its bound; a stream that outgrows its reservation extends it, or is cut.

    Attributes:
        allowance: where units are reserved; None if the caller plans and settles here, but reserves by itself.
        kinds: the kinds of units that the allowance counts, such as ``("output", "money")``.
        prices: of the models; needed for ``money``.
        bounds: how a request is bounded.
        estimator: None reserves the worst case.
        state: what the estimator has learnt; save it with ``state.to_json()`` and pass it in again.
        on_settle: called with every :class:`Settlement`, such as :func:`budgeteer.adapters.otel.recorder`.
        counts: what a call counts of each kind that is no token, such as ``{"turns": 1, "tool:search": 0}``.
        recent: what its clients were answered, which bounds their references to stored responses.
    """

    allowance: Allowance | None
    kinds: Iterable[str] = ("all",)
    prices: Prices | None = None
    bounds: Bounds = _BOUNDS
    estimator: Estimator | None = None
    state: State = field(default_factory=State)
    on_settle: Callable[[Settlement], object] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    recent: Recent = field(init=False, repr=False, default_factory=Recent)
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
        """What to reserve for a call.

        Args:
            provider, operation, model, service: as :class:`Planned` has them; ``service`` is the provider's tier.
            worst: the most tokens that the call can use.
            about: further fields of :class:`Planned`.

        Raises:
            UnknownPrice: money is counted and the model has no price.
        """
        worst = self._counted(worst)
        reserve, state, group = worst, self.state, model + str(about.get("group", ""))
        if self.estimator is not None and worst.input is not None and worst.output is not None:
            output = self.estimator.reserve(state, f"{group} output", worst.output)
            read, made = self.estimator.reserve(state, f"{group} input", worst.input), min(output, worst.output)
            reserve = replace(
                worst,
                input=read,
                output=made,
                audio_input=worst.audio_input and read,
                audio_output=worst.audio_output and made,
            )
        amounts = self.most(reserve, model, service)
        if self.estimator is not None:
            for kind, units in amounts.items():
                amounts[kind] = min(units, self.estimator.reserve(state, f"{group} units of {kind}", units))
        return Planned(provider, operation, model, service, worst, reserve, amounts, **about)

    def at_worst(self, planned: Planned) -> Planned:
        """The same call, whose worst case is reserved whatever an estimator expects."""
        amounts = self.most(planned.worst, planned.model, planned.service)
        return replace(planned, reserve=planned.worst, amounts=amounts)

    def repriced(self, prices: Prices | None) -> Metering:
        """The same metering with other prices. What was learnt of models is shared, but for which of them show all that
        they think: another model may go by such a name now."""
        other = copy(self)
        other.prices, other._open = prices, set()
        other._meters = meters(self.kinds, prices)
        return other

    @property
    def counted(self) -> tuple[str, ...]:
        """The kinds of units of every call, as they are printed."""
        return tuple(meter.kind for meter in self._meters)

    def most(self, usage: Usage, model: str, service: str) -> dict[str, int]:
        """The most units per kind that these tokens can cost.

        Raises:
            UnknownPrice: money is counted and the model has no price.
        """
        usage = self._counted(usage)
        return {meter.kind: meter.worst(usage, model, service) for meter in self._meters}

    def _counted(self, usage: Usage) -> Usage:
        """The usage with what each call counts, unless it says otherwise."""
        return replace(usage, counts={**self.counts, **dict(usage.counts)}) if self.counts else usage  # type: ignore[arg-type]

    def settlement(self, planned: Planned, answer: Answer, started: int = 0, ended: int = 0) -> Settlement:
        """What to charge for a call. A number that the provider did not report is estimated, never taken to be 0:

        - no answer, although the call may have run: what was reserved;
        - output unknown: the tokens of the text that was seen, at most the bound, unless there were more for certain;
          all that was reserved if nothing was seen, or more may be hidden;
        - input unknown: what was reserved for it.

        Args:
            planned: the call before it was made.
            answer: what is known of it now.
            started, ended: nanoseconds since 1970 (UTC).
        """
        known = self._counted(answer.usage or Usage())
        seen, reserve = answer.seen or 0, planned.reserve
        unsaid = known.output is None and (answer.seen is None or self._may_hide(planned.model, answer))
        usage = known
        if known.input is None:
            usage = replace(
                usage,
                input=reserve.input,
                cached=None,
                written=None,
                written_long=None,
                audio_input=reserve.audio_input,
            )
        if known.output is None:
            made, most = max(seen, reserve.output or 0) if unsaid else seen, planned.worst.output or 0
            made = min(made, most) if answer.least <= most else max(made, answer.least)
            usage = replace(usage, output=made, reasoning=None, audio_output=None)
        usage = with_uses(usage, planned.worst)
        estimated = usage is not known
        if planned.free or answer.outcome == Outcome.REJECTED:  # of no kind, those that somebody counts included
            usage, estimated, amounts = Usage(input=0, output=0), False, dict.fromkeys(planned.amounts, 0)
        else:
            if estimated and answer.outcome == Outcome.UNKNOWN and answer.least <= (planned.worst.output or 0):
                amounts = dict(planned.amounts)
            elif unsaid:
                amounts = self._fully(planned, answer, usage)
            else:
                amounts = self._charge(planned, answer, usage)
            if answer.cost is not None and MONEY in amounts:
                amounts[MONEY] = answer.cost
            if not estimated:
                self._learn(planned, answer, usage, amounts)
        return Settlement(
            planned.provider,
            planned.operation,
            planned.model,
            response_model=answer.model,
            usage=usage,
            reserved=planned.amounts,
            amounts=amounts,
            estimated=estimated,
            outcome=answer.outcome,
            attempt=planned.attempt,
            cap=planned.cap,
            choices=planned.choices,
            started=started,
            ended=ended,
            stage=planned.stage,
        )

    def _fully(self, planned: Planned, answer: Answer, usage: Usage) -> dict[str, int]:
        """Units of an answer of whose output nothing is known: the dearest of text, thoughts and speech.

        They are no less than was reserved if nothing is known of its input either.
        """
        candidates = [usage, replace(usage, reasoning=usage.output)]
        if planned.worst.audio_output:
            candidates.append(replace(usage, audio_output=usage.output))
        charges = [self._charge(planned, answer, candidate) for candidate in candidates]
        if answer.usage is None or answer.usage.input is None:
            charges.append(dict(planned.amounts))
        return {kind: max(charge[kind] for charge in charges) for kind in planned.amounts}

    def _charge(self, planned: Planned, answer: Answer, usage: Usage) -> dict[str, int]:
        """Units, at the price of the model and class of service that answered, else of those that were asked.

        The model that was asked is the one that this attempt called, so a fail-over is charged at its own model. The
        answer may name the model with a date, or another model. Of both names the one counts that is in the first price
        table; the answer's name belongs to the provider that the asked name has before its slash.
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
        """Learn the ratio of actual to bound: of input and output tokens, and of units per kind, where caching, for
        example, makes the tokens cheaper than their bound."""
        if usage.reasoning:
            self._thinkers.add(planned.model)
        elif usage.reasoning is None and answer.outcome == Outcome.OK and 0 < (usage.output or 0) <= answer.shown:
            self._open.add(planned.model)
        if self.estimator is None or usage.input is None or usage.output is None:
            return
        model, group = planned.model, planned.model + planned.group
        seen = [(f"{group} {s}", getattr(planned.worst, s) or 0, getattr(usage, s)) for s in ("input", "output")]
        try:
            most = self.most(as_planned(usage, planned.worst), model, answer.service or planned.service)
        except UnknownPrice:  # served in a class that the model's own price does not list
            most = {}
        seen += [(f"{group} units of {kind}", units, amounts[kind]) for kind, units in most.items()]
        with self._lock:
            for key, bound, actual in seen:
                self.state = self.estimator.observe(self.state, key, bound, actual)

    def change_state(self, change: Callable[[State], State]) -> None:
        """Replace ``state`` by what a function makes of it, so that nothing that is learnt meanwhile is lost."""
        with self._lock:
            self.state = change(self.state)

    def tell(self, settlement: Settlement) -> None:
        """Pass a settlement to ``on_settle``. Its errors are logged only: the answer is paid for, and must be kept."""
        if self.on_settle is not None:
            try:
                self.on_settle(settlement)
            except Exception:
                _LOG.exception("on_settle failed on %r", settlement)

    def _may_hide(self, model: str, answer: Answer) -> bool:
        """Whether more may have been generated than what was seen of an answer.

        A cut answer may hide reasoning, until a whole answer of the model, from a provider that does not count
        reasoning apart, used no more tokens than what it showed can have. Once reasoning is counted, all answers of the
        model may hide some. A count of 0 proves nothing: the next question may be harder. A whole answer without its
        usage is taken to be what it shows, unless the model is known to think.
        """
        if answer.hides is not None:
            return answer.hides
        if model in self._thinkers:
            return True
        return answer.outcome == Outcome.CUT and model not in self._open


def metering_of(allowance: Allowance | Metering, options: Mapping[str, Any]) -> Metering:
    """The Metering that was given, or a new one of an allowance and options.

    Raises:
        InvalidInput: options beside a Metering.
    """
    if not isinstance(allowance, Metering):
        return Metering(allowance, **options)
    if options:
        raise InvalidInput(f"options {', '.join(options)} beside a Metering; give them to the Metering")
    return allowance


class Running:
    """A planned call while it runs: how much output is reserved for it, and what to charge for it in the end.

    It does not hold the reservation itself: :class:`Call` does, at an allowance, and the gateway, at its ledger.
    """

    __slots__ = ("_covered", "metering", "planned", "started")

    def __init__(self, metering: Metering, planned: Planned) -> None:
        self.metering, self.planned = metering, planned
        self.started = 0
        self._covered = planned.reserve.output or 0

    def needs_more(self, tokens: int, least: int) -> bool:
        """Whether a stream has more output than is reserved.

        Args:
            tokens: of output, as counted; they do not count beyond the call's bound.
            least: tokens of output that there are for certain; they count beyond the bound, too.
        """
        return self._covered < least or self._covered < min(tokens, self.planned.worst.output or 0)

    def more(self, tokens: int, ahead: int = STEP) -> dict[str, int]:
        """Units per kind to reserve for a stream that has ``tokens`` tokens of output.

        They are for ``ahead`` tokens more, but at most for the call's bound as long as the stream stays within it.
        """
        planned, most = self.planned, self.planned.worst.output or 0
        self._covered = min(most, tokens + ahead) if tokens <= most else tokens + ahead
        return self.metering.most(replace(planned.reserve, output=self._covered), planned.model, planned.service)

    def settlement(self, answer: Answer) -> Settlement:
        """What to charge for the call, which has just ended."""
        return self.metering.settlement(self.planned, answer, self.started, time.time_ns())


class Call(Running):
    """One call from its reservation to its settlement, which need not be in one ``with`` block.

    ``start`` reserves, and raises BudgetExceeded if the units are not left. ``finish`` or ``afinish`` must follow,
    however the call ends; a second one does nothing.
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
        """Reserve the planned units, or raise BudgetExceeded."""
        self.started = time.time_ns()
        try:
            self._handle = self._reserving.__enter__()
        except BudgetExceeded as error:
            raise error.also(self.planned.hint) from None
        return self

    async def astart(self) -> Call:
        """``start`` without blocking the event loop."""
        self.started = time.time_ns()
        try:
            self._handle = await self._reserving.__aenter__()
        except BudgetExceeded as error:
            raise error.also(self.planned.hint) from None
        return self

    @property
    def finished(self) -> bool:
        """Whether the call is settled or released, or was never started."""
        return self._handle is None

    def extend(self, tokens: int) -> None:
        """Reserve for ``tokens`` tokens of output and STEP more, or raise BudgetExceeded."""
        if self._handle is not None:
            self._handle.extend(self.more(tokens))

    async def aextend(self, tokens: int) -> None:
        """``extend`` without blocking the event loop."""
        if self._handle is not None:
            extend = getattr(self._handle, "aextend", self._handle.extend)
            await _done(extend(self.more(tokens)))

    def _taken(self) -> Handle | None:
        """The handle for the first caller; None for all that follow."""
        with self._lock:
            handle, self._handle = self._handle, None
        return handle

    def finish(self, answer: Answer) -> None:
        """Settle the call, or release it if it was not run."""
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
        """``finish`` without blocking the event loop. If it is cancelled while the ledger books, the call is booked and
        ``on_settle`` is told all the same."""
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
