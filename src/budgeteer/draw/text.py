"""Tables of text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["columns", "ruled"]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equally many cells as lines: the first column to the left, the others to the right.

    >>> columns([["arm", "tokens"], ["duet", "5"]])
    ['arm   tokens', 'duet       5']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def ruled(rows: Sequence[Sequence[str]]) -> str:
    """:func:`columns` with a rule below the first row, which is the head."""
    head, *lines = columns(rows)
    return "\n".join([head, "-" * len(head), *lines])
