"""Words out of a fixed set: enums of texts, which JSON and printed text show as the words themselves."""

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
