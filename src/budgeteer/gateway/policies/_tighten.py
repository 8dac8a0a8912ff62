"""Lower a request's output cap to what its budget still covers, instead of refusing it.

```
[policies.tighten]
least = 64          # tokens of output below which it is refused after all
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
    """Caps above the model's or key's are lowered to those as well."""

    least: int

    async def before(self, ask: Ask, serving: Serving) -> None:
        ask.tightens = self.least

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Nothing to learn."""


def tighten(table: Table) -> Tighten:
    """The policy that ``[policies.tighten]`` describes."""
    return Tighten(table.whole("least", 64, least=1))
