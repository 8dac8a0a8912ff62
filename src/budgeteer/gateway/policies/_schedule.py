"""Lower output caps and reasoning efforts by the share of the budget that is spent.

```
[policies.schedule]
max_tokens = [[0, 8192], [0.5, 2048], [0.9, 256]]
effort = [[0, "high"], [0.5, "medium"], [0.8, "low"]]
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.core.option import options
from budgeteer.core.schedule import piecewise
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.options import steps
from budgeteer.gateway.policies.protocol import Serving
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


@options(
    steps("max_tokens", "output tokens a choice from each spent share on"),
    steps("effort", "the highest effort from each spent share on; only for requests that name one", among=EFFORTS),
)
def schedule(*, max_tokens: list[tuple[float, int]], effort: list[tuple[float, Any]]) -> Scheduled:
    """Lower output caps and reasoning efforts by the share of the budget that is spent; give one of the two at least.

    Helps when early requests need no less than late ones; does not when the last ones matter most.

    Raises:
        InvalidInput: neither is given.
    """
    if not max_tokens and not effort:
        raise InvalidInput("it has neither max_tokens nor effort; give one")
    return Scheduled(piecewise(max_tokens) if max_tokens else None, piecewise(effort) if effort else None)
