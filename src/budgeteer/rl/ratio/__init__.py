"""Importance ratios: one a file."""

from __future__ import annotations

# Written by tools/exports.py.
from typing import TYPE_CHECKING

from budgeteer.core.lazy import lazy

if TYPE_CHECKING:
    from budgeteer.rl.ratio._clipped import clipped
    from budgeteer.rl.ratio._icepop import icepop
    from budgeteer.rl.ratio._sequence import sequence
    from budgeteer.rl.ratio._truncated import truncated
    from budgeteer.rl.ratio.kit import low_variance
    from budgeteer.rl.ratio.protocol import Loss, Penalty, Ratio, Tokens

__all__ = [
    "Loss",
    "Penalty",
    "Ratio",
    "Tokens",
    "clipped",
    "icepop",
    "low_variance",
    "sequence",
    "truncated",
]

__getattr__ = lazy(
    __name__,
    {
        "Loss": "protocol",
        "Penalty": "protocol",
        "Ratio": "protocol",
        "Tokens": "protocol",
        "clipped": "_clipped",
        "icepop": "_icepop",
        "low_variance": "kit",
        "sequence": "_sequence",
        "truncated": "_truncated",
    },
)
