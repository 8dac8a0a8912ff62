"""The largest whole number that fits."""

from __future__ import annotations

from collections.abc import Callable


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 1 to ``most`` that fits, 0 if none does.

    Args:
        fits: whether a number fits; those below one that fits have to fit, too. It is asked about log2(most) times.
        most: the largest number that may be returned; below 1 nothing is asked.

    >>> largest(lambda n: n * n <= 50, 100)
    7
    """
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
