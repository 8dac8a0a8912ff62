"""Answer a request from memory if the same one was answered before.

```
[policies.cache]
entries = 1000
bytes = 50_000_000
seconds = 3600
sampled = false     # whether requests without temperature 0 are kept as well
```

The same means: the same key, user, route and body, to the byte of its canonical JSON. Streams are not kept. A hit costs
nothing: the record says ``cached``, and what the answer cost when it was made as ``saved``.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.protocol import Serving
from budgeteer.gateway.toml import Table


@dataclass(slots=True)
class Cache:
    """Answers, with when they end and what they cost, by the hash of their request; the least recently used first."""

    entries: int
    largest: int
    seconds: float
    sampled: bool
    held: OrderedDict[str, tuple[float, bytes, Mapping[str, int]]] = field(default_factory=OrderedDict)
    size: int = 0

    def name(self, ask: Ask) -> str | None:
        """Under what an answer is kept; None: it is not."""
        temperature = ask.body.get("temperature")
        fixed = ask.operation == "embeddings" or (temperature == 0 and not isinstance(temperature, bool))
        if ask.stream or ask.body.get("store") or not (self.sampled or fixed):
            return None
        return digest(ask, ask.user)

    async def before(self, ask: Ask, serving: Serving) -> bytes | None:
        name = self.name(ask)
        entry = None if name is None else self.held.get(name)
        if name is None or entry is None:
            return None
        if entry[0] < time.monotonic():
            self._drop(name)
            return None
        self.held.move_to_end(name)
        ask.saved = entry[2]
        return entry[1]

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Keep an answer."""
        name = self.name(ask)
        if not content or name is None or len(content) > self.largest // 10:
            return
        if name in self.held:
            self._drop(name)
        self.held[name] = (time.monotonic() + self.seconds, content, live.calls[-1].units)
        self.size += len(content)
        while len(self.held) > self.entries or self.size > self.largest:
            self._drop(next(iter(self.held)))

    def _drop(self, name: str) -> None:
        self.size -= len(self.held.pop(name)[1])


def digest(ask: Ask, *who: str) -> str:
    """A hash of what is asked for, by which account, and for whom."""
    told = (ask.chain[-1][0], *who, ask.route, ask.fingerprint)
    return hashlib.sha256(orjson.dumps(told)).hexdigest()


def cache(table: Table) -> Cache:
    """The policy that ``[policies.cache]`` describes."""
    return Cache(
        table.whole("entries", 1000, least=1),
        table.whole("bytes", 50_000_000, least=1000),
        table.number("seconds", 3600),
        table.flag("sampled", False),
    )
