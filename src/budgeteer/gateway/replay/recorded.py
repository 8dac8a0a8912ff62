"""Stand-ins for what records do not have: a request of which the size and the cap are known, and its metering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from budgeteer.core.usage import Usage
from budgeteer.gateway.ask import ROUTES, Ask
from budgeteer.gateway.config import Model
from budgeteer.gateway.keys import Key
from budgeteer.gateway.record import Record
from budgeteer.gateway.replay.read import Told
from budgeteer.metering.call import Metering
from budgeteer.metering.reading import CAPS
from budgeteer.metering.settlement import Answer, Planned, Settlement

Units = Mapping[str, int]
ROUTE_OF = {operation: route for route, (operation, _) in ROUTES.items()}
"""Operation -> path after /v1/."""
_SAYS = {
    "chat": "messages",
    "messages": "messages",
    "responses": "input",
    "embeddings": "input",
    "completions": "prompt",
}


class RecordedMetering(Metering):
    """Metering of requests whose reservation and charge are on record.

    Attributes:
        known: units that were reserved for the next request; empty: plan them.
        same: price and cap of that request then; of another price or cap it is planned.
        charge: units of the next settlement.
    """

    known: Units = {}  # noqa: RUF012
    same: tuple[str, int | None] = ("", None)
    charge: Units = {}  # noqa: RUF012

    def plan(self, provider: str, operation: str, model: str, worst: Usage, service: str = "", **about: Any) -> Planned:
        """As the real one; what was reserved then is exact, where the model and the cap are those of then."""
        planned = super().plan(provider, operation, model, worst, service, **about)
        if not self.known or (model, planned.cap) != self.same:
            return planned
        return replace(planned, amounts={kind: self.known.get(kind, units) for kind, units in planned.amounts.items()})

    def settlement(self, planned: Planned, answer: Answer, started: int = 0, ended: int = 0) -> Settlement:
        """As the real one, with the charge that is known."""
        found = super().settlement(planned, answer, started, ended)
        return replace(found, amounts=dict(self.charge))


def _said(record: Record) -> Any:
    return [{"role": "user", "content": record.id}] if _SAYS[record.operation] == "messages" else record.id


class RecordedAsk(Ask):
    """A request of which the record knows the size and the cap, and the log perhaps what was asked."""

    __slots__ = ("_bound",)

    def __init__(self, told: Told, key: Key) -> None:
        record = told.record
        self._bound = record.bound or 0
        # no two requests are the same, as far as nobody knows what was asked
        asked = told.asked or {_SAYS[record.operation]: _said(record)}
        body: dict[str, Any] = {"model": record.model, "stream": bool(record.stream), **asked}
        if record.choices and record.operation in ("chat", "completions"):
            body["n"] = record.choices
        if record.cap_asked is not None and CAPS[record.operation]:
            body[CAPS[record.operation][0]] = record.cap_asked
        super().__init__(ROUTE_OF[record.operation], orjson.dumps(body), key)
        self.user, self.session = record.user, record.session

    def input_bound(self, model: Model) -> int:
        """As it was bounded then."""
        return self._bound


def usual_cap(ask: Ask, model: Model) -> int | None:
    """The cap of a choice without policies: as asked for, else the largest there is."""
    if not CAPS[ask.operation]:
        return None
    largest = min(one for one in (model.bounds.max_output, ask.key.max_output) if one is not None)
    return largest if ask.cap_asked is None else min(ask.cap_asked, largest)
