"""Numbers to be put in order."""

from __future__ import annotations

import random

from budgeteer.lab.thinker.problem import Problem
from budgeteer.lab.thinker.working import Working

LEVELS = range(3, 8)
"""How many numbers."""
_ASKS = (
    "Sort these numbers in {order} order: {numbers}.",
    "Put {numbers} in {order} order.",
    "Arrange the numbers {numbers} from {way}.",
    "Here is a list: {numbers}. Write it from {way}.",
    "Order the list {numbers} from {way}.",
)


def draw(rng: random.Random, level: int) -> Problem:
    """``level`` distinct numbers."""
    numbers = rng.sample(range(1, 200), level)
    descending = rng.random() < 0.4

    def work(w: Working) -> str:
        left, picked = list(numbers), []
        while len(left) > 1:
            picked.append(w.pick(left, descending))
            left.remove(picked[-1])
        w.say(f"Last: {left[0]}")
        return ", ".join(map(str, [*picked, *left]))

    right = ", ".join(map(str, sorted(numbers, reverse=descending)))
    listed = ", ".join(map(str, numbers))
    order, way = ("descending", "largest to smallest") if descending else ("ascending", "smallest to largest")
    question = rng.choice(_ASKS).format(order=order, way=way, numbers=listed)
    return Problem("sorting", f"sort {order} {listed}", question, right, level, work)
