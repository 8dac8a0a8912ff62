"""Which upstreams can answer a request: those that serve its model, and have what its input refers to."""

from __future__ import annotations

from budgeteer.gateway.ask import Ask
from budgeteer.gateway.config import Model
from budgeteer.gateway.refusal import Refused, shown
from budgeteer.gateway.upstream import Backend, Upstreams


def serving_for(ask: Ask, upstreams: Upstreams) -> list[tuple[Backend, Model]]:
    """The upstreams that serve the model of a request on its route, each with its form of the model.

    Raises:
        Refused: there is none, or the key may not call the model.
    """
    if ask.model not in upstreams.names:
        raise Refused(404, "model_not_found", f"there is no model {shown(ask.model)}; GET /v1/models lists them")
    if not (ask.key.allows(ask.model) or ask.key.allows(upstreams.names[ask.model])):
        raise Refused(
            403,
            "model_not_allowed",
            f"this key may not call {shown(ask.model)}; it may {', '.join(ask.key.models)}",
        )
    serving = upstreams.serving(ask.operation, ask.model)
    if not serving:
        raise Refused(404, "wrong_route", f"{ask.model!r} is not served at /v1/{ask.route}")
    return serving


def candidates_for(ask: Ask, upstreams: Upstreams) -> list[tuple[Backend, Model]]:
    """The upstreams that can answer a request, once policies have chosen its model.

    Raises:
        Refused: as ``serving_for`` does, or none has what the request refers to.
    """
    serving_for(ask, upstreams)
    serving, held = _holding(ask, ask.model, upstreams), ask.held
    if not serving and held is not None:
        raise Refused(
            400,
            "not_bounded",
            f"{ask.model} cannot read what the input refers to: that is of an answer of {held.model or 'a model'} at "
            f'the upstream {held.upstream!r}; call that model, or send the items whole, with "store": false',
        )
    return serving


def serves(ask: Ask, model: str, upstreams: Upstreams) -> bool:
    """Whether the key of a request may call this model, and an upstream can answer the request with it."""
    return ask.key.allows(model) and bool(_holding(ask, model, upstreams))


def _holding(ask: Ask, model: str, upstreams: Upstreams) -> list[tuple[Backend, Model]]:
    """The upstreams of a model that have what a request refers to, which tokens of another model do not bound."""
    serving, held = upstreams.serving(ask.operation, model), ask.held
    if held is None:
        return serving
    return [place for place in serving if place[0].name == held.upstream and held.model in ("", place[1].upstream)]
