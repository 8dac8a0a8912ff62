"""What is sent to an upstream for a request, and the most that it can cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from budgeteer.core.usage import count
from budgeteer.gateway.ask import BUDGETS, EFFORTS, SWITCHES, Ask
from budgeteer.gateway.config import Model
from budgeteer.gateway.fields import check_addresses, check_fields
from budgeteer.gateway.keys import Key
from budgeteer.gateway.refusal import Refused, shown
from budgeteer.metering.call import Metering
from budgeteer.metering.estimate import predicted, totals
from budgeteer.metering.reading import CAPS, Reading, ask_for_usage
from budgeteer.metering.settlement import Planned


@dataclass(frozen=True, slots=True)
class Prepared:
    """One attempt before it is made; ``notes`` are for the header, such as the cap that was chosen."""

    content: bytes
    planned: Planned
    reading: Reading
    notes: tuple[str, ...]


def prepare(ask: Ask, model: Model, metering: Metering, dialect_name: str, most: int | None = None) -> Prepared:
    """What to send to an upstream's model, and what it can cost.

    Args:
        ask: the request.
        model: of the upstream.
        metering: for the units.
        dialect_name: the provider's, for records.
        most: output tokens of a choice that the budget leaves; None = as asked.

    Raises:
        Refused: it cannot be bounded, or is above a cap of the key.
        UnknownPrice: money is counted and the model has no price.
    """
    operation, key = ask.operation, ask.key
    check_fields(ask.body, operation, model.fields)
    if ask.unseen.pictures or ask.unseen.hidden:
        check_addresses(ask.body, model.media)
    body = dict(ask.body)
    changed = ask.changed
    if body["model"] != model.upstream:
        body["model"], changed = model.upstream, True
    read = ask.input_bound(model)
    if key.max_input is not None and read > key.max_input:
        raise Refused(
            400,
            "input_too_large",
            f"the request can be {read:,} tokens of input, since bytes bound tokens; this key allows {key.max_input:,}",
        )
    made, choices, cap = 0, 1, None
    notes: tuple[str, ...] = ()
    if operation == "embeddings":
        pass
    else:
        given = {name: count(name, body[name]) for name in CAPS[operation] if body.get(name) is not None}
        largest = min(bound for bound in (model.bounds.max_output, key.max_output) if bound is not None)
        asked = min(given.values()) if given else largest
        if not ask.tightens:
            _check_cap(ask, asked, model)
        cap = max(1, min(bound for bound in (asked, largest, ask.cap, most) if bound is not None))
        if cap == largest and (not given or asked > largest):
            notes = (f"cap={cap}",)
        own = model.cap if operation == "chat" else CAPS[operation][0]
        for name in CAPS[operation]:  # the server may not know the others, or refuse them
            if name != own and name in body:
                del body[name]
                changed = True
        if body.get(own) != cap:
            body[own], changed = cap, True
        choices, ask.sent = ask.choices, cap
        made = choices * (cap + model.bounds.hidden_reasoning + predicted(body))
        changed = _limit_reasoning(body, key) or changed
    hides = ask_for_usage(operation, body)
    service = body.get("service_tier")
    worst = totals(body, read, made, heard=bool(ask.unseen.hidden))
    planned = metering.plan(
        dialect_name,
        operation,
        model.price,
        worst,
        service if isinstance(service, str) else "",
        cap=cap,
        choices=choices,
    )
    content = orjson.dumps(body) if changed or hides else ask.raw
    reading = Reading(operation, body, metering, hides)
    reading.hides |= model.bounds.hidden_reasoning > 0
    return Prepared(content, planned, reading, notes)


def _check_cap(ask: Ask, asked: int, model: Model) -> None:
    """Refuse a cap above what the model that was asked for may make; one that is only above another's is lowered."""
    largest, of_key = ask.largest or model.bounds.max_output, ask.key.max_output
    if of_key is not None and asked > of_key:
        raise Refused(
            400,
            "output_too_large",
            f"{asked:,} tokens of output are asked for; this key may make {of_key:,} (max_output of the key)",
        )
    if largest is not None and asked > largest:
        name = ask.body["model"]
        raise Refused(
            400,
            "output_too_large",
            f"{asked:,} tokens of output are asked for; {name} may make {largest:,} "
            "here: raise max_output of this model in the gateway's TOML file, or ask for less",
        )


def _limit_reasoning(body: dict[str, Any], key: Key) -> bool:
    """Lower budgets of thinking to the key's; whether that changed the body.

    Raises:
        Refused: the key allows none, and some is asked for by an effort or a switch.
    """
    most = key.max_reasoning
    if most is None:
        return False
    changed = False
    for place, name in BUDGETS:
        value = _at(body, place, name)
        if value is not None and not (type(value) is int and 0 <= value <= most):  # below 0 some servers take for ever
            if place:
                body[place] = {**body[place], name: most}
            else:
                body[name] = most
            changed = True
    if most > 0:
        return changed
    for place, name in (*EFFORTS, *SWITCHES):
        value = _at(body, place, name)
        if value in _OFF or (place == "output_config" and _at(body, "thinking", "type") == "disabled"):
            continue
        raise Refused(
            400,
            "reasoning_not_allowed",
            f"{place + '.' if place else ''}{name} {shown(value)} is asked for; this key allows no reasoning",
        )
    return changed


_OFF = (None, False, "none", "disabled")


def _at(body: Mapping[str, Any], place: str, name: str) -> Any:
    """A field of the body, or of an object in it."""
    outer = body.get(place) if place else body
    return outer.get(name) if isinstance(outer, Mapping) else None
