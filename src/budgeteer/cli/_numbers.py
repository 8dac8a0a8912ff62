"""The ranges of numbers that options take, in one table; other numbers are refused before any work is done."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from budgeteer.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Range:
    """The range that a number has to be in.

    Attributes:
        low, high: the smallest and the largest value.
        above: whether ``low`` itself is refused.
        why: a reason that the error adds after the range.
    """

    low: float
    high: float
    above: bool = False
    why: str = ""

    def holds(self, value: float) -> bool:
        """Whether the value is inside; NaN is not."""
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:,}" if self.above else f"{self.low:,} or more"
        return f"{low}, {self.high:,} at most" + (f" ({self.why})" if self.why else "")


_SEED = Range(0, 2**31 - 1)
_TOKENS = Range(1, 2**62)
RANGES = {
    "baseline": Range(10, 1_000_000),
    "batch": Range(1, 100_000),
    "bits": Range(1, 64),
    "budget": Range(0, 2**62, above=True),
    "cache_bits": Range(1, 64),
    "concurrency": Range(1, 10_000),
    "calls_a_day": Range(1, 10_000),
    "cap": Range(1, 1_000_000),
    "days": Range(1, 10_000),
    "depth": Range(1, 1_000),
    "discount": Range(0, 100),
    "documents": Range(2, 12),
    "each": Range(1, 6),
    "environments": Range(1, 1_000_000),
    "fidelity": Range(0, 1),
    "first_seed": _SEED,
    "group": Range(1, 100_000),
    "guess": Range(0, 1 - 1e-6),
    "heldout_items": Range(1, 10_000_000),
    "high": Range(0, 1_000_000_000),
    "items": Range(1, 1_000_000),
    "joules": Range(0, math.inf, above=True),
    "kl": Range(0, 1_000, why="0 = no penalty"),
    "length": Range(1, 10_000_000),
    "level": Range(1e-6, 1 - 1e-6),
    "limit": Range(1, 1_000_000_000),
    "low": Range(0, 1_000_000_000),
    "lr": Range(0, 1, above=True),
    "max_input": _TOKENS,
    "max_output": _TOKENS,
    "max_reasoning": _TOKENS,
    "max_tokens": Range(1, 1_000_000),
    "message": Range(1, 1_000_000_000),
    "n": Range(1, 1_000_000_000),
    "pass_at": Range(1, 1_000_000),
    "port": Range(0, 65_535, why="0 = a free one"),
    "positions": Range(1, 1_000_000),
    "power": Range(0, 100, why="0 = all layers are equal"),
    "prompt_tokens": Range(1, 1_000_000_000),
    "prompts": Range(1, 1_000_000),
    "repeats": Range(1, 1_000),
    "rollouts": Range(1, 10_000),
    "samples": Range(0, 1_000_000),
    "seed": _SEED,
    "seeds": Range(1, 10_000, why="2 or more for an interval"),
    "shared": Range(0, 1),
    "size": Range(257, 10_000_000, why="the 256 bytes and a special token are always in it"),
    "splits": Range(1, 10_000, why="2 or more for an interval"),
    "steps": Range(1, 10_000_000),
    "task_seed": _SEED,
    "temperature": Range(0, 1_000, above=True),
    "timeout": Range(0, 10**9, above=True),
    "tokens_a_day": _TOKENS,
    "train_items": Range(1, 10_000_000),
    "train_seconds": Range(0, 10**9),
    "trials": Range(1, 100_000),
    "watch": Range(0.1, 86_400),
    "watts": Range(0, 1_000_000, above=True),
    "weight": Range(0, 1),
    "width": Range(1, 100_000),
    "window": Range(1, 2**62),
    "words": Range(1, 100),
    "workers": Range(1, 1_024),
    "worth": Range(0, math.inf, above=True),
}
"""Option, as argparse names it -> what it takes. A number that means the same has the same name in all commands."""


def check(args: argparse.Namespace) -> None:
    """Refuse numbers out of range.

    Raises:
        InvalidInput: names the option, what was given and what it takes.
    """
    for name, value in vars(args).items():
        allowed = RANGES.get(name)
        if allowed is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not allowed.holds(value):
            option = f"-{name}" if len(name) == 1 else "--" + name.replace("_", "-")
            shown = f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)
            raise InvalidInput(f"{option} is {shown}; give {allowed}")
