"""One line: how much each entry of a KV cache is worth.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache import Cells, Score
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def large_values(sinks: int = 4) -> Score:
    """Keep the entries whose values have the largest norm, and the first ones.

    Formula: score_i = ||v_i||_2.
    Helps when what is read moves the output as much as its value is long; does not when few entries are read at all.

    Args:
        sinks: entries at the beginning that are always kept, >= 0.

    Raises:
        InvalidInput: less than 0 sinks.

    >>> large_values().first
    4
    """
    if sinks < 0:
        raise InvalidInput(f"large_values(sinks={sinks}); give 0 or more")

    def score(cells: Cells, memory: Tensor) -> Tensor:
        return cells.values.float().square().sum(-1).sqrt()

    return Score(score, first=sinks)
