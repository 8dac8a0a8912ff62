"""Words out of a fixed set, as enums of texts; texts with places for words and numbers."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from budgeteer.core.errors import InvalidInput

Words = TypeVar("Words", bound=StrEnum)


def one_of(words: type[Words], given: str, name: str) -> Words:
    """The member of ``words`` that ``given`` is or spells; ``name`` says for the error what is given.

    >>> one_of(StrEnum("Pace", {"STEP": "step", "RUN": "run"}), "run", "pace").name
    'RUN'

    Raises:
        InvalidInput: it is none of them; the message lists all.
    """
    try:
        return words(given)
    except ValueError:
        raise InvalidInput(f"{name} is {given!r}; choose one of {', '.join(words)}") from None


def filled(text: str, **values: int | str) -> str:
    """``text`` with the values where their names stand in braces; other braces stay.

    Raises:
        InvalidInput: a name that does not stand there.

    >>> filled("Use {tokens} tokens for {x}.", tokens=40)
    'Use 40 tokens for {x}.'
    """
    for name, value in values.items():
        if "{" + name + "}" not in text:
            raise InvalidInput(f"the text {text!r} does not say {{{name}}}; write it where the value is to stand")
        text = text.replace("{" + name + "}", str(value))
    return text
