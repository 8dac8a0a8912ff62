"""Bound references to what a provider has stored, by what it answered before: responses, and items of them.

A request may continue a response by its id (``previous_response_id``), or name items of its input by theirs. Whoever
has read those answers knows what they stand for, and keeps that: numbers only, no text.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, TypeGuard

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage
from budgeteer.metering.unseen import CONTINUED, ITEM, THOUGHTS, Unseen, unseen

_LONGEST_ID = 256
"""Characters of an id that is kept."""
_ITEMS = 1000
"""Items of a response that are kept."""
_INSTEAD = {
    CONTINUED: 'send the conversation whole in input, with "store": false',
    ITEM: 'send the items whole, with "store": false',
    THOUGHTS: 'leave it out, or send it with its encrypted_content ("include": ["reasoning.encrypted_content"])',
}
"""What a client can send in place of a reference."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a reference to a response, or to one of its items, stands for.

    Attributes:
        id: of the response or item.
        response: id of the response.
        upstream: who holds it.
        model: that made it, by the name with which it was called.
        shown: tokens of it: all that a response read and made, as the provider counted it; the bytes of an item.
        hidden: tokens of the response's thoughts, if it is an item that holds some.
        opaque: whether it has parts whose tokens are not known.
    """

    id: str
    response: str
    upstream: str
    model: str
    shown: int
    hidden: int = 0
    opaque: bool = False

    def to_text(self) -> str:
        """All but the id, as JSON."""
        return json.dumps(astuple(self)[1:], ensure_ascii=False)

    @classmethod
    def of_text(cls, id: str, text: str) -> Stored:
        """What ``to_text`` wrote.

        Raises:
            ValueError, TypeError: the text is anything else.
        """
        response, upstream, model, shown, hidden, opaque = json.loads(text)
        return cls(str(id), str(response), str(upstream), str(model), int(shown), int(hidden), bool(opaque))


@dataclass(frozen=True, slots=True)
class Bound:
    """What all references of a request stand for together.

    Attributes:
        tokens: at most.
        upstream: who holds all of it.
        model: the model whose tokens they are; "" = any, since bytes bound them.
    """

    tokens: int
    upstream: str
    model: str


def stored_in(
    response: Mapping[str, Any], usage: Usage, worst: Usage, model: str, upstream: str, opaque: bool
) -> list[Stored]:
    """The response and its items, each with what a reference to it stands for; nothing if the provider keeps none.

    Args:
        response: the object of the Responses API.
        usage: that was believed; what it does not say is taken from ``worst``.
        worst: the most that the request can have used.
        model, upstream: as :class:`Stored` has them.
        opaque: whether the request had input whose tokens are not known.
    """
    name = response.get("id")
    if not _is_id(name) or response.get("store") is False:
        return []
    read = worst.input if usage.input is None else usage.input
    made = worst.output if usage.output is None else usage.output
    thought = (made if usage.reasoning is None else usage.reasoning) or 0
    opaque = opaque or read is None or made is None
    items = response.get("output")
    kept = []
    for item in items[:_ITEMS] if isinstance(items, list) else ():
        parts = unseen({"input": [item]})
        hides = bool(parts.pictures or bounded(parts, 0).hidden)
        opaque |= hides
        if isinstance(item, Mapping) and _is_id(id := item.get("id")):
            shown = {name: value for name, value in item.items() if name != "encrypted_content"}
            size = len(json.dumps(shown, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass"))
            kept.append(
                Stored(id, name, upstream, model, size, thought if item.get("type") == "reasoning" else 0, hides)
            )
    return [Stored(name, name, upstream, model, (read or 0) + (made or 0), 0, opaque), *kept]


def _is_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_ID


def bounded(parts: Unseen, tokens: int) -> Unseen:
    """The parts of a request without its references, which stand for at most so many tokens."""
    hidden = list(parts.hidden)
    for name, _ in parts.references:
        hidden.remove(name)
    return Unseen(parts.pictures, parts.data, hidden, parts.added + tokens)


def bound(references: Sequence[tuple[str, str]], known: Mapping[str, Stored]) -> Bound:
    """Bound the references of a request together.

    The thoughts of a response count once, however many of its items are named, and twice where one is named twice.

    Args:
        references: (what it is, id) of each.
        known: id -> what is known of it.

    Raises:
        InvalidInput: naming the field, and what to send instead.
    """
    hidden: Counter[str] = Counter()
    times = Counter(id for _, id in references)
    upstreams, models, tokens = set(), set(), 0
    for name, id in references:
        stored = known.get(id)
        if stored is None:
            raise InvalidInput(
                f"{name} {id[:80]!r} is not among the answers that are remembered, so nothing bounds what it stands "
                f"for; {_INSTEAD[name]}"
            )
        if stored.opaque:
            raise InvalidInput(
                f"{name} {id[:80]!r} stands for parts whose tokens are not known, such as files or what a tool of the "
                f"provider found; {_INSTEAD[name]}"
            )
        tokens += stored.shown
        hidden[stored.response] = max(hidden[stored.response], stored.hidden * times[id])
        upstreams.add(stored.upstream)
        if stored.hidden or stored.id == stored.response:
            models.add(stored.model)
    if len(upstreams) > 1 or len(models) > 1:
        several = " and ".join(sorted(models if len(models) > 1 else upstreams))
        name = references[0][0]
        raise InvalidInput(f"{name}: the references are to answers of {several}, which none can read; {_INSTEAD[name]}")
    return Bound(tokens + hidden.total(), upstreams.pop() if upstreams else "", models.pop() if models else "")


class Recent:
    """The answers that were read last, in memory. Threads may share it.

    Args:
        most: responses and items that are kept.
    """

    def __init__(self, most: int = 20_000) -> None:
        self._most, self._lock = most, threading.Lock()
        self._known: OrderedDict[tuple[str, str], Stored] = OrderedDict()

    def add(self, stored: Iterable[Stored]) -> None:
        """Keep these, and drop the oldest above the limit."""
        with self._lock:
            for answer in stored:
                self._known.pop((answer.upstream, answer.id), None)
                self._known[answer.upstream, answer.id] = answer
            while len(self._known) > self._most:
                self._known.popitem(last=False)

    def find(self, ids: Iterable[str], upstream: str) -> dict[str, Stored]:
        """Id -> what is known of it, of those that this upstream holds."""
        with self._lock:
            return {id: self._known[upstream, id] for id in ids if (upstream, id) in self._known}
