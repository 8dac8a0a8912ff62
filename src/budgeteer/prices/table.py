"""A price table: prices of models by name, and a fallback or an error for a model that it does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from budgeteer.core.errors import InvalidInput, UnknownPrice
from budgeteer.core.usage import Usage
from budgeteer.prices.nearest import Nearest
from budgeteer.prices.price import FEES, Price

STANDARD = frozenset({"", "auto", "default", "standard", "standard_only"})
"""Classes of service that have the ordinary price."""


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices of models; the ``prices`` of a money meter.

    Attributes:
        source: where it was read from, for errors and records.
        find: name of a model -> its price, or None.
        names: of the models that it holds, for suggestions.
        fallback: price of every model that it does not hold; None, the default, makes asking for one an error. A
            fallback of 0 is possible but has to be written.
        finds: the ``find`` functions of the tables that it is made of, in order; () if it is a single table.
        why: name without a price -> a sentence for the error, such as the names to write instead; None: no sentence.
    """

    source: str
    find: Callable[[str], Price | None]
    names: Callable[[], Iterable[str]]
    fallback: Price | None = None
    finds: tuple[Callable[[str], Price | None], ...] = ()
    why: Callable[[str], str | None] = lambda model: None
    _nearest: Nearest = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_nearest", Nearest(self.names))

    def price(self, model: str, service: str = "") -> Price:
        """The price of a model in a class of service.

        Raises:
            UnknownPrice: the table does not hold it and has no fallback; the message says what to write instead: the
                names of those who sell it where several do, else the nearest names.
        """
        if not isinstance(model, str) or not isinstance(service, str):
            raise InvalidInput(f"model {model!r}, service {service!r}: give names")
        price = self.find(model) or self.fallback
        if price is None:
            raise UnknownPrice(model, self.source, self.why(model) or self._near(model))
        if service in STANDARD:
            return price
        if service not in price.services:
            others = (
                f"it has {' and '.join(map(repr, sorted(price.services)))}" if price.services else "it has no other"
            )
            raise UnknownPrice(f"{model}, service {service!r}", self.source, f"beside the standard class {others}.")
        return price.services[service]

    def _near(self, model: str) -> str:
        near = self._nearest(model)
        return f"did you mean {' or '.join(map(repr, near))}?" if near else f"{len(self._nearest)} models are known."

    def cost(self, usage: Usage, model: str, service: str = "") -> int:
        """Pico-dollars of a usage, rounded up."""
        return self.price(model, service).cost(usage)

    def worst(self, usage: Usage, model: str, service: str = "") -> int:
        """Pico-dollars that this much input and output cost at most.

        Raises:
            UnknownPrice: as ``price``; or audio may come out, or tools be used, and what that costs is not known.
            InvalidInput: a use that has a fee has no limit.
        """
        price = self.price(model, service)
        if usage.audio_output and price.rates.audio_output is None:
            raise UnknownPrice(f"{model}, audio_output", self.source, "its text has one.")
        if not price.by_token and not any(name in price.fees for name, _ in usage.counts):
            raise UnknownPrice(
                f"{model}, tokens", self.source, f"it has a price by {' and '.join(sorted(price.fees))}."
            )
        for name, uses in usage.counts:
            if uses and name in FEES and name not in price.fees:
                raise UnknownPrice(
                    f"{model}, fee of {name}", self.source, f"add fees.{name} = DOLLARS to a price file."
                )
        return price.worst(usage)

    def first_known(self, models: Sequence[str]) -> str:
        """The name, of several of one model, whose price counts: of the first table that holds any of them, there the
        first that it holds. Your own price so stays before a shipped one, by whatever name an answer goes. If no table
        holds any, the last name, of which the fallback is the price."""
        for find in self.finds or (self.find,):
            for model in models:
                if find(model) is not None:
                    return model
        return models[-1]

    def with_fallback(self, price: Price) -> PriceTable:
        """The same table with a price for models that it does not hold, such as the dearest you would use."""
        return replace(self, fallback=price)


def of(prices: Mapping[str, Price], source: str = "these prices") -> PriceTable:
    """A table of given prices; ``"*"`` is the fallback."""
    held = {model: price for model, price in prices.items() if model != "*"}
    return PriceTable(source, held.get, held.keys, prices.get("*"))


def first_of(*tables: PriceTable) -> PriceTable:
    """The tables in order: the first that holds a model has its price; the first fallback is the fallback."""

    def find(model: str) -> Price | None:
        return next((price for table in tables if (price := table.find(model)) is not None), None)

    def names() -> list[str]:
        return [name for table in tables for name in table.names()]

    def why(model: str) -> str | None:
        return next((said for table in tables if (said := table.why(model)) is not None), None)

    fallback = next((table.fallback for table in tables if table.fallback is not None), None)
    finds = tuple(find for table in tables for find in table.finds or (table.find,))
    return PriceTable(", then ".join(table.source for table in tables), find, names, fallback, finds, why)
