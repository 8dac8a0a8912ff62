"""Call a cheaper model when a budget runs low.

```
[policies.downgrade]
above = 0.8                     # spent share of a limit of the request from which on it acts
[policies.downgrade.models]
"gpt-4o" = "gpt-4o-mini"
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.protocol import Serving
from budgeteer.gateway.toml import Table


@dataclass(frozen=True, slots=True)
class Downgrade:
    """Replaces models by cheaper ones; not by one that the key may not call, or that is not served on the route.

    Attributes:
        above: the spent share, 0 to 1, from which on models are replaced.
        models: model -> the cheaper model.
    """

    above: float
    models: Mapping[str, str]

    async def before(self, ask: Ask, serving: Serving) -> None:
        """Replace the model if the budget runs low."""
        cheaper = self.models.get(serving.name_of(ask.model))
        if cheaper is None or not serving.serves(ask, cheaper):
            return
        if await serving.spent(ask) >= self.above:
            ask.model = cheaper
            ask.notes.append(f"downgrade={cheaper}")

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Do nothing."""


def downgrade(table: Table) -> Downgrade:
    """The policy that ``[policies.downgrade]`` describes."""
    models = table.table("models")
    cheaper = {name: models.text(name) for name in models.data}
    if not cheaper:
        table.fail("models", 'is empty; give "MODEL" = "CHEAPER MODEL"')
    return Downgrade(table.number("above", 0.8, most=1), cheaper)
