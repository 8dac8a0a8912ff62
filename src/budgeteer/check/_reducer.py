"""The rules of reducers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from budgeteer.check._common import CheckFailed, refuses, same
from budgeteer.context.pieces import talk_of
from budgeteer.context.protocol import Count, Message, Reducer, counter
from budgeteer.core.errors import InvalidInput

WORDS = ("ants", "bees", "cats", "dogs", "eels", "fish", "goats", "hens", "ibis", "jays", "like", "see", "and", "the")
SHARES = (0.0, 0.1, 0.3, 0.6, 0.9, 1.0)
"""Budgets, as shares of what may be dropped."""


def check_reducer(reducer: Reducer, *, seed: int = 0) -> None:
    """Reduce made-up conversations and raise :class:`CheckFailed` at the first broken rule.

    Rules: the result is within the budget, by the counter that was given; the messages that were given are not changed,
    and give the same result again; system messages and the question stay as they were; messages keep their order; a
    result of a tool stands behind its call, and a call keeps the results it had; a budget for everything keeps more
    than what has to stay, and a question without context comes back as it is; a budget below what has to stay, or that
    is no whole number from 1, no messages, and a result without its call are refused with InvalidInput.

    Args:
        reducer: the reducer to check.
        seed: of the words.
    """
    rng = np.random.default_rng([seed, 11])
    for count in (counter(lambda text: len(text.split())), counter(lambda text: len(text.encode()), message=1)):
        for messages in (_chat(rng), _agent(rng), _parts(rng)):
            talk = talk_of(messages)
            bare, whole = count(talk.keep(())), count(messages)
            for share in SHARES:
                budget = bare + round(share * (whole - bare))
                kept = _reduced(reducer, messages, budget, count)
                if (used := count(kept)) > budget:
                    raise CheckFailed(f"the result has {used} tokens, and the budget is {budget}")
                _valid(messages, kept)
            if not count(_reduced(reducer, messages, whole, count)) > bare:
                raise CheckFailed("a budget for everything kept no more than what has to stay; keep what fits")
            if bare > 1:
                refuses(InvalidInput, "a budget below what has to stay is refused", reducer, messages, bare - 1, count)
    alone = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which cats like bees?"}]
    if _reduced(reducer, alone, count(alone), count) != alone:
        raise CheckFailed("a question without context came back changed; there may be nothing to choose from")
    for bad in (0, -1, 2.5, True):
        refuses(InvalidInput, f"a budget of {bad} is refused", reducer, messages, bad, count)
    refuses(InvalidInput, "no messages are refused", reducer, [], 100, count)
    orphan = [{"role": "tool", "tool_call_id": "gone", "content": "4"}, {"role": "user", "content": "So?"}]
    refuses(InvalidInput, "a result without its call is refused", reducer, orphan, 100, count)


def _say(rng: np.random.Generator, lines: int) -> str:
    return "\n".join(" ".join(rng.choice(WORDS, int(rng.integers(3, 9)))) + "." for _ in range(lines))


def _chat(rng: np.random.Generator) -> list[Message]:
    """A system message, text, and a question."""
    said = [{"role": role, "content": _say(rng, 4)} for role in ("user", "assistant") * 3]
    return [{"role": "system", "content": "Be brief."}, *said, {"role": "user", "content": "Which cats like bees?"}]


def _agent(rng: np.random.Generator) -> list[Message]:
    """Calls of tools before and after the question, two at once among them."""

    def call(*names: str) -> Message:
        calls = [
            {"id": name, "type": "function", "function": {"name": "find", "arguments": '{"what": "cats"}'}}
            for name in names
        ]
        return {"role": "assistant", "content": None, "tool_calls": calls}

    def result(name: str, lines: int) -> Message:
        return {"role": "tool", "tool_call_id": name, "content": _say(rng, lines)}

    return [
        {"role": "system", "content": "Use the tools."},
        {"role": "user", "content": _say(rng, 2)},
        call("a", "b"),
        result("a", 3),
        result("b", 2),
        {"role": "assistant", "content": _say(rng, 2)},
        {"role": "user", "content": "Where do the fish see hens?"},
        call("c"),
        result("c", 5),
    ]


def _parts(rng: np.random.Generator) -> list[Message]:
    """Contents of parts, one of which is no text."""
    picture = {"type": "image_url", "image_url": {"url": "x.png"}}
    first = {"role": "user", "content": [{"type": "text", "text": _say(rng, 3)}, picture]}
    return [first, {"role": "assistant", "content": _say(rng, 3)}, {"role": "user", "content": "And the dogs?"}]


def _reduced(reducer: Reducer, messages: Sequence[Message], budget: int, count: Count) -> list[Message]:
    before = copy.deepcopy(messages)
    kept = reducer(messages, budget, count)
    if not same(messages, before):
        raise CheckFailed("the messages that were given were changed; copy before writing")
    if not same(kept, reducer(messages, budget, count)):
        raise CheckFailed("the same messages gave another result; keep no state, and draw from a seed")
    return kept


def _valid(messages: Sequence[Message], kept: Sequence[Message]) -> None:
    talk = talk_of(messages)
    for number in sorted(talk.fixed):
        if messages[number] not in kept:
            what = "system message" if messages[number]["role"] == "system" else "question"
            raise CheckFailed(f"the {what} {messages[number]['content']!r} is not there as it was")
    places = [messages.index(message) for message in kept if message in messages]
    if places != sorted(places):
        raise CheckFailed("messages changed their order")
    had: dict[str, list[str]] = {name: _results(messages, name) for name in _calls(messages)}
    open_calls: set[str] = set()
    for message in kept:
        open_calls |= set(_calls([message]))
        if message["role"] == "tool" and message["tool_call_id"] not in open_calls:
            raise CheckFailed(f"the result of the call {message['tool_call_id']!r} is there without its call before it")
    for name in open_calls:
        if len(_results(kept, name)) != len(had[name]):
            raise CheckFailed(f"the call {name!r} lost its result; both stay, or both go")


def _calls(messages: Sequence[Message]) -> list[str]:
    return [call["id"] for message in messages for call in message.get("tool_calls") or ()]


def _results(messages: Sequence[Message], name: str) -> list[Any]:
    return [message for message in messages if message["role"] == "tool" and message["tool_call_id"] == name]
