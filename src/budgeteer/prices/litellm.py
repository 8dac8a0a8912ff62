"""LiteLLM's price file, ``model_prices_and_context_window.json``: dollars per token, as binary floats in text.

Models that are priced by what is not counted here (video, pages) are left out, so that asking for one is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.prices.price import Price, Rates
from budgeteer.prices.table import PriceTable, of

_FIELDS = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached": "cache_read_input_token_cost",
    "written": "cache_creation_input_token_cost",
    "written_long": "cache_creation_input_token_cost_above_1hr",
    "reasoning": "output_cost_per_reasoning_token",
    "audio_input": "input_cost_per_audio_token",
    "audio_output": "output_cost_per_audio_token",
    "request": "input_cost_per_request",
}
_USES = {
    "code_session": ("code_interpreter_cost_per_session", 1),
    "file_search": ("file_search_cost_per_1k_calls", 1000),
}
"""Fees: the field, and of how many uses it is."""
_ALONE = {
    "audio_speech": ("character", ("input_cost_per_character",)),
    "audio_transcription": ("second", ("input_cost_per_second", "output_cost_per_second")),
    "image_generation": ("image", ("output_cost_per_image", "input_cost_per_image")),
    "rerank": ("search_unit", ("input_cost_per_query",)),
}
"""Mode of a model -> its fee, and the fields that may hold it, the first of them that is not 0."""
_SEARCH = "search_context_cost_per_query"
"""The fee of a search, by how much of the found pages is read; the dearest counts."""
_SERVICES = {"batch": "_batches", "flex": "_flex", "priority": "_priority"}
_TIER = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")
_FLOAT = Context(prec=15)
"""Digits that a binary float keeps of a decimal: 4.0000000000000003e-07 was written 4e-07."""


def load(path: str | Path) -> PriceTable:
    """Read the file. Names are as LiteLLM has them, some with the provider before a slash.

    Raises:
        InvalidInput: the file is missing or has another format, or an entry has an impossible price.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            data = json.load(file, parse_float=Decimal)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"prices {str(path)!r} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise InvalidInput(f"prices {str(path)!r}: not a JSON object of models")
    prices: dict[str, Price] = {}
    for model, entry in data.items():
        if model == "sample_spec" or not isinstance(entry, dict):
            continue
        try:
            price = _price(entry)
        except InvalidInput as error:
            raise InvalidInput(f"prices {str(path)!r}, model {model!r}: {error}") from None
        if price is not None:
            prices[model] = price
    return of(prices, str(path))


def _price(entry: Mapping[str, Any]) -> Price | None:
    standard, fees = _of_service(entry, ""), _fees(entry)
    if standard is None:
        alone = bool(fees) and entry.get("mode") in _ALONE
        return Price(Rates(input=Decimal(0), output=Decimal(0)), fees=fees, by_token=False) if alone else None
    services = {
        name: Price(price.rates, price.tiers, fees=fees)
        for name, end in _SERVICES.items()
        if (price := _of_service(entry, end)) is not None
    }
    return Price(standard.rates, standard.tiers, services, fees)


def _fees(entry: Mapping[str, Any]) -> dict[str, Decimal]:
    """Dollars a use."""
    fees = {name: _dollars(key, entry[key]) / uses for name, (key, uses) in _USES.items() if entry.get(key) is not None}
    if entry.get("mode") in _ALONE:
        name, keys = _ALONE[entry["mode"]]
        if (key := next((key for key in keys if entry.get(key)), None)) is not None:
            fees[name] = _dollars(key, entry[key])
    search = entry.get(_SEARCH)
    if search:
        sizes = search.values() if isinstance(search, Mapping) else [search]
        fees["web_search"] = max(_dollars(_SEARCH, value) for value in sizes)
    return fees


def _of_service(entry: Mapping[str, Any], end: str) -> Price | None:
    base = _rates(entry, "", end)
    if base is None:
        return None
    tiers: dict[int, Rates] = {}
    for key in entry:
        if (match := _TIER.fullmatch(key)) is not None:
            # a class of service without a rate for long prompts has the ordinary one
            dearer = _rates(entry, f"_above_{match[1]}k_tokens", end) or _rates(entry, f"_above_{match[1]}k_tokens", "")
            if dearer is not None:
                tiers[int(match[1]) * 1000] = dearer
    if not end:
        # what a tier leaves out costs what its input does: nothing is taken from the model's own rates but the output
        for tier in entry.get("tiered_pricing") or ():
            rates = _rates({"output_cost_per_token": entry.get("output_cost_per_token"), **tier}, "", "")
            if rates is not None and "range" in tier:
                tiers[int(tier["range"][0])] = rates
    if 0 in tiers:
        base = tiers.pop(0)
    return Price(base, tuple(sorted(tiers.items(), key=lambda item: item[0])))


def _rates(entry: Mapping[str, Any], above: str, end: str) -> Rates | None:
    """The rates of a tier and class of service; None without both an input and an output rate."""
    rates: dict[str, Decimal] = {}
    for name, key in _FIELDS.items():
        # a part without a rate of this tier and class has that of the tier, then the ordinary one
        for tail in (f"{above}{end}", above, "") if name not in ("input", "output") else (f"{above}{end}",):
            value = entry.get(f"{key}{tail}")
            if value is not None:
                rates[name] = _per_million(key, value)
                break
    if "input" not in rates or "output" not in rates:
        return None
    return Rates(**rates)


def _per_million(key: str, value: Any) -> Decimal:
    return _dollars(key, value).scaleb(6)


def _dollars(key: str, value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, Decimal | int):
        raise InvalidInput(f"{key} is {value!r}, not a number")
    return _FLOAT.create_decimal(value)
