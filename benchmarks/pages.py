"""Tables that scripts write into pages of the documentation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from budgeteer.lab import results
from budgeteer.lab.stats import mean_ci


class Place(NamedTuple):
    """Where a benchmark's results are committed: the file, the page, and the marks around the table in it."""

    file: Path
    page: Path
    marks: tuple[str, str]


def published(content: Mapping[str, Any], table: str, out: Path | None, place: Place) -> None:
    """Write what was found to ``out``, if it is given, and the table into the page where that is the committed file;
    print the table."""
    if out:
        results.write_text(json.dumps(results.to_json(content)) + "\n", out)
    if out == place.file:
        results.write_text(between(place.page.read_text(), table, *place.marks), place.page)
    print(table)


def interval(values: Sequence[float]) -> dict[str, float]:
    """A mean with its 95 % interval; one value has none."""
    if len(values) < 2:
        return {"mean": values[0], "low": values[0], "high": values[0]}
    made = mean_ci(values)
    return {"mean": made.mean, "low": made.low, "high": made.high}


def between(text: str, table: str, begin: str, end: str) -> str:
    """The text of a page with what stands between two marks replaced by the table.

    Raises:
        SystemExit: the page lacks a mark.
    """
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"the page lacks the marks {begin.strip()} and {end}")
    return before + begin + table + end + after
