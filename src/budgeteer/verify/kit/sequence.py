"""Lists, tuples, sets and intervals: brackets and their elements."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from budgeteer.verify.kit.quantity import quantity

_AND = re.compile(r",? and ")
_CLOSES = {"(": ")]", "[": ")]", "{": "}", "<": ">"}
_MOST = 200


class Sequence(NamedTuple):
    """Elements between brackets; ``""`` where none were written."""

    left: str
    right: str
    elements: tuple[str, ...]


def sequence(text: str) -> Sequence | None:
    """The elements of a read text, None where it is one value.

    >>> sequence("(1, 2]"), sequence("1,200"), sequence("Paris")
    (Sequence(left='(', right=']', elements=('1', '2')), None, None)
    >>> sequence("1,2,3").elements
    ('1', '2', '3')
    """
    text = text.replace("\\{", "{").replace("\\}", "}").replace("\\langle", "<").replace("\\rangle", ">").strip()
    if len(text) < 2 or quantity(text) is not None:
        return None
    if (numbers := _joined(text)) is not None:
        return Sequence("", "", numbers)
    left, right, inner = "", "", text
    if text[0] in _CLOSES and text[-1] in _CLOSES[text[0]] and _outer(text):
        left, right, inner = text[0], text[-1], text[1:-1]
    parts = _split(inner)
    if parts is None or len(parts) > _MOST or (len(parts) < 2 and not left) or (left == "(" and len(parts) < 2):
        return None
    return Sequence(left, right, tuple(parts))


def _joined(text: str) -> tuple[str, ...] | None:
    """Numbers of which the last follows an "and": 1 and 2; 1, 2 and 3. Not 1 and 1/2, which may be one and a half."""
    parts = _AND.split(text)
    if len(parts) != 2:
        return None
    numbers = tuple(part.strip() for part in (*parts[0].split(", "), parts[1]))
    values = [quantity(number) for number in numbers]
    if len(numbers) > _MOST or any(value is None or value.name for value in values):
        return None
    return None if "/" in parts[1] else numbers


def _outer(text: str) -> bool:
    """Whether the first bracket closes at the end."""
    depth = 0
    for i, c in enumerate(text):
        depth += (c in "([{<") - (c in ")]}>")
        if depth == 0:
            return i == len(text) - 1
    return False


def _split(text: str) -> list[str] | None:
    """Parts between the commas (or semicolons) outside brackets; None where one is empty or brackets do not match."""
    depth, parts, start = 0, [], 0
    for i, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if depth < 0:
            return None
        if c in ",;" and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts = [part.strip().strip("'\"").strip() for part in (*parts, text[start:])]
    return parts if depth == 0 and all(parts) else None


def equal(a: Sequence, b: Sequence, same: Callable[[str, str], bool]) -> bool:
    """Equal elements between equal brackets, in any order between braces; a bare list may stand for one in ``[]`` or
    ``{}``.

    >>> equal(sequence("{1, 2}"), sequence("{2,1}"), str.__eq__)
    True
    >>> equal(sequence("(0, 1)"), sequence("[0, 1]"), str.__eq__)
    False
    """
    if len(a.elements) != len(b.elements):
        return False
    brackets = {a.left + a.right, b.left + b.right}
    if len(brackets) > 1 and brackets not in ({"", "[]"}, {"", "{}"}):
        return False
    if "{}" not in brackets:
        return all(map(same, a.elements, b.elements))
    rest = list(b.elements)
    for element in a.elements:
        at = next((i for i, other in enumerate(rest) if same(element, other)), None)
        if at is None:
            return False
        del rest[at]
    return True
