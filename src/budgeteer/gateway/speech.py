"""Bound what spoken text costs: its characters."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from budgeteer.core.usage import Usage
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.config import Model
from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.uses import Bound, price_in
from budgeteer.metering.call import Metering


def bound_speech(ask: Ask, model: Model, metering: Metering) -> Bound:
    """The characters of the text, as UTF-16 counts them, which are never fewer than as others do.

    Raises:
        Refused: there is no text, or the model is not priced by the character: how much sound a text becomes is up to
            the model, so tokens and seconds of sound have no bound before the answer.
    """
    text = ask.body.get("input")
    if not isinstance(text, str) or not text:
        raise Refused(400, "invalid_request", "a request for speech has input, the text to speak")
    price = price_in(metering, model.price)
    if price is None and metering.prices is None:
        why = "speech is billed by characters, which only a limit of money counts; add money to kinds of [ledger]"
        raise Refused(400, "not_bounded", f"{why} in the gateway's file")
    if price is not None and "character" not in price.fees:
        why = f"{model.name} is priced by the sound that it makes, which a request does not bound"
        how = (
            f'give it a price by the character: fees.character = DOLLARS under [models."{model.price}"] of a price file'
        )
        raise Refused(400, "not_bounded", f"{why}; {how}")
    characters = len(text.encode("utf-16-le")) // 2
    said = len(text.encode()) + len(str(ask.body.get("instructions") or "").encode())
    read = ceil(said * model.bounds.margin) + model.bounds.overhead
    usage = Usage(input=read, output=0, counts=(("character", characters),))
    return Bound(usage, _told, model.price, exact=True)


def _told(body: Mapping[str, Any]) -> Usage | None:
    return None
