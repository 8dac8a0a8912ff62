"""Replays recorded requests through the gateway's own accounts, policies and bounds, with a ledger in memory.

The ledger's clock follows the records: a request is reserved at the time when it came, and settled when it had ended.
It is charged what is on record. Where today's policies change its model or its cap, the charge changes in proportion.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil

import orjson

from budgeteer.core.amounts import amount
from budgeteer.core.errors import BudgetExceeded, InvalidInput, UnknownPrice
from budgeteer.core.meter import meters
from budgeteer.core.usage import Usage
from budgeteer.gateway import keys as virtual_keys
from budgeteer.gateway.answers import Answers
from budgeteer.gateway.app import policies_of, prices_of
from budgeteer.gateway.booking import Hold
from budgeteer.gateway.candidates import candidates_for
from budgeteer.gateway.config import Config, Model
from budgeteer.gateway.keyring import KeyRing, check_valid
from budgeteer.gateway.keys import Key
from budgeteer.gateway.learnt import RESERVES
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.protocol import Policy
from budgeteer.gateway.prepared import Prepared
from budgeteer.gateway.proxy import Proxy
from budgeteer.gateway.record import Record
from budgeteer.gateway.refusal import Refused, of_budget
from budgeteer.gateway.replay.read import Logged
from budgeteer.gateway.replay.recorded import ROUTE_OF, RecordedAsk, RecordedMetering, Units, usual_cap
from budgeteer.gateway.store import SqliteStore
from budgeteer.ledger import MemoryLedger
from budgeteer.ledger.protocol import MAX_SECONDS
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.reading import CAPS
from budgeteer.metering.settlement import Answer, Planned

RAN, REFUSED, CACHED = "ran", "refused", "cached"
_UNSURE = 2
"""Milliseconds after its recorded end within which a request may have ended: start and duration are rounded down."""


@dataclass(frozen=True, slots=True)
class Saving:
    """Tokens, and units by kind, that a policy or a refusal saved of one request; negative if it cost more.

    ``by`` names the policy, the limit, or the code of the refusal.
    """

    by: str
    tokens: int
    units: Units


@dataclass(frozen=True, slots=True)
class Result:
    """What happened to one request then, and what would happen to it today.

    Attributes:
        record: of the request.
        then, now: RAN, REFUSED or CACHED.
        code: of today's refusal.
        by: the limit or policy that refuses or answers it today, else the code.
        model: that serves it today; "" if it does not run.
        cap: of a choice today; None if it does not run, or has no output.
        units: charged today, by the kinds of ``[ledger]``.
        estimated: whether ``units`` are an estimate, because the request did not run then.
        savings: of each policy, limit or refusal that changes it.
    """

    record: Record
    then: str
    now: str
    code: str = ""
    by: str = ""
    model: str = ""
    cap: int | None = None
    units: Units = field(default_factory=dict)
    estimated: bool = False
    savings: tuple[Saving, ...] = ()

    @property
    def change(self) -> str:
        """ "" if nothing changes, else one of refused, admitted, cached, uncached, model, shorter, longer."""
        if self.then != self.now:
            if self.now != RAN:
                return self.now
            return "uncached" if self.then == CACHED else "admitted"
        if self.now != RAN:
            return ""
        if self.model != self.record.model:
            return "model"
        if self.cap is None or self.record.cap is None or self.cap == self.record.cap:
            return ""
        return "shorter" if self.cap < self.record.cap else "longer"


def then_of(record: Record) -> str | None:
    """Whether a request RAN, was REFUSED or CACHED; None if its record does not say what it would reserve: it never
    reached the limits, or was refused and makes no text."""
    if record.operation not in ROUTE_OF:
        return None
    if record.outcome == Outcome.CACHED:
        return CACHED
    if record.attempts or record.paid:
        return RAN
    known = record.bound is not None and record.operation in CAPS
    return REFUSED if known and record.outcome == Outcome.REFUSED else None


def replay(config: Config, requests: Sequence[Logged], keys: Mapping[str, Key]) -> list[Result]:
    """The result of each request that can be replayed, in the order in which the requests came.

    Args:
        config: today's configuration.
        requests: in the order in which they came.
        keys: id -> key as it is today; a key that is missing gets the configuration's ``[defaults]``.
    """
    return asyncio.run(_Replay(config, requests, keys).run())


@dataclass(slots=True)
class _Running:
    """A request that is reserved and has not ended yet.

    ``model_by`` and ``cap_by`` name what changed its model and its cap, ``asked`` the policies that have seen it.
    """

    logged: Logged
    then: str
    ask: RecordedAsk
    live: Live
    hold: Hold
    prepared: Prepared
    model: Model
    model_by: str
    cap_by: str
    asked: list[Policy]


class _Replay:
    def __init__(self, config: Config, requests: Sequence[Logged], keys: Mapping[str, Key]) -> None:
        self._config, self._requests, self._keys, self._now = config, requests, keys, 0
        estimator = RESERVES if config.learnt else None
        self._metering = RecordedMetering(None, config.kinds, prices_of(config), estimator=estimator)
        self._meters = meters(config.kinds, self._metering.prices)
        self._store = SqliteStore(":memory:")
        self._proxy = Proxy(
            replace(config, ttl=MAX_SECONDS),  # a running call renews its reservation, so none of them expires
            MemoryLedger(clock=self._clock),
            KeyRing(self._store),
            Answers(self._store),
            self._metering,
            lambda record, said: None,
            lambda reason: None,
            policies_of(config),
            clock=self._clock,
        )
        self._used = _used_of_reserved(requests, config.kinds)
        times = [logged.record.ms for logged in requests if then_of(logged.record) == RAN]
        self._usual_ms = sum(times) // max(1, len(times))
        self._results: dict[str, Result] = {}
        self._acting = ""  # the policy that is looking at a request

    def _clock(self) -> int:
        return self._now

    async def run(self) -> list[Result]:
        """Replay all requests."""
        running: list[tuple[int, int, _Running]] = []
        number = itertools.count()
        for logged in sorted(self._requests, key=_decided):
            record, then = logged.record, then_of(logged.record)
            if then is None:
                continue
            # a request may have ended a little later than recorded; one that was refused may then have met it
            ended_by = _decided(logged) - (_UNSURE if then == REFUSED else 0)
            while running and running[0][0] <= ended_by:
                self._now, _, ended = heapq.heappop(running)
                self._end(ended)
            self._now = _decided(logged)
            begun = await self._begin(logged, then)
            if begun is not None:
                ends = record.at + record.ms if then == RAN else self._now + self._usual_ms
                heapq.heappush(running, (ends, next(number), begun))
        while running:
            self._now, _, ended = heapq.heappop(running)
            self._end(ended)
        await self._proxy.drained(0)
        self._store.close()
        ids = [logged.record.id for logged in self._requests]
        return [self._results[id] for id in ids if id in self._results]

    async def _begin(self, logged: Logged, then: str) -> _Running | None:
        """Reserve a request as the gateway does; None if it does not run."""
        record = logged.record
        key = self._keys.get(record.key) or _unknown_key(record, self._config)
        live = Live(record.id, record.operation)
        live.at, live.key, live.user, live.session = record.at, key.id, record.user, record.session
        live.tag, live.stage, live.stream = record.tag, record.stage, bool(record.stream)
        asked: list[Policy] = []
        self._acting = ""
        try:
            check_valid(key, record.at)
            ask = RecordedAsk(logged, key)
            running = await self._admit(logged, then, ask, live, asked)
        except BudgetExceeded as error:
            code = of_budget(error, self._now).code
            self._stopped(record, then, REFUSED, f"{error.scope}: limit of {amount(error.kind, error.limit)}", code)
        except UnknownPrice:
            self._stopped(record, then, REFUSED, "no_price", "no_price")
        except Refused as refused:
            self._stopped(record, then, REFUSED, self._acting or refused.code, refused.code)
        except InvalidInput:
            self._stopped(record, then, REFUSED, self._acting or "invalid_request", "invalid_request")
        else:
            if running is not None:
                return running
        for policy in asked:
            policy.after(ask, None, live)
        return None

    async def _admit(
        self, logged: Logged, then: str, ask: RecordedAsk, live: Live, asked: list[Policy]
    ) -> _Running | None:
        """Ask the policies, and reserve; None if the cache answers the request. Raises what the gateway raises."""
        proxy, record = self._proxy, logged.record
        ask.largest = max(model.bounds.max_output or 0 for model in proxy.models(ask))
        ask.chain = proxy.accounts.chain(ask.key, record.user, record.session, record.tag)
        if not proxy.accounts.known(ask.chain):
            await proxy.accounts.open(ask.chain)
        changed_by = dict.fromkeys(("model", "cap", "tightens"), "")
        text = record.operation in CAPS
        for name, policy in proxy.policies if text and record.bound is not None else ():
            before = {attribute: getattr(ask, attribute) for attribute in changed_by}
            asked.append(policy)
            self._acting = name
            content = await policy.before(ask, proxy)
            self._acting = ""
            changed_by |= {attribute: name for attribute, was in before.items() if getattr(ask, attribute) != was}
            if content is not None:
                self._stopped(record, then, CACHED, name)
                return None
        if then == CACHED and record.policy in dict(proxy.policies):
            self._results[record.id] = Result(record, then, CACHED)  # it is not known whether it would answer again
            return None
        candidates = candidates_for(ask, proxy.upstreams)
        backend, model = next((pair for pair in candidates if pair[0].name == record.upstream), candidates[0])
        live.model, live.upstream = model.name, backend.name
        retried = record.bound is not None and record.attempts > 1
        self._metering.whole = not text
        self._metering.known = record.saved if then == CACHED else {} if retried else record.reserved
        if not text:
            ask.without_body()
            self._metering.known = record.units if retried else record.reserved
        elif record.bound is None:
            self._metering.same = model.price, usual_cap(ask, model)
        else:
            self._metering.same = self._price_then(record), record.cap
        prepared, hold = await proxy.booking.reserve(ask, live, model, f"{record.id}.0")
        live.attempts = 1
        cap_by = changed_by["tightens"] if "tighten=" in live.policy else changed_by["cap"] or "max_output"
        model_by = changed_by["model"] or "model"
        return _Running(logged, then, ask, live, hold, prepared, model, model_by, cap_by, asked)

    def _stopped(self, record: Record, then: str, now: str, by: str, code: str = "") -> None:
        """The result of a request that does not run today."""
        saving = Saving(by, record.input + record.output, _charged(record, self._config.kinds))
        savings = (saving,) if then == RAN else ()
        self._results[record.id] = Result(record, then, now, code, by, savings=savings)

    def _price_then(self, record: Record) -> str:
        """The name in the price tables of the model that a request called; "" if today's file has no such model."""
        models = [
            (backend.name == record.upstream, model.price)
            for backend in self._proxy.upstreams.backends
            for model in backend.config.models
            if model.name == record.model
        ]
        return max(models)[1] if models else ""

    def _end(self, running: _Running) -> None:
        """Settle a request, and tell the policies."""
        record, then, kinds = running.logged.record, running.then, self._config.kinds
        planned, price = running.prepared.planned, running.model.price
        usage = Usage(
            input=record.input,
            output=record.output,
            cached=min(record.cached, record.input),
            reasoning=min(record.reasoning, record.output),
        )
        savings: list[Saving] = []
        if then == RAN:
            units = _charged(record, kinds)
            text = record.operation in CAPS
            if text and price != (price_then := self._price_then(record)):
                units = self._changed(units, usage, price_then, usage, price, running.model_by, savings)
            shorter = _shortened(usage, record, planned, running.model)
            if shorter != usage:
                units = self._changed(units, usage, price, shorter, price, running.cap_by, savings)
            usage = shorter
        elif then == CACHED:
            units = {kind: record.saved.get(kind, 0) for kind in kinds}
            savings.append(Saving(record.policy or "cache", 0, {kind: -n for kind, n in units.items()}))
        else:
            units = {kind: ceil(planned.amounts[kind] * self._used.get(kind, 1)) for kind in kinds}
            savings.append(Saving("limits", 0, {kind: -n for kind, n in units.items()}))
        self._metering.charge = units
        live = running.live
        live.ms, live.outcome = record.ms, record.outcome if then == RAN else Outcome.OK
        running.hold.finish(Answer(usage=usage, model=record.answered, outcome=Outcome.OK))
        live.estimated = bool(record.estimated)
        content = b"" if live.outcome == Outcome.OK else None
        if running.logged.answer is not None and not record.stream and content is not None:
            content = orjson.dumps(running.logged.answer)
        for policy in running.asked:
            policy.after(running.ask, content, live)
        self._results[record.id] = Result(
            record,
            then,
            RAN,
            model=running.model.name,
            cap=planned.cap,
            units=units,
            estimated=then == REFUSED,
            savings=tuple(savings),
        )

    def _changed(
        self, units: Units, usage: Usage, price: str, usage_now: Usage, price_now: str, by: str, savings: list[Saving]
    ) -> dict[str, int]:
        """Recorded units, in the proportion in which another price or usage changes them; adds what that saves."""
        changed: dict[str, int] = {}
        for meter in self._meters:
            now = meter(usage_now, price_now, "")
            try:
                then = meter(usage, price, "")
            except UnknownPrice:
                then = 0
            recorded = units.get(meter.kind, 0)
            changed[meter.kind] = ceil(Fraction(recorded * now, then)) if then and recorded else now
        saved = {kind: units.get(kind, 0) - now for kind, now in changed.items()}
        savings.append(Saving(by, (usage.output or 0) - (usage_now.output or 0), saved))
        return changed


