"""What is sent to an upstream for a request, and the most that it can cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from budgeteer.core.bisection import largest
from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.bounding import BOUNDINGS
from budgeteer.gateway.config import Model
from budgeteer.gateway.fields import check_addresses, check_fields
from budgeteer.gateway.keys import Key
from budgeteer.gateway.learnt import Learnt, default_cap, group_of
from budgeteer.gateway.prepared import Prepared
from budgeteer.gateway.refusal import Refused, shown
from budgeteer.gateway.translate.fields import check_translated
from budgeteer.gateway.uses import prepare_use
from budgeteer.metering.call import Metering
from budgeteer.metering.estimate import beyond, totals, unmeasured, writable
from budgeteer.metering.reading import CAPS, Reading, ask_for_usage
from budgeteer.metering.settlement import Planned
from budgeteer.metering.thinking import BUDGETS, EFFORTS, LEAST_TASK, OFF, SWITCHES, TASK, at, put


def prepare(
    ask: Ask, model: Model, metering: Metering, dialect_name: str, most: int | None = None, learnt: Learnt | None = None
) -> Prepared:
    """Write the body for an upstream's model, and bound what it can cost.

    Args:
        ask: the request.
        model: the model, as the upstream that is called has it.
        metering: counts the units.
        dialect_name: "openai" or "anthropic", for records.
        most: output tokens a choice that the budget still covers; None = no further limit.
        learnt: what was learnt of answers, for the caps of requests without one; None = nothing.

    Raises:
        Refused: the request cannot be bounded, has a field or an address that the upstream may not get, or is above a
            cap of the key or the model.
        UnknownPrice: money is counted and the model has no price.
    """
    operation, key = ask.operation, ask.key
    if operation in BOUNDINGS:
        return prepare_use(ask, model, metering, BOUNDINGS[operation])
    check_fields(ask.body, operation, model.fields)
    if model.translated:
        check_translated(ask.body, operation)
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
    made, choices, cap, chose_cap = 0, 1, 0, False
    notes: tuple[str, ...] = ()
    if operation == "embeddings":
        pass
    else:
        given = ask.cap_asked
        largest = min(bound for bound in (model.bounds.max_output, key.max_output) if bound is not None)
        chose_cap = given is None
        asked = default_cap(model, body, learnt) if given is None else given
        if given is not None and not ask.tightens:
            _check_cap(ask, asked, model)
        cap = max(1, min(bound for bound in (asked, largest, ask.cap, most) if bound is not None))
        if cap == min(asked, largest) and (given is None or asked > largest):
            notes = (f"cap={cap}",)
        own_cap = model.cap if operation == "chat" else CAPS[operation][0]
        for name in CAPS[operation]:  # the server may ignore or refuse caps by other names
            if name != own_cap and name in body:
                del body[name]
                changed = True
        if body.get(own_cap) != cap:
            body[own_cap], changed = cap, True
        choices, ask.sent = ask.choices, cap
        changed = _limit_reasoning(body, key) or changed
        made = choices * (cap + beyond(body, model.bounds))
    # a strict server gets what the client sent, and refuses or says what it likes
    hides = model.conduct.stream_options and ask_for_usage(operation, body)
    service = body.get("service_tier")
    content = orjson.dumps(body) if changed or hides else ask.raw
    written = writable(f"{model.upstream} {model.price}", lambda: content)
    worst = totals(body, read, made, ask.unseen, written)
    likely = None
    try:
        planned = metering.plan(
            dialect_name,
            operation,
            model.price,
            worst,
            service if isinstance(service, str) else "",
            cap=cap or None,
            choices=choices,
            group=group_of(cap),
            hint=unmeasured(ask.unseen, model.bounds, model.upstream, f"{model.name} in the gateway's file"),
        )
        if metering.estimator is not None:
            likely, planned = planned, metering.at_worst(planned)
    except InvalidInput as error:
        raise Refused(400, "not_bounded", str(error)) from None
    reading = Reading(operation, body, metering, hides, model.conduct.bills_cost, model.bounds)
    reading.hides |= model.bounds.hidden_reasoning > 0
    return Prepared(content, planned, likely, reading, chose_cap, notes)


def _check_cap(ask: Ask, asked: int, model: Model) -> None:
    """Refuse a cap above that of the key, or of the model that was asked for.

    Where another model is called, a cap above that model's own is lowered later instead.
    """
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
    """Lower the body's reasoning budgets to the key's ``max_reasoning``; whether the body was changed.

    Raises:
        Refused: the key allows no reasoning, and an effort or a switch asks for it.
    """
    most = key.max_reasoning
    if most is None:
        return False
    changed = False
    for path in BUDGETS:
        value = at(body, path)
        largest = max(most, LEAST_TASK) if path in TASK else most
        if value is not None and not (type(value) is int and 0 <= value <= largest):  # some take -1 for "no limit"
            put(body, path, largest)
            changed = True
    if most > 0:
        return changed
    for path in (*EFFORTS, *SWITCHES):
        value = at(body, path)
        if value in OFF or (path[0] == "output_config" and at(body, ("thinking", "type")) == "disabled"):
            continue
        raise Refused(
            400,
            "reasoning_not_allowed",
            f"{'.'.join(path)} {shown(value)} is asked for; this key allows no reasoning",
        )
    return changed


def longest(planned: Planned, covered: Callable[[Usage], bool]) -> int:
    """The output tokens a choice, at most its cap, with which a call is still covered; 0 if it never is.

    Args:
        planned: the call at its cap.
        covered: whether the budget covers such a usage at most. By bisection, as prices have steps.
    """
    cap = planned.cap or 0
    hidden = (planned.worst.output or 0) // planned.choices - cap

    def fits(tokens: int) -> bool:
        made = planned.choices * (tokens + hidden)
        return covered(replace(planned.worst, output=made, audio_output=planned.worst.audio_output and made))

    return largest(fits, cap)
