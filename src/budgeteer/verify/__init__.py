"""Verifiers: whether an answer is the reference answer. One grader for solve, frontier, train, compare and benchmarks.

A verifier is a function ``(answer, reference) -> score`` in [0, 1]; the answer is None where the model gave none. What
all of them share: the same text is right, an answer that cannot be read is wrong, nothing is raised, and every call is
bounded, whatever the text. In doubt an answer is wrong.

>>> from budgeteer.verify import auto, exact
>>> auto("The answer is 0.75.", "3/4"), auto("12:30", "30"), exact("Paris", "paris")
(1.0, 0.0, 0.0)
"""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.verify._auto import auto
    from budgeteer.verify._choice import choice
    from budgeteer.verify._exact import exact
    from budgeteer.verify._math import math
    from budgeteer.verify._number import number
    from budgeteer.verify.names import identity, known, named
    from budgeteer.verify.protocol import Verifier
    from budgeteer.verify.statement import stated

__all__ = [
    "Verifier",
    "auto",
    "choice",
    "exact",
    "identity",
    "known",
    "math",
    "named",
    "number",
    "stated",
]

__getattr__ = lazy(
    __name__,
    {
        "Verifier": "protocol",
        "auto": "_auto",
        "choice": "_choice",
        "exact": "_exact",
        "identity": "names",
        "known": "names",
        "math": "_math",
        "named": "names",
        "number": "_number",
        "stated": "statement",
    },
)
