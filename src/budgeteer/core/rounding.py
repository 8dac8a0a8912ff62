"""The Rounding protocol: whole choices out of fractions."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import F64


class Rounding(Protocol):
    """A function that chooses items such that item i is chosen with probability ``chance[i]``, exactly.

    The number chosen is the sum of the chances, rounded down or up; no two items are chosen together more often than
    independent draws would choose them. Chances outside [0, 1] are refused with InvalidInput.
    """

    def __call__(self, chance: F64, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Choose.

        Args:
            chance: [n] in [0, 1].
            rng: of everything that is drawn.

        Returns:
            [n] true where chosen.
        """
        ...
