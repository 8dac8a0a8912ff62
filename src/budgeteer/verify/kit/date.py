"""Days of the calendar, in the spellings that name the month or begin with the year."""

from __future__ import annotations

import datetime
import re

_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
           "november", "december")  # fmt: skip
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NAME = r"(?P<month>[a-z]{3,9})\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{4})"
_WEEKDAY = r"(?:(?:on )?(?:(?P<weekday>(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6})\.?,? )?)?(?:the )?"
_SPELLINGS = tuple(
    re.compile(_WEEKDAY + spelling)
    for spelling in (rf"{_NAME} {_DAY},? {_YEAR}", rf"{_DAY} (?:of )?{_NAME},? {_YEAR}", rf"{_DAY}-{_NAME}-{_YEAR}")
)
_ISO = re.compile(r"(?P<year>\d{4})([-/])(?P<month>\d{2})\2(?P<day>\d{2})")


def date(text: str) -> datetime.date | None:
    """The day that a whole text names, None where it names none or is not clear.

    ``03/06/1990`` is the third of June for some and the sixth of March for others, so it is a text like any other.

    >>> [str(date(text)) for text in ("June 3, 1990", "3rd of June 1990", "Sun, 3 Jun. 1990", "1990-06-03")]
    ['1990-06-03', '1990-06-03', '1990-06-03', '1990-06-03']
    >>> [date(text) for text in ("03/06/1990", "June 1990", "June 31, 1990", "Monday, June 3, 1990")]
    [None, None, None, None]
    """
    shown = " ".join(text.casefold().split()).removesuffix(".")
    iso = _ISO.fullmatch(shown)
    if iso is not None:
        return _day(int(iso["year"]), int(iso["month"]), int(iso["day"]))
    for spelling in _SPELLINGS:
        match = spelling.fullmatch(shown)
        month = None if match is None else _of(match["month"], _MONTHS)
        if match is None or month is None:
            continue
        day = _day(int(match["year"]), month + 1, int(match["day"]))
        if day is None or match["weekday"] is None or _of(match["weekday"], _WEEKDAYS) == day.weekday():
            return day
    return None


def _of(name: str, names: tuple[str, ...]) -> int | None:
    """The position of a name, written out or by its first three letters (``sept``, ``tues`` and ``thurs``, too)."""
    for i, whole in enumerate(names):
        if name == whole or (whole.startswith(name) and len(name) in (3, 4, 5)):
            return i
    return None


def _day(year: int, month: int, day: int) -> datetime.date | None:
    try:
        return datetime.date(year, month, day)
    except ValueError:  # no such day
        return None
