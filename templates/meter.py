"""One line: what is counted, and in which unit.

Source: where the conversion is from.
"""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage


class Letters:
    """Letters of output, at ``each`` a token; ``kind`` is the name that a budget has: ``letters:400``."""

    kind = "letters"

    def __init__(self, each: int) -> None:
        self.each = each

    def __call__(self, usage: Usage, model: str = "", service: str = "") -> int:
        """Units of a usage: a whole number, 0 or more."""
        return self.each * (usage.output or 0)

    worst = __call__  # the most that a usage with these totals can come to


def letters(each: str = "4") -> Letters:
    """Letters that were written: so many a token of output.

    Helps when a page has room for so many letters; does not when tokens are what is paid for.

    Args:
        each: letters a token; the text after the kind's colon, as in ``letters:5``.

    Raises:
        InvalidInput: no whole number of 1 or more.

    >>> letters()(Usage(input=9, output=20))
    80
    """
    if not (each.isascii() and each.isdecimal() and int(each) >= 1):
        raise InvalidInput(f"letters:{each}; give a whole number of letters a token")
    return Letters(int(each))