def _decided(logged: Logged) -> int:
    """When the gateway reserved or refused a request: when it came, or, since a refusal ends it, when it ended."""
    record = logged.record
    return record.at + record.ms if record.outcome == Outcome.REFUSED else record.at


def _shortened(usage: Usage, record: Record, planned: Planned, model: Model) -> Usage:
    """The usage of an answer that ends at today's cap, if that is lower than the cap then."""
    if planned.cap is None or record.cap is None or planned.cap >= record.cap:
        return usage
    output = min(usage.output or 0, planned.choices * (planned.cap + model.bounds.hidden_reasoning))
    return replace(usage, output=output, reasoning=min(usage.reasoning or 0, output))


def _charged(record: Record, kinds: Iterable[str]) -> dict[str, int]:
    return {kind: record.units.get(kind, 0) for kind in kinds}


def _used_of_reserved(requests: Iterable[Logged], kinds: Iterable[str]) -> dict[str, Fraction]:
    """The share of what was reserved that was charged, by kind, over all requests; at most 1."""
    reserved: Counter[str] = Counter()
    charged: Counter[str] = Counter()
    for logged in requests:
        for kind in kinds if logged.record.reserved else ():
            reserved[kind] += logged.record.reserved.get(kind, 0)
            charged[kind] += logged.record.units.get(kind, 0)
    return {kind: min(Fraction(1), Fraction(charged[kind], units)) for kind, units in reserved.items() if units}


def _unknown_key(record: Record, config: Config) -> Key:
    """A key of which only the id and the path are known, with the limits of ``[defaults]``."""
    scopes, defaults = record.path.split("/"), config.defaults
    path = "/".join(scopes[: scopes.index(record.key)]) if record.key in scopes else ""
    key, _ = virtual_keys.make({"path": path} if path else {}, defaults, config.counted, record.at)
    return replace(key, id=record.key)
