"""Letters of multiple choice."""

from __future__ import annotations

import re

from budgeteer.verify.kit.text import clean, plain, same, unwrap

_LETTER = re.compile(r"(?:(?:option|choice|answer) )?[(\[]? ?([A-Za-z]) ?(?:[)\]]?[.:]?)", re.IGNORECASE)
_LED = re.compile(
    r"(?:(?:option|choice|answer) )?(?:\(([A-Za-z])\)|\[([A-Za-z])\]|([A-Za-z])[).:])[.:]? +(\S.*)", re.IGNORECASE
)
_TURNS = re.compile(r"(?:or|and|nor|is|are|was|isn't|not|cannot|can't|might|may|but)\b", re.IGNORECASE)
"""With these after its letter a text speaks about the letter instead of giving it."""
_MARKED = re.compile(
    r"(?<!\w)[(\[] ?([A-Za-z]) ?[)\]]|(?<![\w(\[])([A-Za-z])[)\]]|(?<![\w.])([A-Za-z])[.:](?!\w)"
    r"|\b(?:is|be|it's|option|choice|answer|or|and|not|nor|pick|choose|take|say|mean|rather|to|for) ([B-HJ-Z])"
    r"(?![\w'.-])"
    r"|(?:^|[,;.] )([A-Za-z])$"
)
"""A letter that is chosen beside the first: ``(B)``, ``B)``, ``B.``, ``it is B``."""
_DENIED = re.compile(
    r"\b(?:wait|actually|hmm|sorry|correction|incorrect|mistaken|wrong|scratch that|on second thought|maybe|perhaps)\b"
    r"|\b(?:no|false|nope)[,.:;!]|(?:\bnot|n't)(?: \w+)? (?:right|correct|true|it|so|sure|that|this|the)\b",
    re.IGNORECASE,
)


def letter(text: str) -> str | None:
    """The letter that a text chooses, None where it chooses none or several.

    >>> [letter(text) for text in ("(b)", "B.", "The answer is B) Paris", "A whale", "A or B", "B1", "A) no, B")]
    ['B', 'B', 'B', None, None, None, None]
    """
    text = plain(unwrap(clean(text)))
    if len(text) > 400:
        return None
    if match := _LETTER.fullmatch(text):
        return match[1].upper()
    if (match := _LED.fullmatch(text)) is None:
        return None
    chosen, rest = (match[1] or match[2] or match[3]).upper(), match[4]
    if _TURNS.match(rest) or _DENIED.search(rest):
        return None
    others = (next(filter(None, other.groups())).upper() for other in _MARKED.finditer(rest))
    return chosen if all(other == chosen for other in others) else None


def choice(answer: str | None, reference: str) -> float:
    """1 when both choose the same letter: ``B``, ``(b)``, ``B.``, ``B) Paris``, ``Option B``; or the same text.

    A text that chooses a second letter, or takes the first one back, chooses none.

    >>> choice("(B) Paris", "B"), choice("b)", "B"), choice("A or B", "B"), choice("Paris", "B")
    (1.0, 1.0, 0.0, 0.0)
    >>> choice("A. Paris B. Rome", "A"), choice("A) No", "A"), choice("A) No, it is B", "A")
    (0.0, 1.0, 0.0)
    """
    if answer is None:
        return 0.0
    given, wanted = letter(answer), letter(reference)
    return float((given is not None and given == wanted) or same(answer, reference))
