"""Ask for brevity and lower the cap while many answers of a key and model only end because they reach their cap.

The cap-saturation rate and the reminder are those of BenchOverflow. Answers that end at the lower cap count as well, so
the policy acts until answers end before it again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from budgeteer.core.option import options
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.note import told
from budgeteer.gateway.policies.options import flag, number, whole
from budgeteer.gateway.policies.protocol import Serving

REMINDER = "Be concise: answer only what is asked, without repetition, and stop when it is answered."
_MOST = 10_000


@dataclass(slots=True)
class Overflow:
    """Watches how many calls end at their cap.

    Attributes:
        window: how many of the latest calls are counted.
        share: the cap-saturation rate, 0 to 1, from which on the policy acts.
        cap: output tokens a choice while it acts.
        remind: whether the reminder is added then.
        seen: (id of the key, model) -> whether each of the latest calls ended at its cap.
    """

    window: int
    share: float
    cap: int
    remind: bool
    seen: dict[tuple[str, str], deque[bool]] = field(default_factory=dict)

    def rate(self, ask: Ask) -> float:
        """The cap-saturation rate of the request's key and model, 0 to 1; 0 until the window is full."""
        seen = self.seen.get((ask.key.id, ask.model))
        return sum(seen) / len(seen) if seen is not None and len(seen) == self.window else 0.0

    async def before(self, ask: Ask, serving: Serving) -> None:
        """Lower the cap, and add the reminder, if the rate is high."""
        if ask.operation == "embeddings" or self.rate(ask) < self.share:
            return
        ask.lower(self.cap)
        ask.notes.append(f"overflow={self.cap}")
        if self.remind:
            told(ask, REMINDER)

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Note whether the answer reached its cap, unless its length is an estimate."""
        if ask.operation == "embeddings" or live.estimated or content is None:
            return
        if len(self.seen) >= _MOST:
            self.seen.clear()
        seen = self.seen.setdefault((ask.key.id, ask.model), deque(maxlen=self.window))
        seen.append(live.usage["output"] >= ask.choices * ask.sent)


@options(
    whole("window", 20, "latest calls of a key and model that are counted", least=1),
    number("share", 0.5, "share of them that ended at their cap from which on the policy acts", least=0.01, most=1.0),
    whole("cap", 1024, "output tokens a choice while it acts", least=1),
    flag("remind", True, "whether a sentence that asks for brevity is added to the instructions"),
)
def overflow(*, window: int, share: float, cap: int, remind: bool) -> Overflow:
    """Ask for brevity and lower the cap while many answers of a key and model only end because they reach their cap.

    Helps against answers that run on; does not when long answers are what was asked for.
    """
    return Overflow(window, share, cap, remind)
