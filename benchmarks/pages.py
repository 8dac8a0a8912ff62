"""Tables that scripts write into pages of the documentation."""

from __future__ import annotations


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
