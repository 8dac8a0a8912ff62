"""What will be spent by the end of a window, from what its slices so far spent, with how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SLICES = 12
"""Equal slices that the past is cut into: few enough that one is much longer than a request."""
_T = 1.7959
"""The 95 % quantile of Student's t with 11 degrees of freedom, for an interval of 90 %."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Units a slice of time: mean and standard deviation over SLICES slices."""

    mean: float
    sd: float

    def ahead(self, slices: float) -> tuple[float, float, float]:
        """(low, mean, high) of the units that the next ``slices`` spend: the 90 % prediction interval of a sum.

        With n slices seen and h ahead, all independent and alike, the variance of the sum about its forecast h m is
        s² (h + h²/n): that of what comes, and that of m (Hahn and Meeker, Statistical Intervals, section 4.8). It
        knows of no day and night: traffic that changes with the hour makes it too sure.
        """
        middle = self.mean * slices
        half = _T * self.sd * math.sqrt(slices + slices * slices / SLICES)
        return max(0.0, middle - half), middle, middle + half


def pace(fine: Sequence[float]) -> tuple[Pace, int] | None:
    """The pace of the past, and how many fine steps a slice of it has.

    Args:
        fine: units of equal steps of time, oldest first; the oldest that do not fill a slice are left out.

    Returns:
        None with fewer than SLICES steps, or without any spending.

    >>> pace([1.0, 3.0] * 6)
    (Pace(mean=2.0, sd=1.044465935734187), 1)
    """
    wide = len(fine) // SLICES
    if not wide or not any(fine):
        return None
    first = len(fine) - wide * SLICES
    sums = [sum(fine[first + n * wide : first + (n + 1) * wide]) for n in range(SLICES)]
    mean = sum(sums) / SLICES
    return Pace(mean, math.sqrt(sum((units - mean) ** 2 for units in sums) / (SLICES - 1))), wide
