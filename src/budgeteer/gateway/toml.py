"""Read a TOML file field by field, with errors that name the field and its line."""

from __future__ import annotations

import difflib
import itertools
import re
import tomllib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from budgeteer.core.errors import InvalidInput
from budgeteer.core.option import REQUIRED

T = TypeVar("T")
Where = tuple[str | int, ...]
_HEADER = re.compile(r"\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*=")
_PART = re.compile(r"\"([^\"]*)\"|'([^']*)'|([\w-]+)")


def read(path: str | Path) -> Table:
    """The top table of a file.

    Raises:
        InvalidInput: the file cannot be read, or is not TOML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return Table(tomllib.loads(text, parse_float=decimal), (), _lines(text), str(path))
    except (OSError, ValueError, RecursionError) as error:  # no UTF-8, no TOML, too many digits or brackets
        raise InvalidInput(f"{path} cannot be read: {error}") from error


def decimal(text: str) -> Decimal | float:
    """A number in TOML, exactly; NaN and infinity as a float, which no field accepts."""
    number = Decimal(text)
    return number if number.is_finite() else float(text)


def _ordinary(value: object) -> bool:
    """Whether a value is a number that fits a float."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return False
    return -(10**300) < value < 10**300


def _shown(value: object) -> str:
    """A value for a message; Python cannot write whole numbers of thousands of digits."""
    try:
        shown = str(value) if isinstance(value, Decimal) else repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return shown if len(shown) <= 100 else shown[:97] + "..."


