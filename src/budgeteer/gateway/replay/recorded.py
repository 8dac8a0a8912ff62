"""A request whose size, cap and charge come from its record: the gateway's own classes, with these values put in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from budgeteer.core.usage import Usage
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.config import Model
from budgeteer.gateway.keys import Key
from budgeteer.gateway.record import Record
from budgeteer.gateway.replay.read import Logged
from budgeteer.gateway.routes import ROUTES
from budgeteer.metering.call import Metering
from budgeteer.metering.reading import CAPS
from budgeteer.metering.settlement import Answer, Planned, Settlement

Units = Mapping[str, int]
ROUTE_OF = {about.operation: route for route, about in ROUTES.items()}
"""Operation -> path after /v1/."""
_NOTHING = Usage(input=0, output=0)
_PROMPT_FIELD = {
    "chat": "messages",
    "messages": "messages",
    "responses": "input",
    "embeddings": "input",
    "completions": "prompt",
}


class RecordedMetering(Metering):
    """Metering that takes a request's reservation and charge from its record.

    Attributes:
        known: units that were reserved for the next request; empty if the record does not say.
        same: price and cap of the request then; with another price or cap its reservation is planned as usual.
        whole: whether only the record says what the next request holds, since it makes no text.
        charge: units of the next settlement.
    """

    known: Units = {}  # noqa: RUF012
    same: tuple[str, int | None] = ("", None)
    whole: bool = False
    charge: Units = {}  # noqa: RUF012

    def plan(self, provider: str, operation: str, model: str, worst: Usage, service: str = "", **about: Any) -> Planned:
        """Plan a call; what was reserved then is reserved again where price and cap are the same.

        Records do not say what learnt limits held: that is what is learnt of the records before.
        """
        if self.whole:  # free: today's price is not asked for, since its charge is on record, too
            amounts = {kind: self.known.get(kind, 0) for kind in self.counted}
            return Planned(provider, operation, model, service, _NOTHING, _NOTHING, amounts, **about, free=True)
        planned = super().plan(provider, operation, model, worst, service, **about)
        return planned if self.estimator is not None else self._as_then(planned)

    def at_worst(self, planned: Planned) -> Planned:
        """What hard limits hold of a call."""
        if planned.free:
            return planned
        return self._as_then(super().at_worst(planned))

    def _as_then(self, planned: Planned) -> Planned:
        if not self.known or (planned.model, planned.cap) != self.same:
            return planned
        return replace(planned, amounts={kind: self.known.get(kind, units) for kind, units in planned.amounts.items()})

    def settlement(self, planned: Planned, answer: Answer, started: int = 0, ended: int = 0) -> Settlement:
        """Settle a call with the charge that was set."""
        settlement = super().settlement(planned, answer, started, ended)
        return replace(settlement, amounts=dict(self.charge))


def _placeholder(record: Record) -> Any:
    return [{"role": "user", "content": record.id}] if _PROMPT_FIELD[record.operation] == "messages" else record.id


class RecordedAsk(Ask):
    """A request with the bound and the cap of its record, and with its prompt if that was logged."""

    __slots__ = ("_bound",)

    def __init__(self, logged: Logged, key: Key) -> None:
        record = logged.record
        self._bound = record.bound or 0
        if record.operation not in CAPS:  # its body is not known: that of an embedding stands for it
            super().__init__(ROUTE_OF["embeddings"], orjson.dumps({"model": record.model, "input": record.id}), key)
            self.operation, self.route = record.operation, ROUTE_OF[record.operation]
            self.user, self.session = record.user, record.session
            return
        # without the prompts, no two requests may look equal to the cache or the loop policy
        asked = logged.asked or {_PROMPT_FIELD[record.operation]: _placeholder(record)}
        body: dict[str, Any] = {"model": record.model, "stream": bool(record.stream), **asked}
        if record.choices and record.operation in ("chat", "completions"):
            body["n"] = record.choices
        if record.cap_asked is not None and CAPS[record.operation]:
            body[CAPS[record.operation][0]] = record.cap_asked
        super().__init__(ROUTE_OF[record.operation], orjson.dumps(body), key)
        self.user, self.session = record.user, record.session

    def without_body(self) -> None:
        """Have nobody read the body, once it is known which upstreams serve the operation."""
        self.operation = "embeddings"

    def input_bound(self, model: Model) -> int:
        """The bound of the record."""
        return self._bound


def usual_cap(ask: Ask, model: Model) -> int | None:
    """The cap of a choice without policies: what the client asked for, at most what model and key allow."""
    if not CAPS[ask.operation]:
        return None
    largest = min(bound for bound in (model.bounds.max_output, ask.key.max_output) if bound is not None)
    return largest if ask.cap_asked is None else min(ask.cap_asked, largest)
