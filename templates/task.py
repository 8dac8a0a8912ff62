"""One line: what the problems are, and what makes an answer right.

Source: "Title", where the problems are from.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput


class Divisible:
    """Find a number in a range that another one divides; any such number is right.

    Args:
        size: how many problems.
        seed: of the numbers.
        most: the largest divisor, from 2 to 100; the larger, the harder.

    Raises:
        InvalidInput: another ``most``.

    >>> task = Divisible(size=1, seed=0, most=9)
    >>> task.items[0].prompt, task.items[0].answer
    ('Give a whole number from 891 to 899 that 9 divides.', '891')
    >>> [task.verify(task.items[0], answer) for answer in ("891", "891.", "892", None)]
    [1.0, 0.0, 0.0, 0.0]
    """

    name = "divisible"

    def __init__(self, size: int, seed: int, most: int = 12) -> None:
        if not 2 <= most <= 100:
            raise InvalidInput(f"divisible: most={most}; give 2 to 100")
        rng = random.Random(f"divisible-{seed}")
        items: dict[str, Item] = {}
        while len(items) < size:
            divisor, low = rng.randint(2, most), rng.randint(100, 999)
            prompt = f"Give a whole number from {low} to {low + divisor - 1} that {divisor} divides."
            entry = {"low": low, "divisor": divisor}
            items[prompt] = Item(prompt, prompt, str(-(-low // divisor) * divisor), level=str(divisor), entry=entry)
        self.items: Sequence[Item] = list(items.values())

    def verify(self, item: Item, answer: str | None) -> float:
        """1 for a number of the range that the divisor divides, else 0."""
        if answer is None or not (answer.isascii() and answer.isdecimal() and len(answer) < 9):
            return 0.0
        low, divisor = item.entry["low"], item.entry["divisor"]
        return float(low <= int(answer) < low + divisor and int(answer) % divisor == 0)
