"""Lower output caps and reasoning efforts by the share of the budget that is spent.

```
[policies.schedule]
max_tokens = [[0, 8192], [0.5, 2048], [0.9, 256]]     # [spent share, output tokens a choice from there on]
effort = [[0, "high"], [0.5, "medium"], [0.8, "low"]] # the highest effort; only for requests that name one
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from budgeteer.core.schedule import piecewise
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.protocol import Serving
from budgeteer.gateway.toml import Table
from budgeteer.metering.thinking import EFFORTS as EFFORTS_AT
from budgeteer.metering.thinking import at, put

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Lowers caps and efforts.

    Attributes:
        max_tokens: spent share -> output tokens a choice; None changes no cap.
        effort: spent share -> the highest effort; None changes no effort.
    """

    max_tokens: Callable[[float], float] | None
    effort: Callable[[float], Any] | None

    async def before(self, ask: Ask, serving: Serving) -> None:
        """Lower the cap and the efforts to those of the spent share."""
        spent = await serving.spent(ask)
        if self.max_tokens is not None:
            cap = int(self.max_tokens(spent))
            ask.lower(cap)
            ask.notes.append(f"max_tokens={cap}")
        if self.effort is not None:
            self._lower(ask, self.effort(spent))

    def _lower(self, ask: Ask, most: str) -> None:
        """Lower every effort in the body that is above ``most``, or that is unknown."""
        for path in EFFORTS_AT:
            asked = at(ask.body, path)
            if asked is None or (asked in EFFORTS and EFFORTS.index(asked) <= EFFORTS.index(most)):
                continue
            lower = max(most, "low", key=EFFORTS.index) if path[0] == "output_config" else most  # Anthropic's least
            if lower == asked:
                continue
            put(ask.body, path, lower)
            ask.changed = True
            ask.notes.append(f"effort={lower}")

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Do nothing."""


def schedule(table: Table) -> Scheduled:
    """The policy that ``[policies.schedule]`` describes."""
    tokens, efforts = table.pieces("max_tokens", int), table.pieces("effort", str)
    if not tokens and not efforts:
        table.fail(None, "has neither max_tokens nor effort; give one")
    if any(cap < 1 for _, cap in tokens):
        table.fail("max_tokens", "has a cap below 1")
    if unknown := [effort for _, effort in efforts if effort not in EFFORTS]:
        table.fail("effort", f"has {unknown[0]!r}; the efforts are {', '.join(EFFORTS)}")
    return Scheduled(piecewise(tokens) if tokens else None, piecewise(efforts) if efforts else None)
