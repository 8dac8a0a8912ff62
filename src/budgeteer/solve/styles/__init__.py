"""Styles: how a model is asked and how its answers are read; one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.solve.styles._chat import chat
    from budgeteer.solve.styles._direct import direct
    from budgeteer.solve.styles._few_shot import few_shot
    from budgeteer.solve.styles._reasoner import REASONER, reasoner
    from budgeteer.solve.styles._think import BOX, LINE, stated, think
    from budgeteer.solve.styles.examples import EXAMPLES
    from budgeteer.solve.styles.kit import first_line, normal
    from budgeteer.solve.styles.named import choose, style_of
    from budgeteer.solve.styles.protocol import Example, TaskInfo

__all__ = [
    "BOX",
    "EXAMPLES",
    "LINE",
    "REASONER",
    "Example",
    "TaskInfo",
    "chat",
    "choose",
    "direct",
    "few_shot",
    "first_line",
    "normal",
    "reasoner",
    "stated",
    "style_of",
    "think",
]

__getattr__ = lazy(
    __name__,
    {
        "BOX": "_think",
        "EXAMPLES": "examples",
        "LINE": "_think",
        "REASONER": "_reasoner",
        "Example": "protocol",
        "TaskInfo": "protocol",
        "chat": "_chat",
        "choose": "named",
        "direct": "_direct",
        "few_shot": "_few_shot",
        "first_line": "kit",
        "normal": "kit",
        "reasoner": "_reasoner",
        "stated": "_think",
        "style_of": "named",
        "think": "_think",
    },
)