class Table:
    """A TOML table whose fields are read one by one; ``done`` then refuses fields that were not read.

    Methods that read a field return ``default`` if it is missing, and raise InvalidInput, naming the file, the line and
    the field, if it is missing without a default or has a value that cannot be used.

    Args:
        data: the table's fields.
        where: its path in the file.
        lines: path of a table or field -> its line.
        file: the file's name, for messages.
    """

    def __init__(self, data: dict[str, Any], where: Where, lines: dict[Where, int], file: str) -> None:
        self.data, self.where, self.lines, self.file = data, where, lines, file
        self._taken: set[str] = set()

    def fail(self, name: str | None, why: str) -> NoReturn:
        """Raise InvalidInput about a field, or about the table if ``name`` is None; ``why`` goes on after the name."""
        at = self.where if name is None else (*self.where, name)
        line = next((self.lines[at[:n]] for n in range(len(at), -1, -1) if at[:n] in self.lines), 1)
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
        raise InvalidInput(f"{self.file}, line {line}: {dotted or 'the file'} {why}")

    def _take(self, name: str, default: Any) -> Any:
        self._taken.add(name)
        if name not in self.data and default is REQUIRED:
            self.fail(name, "is missing")
        return self.data.get(name, default)

    def text(self, name: str, default: Any = REQUIRED, among: tuple[str, ...] = ()) -> Any:
        """A string that is not empty; one of ``among``, if that is given."""
        value = self._take(name, default)
        if value is default:
            return value
        if not isinstance(value, str) or not value:
            self.fail(name, f"is {_shown(value)}; give a text")
        if among and value not in among:
            self.fail(name, f"is {_shown(value)}; choose one of {', '.join(among)}")
        return value

    def texts(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A list of strings."""
        value = self._take(name, default)
        if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
            self.fail(name, f"is {_shown(value)}; give a list of texts")
        return tuple(value)

    def whole(self, name: str, default: Any = REQUIRED, least: int = 0, most: int = 10**15) -> Any:
        """A whole number from ``least`` to ``most``."""
        value = self._take(name, default)
        if value is default:
            return value
        if type(value) is not int or not least <= value <= most:
            self.fail(name, f"is {_shown(value)}; give a whole number from {least:,} to {most:,}")
        return value

    def whole_or(self, name: str, word: str, least: int = 0, most: int = 10**15) -> int | str | None:
        """A whole number from ``least`` to ``most``, or this word; None if the field is missing."""
        value: int | str | None = self._take(name, None)
        if value is None or value == word or (type(value) is int and least <= value <= most):
            return value
        self.fail(name, f'is {_shown(value)}; give a whole number from {least:,} to {most:,}, or "{word}"')

    def number(self, name: str, default: Any = REQUIRED, least: float = 0.0, most: float = 1e9) -> float:
        """A number from ``least`` to ``most``."""
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not least <= value <= most:
            self.fail(name, f"is {_shown(value)}; give a number from {least:g} to {most:g}")
        return float(value)

    def numbers(self, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
        """A list of numbers."""
        value = self._take(name, default)
        if not isinstance(value, list | tuple) or not all(_ordinary(number) for number in value):
            self.fail(name, f"is {_shown(value)}; give a list of numbers")
        return tuple(map(float, value))

    def pieces(self, name: str, values: type) -> list[tuple[float, Any]]:
        """A schedule by the spent share, [[0, a], [0.5, b], ...], with values of type ``values``; empty if missing."""
        value = self._take(name, [])
        pieces = [tuple(piece) for piece in value] if isinstance(value, list) else []
        starts = [piece[0] for piece in pieces if len(piece) == 2 and isinstance(piece[0], int | Decimal)]
        rising = all(a < b for a, b in itertools.pairwise(starts)) and all(0 <= start <= 1 for start in starts)
        good = len(starts) == len(value) and rising and all(type(piece[1]) is values for piece in pieces)
        if not good or (starts and starts[0] != 0):
            self.fail(
                name, f"is {_shown(value)}; give [[0, VALUE], [SHARE, VALUE], ...] with shares rising from 0 to 1"
            )
        return [(float(start), setting) for start, setting in pieces]

    def flag(self, name: str, default: bool) -> bool:
        """A boolean."""
        value = self._take(name, default)
        if not isinstance(value, bool):
            self.fail(name, f"is {_shown(value)}; give true or false")
        return value

    def table(self, name: str) -> Table:
        """A table in this one; an empty one if it is missing."""
        value = self._take(name, {})
        if not isinstance(value, dict):
            self.fail(name, f"is {_shown(value)}; give a table [{name}]")
        return Table(value, (*self.where, name), self.lines, self.file)

    def tables(self, name: str) -> list[Table]:
        """A list of tables, ``[[name]]``; empty if it is missing."""
        value = self._take(name, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            self.fail(name, f"is {_shown(value)}; give tables [[{name}]]")
        return [Table(entry, (*self.where, name, n), self.lines, self.file) for n, entry in enumerate(value)]

    def named(self) -> list[tuple[str, Table]]:
        """(name, table) of all fields, which have to be tables."""
        return [(name, self.table(name)) for name in self.data]

    def parsed_all(self, name: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """A list of strings, each parsed by a function that raises InvalidInput."""
        return tuple(self._parse(name, parse, text) for text in self.texts(name))

    def _parse(self, name: str, parse: Callable[[str], T], text: str) -> T:
        try:
            return parse(text)
        except (ValueError, KeyError) as error:
            self.fail(name, f"is not usable: {error}")

    def done(self) -> None:
        """Refuse fields that were not read."""
        for name in self.data:
            if name not in self._taken:
                near = difflib.get_close_matches(name, self._taken, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(self._taken))}"
                self.fail(name, f"is unknown; {hint}")


def _lines(text: str) -> dict[Where, int]:
    """Path of a field or table -> its line. Fields of inline tables are left out: messages name their table's line."""
    lines: dict[Where, int] = {}
    counts: dict[Where, int] = {}
    base: Where = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header is not None:
            base = _resolved(_parts(header[2]), counts, header[1] == "[[")
            lines.setdefault(base, number)
            if header[1] == "[[":
                lines.setdefault(base[:-1], number)
            continue
        key = _KEY.match(line)
        if key is not None:
            lines.setdefault((*base, *_parts(key[1])), number)
    return lines


def _parts(dotted: str) -> list[str]:
    return [quoted or single or bare for quoted, single, bare in _PART.findall(dotted)]


def _resolved(parts: list[str], counts: dict[Where, int], array: bool) -> Where:
    """The path of a header, with an index after each array of tables in it."""
    at: Where = ()
    for n, part in enumerate(parts):
        at = (*at, part)
        if n == len(parts) - 1 and array:
            counts[at] = counts.get(at, 0) + 1
        if at in counts:
            at = (*at, counts[at] - 1)
    return at
