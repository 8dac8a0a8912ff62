"""Price tables: a usage becomes integer pico-dollars, rounded up, and an unknown price is an error.

``genai.load()`` is the shipped table, ``litellm.load(path)`` reads LiteLLM's JSON, ``user.load(path)`` your own TOML;
``first_of(yours, shipped)`` puts one before the other.

>>> from decimal import Decimal
>>> from budgeteer import Usage
>>> table = of({"m": Price(Rates(input=Decimal("2.50"), output=Decimal(10), cached=Decimal("1.25")))})
>>> table.cost(Usage(input=1000, output=200, cached=600), "m") / 10**12
0.00375
"""

from budgeteer.prices.price import Price, Rates
from budgeteer.prices.table import PriceTable, first_of, of

__all__ = ["Price", "PriceTable", "Rates", "first_of", "of"]
