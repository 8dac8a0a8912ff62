"""Stop an agent that sends the same request again and again, or whose conversation repeats one tool call.

The request is refused with 429, ``x-should-retry: false`` and the code ``loop_detected``.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import orjson

from budgeteer.core.option import options
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies._cache import digest
from budgeteer.gateway.policies.options import number, whole
from budgeteer.gateway.policies.protocol import Serving
from budgeteer.gateway.refusal import Refused

_MOST = 10_000
"""The most requests that are remembered."""


@dataclass(slots=True)
class Loop:
    """Counts equal requests.

    Attributes:
        times: how often a request may be made within ``seconds``, and a tool call in a row; the next is refused.
        seconds: how long a request is counted.
        seen: hash of a request -> when it was made, in milliseconds since 1970 (UTC); the latest at the end.
    """

    times: int
    seconds: float
    seen: OrderedDict[str, list[int]] = field(default_factory=OrderedDict)

    async def before(self, ask: Ask, serving: Serving) -> None:
        """Refuse a request that repeats others too often."""
        if ask.operation == "embeddings":
            return
        name, now = digest(ask, ask.user, ask.session), serving.now()
        oldest = now - self.seconds * 1000
        when = [made for made in self.seen.get(name, ()) if made >= oldest]
        if len(when) >= self.times:
            raise Refused(429, "loop_detected", f"the same request came {len(when):,} times within {self.seconds:g} s")
        if (row := repeated_calls(ask.body)) >= self.times:
            raise Refused(429, "loop_detected", f"the conversation ends with the same tool call {row:,} times in a row")
        when.append(now)
        self.seen[name] = when
        self.seen.move_to_end(name)
        while len(self.seen) > _MOST or next(iter(self.seen.values()))[-1] < oldest:
            self.seen.popitem(last=False)

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Do nothing."""


def repeated_calls(body: dict[str, Any]) -> int:
    """How often in a row the last tool calls of a conversation were made, ignoring their ids.

    >>> call = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "ls", "arguments": "{}"}}]}
    >>> repeated_calls({"messages": [call, {"role": "tool", "content": "no"}, call, {"role": "tool", "content": "no"}]})
    2
    """
    turns = []
    for message in _list(body.get("messages")) + _list(body.get("input")):
        if not isinstance(message, dict):
            continue
        calls = [part.get("function") for part in _list(message.get("tool_calls")) if isinstance(part, dict)]
        calls += [
            {"name": part.get("name"), "input": part.get("input")}
            for part in _list(message.get("content"))
            if isinstance(part, dict) and part.get("type") == "tool_use"
        ]
        if message.get("type") == "function_call":
            calls.append({"name": message.get("name"), "arguments": message.get("arguments")})
        if calls:
            turns.append(orjson.dumps(calls, option=orjson.OPT_SORT_KEYS))
    row = 0
    for turn in reversed(turns):
        if turn != turns[-1]:
            break
        row += 1
    return row


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


@options(
    whole("times", 5, "equal requests of a key, user and session, or equal tool calls in a row", least=2),
    number("seconds", 600, "within which equal requests are counted", least=1),
)
def loop(*, times: int, seconds: float) -> Loop:
    """Stop an agent that sends the same request again and again, or whose conversation repeats one tool call.

    Helps against agents that have lost their way; does not when equal requests are meant, such as samples for a vote.
    """
    return Loop(times, seconds)
