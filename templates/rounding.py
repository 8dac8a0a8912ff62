"""One line: how the method makes whole choices out of fractions.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64


def systematic(chance: F64, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Systematic sampling in a random order: one step of length 1 along the summed chances, from a random start.

    Formula: with s_i the sum of the chances up to i and u uniform in [0, 1): floor(s_i + u) > floor(s_(i-1) + u).
    Helps when one pass has to do; does not when pairs are to be independent.

    Args:
        chance: [n] in [0, 1].
        rng: of the order and the start.

    Raises:
        InvalidInput: what is no chance.

    >>> systematic(np.array([0.5, 0.5, 1.0, 0.0]), np.random.default_rng(0)).tolist()
    [False, True, True, False]
    """
    if chance.ndim != 1 or not np.all((chance >= 0) & (chance <= 1)):
        raise InvalidInput(f"chances {chance.tolist()}; give [n] numbers from 0 to 1")
    order = rng.permutation(len(chance))
    ends = np.round(np.append(0.0, np.cumsum(chance[order])), 12) + rng.random()
    chosen = np.zeros(len(chance), np.bool_)
    chosen[order] = np.diff(np.floor(ends)) > 0
    return chosen
