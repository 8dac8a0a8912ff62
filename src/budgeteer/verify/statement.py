# ruff: noqa: RUF001 -- signs as models write them
"""The number that a line of text states: how an answer is read if every reference is a number."""

from __future__ import annotations

import re

from budgeteer.verify.kit.quantity import ALTERS, Quantity, alters, quantity
from budgeteer.verify.kit.text import LONGEST, read

__all__ = ["stated"]

_BEGINS = re.compile(
    r"(?<![^ :=])(?:(?:minus|negative) )?[-+]?(?:US\$|[$€£¥₹]|(?:USD|EUR|GBP|JPY|INR) ?)?[-+]?\.?\d", re.IGNORECASE
)
_BEFORE = re.compile(r"(?:.*(?:[:=,.!]|(?<![^ ])[a-z']{2,}))? ?", re.DOTALL)
"""What may stand before a number in prose: not a name (``Apollo 11``), a letter or an operator."""
_LABEL = re.compile(
    r"\b(?:step|version|chapter|question|option|choice|page|line|case|part|figure|equation|problem|example|room) ?$"
)
_TAIL = re.compile(
    r"[.,;!](?= )| (?=\(|(?:in|at|on|for|from|with|every|because|since|so|by|as|and|altogether|overall)\b)"
)
_WORKING = re.compile(r"[$(]?\d[\d .,+\-*/×·÷()^$%=]*$")
_WORD = re.compile(r"[a-z']+")


def stated(line: str, *, units: bool = False) -> str | None:
    """The one number that a line states, in plain digits: ``100000`` for ``1e5``, ``0.5`` for ``50%``.

    It is the whole line, read as every verifier reads it; or the only number of a sentence; or what a calculation at
    the end of the line comes to. A part of a larger expression, of a date or of a list is none, and words beside a
    number that change it leave none.

    Args:
        line: of an answer.
        units: keep units other than dollars, if some references are in dollars.

    Returns:
        The number; the line itself if it states none, for the verifier to judge; None if it is unclear which.

    >>> [stated(line) for line in ("She has 1,200 apples left.", "50 - 48 = 2 dollars", "2 1/2", "$5", "1/3")]
    ['1200', '2', '2.5', '5', '1/3']
    >>> [stated(line) for line in ("2^10", "12:30", "June 3, 1990", "many", "5 or 6", "not 42")]
    ['2^10', '12:30', 'June 3, 1990', 'many', None, None]
    """
    if len(line) > LONGEST:
        return line
    text = read(line)
    number_read = quantity(text) or _in_prose(text)
    if number_read is not None:
        return _written(number_read, units)
    words = set(_WORD.findall(text.casefold()))
    return None if words & {"or", "nor", "not", "no"} and any(c.isdigit() for c in text) else line


def _in_prose(text: str) -> Quantity | None:
    if "\\" in text or "?" in text:
        return None
    begins = list(_BEGINS.finditer(text))
    if not begins:
        return None
    before, rest = text[: begins[-1].start()], text[begins[-1].start() :]
    if before.rstrip().endswith("="):
        working = _WORKING.search(before)
        if working is not None and any(sign in working[0] for sign in "+-*/×·÷^"):
            before, rest = before[: working.start()], before[working.start() :] + rest
            if before and not before.endswith((" ", ":")):
                return None
            return None if _altered(before) else quantity(rest)
    tail = _TAIL.search(rest)
    number, after = (rest[: tail.start()], rest[tail.start() :]) if tail else (rest, "")
    if any(c.isdigit() for c in before + after) or _altered(before) or _altered(after):
        return None
    return quantity(number) if _BEFORE.fullmatch(before) and not _LABEL.search(before) else None


def _altered(text: str) -> bool:
    words = _WORD.findall(text.casefold())
    return any(word.endswith("n't") or word in ALTERS or (alters(word) and not word.endswith("ed")) for word in words)


def _written(stated_quantity: Quantity, units: bool) -> str:
    """A quantity in plain digits, a fraction where decimals would not end."""
    value, unit = stated_quantity.value, stated_quantity.unit
    if units and unit == "cent":
        value, unit = value / 100, "$"
    places = _places(value.denominator)
    if places is None:
        number = str(value)
    else:
        digits = str(abs(value.numerator) * (10**places // value.denominator)).rjust(places + 1, "0")
        cut = len(digits) - places
        number = ("-" if value < 0 else "") + digits[:cut] + ("." + digits[cut:] if places else "")
    return number + (f" {unit}" if units and unit not in ("", "$") else "")


def _places(denominator: int) -> int | None:
    """Decimals after which 1/denominator ends, None where it never does."""
    twos = fives = 0
    while denominator % 2 == 0:
        denominator, twos = denominator // 2, twos + 1
    while denominator % 5 == 0:
        denominator, fives = denominator // 5, fives + 1
    return max(twos, fives) if denominator == 1 else None
