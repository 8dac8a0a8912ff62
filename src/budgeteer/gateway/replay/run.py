"""Each request of the records at its own time, through the real accounts, policies, bounds and ledger of today's file.

A request is reserved when it came and settled when it had ended, in a ledger in memory whose clock is that of the
records. What it was charged is on record; where today's policies would have changed its model or its cap, the charge is
changed by what the two differ in.
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
from typing import Any

import orjson

from budgeteer.core.errors import BudgetExceeded, InvalidInput, UnknownPrice
from budgeteer.core.meter import meters
from budgeteer.core.usage import Usage
from budgeteer.gateway.app import policies_of, prices_of
from budgeteer.gateway.booking import Hold
from budgeteer.gateway.config import Config, Model
from budgeteer.gateway.keyring import KeyRing
from budgeteer.gateway.keys import Key
from budgeteer.gateway.live import Live
from budgeteer.gateway.prepare import Prepared
from budgeteer.gateway.proxy import Proxy
from budgeteer.gateway.record import Record
from budgeteer.gateway.refusal import Refused, of_budget
from budgeteer.gateway.replay.read import Told
from budgeteer.gateway.replay.recorded import ROUTE_OF, RecordedAsk, RecordedMetering, Units, usual_cap
from budgeteer.gateway.store import SqliteStore
from budgeteer.ledger import MemoryLedger
from budgeteer.ledger.protocol import MAX_SECONDS
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.settlement import Answer, Planned

RAN, REFUSED, CACHED = "ran", "refused", "cached"


@dataclass(frozen=True, slots=True)
class Saving:
    """What a policy, or whatever refused a request, saved of it: tokens, and units by kind; below 0 it cost more."""

    by: str
    tokens: int
    units: Units


@dataclass(frozen=True, slots=True)
class Today:
    """What would have become of one request.

    Attributes:
        record: what became of it.
        then, now: RAN, REFUSED or CACHED.
        code, by: of a refusal: its code, and the limit or policy that refused it.
        model, cap: that it would have been served by; None: it has no output, or did not run.
        units: that it would have been charged, without requests and parallel ones.
        estimated: whether these are a guess, since it never ran.
        savings: of each policy or limit that changed it.
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
        """What is different: "" if nothing is, else refused, admitted, cached, uncached, model, shorter or longer."""
        if self.then != self.now:
            known = {(RAN, REFUSED): "refused", (CACHED, REFUSED): "refused", (RAN, CACHED): "cached"}
            return known.get((self.then, self.now), "uncached" if self.then == CACHED else "admitted")
        if self.now != RAN:
            return ""
        if self.model != self.record.model:
            return "model"
        if self.cap is None or self.record.cap is None or self.cap == self.record.cap:
            return ""
        return "shorter" if self.cap < self.record.cap else "longer"


def then_of(record: Record) -> str | None:
    """What became of a request; None if it never came to the budgets, so that nothing of it can be replayed."""
    if record.operation not in ROUTE_OF:
        return None
    if record.outcome == Outcome.CACHED:
        return CACHED
    if record.attempts or record.paid:
        return RAN
    return REFUSED if record.bound is not None and record.outcome == Outcome.REFUSED else None


def replay(config: Config, told: Sequence[Told], keys: Mapping[str, Key]) -> list[Today]:
    """What would have become of each request that came to the budgets, in the order in which they came.

    Args:
        config: today's.
        told: the requests, in order.
        keys: today's, by id; a key that is missing has the file's ``[defaults]``.
    """
    return asyncio.run(_Replay(config, told, keys).run())


@dataclass(slots=True)
class _Open:
    """A request that was reserved and has not ended yet."""

    told: Told
    then: str
    ask: RecordedAsk
    live: Live
    hold: Hold
    prepared: Prepared
    model: Model
    changed_model: str
    changed_cap: str
    policies: list[Any]


