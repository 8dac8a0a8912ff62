"""Lower a request's output cap to what its budget still covers, instead of refusing the request."""

from __future__ import annotations

from dataclasses import dataclass

from budgeteer.core.option import options
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.options import whole
from budgeteer.gateway.policies.protocol import Serving


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


@options(whole("least", 64, "output tokens a choice below which the request is refused nevertheless", least=1))
def tighten(*, least: int) -> Tighten:
    """Lower a request's output cap to what its budget still covers, instead of refusing the request.

    Helps when a shorter answer is better than none; does not when only whole answers are of use.
    """
    return Tighten(least)
