"""Letters of multiple choice."""

from __future__ import annotations

import re

from budgeteer.verify._text import clean, plain, same, unwrap

_LETTER = re.compile(r"(?:(?:option|choice|answer) )?[(\[]? ?([A-Za-z]) ?(?:[)\]]?[.:]?)", re.IGNORECASE)
_LED = re.compile(
    r"(?:(?:option|choice|answer) )?(?:\(([A-Za-z])\)|\[([A-Za-z])\]|([A-Za-z])[).:])[.:]? +(\S.*)", re.IGNORECASE
)
_ANOTHER = re.compile(r"(?:or|and|nor|is|not)\b|[(\[]?[A-Za-z](?:[)\].:]|$)", re.IGNORECASE)


def letter(text: str) -> str | None:
    """The letter that a text chooses, None where it chooses none or several.

    >>> [letter(text) for text in ("(b)", "B.", "The answer is B) Paris", "A whale", "A or B", "B1")]
    ['B', 'B', 'B', None, None, None]
    """
    text = plain(unwrap(clean(text)))
    if len(text) > 400:
        return None
    if found := _LETTER.fullmatch(text):
        return found[1].upper()
    if (found := _LED.fullmatch(text)) and not _ANOTHER.match(found[4]):
        return (found[1] or found[2] or found[3]).upper()
    return None


def choice(answer: str | None, reference: str) -> float:
    """1 when both choose the same letter: ``B``, ``(b)``, ``B.``, ``B) Paris``, ``Option B``; or the same text.

    >>> choice("(B) Paris", "B"), choice("b)", "B"), choice("A or B", "B"), choice("Paris", "B")
    (1.0, 1.0, 0.0, 0.0)
    """
    if answer is None:
        return 0.0
    given, wanted = letter(answer), letter(reference)
    return float((given is not None and given == wanted) or same(answer, reference))
