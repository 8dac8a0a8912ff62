"""Worked solutions of the families that the embedded reasoner knows, step by step, written as it writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def steps_of_sum(expression: str) -> tuple[str, ...]:
    """A sum worked from left to right.

    >>> steps_of_sum("6 - 9 + 4")
    ('6-9=-3;', '-3+4=1;')
    """
    first, *rest = expression.split()
    value, steps = int(first), []
    for op, number in zip(rest[::2], rest[1::2], strict=True):
        result = value + int(number) if op == "+" else value - int(number)
        steps.append(f"{value}{op}{number}={result};")
        value = result
    return tuple(steps)


def steps_of_gcd(numbers: Sequence[int]) -> tuple[str, ...]:
    """Euclid's algorithm, number after number.

    >>> steps_of_gcd([12, 30])
    ('30%12=6;', '12%6=0;')
    """
    steps, common = [], numbers[0]
    for number in numbers[1:]:
        x, y = max(common, number), min(common, number)
        while y:
            steps.append(f"{x}%{y}={x % y};")
            x, y = y, x % y
        common = x
    return tuple(steps)


def steps_of_filter(numbers: Sequence[str], bound: str, operation: str) -> tuple[str, ...]:
    """One comparison a number: ``y`` for those that stay.

    >>> steps_of_filter(["10", "-4", "3"], "3", "remove_larger")
    ('10n;', '-4y;', '3y;')
    """
    verb, side = operation.split("_")
    beyond = [float(n) > float(bound) if side == "larger" else float(n) < float(bound) for n in numbers]
    return tuple(f"{n}{'y' if past == (verb == 'keep') else 'n'};" for n, past in zip(numbers, beyond, strict=True))


SOLUTIONS: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, ...]]] = {
    "chain_sum": lambda made: steps_of_sum(made["expression"]),
    "gcd": lambda made: steps_of_gcd(made["numbers"]),
    "number_filtering": lambda made: steps_of_filter(made["original_numbers"], made["filter_value"], made["operation"]),
}
"""Family of reasoning-gym -> steps of a solution, from what the family says of a problem."""
