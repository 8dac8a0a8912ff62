"""Days after a date, weekdays, and times of arrival."""

from __future__ import annotations

import random

from budgeteer.lab.thinker.problem import Problem
from budgeteer.lab.thinker.working import Working

LEVELS = range(1, 5)
"""Months that end, legs of a journey, or for weekdays a width of numbers."""
MONTHS = {
    "January": 31,
    "February": 28,
    "March": 31,
    "April": 30,
    "May": 31,
    "June": 30,
    "July": 31,
    "August": 31,
    "September": 30,
    "October": 31,
    "November": 30,
    "December": 31,
}
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NAMES = tuple(MONTHS)


def draw(rng: random.Random, level: int) -> Problem:
    """A problem with a date, a weekday or a clock."""
    return rng.choice((_days_after, _days_after, _weekday, _arrival))(rng, level)


def _days_after(rng: random.Random, level: int) -> Problem:
    month = rng.randrange(12)
    day = rng.randint(1, MONTHS[_NAMES[month]])
    inside = MONTHS[_NAMES[month]] - day
    ends = sum(MONTHS[_NAMES[(month + i) % 12]] for i in range(1, level))
    span = inside + ends + rng.randint(1, MONTHS[_NAMES[(month + level) % 12]])

    def work(w: Working) -> str:
        now, left = month, span
        room = w.calc(_days(w, now), "-", day)
        first = True
        while left > room:
            left = w.calc(left, "-", room)
            now, first = (now + 1) % 12, False
            room = _days(w, now)
        return f"{_NAMES[now]} {w.calc(day, '+', left) if first else left}"

    right_month, right = month, span - inside
    while right > MONTHS[_NAMES[(right_month + 1) % 12]]:
        right_month = (right_month + 1) % 12
        right -= MONTHS[_NAMES[right_month]]
    date = f"{_NAMES[month]} {day}"
    question = rng.choice(
        (
            f"What date is {span} days after {date}? It is not a leap year.",
            f"Today is {date}, in a year with 365 days. Which date is it in {span} days?",
            f"A parcel was sent on {date} and arrived {span} days later, in no leap year. On which date did it arrive?",
            f"The school starts {span} days after {date}. No year here is a leap year. On which date does it start?",
        )
    )
    answer = f"{_NAMES[(right_month + 1) % 12]} {right}"
    return Problem("dates", f"days after {date} {span}", question, answer, level, work)


def _days(w: Working, month: int) -> int:
    name = _NAMES[month]
    days = MONTHS[name]
    wrong = {31: 30, 30: 31, 28: 30}[days]
    why = "only February has 28" if days == 28 else "April June September November have 30"
    return w.recall(f"days of {name}", f"{name}: ", days, wrong, why)


def _weekday(rng: random.Random, level: int) -> Problem:
    today, days = rng.randrange(7), rng.randint(3 + 20 * (level - 1), 20 * level + 2)

    def work(w: Working) -> str:
        rest = w.calc(days, "%", 7) % 7
        w.say(" ".join(WEEKDAYS[(today + i) % 7] for i in range(rest + 1)))
        return WEEKDAYS[(today + rest) % 7]

    question = rng.choice(
        (
            f"Today is {WEEKDAYS[today]}. What day of the week is it in {days} days?",
            f"The race is {days} days after a {WEEKDAYS[today]}. On what day of the week is it?",
            f"It is {WEEKDAYS[today]}. Which weekday comes after {days} more days?",
        )
    )
    right = WEEKDAYS[(today + days) % 7]
    return Problem("dates", f"weekday {today} {days}", question, right, level, work)


def _arrival(rng: random.Random, level: int) -> Problem:
    hour, minute = rng.randint(0, 12), rng.randint(0, 59)
    legs = [(rng.randint(0, 3), rng.randint(1, 59)) for _ in range(level)]

    def work(w: Working) -> str:
        h, m = hour, minute
        for hours, minutes in legs:
            h = w.calc(h, "+", hours) if hours else h
            m = w.calc(m, "+", minutes)
            if m >= 60:
                m = w.calc(m, "-", 60)
                h = w.calc(h, "+", 1)
        if h >= 24:
            h = w.calc(h, "-", 24)
        return f"{h}:{m:02}"

    total = hour * 60 + minute + sum(60 * h + m for h, m in legs)
    leg = [f"{f'{h} hours and ' if h > 1 else '1 hour and ' if h else ''}{m} minutes" for h, m in legs]
    question = rng.choice(
        (
            "A train leaves at {at}. It travels {legs}. When does it arrive?",
            "The film night starts at {at}. The parts take {legs}. When does it end?",
            "I leave home at {at} and walk {legs}. What time is it then?",
        )
    ).format(at=f"{hour}:{minute:02}", legs=", then ".join(leg))
    key = f"clock {hour}:{minute} " + " ".join(f"{h}:{m}" for h, m in legs)
    return Problem("dates", key, question, f"{total // 60 % 24}:{total % 60:02}", level, work)
