"""Pieces at random: the control."""

from __future__ import annotations

import numpy as np

from budgeteer.context.fill import by_score
from budgeteer.context.protocol import Reducer
from budgeteer.core.errors import InvalidInput


def random(seed: int = 0) -> Reducer:
    """Keep pieces in a random order, as long as they fit.

    Helps as the control that every other reducer has to beat at the same tokens; does not otherwise.

    Args:
        seed: of the order, 0 or more.

    >>> from budgeteer.context.protocol import counter
    >>> talk = [{"role": "user", "content": text} for text in ("one", "two", "three", "four?")]
    >>> len(random()(talk, 18, counter(lambda text: len(text.split()))))
    3
    """
    if seed < 0:
        raise InvalidInput(f"random:seed={seed}; give 0 or more")
    return by_score(lambda question, texts: np.random.default_rng(seed).random(len(texts)))
