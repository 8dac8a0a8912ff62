"""Bound what pictures cost that a model makes: by the piece, or by the tokens of their size and quality."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil
from typing import Any

from budgeteer.core.usage import Usage, count
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.config import Model
from budgeteer.gateway.forms import files_of
from budgeteer.gateway.refusal import Refused, shown
from budgeteer.gateway.uses import Bound, inside, price_in, whole
from budgeteer.metering.call import Metering
from budgeteer.prices.price import PICTURES

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_KNOWN = re.compile(r"gpt-image-(1|1-mini|1\.5|2)(-\d{4}-\d{2}-\d{2})?|chatgpt-image-latest")
"""Models whose tokens are known by size and quality."""
_GRID = {"low": 16, "medium": 48, "high": 96}
"""Quality -> tokens along a side: a picture has the square of them, times (2 + its megapixels) / 4, at most."""
_LEAST = {"low": 408, "medium": 1584, "high": 6240}
"""Quality -> tokens of a picture of the first of these models, at the dearest of its sizes."""
_PIXELS = 8_294_400
"""Pixels of the largest picture."""
_PARTIAL = 100
"""Tokens of a picture that is shown before it is ready."""
_MOST = 100
"""Pictures of a request at most."""


def bound_drawing(ask: Ask, model: Model, metering: Metering) -> Bound:
    """The pictures of a request: by the piece if the price has ``fees.image``, else by their tokens.

    A price of the size and quality counts before that of the model: ``hd/1024x1792/dall-e-3``, ``512x512/dall-e-2``.

    Raises:
        Refused: it has no prompt, or how many tokens a picture of the model has is not known.
    """
    body, bounds = ask.body, model.bounds
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise Refused(400, "invalid_request", "a request for pictures has prompt, a text")
    n = max(1, count("n", body.get("n") or 1, _MOST))
    sent = len(files_of(ask.parts, "image", "image[]", "mask")) if ask.parts else 0
    if ask.operation == "image_edits" and not sent:
        raise Refused(400, "invalid_request", "an edit has at least one file named image")
    size, quality = str(body.get("size") or "auto"), str(body.get("quality") or "auto")
    name = model.price
    if metering.prices is not None:
        name = metering.prices.first_known((f"{quality}/{size}/{name}", f"{size}/{name}", name))
    price = price_in(metering, name)
    read = ceil(len(prompt.encode()) * bounds.margin) + bounds.overhead + sent * bounds.image
    if price is not None and "image" in price.fees:
        piece = Usage(input=read, output=0, counts=(("image", n),))
        return Bound(piece, lambda answer: _pieces(answer, read), name, exact=False)
    if metering.prices is None or price is not None:
        made = n * (
            _tokens(model, size, quality) + _PARTIAL * count("partial_images", body.get("partial_images") or 0, 10)
        )
    else:
        made = 0  # it has no price at all, which is said when it is looked up
    service = PICTURES if price is not None and PICTURES in price.services else ""
    counts = (("picture_token", sent * bounds.image),) if service and sent else ()
    return Bound(
        Usage(input=read, output=made, counts=counts), lambda answer: _usage(answer, bool(service)), name, service
    )


def _tokens(model: Model, size: str, quality: str) -> int:
    """Tokens of a picture at most."""
    if not _KNOWN.fullmatch(model.upstream.rpartition("/")[2]):
        raise Refused(
            400,
            "not_bounded",
            f"how many tokens a picture of {model.name} has is not known; give it a price by the piece: "
            f'fees.image = DOLLARS under [models."{model.price}"] of a price file of the gateway',
        )
    grade = quality if quality in _GRID else "high"
    match = _SIZE.fullmatch(size)
    if match is None and size != "auto":
        raise Refused(400, "invalid_request", f"size is {shown(size)}; give WIDTHxHEIGHT or auto")
    pixels = _PIXELS if match is None else int(match[1]) * int(match[2])
    return max(_LEAST[grade], -(-(_GRID[grade] ** 2 * (2_000_000 + pixels)) // 4_000_000))


def _pieces(body: Mapping[str, Any], read: int) -> Usage | None:
    """The pictures of an answer, or the one that an event completes."""
    data = body.get("data")
    made = len(data) if isinstance(data, list) else int(str(body.get("type")).endswith(".completed"))
    return Usage(input=read, output=0, counts=(("image", made),)) if made else None


def _usage(body: Mapping[str, Any], apart: bool) -> Usage | None:
    """The tokens that an answer tells; ``apart``: those of pictures that were read cost more."""
    usage = inside(body, "usage")
    read, made = whole(usage.get("input_tokens")), whole(usage.get("output_tokens"))
    if read is None or made is None:
        return None
    pictures = whole(inside(usage, "input_tokens_details").get("image_tokens"))
    counts = (("picture_token", min(pictures, read)),) if apart and pictures is not None else ()
    return Usage(input=read, output=made, counts=counts)
