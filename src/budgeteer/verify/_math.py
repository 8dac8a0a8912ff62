"""Mathematical expressions by their values."""

from __future__ import annotations

from budgeteer.verify._number import number
from budgeteer.verify.kit import expression
from budgeteer.verify.kit.sequence import equal, sequence
from budgeteer.verify.kit.text import identical, read


def math(answer: str | None, reference: str) -> float:
    r"""1 when both are expressions of the same value, wherever their variables are tried; else as :func:`number`.

    Lists, tuples, sets and intervals are equal element by element, equations side by side. An answer that is not worked
    out (``2 \cdot 3`` for 6) is right here; where that matters, take ``number``.

    >>> math(r"$\frac{x^2-1}{x-1}$", "x+1"), math("2*3", "6"), math("(1/2, sqrt(4))", "(0.5, 2)"), math("x+1", "x")
    (1.0, 1.0, 1.0, 0.0)
    """
    if answer is None:
        return 0.0
    return float(agree(read(answer), read(reference)))


def agree(answer: str, reference: str) -> bool:
    """Whether two read texts are equal expressions, or sequences of such."""
    a, b = sequence(answer), sequence(reference)
    if a is not None and b is not None:
        return identical(answer, reference) or equal(a, b, agree)
    if expression.is_expression(answer) and expression.is_expression(reference):
        return identical(answer, reference) or expression.equal(answer, reference)
    return bool(number(answer, reference)) or (a is None and b is None and expression.equal(answer, reference))
