"""Worked examples of our own, for raw completions."""

from __future__ import annotations

from collections.abc import Sequence

from budgeteer.solve.styles.protocol import Example, TaskInfo

__all__ = ["EXAMPLES"]

EXAMPLES: dict[str, tuple[Example, ...]] = {
    "numbers": (
        Example(
            "Mia has 3 boxes with 4 pencils each and buys 5 more pencils. How many pencils does she have?",
            "3 boxes of 4 are 3 * 4 = 12 pencils. With 5 more that is 12 + 5 = 17.",
            "17",
        ),
        Example(
            "A ticket costs $8. A group of 6 pays with a $50 note. How many dollars do they get back?",
            "6 tickets cost 6 * 8 = 48 dollars. They get back 50 - 48 = 2.",
            "2",
        ),
        Example(
            "A train runs 240 miles in 4 hours. How many miles does it run in 7 hours at the same speed?",
            "In one hour it runs 240 / 4 = 60 miles. In 7 hours it runs 7 * 60 = 420.",
            "420",
        ),
    ),
    "text": (
        Example("Which city is the capital of France?", "The capital of France is Paris.", "Paris"),
        Example("Is a whale a fish or a mammal?", "Whales breathe air and nurse their young.", "mammal"),
        Example("What day comes three days after Monday?", "Tuesday, Wednesday, Thursday.", "Thursday"),
    ),
    "chain_sum": (
        Example(
            "State the final answer to the following arithmetic problem: 4 + 3 - 6 =", "4 + 3 = 7. 7 - 6 = 1.", "1"
        ),
        Example("State the final answer to the following arithmetic problem: 2 - 7 =", "2 - 7 = -5.", "-5"),
        Example(
            "State the final answer to the following arithmetic problem: 9 + 5 + 8 =", "9 + 5 = 14. 14 + 8 = 22.", "22"
        ),
        Example(
            "State the final answer to the following arithmetic problem: 8 - 3 + 1 - 2 =",
            "8 - 3 = 5. 5 + 1 = 6. 6 - 2 = 4.",
            "4",
        ),
    ),
    "gcd": (
        Example(
            "Find the Greatest Common Divisor (GCD) of these numbers: 12, 18. Give only the GCD as your final answer.",
            "18 - 12 = 6. 6 divides 12 and 18.",
            "6",
        ),
        Example(
            "Find the Greatest Common Divisor (GCD) of these numbers: 7, 9. Give only the GCD as your final answer.",
            "7 is a prime and does not divide 9.",
            "1",
        ),
        Example(
            "Find the Greatest Common Divisor (GCD) of these numbers: 28, 21. Give only the GCD as your final answer.",
            "28 - 21 = 7. 7 divides 21 and 28.",
            "7",
        ),
    ),
    "chains": (
        Example(
            "Modulo 11, from left to right: 7 + 5 * 3 =",
            "7 + 5 = 12, modulo 11 that is 1. 1 * 3 = 3.",
            "3",
        ),
        Example("Modulo 11, from left to right: 2 - 6 =", "2 - 6 = -4, modulo 11 that is 7.", "7"),
        Example(
            "Modulo 11, from left to right: 9 * 4 - 1 =",
            "9 * 4 = 36, modulo 11 that is 3. 3 - 1 = 2.",
            "2",
        ),
    ),
}
"""Task -> our own worked examples; ``numbers`` and ``text`` are for questions of a file."""


def examples_of(task: TaskInfo) -> Sequence[Example]:
    """The examples that a task brings; without any, ours for the task, else ours for its kind of answer."""
    return task.examples or EXAMPLES.get(task.name) or EXAMPLES["numbers" if task.numeric else "text"]
