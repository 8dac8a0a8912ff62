"""Chains of sums, from left to right."""

from __future__ import annotations

import random

from budgeteer.lab.thinker.problem import Problem
from budgeteer.lab.thinker.working import Working

LEVELS = range(1, 7)
"""Number of steps."""
_WORDS = {"+": ("add", "plus"), "-": ("subtract", "minus"), "*": ("multiply by", "times")}
TOP = 999
"""No value on the way is larger."""


def operation(rng: random.Random, value: int) -> tuple[str, int]:
    """A step that keeps the value between 0 and ``TOP``."""
    kinds = ["+", "+", "-", "-"] if value < 100 else ["+", "-", "-"]
    if 2 <= value <= 99:
        kinds.append("*")
    op = rng.choice(kinds)
    if op == "*":
        return op, rng.randint(2, 9)
    top = min(99, TOP - value) if op == "+" else min(99, value)
    return (op, rng.randint(1, top)) if top >= 1 else ("+", rng.randint(1, 9))


def apply(a: int, op: str, b: int) -> int:
    """The value after one step."""
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[op]


def draw(rng: random.Random, level: int) -> Problem:
    """A chain of ``level`` steps."""
    start = value = rng.randint(2, 99)
    steps: list[tuple[str, int]] = []
    for _ in range(level):
        steps.append(operation(rng, value))
        value = apply(value, *steps[-1])

    def work(w: Working) -> str:
        value = start
        for op, b in steps:
            value = w.calc(value, op, b)
        return str(value)

    question = rng.choice((_brackets, _in_words, _as_orders, _on_a_display))(rng, start, steps)
    key = f"chain {start}" + "".join(f"{op}{b}" for op, b in steps)
    return Problem("arithmetic", key, question, str(value), level, work, boxed=True)


def _brackets(rng: random.Random, start: int, steps: list[tuple[str, int]]) -> str:
    text = str(start)
    for i, (op, b) in enumerate(steps):
        text = f"({text}) {op} {b}" if i and op == "*" and steps[i - 1][0] != "*" else f"{text} {op} {b}"
    return rng.choice(("Compute {}.", "What is {}?", "Evaluate {}.", "Find the value of {}.")).format(text)


def _in_words(rng: random.Random, start: int, steps: list[tuple[str, int]]) -> str:
    text = f"{start} " + ", then ".join(f"{_WORDS[op][1]} {b}" for op, b in steps)
    return rng.choice(("What is {}, from left to right?", "From left to right, how much is {}?")).format(text)


def _as_orders(rng: random.Random, start: int, steps: list[tuple[str, int]]) -> str:
    orders = ". ".join(f"{_WORDS[op][0].capitalize()} {b}" for op, b in steps)
    first, last = rng.choice(
        (("Start with", "What do you get?"), ("Take", "What is the result?"), ("Begin at", "Where do you end?"))
    )
    return f"{first} {start}. {orders}. {last}"


def _on_a_display(rng: random.Random, start: int, steps: list[tuple[str, int]]) -> str:
    who = rng.choice(("A calculator shows", "The display says", "I think of the number"))
    text = ", then ".join(f"{_WORDS[op][0]} {b}" for op, b in steps)
    return f"{who} {start}. I {text}. {rng.choice(('What is the number now?', 'Which number is it now?'))}"
