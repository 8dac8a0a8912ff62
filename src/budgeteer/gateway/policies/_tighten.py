"""Lower a request's output cap to what its budget still covers, instead of refusing the request.

```
[policies.tighten]
least = 64          # output tokens a choice below which the request is refused nevertheless
```
"""

from __future__ import annotations

from dataclasses import dataclass

from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.protocol import Serving
from budgeteer.gateway.toml import Table


@dataclass(frozen=True, slots=True)
class Tighten:
    """Lowers caps to the budget, and those above the cap of the model or the key to that, instead of refusing them.

    Attributes:
        least: output tokens a choice below which a request is refused nevertheless.
    """

    least: int

    async def before(self, ask: Ask, serving: Serving) -> None:
        """Allow the cap to be lowered."""
        ask.tightens = self.least

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Do nothing."""


def tighten(table: Table) -> Tighten:
    """The policy that ``[policies.tighten]`` describes."""
    return Tighten(table.whole("least", 64, least=1))
