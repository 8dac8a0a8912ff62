"""What styles share: the normal form of an answer, and the reader of its line."""

from __future__ import annotations

import re
from collections.abc import Callable

from budgeteer import verify
from budgeteer.solve.styles.protocol import TaskInfo

__all__ = ["first_line", "normal"]

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_WHOLE = re.compile(rf"[-+]?\$?[-+]?{_DIGITS}")


def normal(text: str) -> str:
    """The normal form of an answer, so that equal answers compare equal.

    It has no decoration; numbers have no commas, ``$``, ``+`` and no zeros at the end of decimals.

    >>> normal(" **1,234.50** "), normal("$5."), normal("-0.0"), normal("['1',  '2']")
    ('1234.5', '5', '0', "['1', '2']")
    """
    shown = " ".join(text.split()).strip("*`_ ").removesuffix(".").strip("*`_ ")
    if not _WHOLE.fullmatch(shown):
        return shown
    number = shown.replace(",", "").replace("$", "").replace("+", "")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return "0" if number == "-0" else number


def first_line(text: str) -> str | None:
    """The first line, or None if it is blank.

    >>> first_line(" 4\\n5"), first_line("\\n4")
    ('4', None)
    """
    return text.split("\n", 1)[0].strip() or None


def reader(task: TaskInfo) -> Callable[[str], str | None]:
    """The reader of an answer's line: if all answers are numbers, it returns the number that the line states
    (:func:`budgeteer.verify.stated`), else the line as it is."""
    if not task.numeric:
        return first_line

    def answer(text: str) -> str | None:
        line = first_line(text)
        return line and verify.stated(line, units=task.units)

    return answer
