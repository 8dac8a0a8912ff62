"""Arithmetic chains modulo 11, worked from left to right, with a known number of steps."""

from __future__ import annotations

import random
from collections.abc import Sequence

from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput

MODULUS = 11
MOST_STEPS = 1_000
"""Most steps of a chain; longer ones take long to draw, and no model here has the context for them."""


def prompt_of(start: int, steps: Sequence[tuple[str, int]]) -> str:
    """The text of a chain.

    >>> prompt_of(7, [("+", 5), ("*", 3)])
    'Modulo 11, from left to right: 7 + 5 * 3 ='
    """
    return f"Modulo {MODULUS}, from left to right: {start} " + " ".join(f"{op} {b}" for op, b in steps) + " ="


def apply(a: int, op: str, b: int) -> int:
    """One step of a chain, in 0..10.

    >>> apply(7, "+", 5), apply(3, "-", 8), apply(4, "*", 3)
    (1, 6, 1)
    """
    return {"+": a + b, "-": a - b, "*": a * b}[op] % MODULUS


def worked(start: int, steps: Sequence[tuple[str, int]]) -> tuple[tuple[str, ...], int]:
    """The steps of a chain as texts, and its value.

    >>> worked(7, [("+", 5), ("*", 3)])
    (('7+5=1;', '1*3=3;'), 3)
    """
    value, texts = start, []
    for op, b in steps:
        result = apply(value, op, b)
        texts.append(f"{value}{op}{b}={result};")
        value = result
    return tuple(texts), value


def draw(rng: random.Random, n: int) -> tuple[int, list[tuple[str, int]]]:
    """A random chain of n steps; operands 1 to 10 (0 would make a product trivial)."""
    return rng.randrange(MODULUS), [(rng.choice("+-*"), rng.randrange(1, MODULUS)) for _ in range(n)]


def _check(size: int, low: int, high: int) -> None:
    if not all(type(n) is int for n in (low, high)) or not 1 <= low <= high:
        raise InvalidInput(f"chains with min_steps={low}, max_steps={high}; give whole numbers with 1 <= min <= max")
    if high > MOST_STEPS:
        raise InvalidInput(
            f"chains with max_steps={high}; a chain has {MOST_STEPS:,} steps at most, so lower max_steps"
        )
    share = -(-size // (high - low + 1))
    if share > (there := MODULUS * 30**low):
        raise InvalidInput(
            f"there are {there} chains of {low} steps and {share} are needed for {size} problems; ask for fewer "
            f"(--limit, --items, --train-items, --heldout-items), or raise min_steps"
        )


class Chains:
    """``size`` distinct chains with ``min_steps`` to ``max_steps`` steps, in equal shares.

    Args:
        size: how many problems.
        seed: of the draw.
        min_steps: fewest steps of a chain, from 1 to max_steps.
        max_steps: most steps of a chain, from min_steps to 1,000.

    Raises:
        InvalidInput: limits out of their range, or so narrow that there are fewer than ``size`` chains.

    >>> env = Chains(size=3, seed=0, min_steps=1, max_steps=3)
    >>> [item.level for item in env.items], env.verify(env.items[0], env.items[0].answer)
    (['1', '2', '3'], 1.0)
    """

    name = "chains"

    def __init__(self, size: int, seed: int, min_steps: int = 1, max_steps: int = 8) -> None:
        _check(size, min_steps, max_steps)
        rng = random.Random(f"chains-{seed}")
        items: dict[str, Item] = {}
        while len(items) < size:
            n = min_steps + len(items) % (max_steps - min_steps + 1)
            start, steps = draw(rng, n)
            solution, value = worked(start, steps)
            prompt = prompt_of(start, steps)
            key = f"chains:{prompt[31:-2]}"
            items.setdefault(prompt, Item(key, prompt, str(value), level=str(n), solution=solution))
        self.items: Sequence[Item] = list(items.values())

    def verify(self, item: Item, answer: str | None) -> float:
        """1 for the right residue, else 0."""
        return float(answer is not None and answer == item.answer)
