"""Who has the most, or the fewest, where everybody's number has to be worked out first."""

from __future__ import annotations

import random

from budgeteer.lab.thinker.arithmetic import apply
from budgeteer.lab.thinker.problem import Problem
from budgeteer.lab.thinker.words import NAMES, THINGS
from budgeteer.lab.thinker.working import Working

LEVELS = range(2, 5)
"""How many are compared."""
_SHAPES = {
    "*": ("{who} has {a} boxes of {b} {things}.", "{who} buys {a} bags with {b} {things} each."),
    "+": ("{who} has {a} {things} and finds {b} more.", "{who} had {a} {things} and got {b} from a friend."),
    "-": ("{who} had {a} {things} and lost {b}.", "{who} has {a} {things} and gives {b} away."),
}


def draw(rng: random.Random, level: int) -> Problem:
    """``level`` people with different numbers of things."""
    things, most = rng.choice(THINGS), rng.random() < 0.6
    rows: list[tuple[str, int, str, int]] = []
    values: set[int] = set()
    for who in rng.sample(NAMES, level):
        while True:
            op = rng.choice("+-*")
            a, b = (rng.randint(2, 9), rng.randint(2, 25)) if op == "*" else (rng.randint(12, 99), rng.randint(2, 60))
            if (op != "-" or a > b) and apply(a, op, b) not in values:
                break
        values.add(apply(a, op, b))
        rows.append((who, a, op, b))

    def work(w: Working) -> str:
        best: tuple[str, int] | None = None
        for who, a, op, b in rows:
            candidate = who, w.calc(a, op, b, f"{who}: ")
            best = candidate if best is None else w.larger(best, candidate, most)
        assert best is not None
        return best[0]

    right = (max if most else min)(rows, key=lambda row: apply(*row[1:]))[0]
    told = " ".join(rng.choice(_SHAPES[op]).format(who=who, a=a, b=b, things=things) for who, a, op, b in rows)
    ask = rng.choice(
        ("Who has the most {}?", "Who has more {} than all others?")
        if most
        else ("Who has the fewest {}?", "Who has fewer {} than all others?")
    )
    key = f"{'most' if most else 'fewest'} " + " ".join(f"{a}{op}{b}" for _, a, op, b in rows)
    return Problem("comparisons", key, f"{told} {ask.format(things)}", right, level, work)
