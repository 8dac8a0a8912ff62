"""The words to which an encoder attributes its reading of the text.

Paper: "FrugalPrompt: Reducing Contextual Overhead in Large Language Models via Token Attribution", arXiv 2510.16439.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from budgeteer.context.fill import Span, prune, weighted
from budgeteer.context.pieces import talk_of
from budgeteer.context.protocol import Count, Message, Reducer
from budgeteer.core.errors import InvalidInput

Attribute = Callable[[list[str]], list[list[Span]]]
"""Texts -> the tokens of each, with what each counts for, scaled within its text."""


def frugal(attribute: Attribute) -> Reducer:
    """Keep the words of the highest attribution, in their order, as many as fit.

    Formula: a word's weight is the sum of the attributions of its tokens, which the attribution scales to 0 to 1 in
    each sentence. The paper keeps a share of the words; here the budget of tokens says how many. The paper's
    attributions are GlobEnc and DecompX, of an encoder with the head of a classifier; here, without a head.
    Helps when text is wordy and the task lexical; does not for numbers and code, and on some tasks words at random did
    better in the authors' own results.

    Args:
        attribute: texts -> (first character, the one behind the last, weight) of the tokens of each.

    >>> from budgeteer.context.attribution import rarity
    >>> from budgeteer.context.protocol import counter
    >>> talk = [{"role": "user", "content": "a cat and a dog and a bird"}, {"role": "user", "content": "What?"}]
    >>> frugal(rarity)(talk, 15, counter(lambda text: len(text.split())))[0]["content"]
    'cat dog bird'
    """

    def reduce(messages: Sequence[Message], budget: int, count: Count) -> list[Message]:
        talk = talk_of(messages)
        found = attribute(talk.texts)
        if len(found) != len(talk.texts):
            raise InvalidInput(
                f"the attribution gave tokens of {len(found)} texts, and there are {len(talk.texts)}; return a list "
                "for each, an empty one where no token counts"
            )
        rows = [weighted(text, spans) for text, spans in zip(talk.texts, found, strict=True)]
        return prune(talk, rows, budget, count)

    return reduce
