"""What styles share: the normal form of an answer, and the reader of its line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from budgeteer import verify
from budgeteer.core.errors import InvalidInput
from budgeteer.core.words import filled
from budgeteer.models.chat import EFFORTS, Chat, Prompt, continued
from budgeteer.solve.styles.protocol import TaskInfo

__all__ = ["first_line", "normal"]

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_WHOLE = re.compile(rf"[-+]?\$?[-+]?{_DIGITS}")


def normal(text: str) -> str:
    """The normal form of an answer, so that equal answers compare equal.

    It has no decoration; numbers have no commas, ``$``, ``+`` and no zeros at the end of decimals.

    >>> normal(" **1,234.50** "), normal("$5."), normal("-0.0"), normal("['1',  '2']")
    ('1234.5', '5', '0', "['1', '2']")
    """
    shown = " ".join(text.split()).strip("*`_ ").removesuffix(".").strip("*`_ ")
    if not _WHOLE.fullmatch(shown):
        return shown
    number = shown.replace(",", "").replace("$", "").replace("+", "")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return "0" if number == "-0" else number


def first_line(text: str) -> str | None:
    """The first line, or None if it is blank.

    >>> first_line(" 4\\n5"), first_line("\\n4")
    ('4', None)
    """
    return text.split("\n", 1)[0].strip() or None


def reader(task: TaskInfo) -> Callable[[str], str | None]:
    """The reader of an answer's line: if all answers are numbers, it returns the number that the line states
    (:func:`budgeteer.verify.stated`), else the line as it is."""
    if not task.numeric:
        return first_line

    def answer(text: str) -> str | None:
        line = first_line(text)
        return line and verify.stated(line, units=task.units)

    return answer


def asking(
    prompt: Callable[[str], Prompt], said: str = "", effort: str = "", behind: bool = False, begun: str = ""
) -> Callable[[str], Prompt]:
    """The prompts of a style, as variants of training change them: a text around the last message, or around raw text,
    and the beginning of the answer.

    Args:
        prompt: of the style.
        said: before the prompt, or ``behind`` it, with ``{effort}`` where the word of effort stands or ``{percent}``
            for its share of the usual thinking; ``""`` = nothing is said.
        effort: word of effort, or a number.
        behind: whether it stands behind.
        begun: what the answer begins with.

    Raises:
        InvalidInput: a text without a place for the effort, or one of the two without the other, or ``behind`` alone.

    >>> asking(str, "{effort}: ", "low", begun=" 3,")("Count."), asking(str, " {percent}%", "low", True)("Count.")
    ('low: Count. 3,', 'Count. 25%')
    """
    if effort and not said:
        raise InvalidInput(f'effort={effort} is said by no text; give said="{{effort}}: ", or as it was in training')
    if behind and not said:
        raise InvalidInput("behind=true says where the text of said stands, and there is none; give said, too")
    text = _said(said, effort) if said else ""
    before, after = ("", text) if behind else (text, "")

    def ask(question: str) -> Prompt:
        own = prompt(question)
        if text and isinstance(own, Chat):
            *earlier, last = own.messages
            own = replace(own, messages=(*earlier, last._replace(content=before + last.content + after)))
        elif isinstance(own, str):
            own = before + own + after
        return continued(own, begun) if begun else own

    return ask


def _said(text: str, effort: str) -> str:
    """The text that says an effort, as a model was trained with it.

    >>> _said("{effort}: ", "low"), _said("{percent}%: ", "low"), _said("{percent}%: ", "70")
    ('low: ', '25%: ', '70%: ')
    """
    if not effort:
        raise InvalidInput(f"said={text!r} is to say an effort, and none is given; give effort=low, medium or high")
    if "{percent}" not in text:
        return filled(text, effort=effort)
    share = round(100 * EFFORTS[effort]) if effort in EFFORTS else effort
    return filled(text, percent=share)
