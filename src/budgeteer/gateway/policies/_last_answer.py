"""Ask agents for their last answer, without tools, while the budget still covers one."""

from __future__ import annotations

from dataclasses import dataclass

from budgeteer.core.option import options
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.note import told
from budgeteer.gateway.policies.options import number
from budgeteer.gateway.policies.protocol import Serving
from budgeteer.metering.agents import LAST


@dataclass(frozen=True, slots=True)
class LastAnswer:
    """Takes the choice of tools away from requests where a budget runs low, and says why.

    Attributes:
        share: of the limits that is spent or reserved from which on the policy acts.
        room: requests of this size that a limit of tokens has to cover, or the policy acts.
    """

    share: float
    room: float

    async def before(self, ask: Ask, serving: Serving) -> None:
        """Forbid calls of tools, if there are tools and too little is left."""
        if ask.operation not in ("chat", "messages", "responses") or not ask.body.get("tools"):
            return
        spent = await serving.spent(ask)
        if spent < self.share and not self._scarce(ask, spent):
            return
        choice = {"type": "none"} if ask.operation == "messages" else "none"
        ask.set("tool_choice", choice)  # tools stay: results of their calls have to have them beside
        ask.added += len('"tool_choice":{"type":"none"},')
        told(ask, LAST)
        ask.notes.append("last-answer")

    def _scarce(self, ask: Ask, spent: float) -> bool:
        """Whether a limit of tokens does not cover ``room`` requests of this size; a token has a byte at least."""
        amounts = [limit.amount for _, limits in ask.chain for limit in limits or () if limit.kind in ("all", "input")]
        return any(amount * (1 - spent) < self.room * len(ask.raw) for amount in amounts if amount)

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Do nothing."""


@options(
    number("share", 0.8, "spent or reserved share of a limit from which on tools may not be called", most=1.0),
    number("room", 2.0, "requests of this size, in bytes, that a limit of tokens covers, or tools may not be called"),
)
def last_answer(*, share: float, room: float) -> LastAnswer:
    """Ask agents for their last answer, without tools, while the budget still covers one.

    A request with tools may call them as long as a limit's spent share is below ``share`` and, of a limit of tokens,
    ``room`` x the request's bytes are left: the next request reads the same conversation and more, and is bounded by
    its bytes before it is sent, several times what it will be billed. Agents that work at the same time, requests that
    come within half a second, and large results of tools may use up what was kept.

    Helps agents behind the gateway, which have no other way to learn that their budget ends: without it they are
    refused in the middle of their work. Does not for keys whose requests are no steps of an agent.
    """
    return LastAnswer(share, room)
