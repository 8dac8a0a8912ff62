"""The newest text: a window that slides over the conversation."""

from __future__ import annotations

from collections.abc import Sequence

from budgeteer.context.fill import longest_run
from budgeteer.context.pieces import talk_of
from budgeteer.context.protocol import Count, Message, Reducer


def recency() -> Reducer:
    """Keep the newest pieces, and drop all before the first that does not fit.

    Helps when a conversation has moved on; does not when its beginning has what the question asks for.

    >>> from budgeteer.context.protocol import counter
    >>> talk = [{"role": "user", "content": text} for text in ("one two three", "four five", "six?")]
    >>> [message["content"] for message in recency()(talk, 14, counter(lambda text: len(text.split())))]
    ['four five', 'six?']
    """
    return _newest


def _newest(messages: Sequence[Message], budget: int, count: Count) -> list[Message]:
    talk = talk_of(messages)
    n = len(talk.pieces)
    return talk.keep(longest_run(talk, lambda most: list(range(n - most, n)), n, budget, count))
