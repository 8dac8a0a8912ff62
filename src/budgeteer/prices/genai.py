"""The table shipped with the package genai-prices (extra ``prices``): some thousand models of some fifty providers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from budgeteer.core.errors import MissingExtra
from budgeteer.prices.price import PICTURES, Price, Rates
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
_USES = {"web_search": "web_searches_kcount", "file_search": "storage_searches_kcount"}
"""Fees: dollars a thousand uses."""
_ALONE = {"character": ("input_mchars", 10**6), "second": ("input_audio_hours", 3600)}
"""Fees of models that are not priced by the token: the field, and of how many uses it is."""
_MAKERS = {
    "anthropic": ("claude-",),
    "cohere": ("command", "c4ai-", "embed-", "rerank-"),
    "deepseek": ("deepseek-",),
    "google": ("gemini-", "gemma-"),
    "meta": ("muse-",),
    "minimax": ("minimax-",),
    "mistral": (
        "codestral", "devstral", "magistral", "ministral", "mistral", "mixtral", "open-mi", "pixtral", "voxtral",
    ),
    "moonshotai": ("kimi-", "moonshot-"),
    "openai": (
        "ada", "babbage", "chatgpt-", "codex-", "computer-use-", "curie", "davinci", "gpt-", "o1", "o3", "o4", "text-",
        "tts-", "whisper-",
    ),
    "perplexity": ("r1-1776", "sonar", "llama-3.1-sonar-"),
    "voyageai": ("voyage-",),
    "x-ai": ("grok-",),
}  # fmt: skip
"""Who made models whose names begin so."""
_CLOSED = ("anthropic", "google", "openai", "x-ai")
"""Makers whose patterns may be followed where only others have the name: what resembles a model of theirs is theirs."""
_SERVICES = {
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast"},
}


def load(at: datetime | None = None) -> PriceTable:
    """The shipped prices.

    A model is named ``provider/model``, or by its name alone. A name alone means the model as its maker sells it
    (``text-embedding-3-small`` is OpenAI's, even if Azure sells it, too), or else as its only seller does. If several
    providers sell it and its maker is not known, it has no price, and the error lists the names to write. Names that
    are not in the table are matched by the patterns of genai-prices, so that a dated name gets the price of its family.

    Args:
        at: time of the calls, since prices change over time and some by the hour; None = the time of each look-up.

    Raises:
        MissingExtra: genai-prices is not installed.
    """
    try:
        from genai_prices import __version__
        from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
    except ImportError as error:
        raise MissingExtra("genai_prices", "prices") from error
    snapshot = get_snapshot()

    catalogue = _Catalogue(snapshot.providers, find_provider_by_id)

    @lru_cache(maxsize=1024)
    def priced(name: str, minute: int) -> Price | None:
        when = at or datetime.fromtimestamp(60 * minute, UTC)
        models = catalogue.models(name)
        return next((price for model in models if (price := _price(model, when)) is not None), None)

    def find(name: str) -> Price | None:
        return priced(name, int(time.time() // 60) if at is None else 0)

    return PriceTable(f"genai-prices {__version__}", find, catalogue.names, why=catalogue.why)


class _Catalogue:
    """Whose model a name is.

    Args:
        providers: of genai-prices.
        provider_of: its rule for a provider's id or another name of it; without a cache, since names are anybody's.
    """

    def __init__(self, providers: list[Any], provider_of: Callable[[list[Any], str], Any]) -> None:
        self.providers, self.provider_of = providers, provider_of
        self.ids = {provider.id: {model.id.lower(): model for model in provider.models} for provider in providers}
        self.sellers: dict[str, list[str]] = {}
        for provider, models in self.ids.items():
            for name in models:
                self.sellers.setdefault(name, []).append(provider)

    def models(self, name: str) -> Iterator[Any]:
        """What a name may mean; the first of these with a price has its price."""
        name = name.lower()
        first, slash, rest = name.partition("/")
        if slash and rest in self.ids.get(first, {}):
            yield self.ids[first][rest]
        maker, sellers = _maker(name), self._selling(name)
        if maker in sellers:
            yield self.ids[maker][name]
        elif len(sellers) == 1:
            yield self.ids[sellers[0]][name]
        elif sellers and maker in _CLOSED and (model := self._match(maker, name)) is not None:
            yield model
        if slash and (model := self._match(first, rest)) is not None:
            yield model
        if name not in self.sellers:
            matching = (p for p in self.providers if p.model_match is not None and p.model_match.is_match(name))
            provider = next(matching, None)
            if provider is not None and (model := provider.find_model(name, all_providers=self.providers)) is not None:
                yield model

    def _match(self, provider_id: str, name: str) -> Any:
        """A provider's model of this name, or of a family with this name."""
        provider = self.provider_of(self.providers, provider_id)
        if provider is None:
            return None
        return self.ids[provider.id].get(name) or provider.find_model(name, all_providers=self.providers)

    def _selling(self, name: str) -> list[str]:
        """Providers that sell a model of exactly this name by the token, character or second."""
        return [provider for provider in self.sellers.get(name, ()) if _is_priced(self.ids[provider][name])]

    def why(self, name: str) -> str | None:
        """What to write instead of a name that several sell, or that nobody sells by what is counted here."""
        name = name.lower()
        sellers = self._selling(name)
        if len(sellers) > 1:
            return f"several sell it; write {' or '.join(repr(f'{seller}/{name}') for seller in sellers)}."
        first, _, rest = name.partition("/")
        if name in self.sellers or rest in self.ids.get(first, {}):
            return "the table has it, but without a price by the token, character or second."
        return None

    def names(self) -> Iterator[str]:
        """Names that have a price, each as it can be written."""
        for provider, models in self.ids.items():
            for name, model in models.items():
                if _is_priced(model):
                    yield f"{provider}/{model.id}"
                    selling = self._selling(name)
                    if len(selling) == 1 or _maker(name) in selling:
                        yield model.id


def _maker(name: str) -> str | None:
    """The provider that made a model whose name gives it away."""
    return next((maker for maker, begins in _MAKERS.items() if name.startswith(begins)), None)


def _is_priced(model: Any) -> bool:
    fields = ("input_mtok", *(key for key, _ in _ALONE.values()))
    prices = model.prices if isinstance(model.prices, list) else [model.prices]
    return any(getattr(getattr(price, "prices", price), key, None) is not None for price in prices for key in fields)


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
    if (drawn := _of_pictures(model.get_prices(at))) is not None:
        services[PICTURES] = drawn
    return Price(standard.rates, standard.tiers, services, standard.fees, standard.by_token)


def _of_pictures(prices: Any) -> Price | None:
    """The price of a model where it makes pictures; None if their tokens have no rates of their own."""
    text, read, made = (getattr(prices, f"{name}_mtok", None) for name in ("input", "input_image", "output_image"))
    if text is None or (read is None and made is None):
        return None
    whole = _tiered(prices)
    if whole is None:
        return None
    more = max(Decimal(0), _at(text if read is None else read, None) - _at(text, None)).scaleb(-6)
    rate = whole.rates.output if made is None else _at(made, None)
    rates = replace(whole.rates, output=rate, reasoning=None, audio_output=None)
    return Price(rates, fees={**whole.fees, "picture_token": more})


def _tiered(prices: Any) -> Price | None:
    """Per-field tiers as one list of whole rates; None for a model without a price by token, character or second."""
    given = {ours: value for ours, theirs in _FIELDS.items() if (value := getattr(prices, theirs, None)) is not None}
    if "input" not in given:
        alone = {
            name: _at(value, None) / uses
            for name, (key, uses) in _ALONE.items()
            if (value := getattr(prices, key, None)) is not None
        }
        return Price(Rates(input=Decimal(0), output=Decimal(0)), fees=alone, by_token=False) if alone else None
    given.setdefault("output", Decimal(0))  # embeddings and the like generate nothing
    starts = sorted({tier.start for value in given.values() for tier in getattr(value, "tiers", ())})
    requests = getattr(prices, "requests_kcount", None)
    fee = Decimal(0) if requests is None else 1000 * Decimal(requests)

    def rates(start: int | None) -> Rates:
        return Rates(**{name: _at(value, start) for name, value in given.items()}, request=fee)

    fees = {
        name: _at(value, None) / 1000
        for name, key in _USES.items()
        if (value := getattr(prices, key, None)) is not None
    }
    return Price(rates(None), tuple((start, rates(start)) for start in starts), fees=fees)


def _at(value: Any, start: int | None) -> Decimal:
    """The rate with more than ``start`` input tokens."""
    if isinstance(value, Decimal):
        return value
    rate: Decimal = value.base
    for tier in value.tiers:
        if start is not None and tier.start <= start:
            rate = tier.price
    return rate
