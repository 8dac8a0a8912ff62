"""Verifiers: whether an answer is the reference answer. One grader for solve, frontier, train, compare and benchmarks.

A verifier is a function ``(answer, reference) -> score`` in [0, 1]; the answer is None where the model gave none. What
all of them share: the same text is right, an answer that cannot be read is wrong, nothing is raised, and every call is
bounded, whatever the text. In doubt an answer is wrong.

>>> auto("The answer is 0.75.", "3/4"), auto("12:30", "30"), exact("Paris", "paris")
(1.0, 0.0, 0.0)
"""

from budgeteer.verify._auto import auto
from budgeteer.verify._choice import choice
from budgeteer.verify._exact import exact
from budgeteer.verify._math import math
from budgeteer.verify._named import identity, known, named
from budgeteer.verify._number import number
from budgeteer.verify._protocol import Verifier
from budgeteer.verify._stated import stated

__all__ = ["Verifier", "auto", "choice", "exact", "identity", "known", "math", "named", "number", "stated"]
