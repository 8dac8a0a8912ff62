"""Call a cheaper model when a budget runs low.

```
[policies.downgrade.models]
"gpt-4o" = "gpt-4o-mini"
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from budgeteer.core.option import options
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.options import number, pairs
from budgeteer.gateway.policies.protocol import Serving


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


@options(
    number("above", 0.8, "spent share of a limit of the request from which on it acts", most=1),
    pairs("models", "which model is called instead of which", key="MODEL", value="CHEAPER MODEL"),
)
def downgrade(*, above: float, models: Mapping[str, str]) -> Downgrade:
    """Call a cheaper model when a budget runs low.

    Helps when the cheaper model is mostly good enough; does not when its answers have to be made again.
    """
    return Downgrade(above, models)
