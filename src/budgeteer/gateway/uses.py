"""Requests that no text and cap bound: what is reserved for one, and what its answer tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import MOST, Usage
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.config import Model
from budgeteer.gateway.fields import check_addresses, check_fields
from budgeteer.gateway.forms import write_form
from budgeteer.gateway.prepared import Prepared
from budgeteer.gateway.refusal import Refused
from budgeteer.metering.call import Metering
from budgeteer.metering.failures import error_in
from budgeteer.metering.outcome import Outcome, outcome_of_status
from budgeteer.metering.reading import Reading
from budgeteer.metering.settlement import Answer, Planned
from budgeteer.prices import Price, PriceTable

NOTHING = Usage(input=0, output=0)


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a request can use.

    Attributes:
        usage: tokens and uses.
        told: JSON of an answer, or of an event -> the usage that it tells; None = none.
        price, service: name and class of service in the price tables.
        free: whether nothing is reserved or charged for it.
        exact: whether an answer that tells no usage used just this.
    """

    usage: Usage
    told: Callable[[Mapping[str, Any]], Usage | None]
    price: str
    service: str = ""
    free: bool = False
    exact: bool = False


Bounding = Callable[[Ask, Model, Metering], Bound]
"""Bounds a request at a model, as the upstream that is called has it; raises Refused where that cannot be done."""


class UseReading(Reading):
    """Reads the answer of such a request: JSON, a stream of events, or bytes such as sound.

    Args:
        body: the request, as sent.
        metering: counts the tokens of texts.
        bound: what was reserved.
    """

    def __init__(self, body: Mapping[str, Any], metering: Metering, bound: Bound) -> None:
        super().__init__("embeddings", {"stream": body.get("stream")}, metering, False)
        self._bound = bound
        self.hides = False

    @property
    def likely(self) -> int:
        """No tokens of output are seen as they come."""
        return 0

    def answer(self, status: int, content: bytes) -> Answer:
        """What is known of a response that came whole."""
        outcome = outcome_of_status(status)
        if outcome != Outcome.OK:
            return Answer(outcome=outcome)
        try:
            body = orjson.loads(content)
        except ValueError:
            body = None
        if isinstance(body, Mapping):
            self._hear(body)
        if self.error is not None and self.usage is None:
            return self._failed()
        self.done = True
        return self.at_end()

    def event(self, data: bytes) -> bool:
        """Read the data of one event, which is always passed on."""
        self.chunks += 1
        try:
            body = orjson.loads(data)
        except ValueError:
            self.done |= data.startswith(b"[DONE]")
            return True
        if isinstance(body, Mapping):
            self._hear(body)
            self.done |= str(body.get("type")).endswith((".done", ".completed")) and self.error is None
        return True

    def _hear(self, body: Mapping[str, Any]) -> None:
        self.error = self.error or error_in(body)
        try:
            told = self._bound.told(body)
        except InvalidInput:  # an impossible number
            told = None
        if told is not None:
            self.usage = told if self.usage is None else self.usage + told

    def at_end(self) -> Answer:
        """What is known of an answer that has ended, whole or cut."""
        if self.error is not None and self.usage is None:
            return self._failed()
        whole = self.done and self.error is None
        usage = self._bound.usage if self.usage is None and self._bound.exact and whole else self.usage
        return Answer(usage, outcome=Outcome.OK if whole else Outcome.CUT)


def prepare_use(ask: Ask, model: Model, metering: Metering, bounding: Bounding) -> Prepared:
    """Write the body for an upstream's model, and bound what the request can cost.

    Raises:
        Refused: the request cannot be bounded, or has a field or an address that the upstream may not get.
        UnknownPrice: money is counted and there is no price.
    """
    check_fields(ask.body, ask.operation, model.fields)
    check_addresses(ask.body, model.media)
    bound, most = bounding(ask, model, metering), ask.key.max_input
    if most is not None and (bound.usage.input or 0) > most:
        text = f"the request can be {bound.usage.input:,} tokens of input; this key allows {most:,}"
        raise Refused(400, "input_too_large", text)
    body = {**ask.body, "model": model.upstream}
    content, kind = ask.raw, "application/json"
    if ask.parts:
        content, kind = write_form(ask.parts, {"model": model.upstream})
    elif ask.changed or body != ask.body:
        content = orjson.dumps(body)
    planned = _plan(ask, metering, bound)
    likely = None
    if metering.estimator is not None:
        amounts = planned.amounts if bound.free else metering.most(bound.usage, bound.price, bound.service)
        likely, planned = planned, replace(planned, reserve=bound.usage, amounts=amounts)
    return Prepared(content, planned, likely, UseReading(body, metering, bound), False, (), kind)


def _plan(ask: Ask, metering: Metering, bound: Bound) -> Planned:
    if bound.free:
        amounts = dict.fromkeys(metering.counted, 0)
        about = (ask.dialect, ask.operation, bound.price, "", NOTHING, NOTHING, amounts)
        return Planned(*about, free=True)
    try:
        return metering.plan(
            ask.dialect, ask.operation, bound.price, bound.usage, bound.service, group=f" {ask.operation}"
        )
    except InvalidInput as error:
        raise Refused(400, "not_bounded", str(error)) from None


def price_in(metering: Metering, name: str) -> Price | None:
    """The price of a model; None if it has none, or money is not counted."""
    prices = metering.prices
    return (prices.find(name) or prices.fallback) if isinstance(prices, PriceTable) else None


def whole(value: Any) -> int | None:
    """A number that an answer tells, rounded up; None if it is none that can be."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        return None
    return -int(-value // 1)


def inside(body: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The object at a path of names; an empty one if there is none."""
    for name in names:
        value = body.get(name)
        if not isinstance(value, Mapping):
            return {}
        body = value
    return body
