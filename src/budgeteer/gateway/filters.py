"""Filters of the gateway's queries: strings, as in the query of a URL, and the SQL that selects what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.gateway.record import COLUMNS
from budgeteer.gateway.roles import EVERYTHING, Reach
from budgeteer.metering.outcome import Outcome

EQUAL = tuple(column.name for column in COLUMNS if column.filters)
"""Fields that filters compare for equality."""
FILTERS = (*EQUAL, "path", "since", "until", "refused")
"""All filters: ``path`` also selects the accounts below it, ``since`` and ``until`` are milliseconds since 1970 (UTC),
and ``refused`` of "1" selects refused requests."""
_WHOLE = frozenset(column.name for column in COLUMNS if column.kind == "whole")
MANY = 500
"""The most keys that one filter can name."""
Query = Mapping[str, str]
_BELOW = "(path = ? OR substr(path, 1, ?) = ?)"


def where(asked: Query, reach: Reach = EVERYTHING) -> tuple[str, list[Any]]:
    """The WHERE clause of filters, and the values for its placeholders.

    Args:
        asked: the filters.
        reach: the accounts whose records may be seen.

    Raises:
        InvalidInput: a filter of a number is none.
    """
    conditions: list[str] = []
    values: list[Any] = []
    for name in EQUAL:
        if name == "key" and "," in asked.get(name, ""):
            several = asked[name].split(",")[:MANY]
            conditions.append(f"key IN ({', '.join('?' * len(several))})")
            values.extend(several)
        elif name in asked:
            conditions.append(f'"{name}" = ?')
            values.append(number(asked, name, 0) if name in _WHOLE else asked[name])
    for name, condition in (("since", "at >= ?"), ("until", "at < ?"), ("before", "n < ?")):
        if name in asked:
            conditions.append(condition)
            values.append(number(asked, name, 0))
    if path := asked.get("path"):
        conditions.append(_BELOW)
        values.extend(_below(path))
    if not reach.everything:
        conditions.append(f"({' OR '.join([_BELOW] * len(reach.paths)) or 'FALSE'})")
        values.extend(value for path in reach.paths for value in _below(path))
    if asked.get("refused") == "1":
        conditions.append(f"outcome = '{Outcome.REFUSED}'")
    return (" WHERE " + " AND ".join(conditions) if conditions else ""), values


def _below(path: str) -> list[Any]:
    return [path, len(path) + 1, f"{path}/"]


def number(asked: Query, name: str, default: int, least: int = 0, most: int = 10**15) -> int:
    """A filter as a whole number; ``default`` if it is not there.

    Raises:
        InvalidInput: it is no whole number from ``least`` to ``most``.
    """
    text = asked.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
        raise InvalidInput(f"{name}={text}; give a whole number from {least:,} to {most:,}")
    return int(text)
