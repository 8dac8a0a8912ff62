"""One line: what the method changes, answers or refuses.

Source: "Title", where the rule is from.
"""

from __future__ import annotations

from dataclasses import dataclass

from budgeteer.core.option import options
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.options import number, whole
from budgeteer.gateway.policies.protocol import Serving


@dataclass(slots=True)
class Short:
    """Lowers caps. It may keep state: one is made for each gateway.

    Attributes:
        cap: output tokens a choice.
        above: spent share, 0 to 1, from which on it acts.
    """

    cap: int
    above: float

    async def before(self, ask: Ask, serving: Serving) -> None:
        """Lower the cap of a request; raise ``budgeteer.gateway.refusal.Refused`` to refuse one."""
        if ask.operation == "embeddings" or await serving.spent(ask) < self.above:
            return
        ask.lower(self.cap)
        ask.notes.append(f"short={self.cap}")  # goes into the header x-budgeteer-policy

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Called once after each request, whatever became of it; there is nothing to learn here."""


@options(
    whole("cap", 256, "output tokens a choice", least=1),
    number("above", 0.0, "spent share of a limit of the request from which on it acts", most=1),
)
def short(*, cap: int, above: float) -> Short:
    """Lower output caps once a share of a limit is spent.

    Helps when the first words of an answer matter most; does not when an answer is of use only as a whole.
    """
    return Short(cap, above)
