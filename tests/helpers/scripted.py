"""What a scripted model writes in the tests of whole runs."""

from __future__ import annotations

import random


def write(prompt: str, rng: random.Random) -> str:
    """Right in two of three: the answer of a chain, or the wrong one, after some thinking."""
    value, *steps = prompt[31:-2].split(" ")
    total = int(value)
    for op, b in zip(steps[::2], steps[1::2], strict=True):
        total = {"+": total + int(b), "-": total - int(b), "*": total * int(b)}[op] % 11
    return "x" * rng.randint(0, 9) + f"</think>{total if rng.random() < 0.67 else (total + 1) % 11}\n"