class _Replay:
    def __init__(self, config: Config, told: Sequence[Told], keys: Mapping[str, Key]) -> None:
        self._config, self._told, self._keys, self._now = config, told, keys, 0
        self._metering = RecordedMetering(None, config.kinds, prices_of(config))
        self._meters = meters(config.kinds, self._metering.prices)
        ledger = MemoryLedger(clock=self._clock)
        self._store = SqliteStore(":memory:")
        self._proxy = Proxy(
            replace(config, ttl=MAX_SECONDS),  # a call renews its reservation as long as it runs
            ledger, KeyRing(self._store), self._metering, lambda record, said: None, lambda reason: None,
            policies_of(config), clock=self._clock,
        )  # fmt: skip
        self._ratios = _ratios(told, config.kinds)
        self._found: list[Today] = []

    def _clock(self) -> int:
        return self._now

    async def run(self) -> list[Today]:
        """Every request at its time."""
        ends: list[tuple[int, int, _Open]] = []
        number = itertools.count()
        for told in self._told:
            then = then_of(told.record)
            if then is None:
                continue
            while ends and ends[0][0] <= told.record.at:  # what ends in the same millisecond has ended
                self._now, _, ended = heapq.heappop(ends)
                self._end(ended)
            self._now = told.record.at
            begun = await self._begin(told, then)
            if begun is not None:
                heapq.heappush(ends, (told.record.at + told.record.ms, next(number), begun))
        for self._now, _, ended in sorted(ends, key=lambda end: end[:2]):
            self._end(ended)
        await self._proxy.drained(0)
        self._store.close()
        order = {told.record.id: n for n, told in enumerate(self._told)}
        return sorted(self._found, key=lambda today: order[today.record.id])

    async def _begin(self, told: Told, then: str) -> _Open | None:
        """Ask for one request what the gateway would have asked; None if it ends here."""
        record, proxy = told.record, self._proxy
        key = self._keys.get(record.key) or _assumed(record, self._config)
        live = Live(record.id, record.operation)
        live.at, live.key, live.user, live.session = record.at, key.id, record.user, record.session
        live.tag, live.stage, live.stream = record.tag, record.stage, bool(record.stream)
        refused_by, seen = "key", []
        ask: RecordedAsk | None = None
        try:
            if key.revoked:
                raise Refused(401, "key_revoked", "this key was revoked")
            if key.expires is not None and key.expires <= record.at:
                raise Refused(401, "key_expired", "this key has expired")
            ask = RecordedAsk(told, key)
            ask.largest = max(model.bounds.max_output or 0 for model in proxy.models(ask))
            ask.chain = proxy.accounts.chain(key, record.user, record.session, record.tag)
            if not proxy.accounts.known(ask.chain):
                await proxy.accounts.open(ask.chain)
            changed = dict.fromkeys(("model", "cap", "tightens"), "")
            for name, policy in proxy.policies if record.bound is not None else ():
                before = {what: getattr(ask, what) for what in changed}
                seen.append(policy)
                refused_by = name
                content = await policy.before(ask, proxy)
                for what, value in before.items():
                    if getattr(ask, what) != value:
                        changed[what] = name
                if content is not None:
                    self._answered(record, then, name)
                    live.outcome, live.status = Outcome.CACHED, 200
                    return None
            if then == CACHED and record.policy in dict(proxy.policies):
                self._found.append(Today(record, then, CACHED))  # whether it hits again is not known; it did then
                return None
            refused_by = "key"
            backend, model = next(
                (one for one in proxy.candidates(ask) if one[0].name == record.upstream), proxy.candidates(ask)[0]
            )
            live.model, live.upstream = model.name, backend.name
            self._metering.known = record.saved if then == CACHED else record.reserved if record.attempts <= 1 else {}
            if record.bound is None:
                self._metering.known = record.saved if then == CACHED else record.reserved
                self._metering.same = (model.price, usual_cap(ask, model))
            else:
                self._metering.same = (self._price(record), record.cap)
            refused_by = ""
            prepared, hold = await proxy.booking.reserve(ask, live, model, f"{record.id}.0")
            live.attempts = 1
            cap = changed["tightens"] if "tighten=" in live.policy else changed["cap"] or "max_output"
            return _Open(told, then, ask, live, hold, prepared, model, changed["model"], cap, seen)
        except BudgetExceeded as error:
            limit = f"{error.kind} limit of {error.scope}"
            self._refused(record, then, of_budget(error, self._now).code, limit)
        except UnknownPrice as error:
            self._refused(record, then, "no_price", f"no price of {error.model}")
        except Refused as refused:
            self._refused(record, then, refused.code, refused_by or "key")
        except InvalidInput:
            self._refused(record, then, "invalid_request", refused_by or "key")
        if ask is not None:
            for policy in seen:
                policy.after(ask, None, live)
        return None

    def _refused(self, record: Record, then: str, code: str, by: str) -> None:
        saving = Saving(by, record.input + record.output, _charged(record, self._config.kinds))
        savings = (saving,) if then == RAN else ()
        self._found.append(Today(record, then, REFUSED, code, by, savings=savings))

    def _answered(self, record: Record, then: str, by: str) -> None:
        saving = Saving(by, record.input + record.output, _charged(record, self._config.kinds))
        self._found.append(Today(record, then, CACHED, by=by, savings=(saving,) if then == RAN else ()))

    def _price(self, record: Record) -> str:
        """What the price table calls the model that served a request, as today's file has it; "" if it has not."""
        models = [
            (backend.name == record.upstream, model.price)
            for backend in self._proxy.upstreams.backends
            for model in backend.config.models
            if model.name == record.model
        ]
        return max(models)[1] if models else ""

    def _end(self, begun: _Open) -> None:
        """Charge what a request used, as far as it is known."""
        told, ask, live, planned = begun.told, begun.ask, begun.live, begun.prepared.planned
        record, then = told.record, begun.then
        usage = Usage(
            input=record.input, output=record.output, cached=min(record.cached, record.input),
            reasoning=min(record.reasoning, record.output),
        )  # fmt: skip
        savings: list[Saving] = []
        if then == RAN:
            at = _charged(record, self._config.kinds)
            at = at if begun.model.price == self._price(record) else self._moved(
                begun, at, usage, usage, begun.changed_model or "model", savings, self._price(record)
            )  # fmt: skip
            short = _shortened(usage, record, planned, begun.model)
            if short != usage:
                at = self._moved(begun, at, usage, short, begun.changed_cap or "max_output", savings, begun.model.price)
            usage = short
        elif then == CACHED:
            at = {kind: record.saved.get(kind, 0) for kind in self._config.kinds}
            savings.append(Saving(record.policy or "cache", 0, {kind: -units for kind, units in at.items()}))
        else:
            at = {
                kind: ceil(planned.amounts[kind] * self._ratios.get(kind, Fraction(1))) for kind in self._config.kinds
            }
            savings.append(Saving("limits", 0, {kind: -units for kind, units in at.items()}))
        self._metering.charge = at
        live.ms = record.ms
        live.outcome = record.outcome if then == RAN else Outcome.OK
        begun.hold.finish(Answer(usage=usage, model=record.answered, outcome=Outcome.OK))
        live.estimated = bool(record.estimated)
        content = None if live.outcome != Outcome.OK else b""
        if told.answer is not None and not record.stream and content is not None:
            content = orjson.dumps(told.answer)
        for policy in begun.policies:
            policy.after(ask, content, live)
        self._found.append(Today(
            record, then, RAN, model=begun.model.name, cap=planned.cap, units=at, estimated=then == REFUSED,
            savings=tuple(savings),
        ))  # fmt: skip

    def _moved(
        self, begun: _Open, at: Units, old: Usage, new: Usage, by: str, savings: list[Saving], price: str
    ) -> dict[str, int]:
        """A charge that is on record, changed in the proportion in which its model or its length changes it."""
        found: dict[str, int] = {}
        for meter in self._meters:
            now = meter(new, begun.model.price, "")
            try:
                was = meter(old, price, "")
            except UnknownPrice:
                was = 0
            recorded = at.get(meter.kind, 0)
            found[meter.kind] = ceil(Fraction(recorded * now, was)) if was and recorded else now
        saved = {kind: at.get(kind, 0) - units for kind, units in found.items()}
        savings.append(Saving(by, (old.output or 0) - (new.output or 0), saved))
        return found


