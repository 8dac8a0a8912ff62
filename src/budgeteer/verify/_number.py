"""Numbers as numbers."""

from __future__ import annotations

from budgeteer.verify.kit.quantity import quantity
from budgeteer.verify.kit.text import read, same


def number(answer: str | None, reference: str) -> float:
    """1 when both are equal numbers, of units that convert exactly or one of them without, or else the same text.

    A percentage is its value (12 % = 0.12, not 12). Nothing is rounded.

    >>> number("$1,200.00", "1200"), number("3/4", "0.75"), number("1/4", "3/4"), number("5000 m", "5 km")
    (1.0, 1.0, 0.0, 1.0)
    """
    if answer is None:
        return 0.0
    given, wanted = quantity(read(answer)), quantity(read(reference))
    if given is not None and wanted is not None:
        return float(given.equals(wanted))
    return float(same(answer, reference))
