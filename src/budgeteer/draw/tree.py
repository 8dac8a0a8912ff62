"""A tree of who was given, spent and holds what, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from budgeteer.draw.svg import STYLE, clean

__all__ = ["Branch", "tree_chart", "tree_page"]
_WIDTH, _LEFT, _BAR, _ROW = 760, 220, 400, 26
_FILLS = ("#2563a8", "#c2571a", "#cfe0f0", "#2d8a4e")
_NAMES = ("spent", "held", "given back or left")


@dataclass(frozen=True, slots=True)
class Branch:
    """A row of the picture.

    Attributes:
        name: of the agent.
        depth: in the tree; 0 = a root.
        parts: units, one for each of the picture's names: that it spent, holds, and gave back or still has.
        label: beside the bar.
    """

    name: str
    depth: int
    parts: tuple[int, ...]
    label: str


def tree_chart(branches: Sequence[Branch], title: str, names: Sequence[str] = _NAMES, *, alone: bool = True) -> str:
    """A bar for each branch, indented by its depth, all on one scale.

    Args:
        branches: parents before their children.
        title: above the bars.
        names: of the parts, four at most.
        alone: whether it is a file of its own; else it is part of a page with a style sheet.
    """
    most = max((sum(max(0, part) for part in branch.parts) for branch in branches), default=0) or 1
    height = 56 + _ROW * len(branches)
    drawn = [f'<text class="label" x="12" y="20">{clean(title)}</text>']
    for i, (name, fill) in enumerate(zip(names, _FILLS, strict=False)):
        left = _LEFT + 130 * i
        drawn.append(f'<rect x="{left}" y="28" width="10" height="10" fill="{fill}"/>')
        drawn.append(f'<text x="{left + 15}" y="37">{name}</text>')
    for row, branch in enumerate(branches):
        y, x, at = 50 + _ROW * row, float(_LEFT), 12 + 14 * branch.depth
        if branch.depth:
            drawn.append(f'<path class="grid" fill="none" d="M{at - 8} {y - 6} V{y + 8} H{at - 2}"/>')
        drawn.append(f'<text x="{at}" y="{y + 12}">{clean(branch.name)}</text>')
        for part, fill, name in zip(branch.parts, _FILLS, names, strict=False):
            wide = _BAR * max(0, part) / most
            if wide:
                drawn.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="16" fill="{fill}">'
                    f"<title>{clean(branch.name)}: {part:,} {name}</title></rect>"
                )
            x += wide
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 12}">{clean(branch.label)}</text>')
    if not alone:
        about = f'class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{clean(title)}"'
        return f"<svg {about}>{''.join(drawn)}</svg>"
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{STYLE}{"".join(drawn)}</svg>\n'


def tree_page(chart: str, title: str, note: str, seconds: float | None = None) -> str:
    """The picture as a page of its own, which loads itself anew every so many seconds; None: never."""
    again = "" if seconds is None else f'<meta http-equiv="refresh" content="{seconds:g}">'
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{again}<title>{clean(title)}</title>'
        '<meta name="viewport" content="width=device-width"><style>body{font:14px system-ui,sans-serif;margin:24px}'
        f"svg{{max-width:100%;height:auto}}</style></head><body>{chart}<p>{clean(note)}</p></body></html>\n"
    )
