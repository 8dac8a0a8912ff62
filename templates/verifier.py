"""One line: when an answer is the reference answer.

Source: where the rule is from.
"""

from __future__ import annotations


def caseless(answer: str | None, reference: str) -> float:
    """1 for the same text, whatever the case and the blanks around it, else 0.

    Helps when answers are words; does not when equal things can be written in several ways, such as numbers.

    >>> caseless(" Whale", "whale"), caseless("Whales", "whale"), caseless(None, "whale")
    (1.0, 0.0, 0.0)
    """
    return float(answer is not None and answer.strip().casefold() == reference.strip().casefold())
