"""A summary of what is dropped, before the newest text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from budgeteer.context.fill import longest_run
from budgeteer.context.pieces import talk_of
from budgeteer.context.protocol import Count, Message, Reducer
from budgeteer.core.bisection import largest
from budgeteer.core.errors import InvalidInput

Summarise = Callable[[str, str, int], str]
"""(what is dropped, question, tokens that the summary may have) -> summary; whoever calls a model pays for it."""
HEAD = "Summary of what was said before:\n"


def summary(summarise: Summarise, share: float = 0.5) -> Reducer:
    """Keep the newest pieces, and a summary of all before them.

    A summary that is longer than it may be is cut at a word; without room for one word of it there is none. Its tokens
    in the prompt are in the budget, the call that makes it is not.
    Helps when the gist of the beginning is enough; does not when the question asks for a detail of it.

    Args:
        summarise: (what is dropped, question, tokens) -> summary.
        share: of the budget beyond what has to stay that is for the summary, above 0 and below 1.

    >>> from budgeteer.context.protocol import counter
    >>> talk = [{"role": "user", "content": text} for text in ("one two " * 9, "eight", "nine?")]
    >>> short = summary(lambda dropped, question, tokens: dropped.split()[0])
    >>> [message["content"] for message in short(talk, 26, counter(lambda text: len(text.split())))]
    ['Summary of what was said before:\\none', 'eight', 'nine?']
    """
    if not 0 < share < 1:
        raise InvalidInput(f"summary:share={share}; give a share above 0 and below 1")

    def reduce(messages: Sequence[Message], budget: int, count: Count) -> list[Message]:
        talk = talk_of(messages)
        n, bare = len(talk.pieces), talk.bare(budget, count)
        if count(talk.messages) <= budget:
            return list(talk.messages)
        room = int(share * (budget - bare))
        newest = list(longest_run(talk, lambda most: list(range(n - most, n)), n, budget - room, count))
        kept = talk.keep(newest)
        dropped = "\n".join(talk.texts[: n - len(newest)])
        at = next((i for i, m in enumerate(kept) if m["role"] not in ("system", "developer")), len(kept))

        def after(text: str) -> list[Message]:
            return [*kept[:at], {"role": "user", "content": HEAD + text}, *kept[at:]]

        if count(after("word")) > budget:
            return kept
        said = summarise(dropped, talk.question, budget - count(after("")))
        if not isinstance(said, str):
            raise InvalidInput(f"the summary is {said!r}; summarise returns a text")
        ends = [found.end() for found in re.finditer(r"\S+", said)]
        most = largest(lambda words: count(after(said[: ends[words - 1]])) <= budget, len(ends))
        return after(said[: ends[most - 1]]) if most else kept

    return reduce


def summarise_of(method: str, given: str) -> Summarise:
    """The summariser of an option: ``first``, which takes the first sentence of every line, or the path of a function.

    Raises:
        InvalidInput: the path names no function.
    """
    if given == "first":
        return first_sentences
    from budgeteer.core.registry import resolve

    try:
        function: Summarise = resolve(given)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(f"{method}:summarise={given}: {error}; give first, or package.module:function") from None
    return function


def first_sentences(dropped: str, question: str, tokens: int) -> str:
    """The first sentence of every line: a summary without a model.

    >>> first_sentences("One. Two.\\nThree.", "", 9)
    'One. Three.'
    """
    return " ".join(
        re.split(r"(?<=[.!?])\s", line.strip(), maxsplit=1)[0] for line in dropped.splitlines() if line.strip()
    )
