"""Requests that their providers do not bill: tokens that are counted, and texts that OpenAI checks."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import orjson

from budgeteer.core.usage import Usage
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.config import Model
from budgeteer.gateway.uses import NOTHING, Bound, inside, whole
from budgeteer.metering.call import Metering

_FREE = ("omni-moderation", "text-moderation")
"""OpenAI's models that check texts and pictures for nothing."""


def bound_count(ask: Ask, model: Model, metering: Metering) -> Bound:
    """A count of the tokens of a request: free at Anthropic, and limited in rate there."""
    return Bound(NOTHING, lambda body: NOTHING, model.price, free=True)


def bound_moderation(ask: Ask, model: Model, metering: Metering) -> Bound:
    """A check of texts: free with OpenAI's models, else priced by the tokens of its input."""
    if model.upstream.startswith(_FREE):
        return Bound(NOTHING, lambda body: NOTHING, model.price, free=True)
    bounds = model.bounds
    read = ceil(len(orjson.dumps(ask.body)) * bounds.margin) + bounds.overhead
    pictures = sum(picture.tokens("", bounds.image) for picture in ask.unseen.pictures)
    return Bound(Usage(input=read + pictures, output=0), _told, model.price)


def _told(body: Mapping[str, Any]) -> Usage | None:
    usage = inside(body, "usage")
    read = whole(usage.get("prompt_tokens", usage.get("total_tokens")))
    return None if read is None else Usage(input=read, output=0)
