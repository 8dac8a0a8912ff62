"""Options that a method reads from a table of a file, declared once: their reader and ``budgeteer methods`` follow.

Methods of the command line need none of this: their options are the parameters of their factory. A table of a file has
values that no parameter describes, such as a list of pairs, and errors have to name its line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

REQUIRED: Any = object()
"""The default of an option that has to be given."""
_DECLARED = "declared_options"
Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        name: in the file, and the name of the factory's argument.
        takes: what it takes, in words, such as ``"a whole number from 1"``.
        default: where it is not given; :data:`REQUIRED` = it has to be.
        meaning: in one line, with its unit.
        read: ``(table) -> value``; raises InvalidInput that names the option and its place in the file.
    """

    name: str
    takes: str
    default: Any
    meaning: str
    read: Callable[[Any], Any]


def options(*declared: Option) -> Callable[[Factory], Factory]:
    """Declare the options of a factory, which takes them as keyword arguments.

    >>> @options(Option("least", "a whole number from 1", 64, "output tokens", lambda table: table["least"]))
    ... def example(*, least): ...
    >>> [option.name for option in options_declared(example)]
    ['least']
    """

    def declare(factory: Factory) -> Factory:
        setattr(factory, _DECLARED, declared)
        return factory

    return declare


def options_declared(factory: Any) -> tuple[Option, ...]:
    """The options that a factory declares; none where it declares nothing."""
    declared: tuple[Option, ...] = getattr(factory, _DECLARED, ())
    return declared
