"""Guard against answers that run on until their cap: a reminder to be brief, and a lower cap, while most of them do.

```
[policies.overflow]
window = 20         # calls of a key and model that are looked at
share = 0.5         # of them that ended at their cap, from which on it acts
cap = 1024          # tokens a choice then
remind = true       # whether a sentence that asks for brevity is put at the end of the instructions
```

The cap-saturation rate and the reminder are BenchOverflow's. The answers that are cut by the lower cap count as
saturated too, so it acts until answers end by themselves again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.protocol import Serving
from budgeteer.gateway.toml import Table

REMINDER = "Be concise: answer only what is asked, without repetition, and stop when it is answered."
_MOST = 10_000


@dataclass(slots=True)
class Overflow:
    """Whether each call of late ended at its cap, by key and model."""

    window: int
    share: float
    cap: int
    remind: bool
    seen: dict[tuple[str, str], deque[bool]] = field(default_factory=dict)

    def rate(self, ask: Ask) -> float:
        """The cap-saturation rate; 0 before a window is full."""
        seen = self.seen.get((ask.key.id, ask.model))
        return sum(seen) / len(seen) if seen is not None and len(seen) == self.window else 0.0

    async def before(self, ask: Ask, serving: Serving) -> None:
        if ask.operation == "embeddings" or self.rate(ask) < self.share:
            return
        ask.lower(self.cap)
        ask.notes.append(f"overflow={self.cap}")
        if self.remind:
            reminded(ask)

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Remember whether the cap was reached; estimated lengths do not tell."""
        if ask.operation == "embeddings" or live.estimated or content is None:
            return
        if len(self.seen) >= _MOST:
            self.seen.clear()
        seen = self.seen.setdefault((ask.key.id, ask.model), deque(maxlen=self.window))
        seen.append(live.usage["output"] >= ask.choices * ask.sent)


def reminded(ask: Ask) -> None:
    """Put the reminder at the end of a request's instructions."""
    before: Any
    if ask.operation == "chat" and isinstance(ask.body.get("messages"), list):
        ask.set("messages", [*ask.body["messages"], {"role": "system", "content": REMINDER}])
    elif ask.operation in ("responses", "messages"):
        name = "instructions" if ask.operation == "responses" else "system"
        before = ask.body.get(name)
        if isinstance(before, list):
            ask.set(name, [*before, {"type": "text", "text": REMINDER}])
        elif before is None or isinstance(before, str):
            ask.set(name, f"{before}\n\n{REMINDER}" if before else REMINDER)
    else:
        return
    ask.added += 2 * len(REMINDER)


def overflow(table: Table) -> Overflow:
    """The policy that ``[policies.overflow]`` describes."""
    return Overflow(
        table.whole("window", 20, least=1),
        table.number("share", 0.5, 0.01, 1.0),
        table.whole("cap", 1024, least=1),
        table.flag("remind", True),
    )
