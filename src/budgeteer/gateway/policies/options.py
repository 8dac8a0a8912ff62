"""Options of ``[policies.NAME]``: what the gateway reads from its file, and what ``budgeteer methods`` says of it.

A policy's factory declares them with ``budgeteer.core.option.options`` and takes their values as keyword arguments::

    @options(whole("least", 64, "output tokens a choice below which the request is refused nevertheless", least=1))
    def tighten(*, least: int) -> Tighten: ...

:data:`budgeteer.core.option.REQUIRED` as a default says that the option has to be given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.core.option import REQUIRED, Option, options_declared
from budgeteer.gateway.policies.protocol import Policy
from budgeteer.gateway.toml import Table

_MOST_WHOLE, _MOST = 10**15, 1e9


def whole(name: str, default: Any, meaning: str, *, least: int = 0, most: int = _MOST_WHOLE) -> Option:
    """A whole number from ``least`` to ``most``."""
    takes = f"a whole number from {least:,}" + (f" to {most:,}" if most < _MOST_WHOLE else "")
    return Option(name, takes, default, meaning, lambda table: table.whole(name, default, least, most))


def number(name: str, default: Any, meaning: str, *, least: float = 0.0, most: float = _MOST) -> Option:
    """A number from ``least`` to ``most``."""
    takes = f"a number from {least:g}" + (f" to {most:g}" if most < _MOST else "")
    return Option(name, takes, default, meaning, lambda table: table.number(name, default, least, most))


def flag(name: str, default: bool, meaning: str) -> Option:
    """True or false."""
    return Option(name, "true or false", default, meaning, lambda table: table.flag(name, default))


def text(name: str, default: Any, meaning: str, *, among: tuple[str, ...] = ()) -> Option:
    """A text that is not empty; one of ``among``, if that is given."""
    takes = " or ".join(f'"{word}"' for word in among) or "a text"
    return Option(name, takes, default, meaning, lambda table: table.text(name, default, among))


def numbers(
    name: str, default: tuple[float, ...], meaning: str, *, takes: str, fits: Callable[[tuple[float, ...]], bool]
) -> Option:
    """A list of numbers that ``fits`` accepts; ``takes`` says in words which these are."""

    def read(table: Table) -> tuple[float, ...]:
        values = table.numbers(name, default)
        if not fits(values):
            table.fail(name, f"is {list(values)}; give {takes}")
        return values

    return Option(name, f"a list of {takes}", default, meaning, read)


def pairs(name: str, meaning: str, *, key: str, value: str) -> Option:
    """A table of texts with at least one entry; ``key`` and ``value`` say, for messages, what an entry is."""

    def read(table: Table) -> dict[str, str]:
        inner = table.table(name)
        if not inner.data:
            table.fail(name, f'is empty; give "{key}" = "{value}"')
        return {entry: inner.text(entry) for entry in inner.data}

    return Option(name, f'a table of "{key}" = "{value}"', REQUIRED, meaning, read)


def steps(name: str, meaning: str, *, among: Sequence[str] = (), least: int = 1) -> Option:
    """A schedule by the spent share, ``[[0, A], [0.5, B], ...]``; empty where it is not given.

    Args:
        name, meaning: of the option.
        among: the texts that are its values; none = whole numbers.
        least: the smallest of these numbers.
    """
    values = f"one of {', '.join(among)}" if among else f"a whole number from {least:,}"

    def read(table: Table) -> list[tuple[float, Any]]:
        pieces = table.pieces(name, str if among else int)
        for _, given in pieces:
            if given not in among if among else given < least:
                table.fail(name, f"has {given!r}; give {values}")
        return pieces

    return Option(name, f"[[0, VALUE], [SHARE, VALUE], ...] by the spent share, VALUE {values}", None, meaning, read)


def policy_from(factory: Callable[..., Policy], table: Table) -> Policy:
    """The policy that a factory makes of its TOML table.

    Raises:
        InvalidInput: naming the file, the line, the field and what is wrong with it.
    """
    given = {option.name: option.read(table) for option in options_declared(factory)}
    table.done()
    try:
        return factory(**given)
    except InvalidInput as error:
        table.fail(None, f"cannot be used: {error}")
