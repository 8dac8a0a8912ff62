"""One line: how a setting moves over the share of the run that is done.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import math

from budgeteer.core.errors import InvalidInput
from budgeteer.core.schedule import Schedule


def half_cosine(end: float = 0.1) -> Schedule:
    """A factor that falls from 1 to ``end`` along half a cosine.

    Formula: end + (1 - end) * (1 + cos(pi * share)) / 2.
    Helps when the first and the last steps should change little; does not when the run may end early.

    Args:
        end: the factor at the end, in [0, 1].

    Raises:
        InvalidInput: another end.

    >>> [round(half_cosine(0.0)(share), 3) for share in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    """
    if not 0 <= end <= 1:
        raise InvalidInput(f"half_cosine(end={end}); give 0 to 1")
    return lambda share: end + (1 - end) * (1 + math.cos(math.pi * share)) / 2
