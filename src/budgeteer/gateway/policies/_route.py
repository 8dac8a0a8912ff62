"""Call the model that a fitted router chooses for the prompt.

```
[policies.route]
file = "router.json"
```
"""

from __future__ import annotations

from dataclasses import dataclass, field

from budgeteer.core.errors import InvalidInput
from budgeteer.core.option import REQUIRED, options
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.options import number, text
from budgeteer.gateway.policies.protocol import Serving
from budgeteer.metering.estimate import texts_of
from budgeteer.route.features import PROMPT
from budgeteer.route.saved import Router, load, reads_prompts_only

_GENERATES = ("chat", "completions", "responses", "messages")
_MOST = 1 - 1e-6
"""Spent share at most that the price grows with."""


@dataclass(frozen=True, slots=True)
class ByRouter:
    """Replaces the model of requests for one of the router's models by the one that it chooses.

    Attributes:
        file: of the router.
        steep: how fast the price of a dollar rises with the spent share of the budget.
        router: as it was read.
    """

    file: str
    steep: float
    router: Router = field(compare=False)

    @property
    def choices(self) -> tuple[str, ...]:
        """The models among which it chooses; the gateway refuses it where fewer than two of them are served."""
        return self.router.models

    def price(self, spent: float) -> float:
        """Scores a dollar at a spent share of the budget.

        Formula: the router's price + steep s / (1 - s) / (mean cost of the dearest - of the cheapest model), so that at
        s = 1/2 and steep 1 the whole difference of their costs is worth one score more.
        """
        share, cost = min(spent, _MOST), self.router.cost
        return self.router.price + self.steep * share / (1 - share) / max(float(cost.max() - cost.min()), 1e-300)

    async def before(self, ask: Ask, serving: Serving) -> None:
        """Choose the model; a model that is not served, or that the key may not call, leaves the request as it is."""
        asked = serving.name_of(ask.model)
        if ask.operation not in _GENERATES or asked not in self.router.models:
            return
        said = texts_of({name: ask.body[name] for name in ("messages", "input", "prompt") if name in ask.body})
        price = self.price(await serving.spent(ask)) if self.steep else self.router.price
        (number,) = self.router.choose({PROMPT: said[-1:] or [""]}, price)
        chosen = self.router.models[int(number)]
        if chosen != asked and serving.serves(ask, chosen):
            ask.model = chosen
            ask.notes.append(f"route={chosen}")

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Do nothing."""


@options(
    text("file", REQUIRED, "that budgeteer route fit wrote, of a table whose requests are described by prompt alone"),
    number("steep", 1.0, "how fast the price of a dollar rises with the spent share of a limit; 0 = not at all"),
)
def route(*, file: str, steep: float) -> ByRouter:
    """Call the model that a fitted router chooses for the prompt, a cheaper one the more of the budget is spent.

    The budget is as hard as without it: the ledger refuses what does not fit.
    Helps when prompts show which model they need; does not when the table it was fitted on is of other requests.
    """
    router = load(file)
    if not router.route.before:
        raise InvalidInput(f"{file}: {router.method} looks at an answer before it chooses, which a policy cannot")
    if not reads_prompts_only(router):
        raise InvalidInput(
            f"{file} reads more of a request than its prompt; fit it with --ignore for the other columns"
        )
    return ByRouter(file, steep, router)
