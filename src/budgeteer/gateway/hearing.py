"""Bound what is billed for sound that is written down or translated: its seconds, or the tokens that they can be."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from budgeteer.core.usage import Usage
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.config import Model
from budgeteer.gateway.forms import files_of
from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.uses import Bound, inside, price_in, whole
from budgeteer.metering.call import Metering
from budgeteer.metering.sounds import FORMATS, seconds_of

_LEAST = 10
"""Seconds that some providers bill at least."""
_HEARD, _WRITTEN = 10, 50
"""Tokens a second: of sound that OpenAI's models read, and of text that they can write (speech has about four)."""


def bound_hearing(ask: Ask, model: Model, metering: Metering) -> Bound:
    """The seconds of the file if the model's price has ``fees.second``, else the tokens that they can be.

    Raises:
        Refused: there is not one file, or its length cannot be read.
    """
    files = files_of(ask.parts, "file")
    if len(files) != 1:
        raise Refused(400, "invalid_request", f"the form has {len(files)} files; send one as file")
    length = seconds_of(files[0].data)
    if length is None:
        text = (
            f"the file does not say how long its sound is, or has another format than {FORMATS}; send it as wav or mp3"
        )
        raise Refused(400, "not_bounded", text)
    seconds, bounds = max(_LEAST, ceil(length)), model.bounds
    prompt = ceil(len(str(ask.body.get("prompt") or "").encode()) * bounds.margin)
    heard = _HEARD * seconds
    read, made = heard + prompt + bounds.overhead, max(bounds.max_output or 0, _WRITTEN * seconds)
    price = price_in(metering, model.price)
    if price is not None and ("second" in price.fees or not price.by_token):
        usage = Usage(input=read, output=0, counts=(("second", seconds),))
        return Bound(usage, lambda body: _seconds(body, read), model.price)
    return Bound(Usage(input=read, output=made, audio_input=heard), _tokens, model.price)


def _seconds(body: Mapping[str, Any], read: int) -> Usage | None:
    seconds = whole(inside(body, "usage").get("seconds"))
    return None if seconds is None else Usage(input=read, output=0, counts=(("second", seconds),))


def _tokens(body: Mapping[str, Any]) -> Usage | None:
    usage = inside(body, "usage")
    read, made = whole(usage.get("input_tokens")), whole(usage.get("output_tokens"))
    if read is None or made is None:
        return None
    heard = whole(inside(usage, "input_token_details").get("audio_tokens"))
    return Usage(input=read, output=made, audio_input=None if heard is None else min(heard, read))
