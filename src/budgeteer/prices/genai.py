"""The table shipped with the package genai-prices (extra ``prices``): some thousand models of some fifty providers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from budgeteer.errors import MissingExtra
from budgeteer.prices.price import Price, Rates
from budgeteer.prices.table import PriceTable

_FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "written": "cache_write_mtok",
    "written_long": "cache_write_1h_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_input": "input_audio_mtok",
    "audio_output": "output_audio_mtok",
}
_SERVICES = {
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast"},
}


def load(at: datetime | None = None) -> PriceTable:
    """The shipped prices.

    A model is named as its provider does, or ``provider/model`` where several sell it or none is recognised by the
    name alone. Matching is genai-prices': by patterns, so that dated names find their family.

    Args:
        at: when the calls are made, since prices change over time and some by the hour; now when None, taken anew at
            every look-up.

    Raises:
        MissingExtra: genai-prices is not installed.
    """
    try:
        from genai_prices import __version__
        from genai_prices.data_snapshot import get_snapshot
    except ImportError as error:
        raise MissingExtra("genai_prices", "prices") from error
    snapshot = get_snapshot()

    def model_of(name: str) -> Any:
        provider, slash, rest = name.partition("/")
        for provider_id, model in ((None, name), (provider, rest))[: 2 if slash else 1]:
            try:
                return snapshot.find_provider_model(model, None, provider_id, None)[1]
            except LookupError:
                continue
        return None

    @lru_cache(maxsize=1024)
    def priced(name: str, minute: int) -> Price | None:
        model = model_of(name)
        return None if model is None else _price(model, at or datetime.fromtimestamp(60 * minute, UTC))

    def find(name: str) -> Price | None:
        return priced(name, int(time.time() // 60) if at is None else 0)

    def names() -> Iterator[str]:
        for provider in snapshot.providers:
            for model in provider.models:
                yield model.id
                yield f"{provider.id}/{model.id}"

    return PriceTable(f"genai-prices {__version__}", find, names)


def _price(model: Any, at: datetime) -> Price | None:
    standard = _tiered(model.get_prices(at))
    if standard is None:
        return None
    offered = [variant.when for variant in model.price_variants or ()]
    services = {
        name: price
        for name, when in _SERVICES.items()
        if when in offered and (price := _tiered(model.get_prices(at, when))) is not None
    }
    return Price(standard.rates, standard.tiers, services)


def _tiered(prices: Any) -> Price | None:
    """Per-field tiers as one list of whole rates; None for a model that is not priced by token."""
    given = {ours: value for ours, theirs in _FIELDS.items() if (value := getattr(prices, theirs, None)) is not None}
    if "input" not in given:
        return None
    given.setdefault("output", Decimal(0))  # embeddings and the like generate nothing
    starts = sorted({tier.start for value in given.values() for tier in getattr(value, "tiers", ())})
    requests = getattr(prices, "requests_kcount", None)
    fee = Decimal(0) if requests is None else 1000 * Decimal(requests)

    def rates(start: int | None) -> Rates:
        return Rates(**{name: _at(value, start) for name, value in given.items()}, request=fee)

    return Price(rates(None), tuple((start, rates(start)) for start in starts))


def _at(value: Any, start: int | None) -> Decimal:
    """The rate with more than ``start`` input tokens."""
    if isinstance(value, Decimal):
        return value
    rate: Decimal = value.base
    for tier in value.tiers:
        if start is not None and tier.start <= start:
            rate = tier.price
    return rate
