"""How the embedded reasoner's completions are read and scored."""

from __future__ import annotations

from budgeteer.core.environment import Environment, Item, verified

THINK_END = "</think>"
"""The marker that closes the thinking; the answer is the first line after it."""


def extract_answer(completion: str) -> str | None:
    """The first line after the first thinking marker, or None when the thinking never closed.

    >>> extract_answer("7+5=1;</think>1\\n?7+5=1;")
    '1'
    >>> extract_answer("7+5=1;") is None
    True
    """
    _, marker, rest = completion.partition(THINK_END)
    return rest.split("\n", 1)[0].strip() if marker else None


def score(environment: Environment, item: Item, completion: str) -> float:
    """Verify one completion.

    Raises:
        VerifierError: the verifier raised or returned something that is not a finite number; names the item.
    """
    return verified(environment, item, extract_answer(completion))
