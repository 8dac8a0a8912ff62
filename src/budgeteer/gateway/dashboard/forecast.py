"""Forecast, with an interval, the units spent by the end of a window from those spent so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SLICES = 12
"""Equal slices of time into which the past is cut; few, so that a slice is much longer than a request."""
_T = 1.7959
"""The 95 % quantile of Student's t with 11 degrees of freedom, for an interval of 90 %."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The units spent in a slice of time: mean and standard deviation over SLICES slices."""

    mean: float
    sd: float

    def ahead(self, slices: float) -> tuple[float, float, float]:
        """(low, mean, high) of the units that the next ``slices`` will spend: a 90 % prediction interval of their sum.

        With n slices seen and h ahead, all independent and of one distribution, the variance of the sum about its
        forecast h m is s² (h + h²/n): that of the coming slices, and that of the mean m (Hahn and Meeker, Statistical
        Intervals, section 4.8). If traffic changes with the hour of the day, the interval is too narrow.
        """
        middle = self.mean * slices
        half = _T * self.sd * math.sqrt(slices + slices * slices / SLICES)
        return max(0.0, middle - half), middle, middle + half


def pace(fine: Sequence[float]) -> tuple[Pace, int] | None:
    """The pace of past spending.

    Args:
        fine: units spent in equal steps of time, oldest first; the oldest steps that do not fill a slice are left out.

    Returns:
        The pace, and the number of steps in one of its slices; None with fewer than SLICES steps, or if nothing was
        spent.

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
