"""What an agent of a team sees of their shared memory: by its role and the stage of the task.

Paper: "RCR-Router: Efficient Role-Aware Context Routing for Multi-Agent LLM Systems with Structured Memory", arXiv
2508.04903.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from budgeteer.context.fill import fill, in_order, similarities
from budgeteer.context.pieces import talk_of
from budgeteer.context.protocol import Count, Encode, Message, Reducer
from budgeteer.core.errors import InvalidInput

ROLE, STAGE, RECENCY, SOURCE = 0.5, 0.2, 0.2, 0.1
"""Weights of the four terms; the paper's own were not seen."""


def rcr(encode: Encode, role: str = "", stage: str = "", uses: str = "", rounds: float = 2.0) -> Reducer:
    """Keep the items of the highest importance for a role in a stage, greedily, as long as they fit.

    Formula: 0.5 cos(item, role + question) + 0.2 [item is of the stage] + 0.2 exp(-age / rounds) + 0.1 [item is by an
    agent that this one uses]. The paper's importance is of role, stage and recency; its weights were not seen, these
    are ours. An item is a piece of a message; its agent is the message's ``name``, its stage and round are ``stage``
    and ``round`` of the message's ``metadata``, which the result does not have any more, since endpoints refuse it.
    Without a round, a message's age is how many messages are newer.
    Helps when a memory has much that concerns other roles; does not when role and stage say nothing of an item.

    Args:
        encode: texts -> vectors.
        role: what the agent does, in words.
        stage: of the task, as items are marked.
        uses: names of the agents whose output this one builds on, between blanks.
        rounds: after so many an item's recency has fallen to 1/e, above 0.

    >>> from budgeteer.context.encode import words
    >>> from budgeteer.context.protocol import counter
    >>> memory = [
    ...     {"role": "user", "name": "planner", "content": "Find the date.", "metadata": {"stage": "plan", "round": 1}},
    ...     {"role": "user", "name": "searcher", "content": "1912.", "metadata": {"stage": "search", "round": 1}},
    ...     {"role": "user", "content": "Write the answer."},
    ... ]
    >>> writer = rcr(words, role="writer", stage="search", uses="searcher")
    >>> [item["content"] for item in writer(memory, 17, counter(lambda text: len(text.split())))]
    ['1912.', 'Write the answer.']
    """
    if not rounds > 0:
        raise InvalidInput(f"rcr:rounds={rounds}; give a number above 0")
    sources = set(uses.split())

    def reduce(messages: Sequence[Message], budget: int, count: Count) -> list[Message]:
        talk = talk_of(messages)
        about = [_about(message) for message in messages]
        relevance = similarities(encode, f"{role} {talk.question}", talk.texts)[0] if talk.pieces else np.zeros(0)
        numbered = [a["round"] for a in about if isinstance(a.get("round"), int | float)]
        newest = max(numbered, default=0)

        def importance(number: int) -> float:
            at = talk.pieces[number].message
            known, message = about[at], messages[at]
            age = newest - known["round"] if isinstance(known.get("round"), int | float) else len(messages) - 1 - at
            return (
                ROLE * float(relevance[number])
                + STAGE * (bool(stage) and known.get("stage") == stage)
                + RECENCY * math.exp(-age / rounds)
                + SOURCE * (message.get("name") in sources)
            )

        order = sorted(range(len(talk.pieces)), key=lambda number: (-importance(number), -number))
        kept = fill(talk, in_order(order), budget, count)
        return [{key: value for key, value in message.items() if key != "metadata"} for message in kept]

    return reduce


def _about(message: Message) -> dict[str, Any]:
    known = message.get("metadata")
    return dict(known) if isinstance(known, dict) else {}
