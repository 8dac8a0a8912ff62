"""The beginning and the end: text is cut out of the middle."""

from __future__ import annotations

from collections.abc import Sequence

from budgeteer.context.fill import longest_run
from budgeteer.context.pieces import talk_of
from budgeteer.context.protocol import Count, Message, Reducer
from budgeteer.core.errors import InvalidInput


def middle_out(first: float = 0.5) -> Reducer:
    """Keep as many of the first and the last pieces as fit, and drop those between them.

    Helps when the task is said at the beginning and the latest results stand at the end; does not when evidence lies
    anywhere.

    Args:
        first: share of the kept pieces that are taken from the beginning, 0 to 1; at 1 the end is truncated.

    >>> from budgeteer.context.protocol import counter
    >>> talk = [{"role": "user", "content": text} for text in ("one", "two", "three", "four?")]
    >>> [message["content"] for message in middle_out()(talk, 18, counter(lambda text: len(text.split())))]
    ['one', 'three', 'four?']
    """
    if not 0 <= first <= 1:
        raise InvalidInput(f"middle-out:first={first}; give a share from 0 to 1")

    def reduce(messages: Sequence[Message], budget: int, count: Count) -> list[Message]:
        talk = talk_of(messages)
        n = len(talk.pieces)

        def ends(most: int) -> list[int]:
            head = round(first * most)
            return [*range(head), *range(n - (most - head), n)]

        return talk.keep(longest_run(talk, ends, n, budget, count))

    return reduce
