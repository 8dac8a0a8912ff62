"""Bound what a reranker bills: search units (Cohere), or tokens of the query with each document (Jina and others)."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import orjson

from budgeteer.core.usage import Usage
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.config import Model
from budgeteer.gateway.refusal import Refused, shown
from budgeteer.gateway.uses import Bound, inside, price_in, whole
from budgeteer.metering.call import Metering

_DOCUMENTS = 100
"""Documents of a search unit."""
_CHUNK, _QUERY = 500, 250
"""Tokens of a document, its query included, that count as one; a longer one counts as several. A query takes at most
half of them."""
_AROUND = 16
"""Tokens that a model adds around a query and a document, at most."""
_MEDIA = frozenset(("image", "image_url", "url", "video", "audio", "file"))


def bound_rerank(ask: Ask, model: Model, metering: Metering) -> Bound:
    """The search units of a request if the model's price has them, and the tokens that its bytes bound.

    Raises:
        Refused: query or documents are missing, or no texts.
    """
    query, documents = ask.body.get("query"), ask.body.get("documents")
    if not isinstance(query, str) or not isinstance(documents, list) or not documents:
        raise Refused(400, "invalid_request", "a rerank request has query, a text, and documents, a list of texts")
    asked = len(query.encode())
    sizes = [_size(document) for document in documents]
    bounds = model.bounds
    read = ceil(sum(size + asked + _AROUND for size in sizes) * bounds.margin) + bounds.overhead
    room = _CHUNK - min(_QUERY, asked)
    units = -(-sum(max(1, -(-size // room)) for size in sizes) // _DOCUMENTS)
    price = price_in(metering, model.price)
    by_unit = price is not None and "search_unit" in price.fees
    usage = Usage(input=read, output=0, counts={"search_unit": units} if by_unit else ())  # type: ignore[arg-type]

    def told(body: Mapping[str, Any]) -> Usage | None:
        billed, used = inside(body, "meta", "billed_units"), inside(body, "usage")
        tokens = whole(used.get("total_tokens", used.get("prompt_tokens", billed.get("input_tokens"))))
        if not by_unit:
            return None if tokens is None else Usage(input=tokens, output=0)
        searched = whole(billed.get("search_units"))
        if searched is None:
            return None
        counts = (("search_unit", searched),)
        return Usage(input=read if tokens is None else tokens, output=0, counts=counts)

    return Bound(usage, told, model.price)


def _size(document: Any) -> int:
    """Bytes of a document.

    Raises:
        Refused: it is no text, and no object of texts.
    """
    if isinstance(document, str):
        return len(document.encode())
    if not isinstance(document, Mapping) or document.keys() & _MEDIA:
        text = (
            f"a document is {shown(document)}; give texts, or objects of texts: nothing bounds pictures and addresses"
        )
        raise Refused(400, "not_bounded", text)
    return len(orjson.dumps(document))
