"""Your own prices, as TOML.

[models."my-model"]             # dollars per million tokens
input = 2.50
output = 10
cached = 1.25                   # also: written, written_long, reasoning, audio_input, audio_output, request

[[models."my-model".tiers]]     # more than so many input tokens: all tokens of the call
above = 200_000
input = 5                       # what is not given stays as below the tier
output = 15

[models."my-model".services.batch]
input = 1.25
output = 5

[models."my-model".fees]        # dollars a use, beside the tokens; 0 where nothing is billed
web_search = 0.01               # also: file_search, code_session, image, character, second, search_unit

[models."rerank-v3.5".fees]     # a model without input and output is priced by the use alone
search_unit = 0.002

[models."*"]                    # every model that no table holds; without it those are an error
input = 100
output = 500
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.prices.price import Price, Rates
from budgeteer.prices.table import PriceTable, of

_RATES = frozenset(f.name for f in fields(Rates) if f.init)


def load(path: str | Path) -> PriceTable:
    """Read a TOML file of prices.

    Raises:
        InvalidInput: missing, not TOML, an unknown key, a rate that is not a number of 0 or more.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        data = tomllib.loads(text, parse_float=Decimal)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"prices {str(path)!r} cannot be read: {error}") from error
    models = data.pop("models", None)
    if not isinstance(models, dict) or data:
        raise InvalidInput(f'prices {str(path)!r} need tables [models."NAME"] and nothing else; found {sorted(data)}')
    return of({name: _price(f"{path}: {name}", entry) for name, entry in models.items()}, str(path))


def _price(where: str, entry: Any) -> Price:
    if not isinstance(entry, dict):
        raise InvalidInput(f"prices {where}: {entry!r} is not a table of rates")
    given = {name: value for name, value in entry.items() if name not in ("tiers", "services", "fees")}
    fees = _typed(where, entry, "fees", dict)
    by_token = bool(given) or not fees
    rates = _rates(where, given) if by_token else Rates(input=Decimal(0), output=Decimal(0))
    tiers = []
    for tier in _typed(where, entry, "tiers", list):
        if not isinstance(tier, dict) or "above" not in tier:
            raise InvalidInput(f"prices {where}: a tier needs above = TOKENS; got {tier!r}")
        rest = {name: value for name, value in tier.items() if name != "above"}
        tiers.append((tier["above"], _rates(f"{where}, above {tier['above']}", {**given, **rest})))
    services = _typed(where, entry, "services", dict)
    classes = {
        name: _price(f"{where}, {name}", {"fees": fees, **s} if isinstance(s, dict) else s)
        for name, s in services.items()
    }
    try:
        return Price(rates, tuple(tiers), classes, fees, by_token)
    except InvalidInput as error:
        raise InvalidInput(f"prices {where}: {error}") from None


def _typed(where: str, entry: dict[str, Any], key: str, kind: type) -> Any:
    value = entry.get(key, kind())
    if not isinstance(value, kind):
        raise InvalidInput(f"prices {where}: {key} is {value!r}, not a {kind.__name__}")
    return value


def _rates(where: str, given: Mapping[str, Any]) -> Rates:
    if unknown := sorted(set(given) - _RATES):
        raise InvalidInput(f"prices {where}: unknown {', '.join(unknown)}; known: {', '.join(sorted(_RATES))}")
    if missing := sorted({"input", "output"} - set(given)):
        raise InvalidInput(f"prices {where}: {' and '.join(missing)} missing, in dollars per million tokens")
    try:
        return Rates(**given)
    except InvalidInput as error:
        raise InvalidInput(f"prices {where}: {error}") from None
