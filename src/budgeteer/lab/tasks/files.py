"""Problems from the rows of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from budgeteer.core import rows
from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput
from budgeteer.core.rows import FORMATS, STDIN


def is_file(source: str) -> bool:
    """Whether a task's name is that of a file, there or not; ``-`` is standard input."""
    path = Path(source)
    return source == STDIN or source.removesuffix(".gz").endswith(FORMATS) or (path.exists() and not path.is_dir())


def final(text: str) -> str:
    """A reference answer without the solution before it: what follows the last ``####``, as in GSM8K."""
    return text.rsplit("####", 1)[-1].strip()


def read(source: str, question: str, answer: str, limit: int | None) -> tuple[str, list[Item]]:
    """The task's short name and its items.

    Args:
        source: path, or ``-`` for JSON lines on standard input.
        question, answer: names of the fields. An answer with ``####`` keeps what follows it; rows without one become
            items without a reference. A field ``id`` names the item.
            A field ``solution``, a text or a list of texts, has the steps of a worked one.
        limit: the first so many.

    Raises:
        InvalidInput: the file cannot be read, a row lacks the question, ids repeat; names file and row.
        MissingExtra: Parquet without polars and pyarrow.
    """
    path = Path(source)
    name, where = "stdin" if source == STDIN else path.name.split(".")[0], rows.where(source)
    items: dict[str, Item] = {}
    answered = False
    fields: dict[str, None] = {}
    for place, row in islice(rows.read(source), limit):
        if not isinstance(row, dict):
            raise InvalidInput(
                f"{where}, {place}: not an object with fields but {_short(row)}; give each question a row"
            )
        fields.update(dict.fromkeys(map(str, row)))
        if question not in row:
            raise InvalidInput(
                f"{where}, {place}: no field {question!r}; it has {_listed(row)}; name yours with --question-field"
            )
        text = row[question]
        if not isinstance(text, str) or not text.strip():
            raise InvalidInput(
                f"{where}, {place}: field {question!r} holds {_short(text)} and no text; write the question there"
            )
        key = str(row["id"]) if row.get("id") is not None else f"{name}:{len(items) + 1}"
        if key in items:
            raise InvalidInput(f"{where}, {place}: the id {key!r} is there already; make ids distinct")
        given = row.get(answer)
        reference = None if given is None or given == "" else final(str(given))
        answered |= reference is not None
        solution = _steps(row.get("solution"), f"{where}, {place}")
        items[key] = Item(key, text, reference, name, dict(row), solution)
    if not items:
        raise InvalidInput(f"{where} holds no questions; give a row with a field {question!r} for each")
    if not answered and answer != "answer":
        raise InvalidInput(f"{where}: no row has a field {answer!r}; they have {_listed(fields)}; see --answer-field")
    return name, list(items.values())


def _steps(given: Any, place: str) -> tuple[str, ...]:
    """Steps of a row's worked solution: the lines of a text, or a list of texts.

    Raises:
        InvalidInput: neither.
    """
    steps = given.splitlines(keepends=True) if isinstance(given, str) else given or ()
    if not isinstance(steps, list | tuple) or not all(isinstance(step, str) for step in steps):
        raise InvalidInput(f"{place}: field 'solution' holds {_short(given)}; give a text, or a list of its steps")
    return tuple(steps)


def fields_of(items: Iterable[Item]) -> str:
    """The fields of a file's items, for messages."""
    return _listed(dict.fromkeys(name for item in items for name in item.entry))


def _listed(fields: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in islice(fields, 12)) or "none"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
