"""Answer a request from memory if an equal one was answered before.

Equal requests have the same key, user, route and body (compared as canonical JSON). Streams are not kept. An answer
from memory costs nothing: the record's outcome is ``cached``, and ``saved`` is what the answer cost when it was made.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from budgeteer.core.option import options
from budgeteer.gateway.ask import Ask
from budgeteer.gateway.live import Live
from budgeteer.gateway.policies.options import flag, number, whole
from budgeteer.gateway.policies.protocol import Serving


@dataclass(slots=True)
class Cache:
    """Keeps answers.

    Attributes:
        entries, largest: the most answers, and the most bytes of them together; the least recently used are dropped.
        seconds: how long an answer is kept.
        sampled: whether answers of requests without temperature 0 are kept.
        held: hash of a request -> (end on the monotonic clock in seconds, answer, units that it cost by kind).
        size: bytes of the answers that are kept.
    """

    entries: int
    largest: int
    seconds: float
    sampled: bool
    held: OrderedDict[str, tuple[int, bytes, Mapping[str, int]]] = field(default_factory=OrderedDict)
    size: int = 0

    def name(self, ask: Ask) -> str | None:
        """The hash under which the answer of a request is kept; None if it is not kept."""
        temperature = ask.body.get("temperature")
        fixed = ask.operation == "embeddings" or (temperature == 0 and not isinstance(temperature, bool))
        if ask.stream or ask.body.get("store") or not (self.sampled or fixed):
            return None
        return digest(ask, ask.user)

    async def before(self, ask: Ask, serving: Serving) -> bytes | None:
        """The kept answer of an equal request, if there is one."""
        name = self.name(ask)
        entry = None if name is None else self.held.get(name)
        if name is None or entry is None:
            return None
        if entry[0] < serving.now():
            self._drop(name)
            return None
        self.held.move_to_end(name)
        ask.saved = entry[2]
        return entry[1]

    def after(self, ask: Ask, content: bytes | None, live: Live) -> None:
        """Keep a whole answer, unless it is larger than a tenth of the room."""
        name = self.name(ask)
        if not content or name is None or len(content) > self.largest // 10:
            return
        if name in self.held:
            self._drop(name)
        self.held[name] = (live.at + int(self.seconds * 1000), content, live.calls[-1].units)
        self.size += len(content)
        while len(self.held) > self.entries or self.size > self.largest:
            self._drop(next(iter(self.held)))

    def _drop(self, name: str) -> None:
        self.size -= len(self.held.pop(name)[1])


def digest(ask: Ask, *names: str) -> str:
    """A hash of a request: its account, the names in ``who``, its route and its body."""
    parts = (ask.chain[-1][0], *names, ask.route, ask.fingerprint)
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()


@options(
    whole("entries", 1000, "the most answers that are kept", least=1),
    whole("bytes", 50_000_000, "the most bytes of all answers that are kept", least=1000),
    number("seconds", 3600, "how long an answer is kept, since its request came"),
    flag("sampled", False, "whether answers of requests without temperature 0 are kept as well"),
)
def cache(*, entries: int, bytes: int, seconds: float, sampled: bool) -> Cache:
    """Answer a request from memory if an equal one of the same key and user was answered before.

    Helps when requests repeat; does not when each is new, or is to be sampled anew.
    """
    return Cache(entries, bytes, seconds, sampled)
