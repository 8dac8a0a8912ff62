"""Stories about somebody who has things, gets some and gives some away."""

from __future__ import annotations

import random

from budgeteer.lab.thinker.arithmetic import TOP, apply
from budgeteer.lab.thinker.problem import Problem
from budgeteer.lab.thinker.working import Working

LEVELS = range(1, 7)
"""Number of steps."""
SHE = ("Ana", "Mia", "Eva", "Lea", "Zoe", "Nina", "Ruth", "Ida", "Clara", "Emma", "Sara", "Olga")
HE = ("Ben", "Tom", "Max", "Leo", "Jan", "Omar", "Paul", "Finn", "Hugo", "Ivan", "Karl", "Noah")
NAMES = SHE + HE
THINGS = ("apples", "pens", "books", "coins", "shells", "stamps", "cards", "eggs", "nuts", "beads", "keys", "cups")
_BAGS = ("boxes", "bags", "packs", "baskets")
_MORE = (
    "{he} buys {n} more.",
    "{he} finds {n} {things}.",
    "{other} gives {him} {n} {things}.",
    "Then {who} gets {n} more {things}.",
    "{he} wins {n} {things} in a game.",
)
_LESS = (
    "{he} gives {n} to {other}.",
    "{he} loses {n} of them.",
    "{he} sells {n} {things}.",
    "Then {n} of the {things} are broken and thrown away.",
    "{other} takes {n} of them.",
)
_TIMES = {2: ("{he} then doubles the number of {things}.",), 3: ("{he} then triples the number of {things}.",)}
_ASIDE = (
    "{other} has {n} {others}.",
    "{other} is {n} years old.",
    "The shop is {n} minutes away.",
    "{other} likes {others}.",
)


def draw(rng: random.Random, level: int) -> Problem:
    """A story that takes ``level`` steps."""
    who, other = rng.sample(NAMES, 2)
    he, him = ("She", "her") if who in SHE else ("He", "him")
    things, others = rng.sample(THINGS, 2)
    start = value = rng.randint(2, 99)
    names = {"who": who, "him": him, "other": other, "things": things, "others": others}
    story = [f"{who} has {start} {things}." if rng.random() < 0.7 else f"There are {start} {things} in {who}'s bag."]
    plan: list[tuple[str, int, int]] = []  # (operation, number, how many in each box or 0)
    ask, left = rng.choice(("How many {things} does {who} have now?", "How many {things} are left for {who}?")), level
    while left:
        op, n, each, text = _event(rng, value, left)
        subject = he
        if rng.random() < 0.12:
            story.append(rng.choice(_ASIDE).format(n=rng.randint(3, 60), **names))
            subject = who  # a pronoun could mean the other one now
        story.append(text.format(n=n, each=each, he=subject, **names))
        plan.append((op, n, each))
        value = apply(value, op, n * each if each else n)
        left -= 2 if each else 1
    for n in rng.sample((2, 3, 4, 5, 6), 5):
        if plan[-1][0] != "/" and level > 1 and value % n == 0 and value and rng.random() < 0.15:
            # an equal share in place of the last step, whose own result is not asked for
            story.append(f"{he} shares all of them equally among {n} friends.")
            plan.append(("/", n, 0))
            value //= n
            ask = "How many {things} does each friend get?"
            break

    def work(w: Working) -> str:
        value = start
        for op, n, each in plan:
            value = w.calc(value, op, w.calc(n, "*", each) if each else n)
        return str(value)

    key = f"story {start}" + "".join(f"{op}{n}{f'*{each}' if each else ''}" for op, n, each in plan)
    question = " ".join([*story, ask.format(**names)])
    return Problem("words", key, question, str(value), level, work)


def _event(rng: random.Random, value: int, left: int) -> tuple[str, int, int, str]:
    """(operation, number, how many in each box or 0, sentence), which keeps the value between 0 and ``TOP``."""
    if left >= 2 and value < TOP - 108 and rng.random() < 0.3:
        n, each = rng.randint(2, 9), rng.randint(2, 12)
        return "+", n, each, f"{{he}} buys {{n}} {rng.choice(_BAGS)} with {{each}} {{things}} each."
    if 2 <= value <= 300 and rng.random() < 0.12:
        n = rng.choice((2, 3))
        return "*", n, 0, rng.choice(_TIMES[n])
    if value > TOP - 99 or (value > 1 and rng.random() < 0.5):
        return "-", rng.randint(1, min(99, value)), 0, rng.choice(_LESS)
    return "+", rng.randint(1, 99), 0, rng.choice(_MORE)
