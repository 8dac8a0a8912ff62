# ruff: noqa: SIM905 -- words as a list of words
"""What kind of answer the reference is, and that kind's verifier."""

from __future__ import annotations

import re

from budgeteer.verify._choice import choice
from budgeteer.verify._number import number
from budgeteer.verify.kit import expression
from budgeteer.verify.kit.date import date
from budgeteer.verify.kit.quantity import quantity
from budgeteer.verify.kit.sequence import equal, sequence
from budgeteer.verify.kit.text import clean, closed, identical, read, same, time, unwrap

_DECIDED = {
    "yes": {"no", "false", "wrong", "incorrect", "untrue", "not", "t", "nope", "never"},
    "no": {"yes", "true", "right", "correct", "yeah"},
}
_DECIDED |= {"true": _DECIDED["yes"], "false": _DECIDED["no"]}
"""What a text that decides so does not say beside; the t is that of isn't."""
_TURNS = frozenset("but actually however wait instead rather although though or maybe perhaps except unless".split())
_DENIED = re.compile(r"(?:\bnot|n't) (?:(?:a|the|so|at all|quite) )?(true|right|correct|so|the case)\b")
_DOUBLE = re.compile(r"(?:\bnot|n't) (?:\w+ )?(?:false|wrong|incorrect|untrue|no)\b")
_LETTER = re.compile(r"[(\[]?[A-Za-z][)\]]?\.?")
_WORD = re.compile(r"[a-z]+")


def auto(answer: str | None, reference: str) -> float:
    r"""1 when the answer is the reference, compared as what the reference is: a number (:func:`number`), a letter
    (:func:`choice`), yes or no, a day of the calendar, a list, tuple, set or interval, an expression (:func:`math`),
    else a text without decoration, a leading article and regard to case.

    A list of numbers is never one number, nor is a date, a time, a ratio, a range or a code.

    >>> auto(r"\boxed{\frac34}", "0.75"), auto("(b) Rome", "B"), auto("Yes, it is.", "yes"), auto("1,2", "(1, 2)")
    (1.0, 1.0, 1.0, 0.0)
    >>> [auto(*pair) for pair in (("3/4", "1/4"), ("A1", "B1"), ("12:30", "30"), ("1,2,3", "123"), (None, "1"))]
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    if answer is None:
        return 0.0
    wanted = read(reference)
    if identical(answer, reference):
        return 1.0
    day = date(wanted)
    if day is not None:
        return float(date(read(answer)) == day)
    if quantity(wanted) is not None:
        return number(answer, reference)
    if time(closed(wanted)) is not None:
        return float(same(answer, reference))
    if _LETTER.fullmatch(unwrap(clean(reference))):
        return choice(answer, reference)
    if expression.is_expression(wanted):
        return float(expression.equal(read(answer), wanted))
    if sequence(wanted) is not None:
        return float(_elements(read(answer), wanted))
    if wanted.casefold() in _DECIDED and _decides(read(answer).casefold(), wanted.casefold()):
        return 1.0
    return float(same(answer, reference))


def _decides(answer: str, wanted: str) -> bool:
    """``yes, ...`` or ``no, ...`` where nothing that follows says otherwise."""
    if not re.match(wanted + "[,.:;]", answer) or _DOUBLE.search(answer):
        return False
    return not (_DECIDED[wanted] | _TURNS) & set(_WORD.findall(_DENIED.sub(" not ", answer)))


def _elements(answer: str, reference: str) -> bool:
    a, b = sequence(answer), sequence(reference)
    return a is not None and b is not None and equal(a, b, _element)


def _element(answer: str, reference: str) -> bool:
    if sequence(reference) is not None:
        return _elements(answer, reference)
    if expression.is_expression(reference):
        return identical(answer, reference) or expression.equal(answer, reference)
    return bool(number(answer, reference))