def _shortened(usage: Usage, record: Record, planned: Planned, model: Model) -> Usage:
    """The usage of an answer that today's cap would have ended sooner; a longer one is not known."""
    if planned.cap is None or record.cap is None or planned.cap >= record.cap:
        return usage
    most = planned.choices * (planned.cap + model.bounds.hidden_reasoning)
    output = min(usage.output or 0, most)
    return replace(usage, output=output, reasoning=min(usage.reasoning or 0, output))


def _charged(record: Record, kinds: Iterable[str]) -> dict[str, int]:
    return {kind: record.units.get(kind, 0) for kind in kinds}


def _ratios(told: Iterable[Told], kinds: Iterable[str]) -> dict[str, Fraction]:
    """Of what was reserved the part that was charged, by kind."""
    reserved: Counter[str] = Counter()
    charged: Counter[str] = Counter()
    for one in told:
        for kind in kinds:
            reserved[kind] += one.record.reserved.get(kind, 0)
            charged[kind] += one.record.units.get(kind, 0) if one.record.reserved else 0
    return {kind: min(Fraction(1), Fraction(charged[kind], units)) for kind, units in reserved.items() if units}


def _assumed(record: Record, config: Config) -> Key:
    """A key of which nothing is known but its id and its path: with the file's defaults."""
    usual = config.defaults
    scopes = record.path.split("/")
    path = "/".join(scopes[: scopes.index(record.key)]) if record.key in scopes else ""
    return Key(
        id=record.key, path=path, name="", digest="", limits=usual.limits, per_user=usual.per_user,
        per_session=usual.per_session, per_tag=usual.per_tag, models=usual.models, max_input=usual.max_input,
        max_output=usual.max_output, max_reasoning=usual.max_reasoning, expires=None, revoked=False, created=0,
    )  # fmt: skip
