"""Every head keeps equally many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.protocol import Groups, Split

if TYPE_CHECKING:
    from torch import Tensor


def uniform() -> Split:
    """Every layer and head keeps as many entries as every other.

    Formula: size of a head = size, or all entries that it has.
    Helps when nothing is known of the heads. Storage stays a rectangle, so that attention costs nothing extra.
    """
    return Split(_sizes)


def _sizes(groups: Groups) -> tuple[Tensor, ...]:
    return tuple(
        (scores > float("-inf")).sum(-1).minimum(size[:, None])
        for scores, size in zip(groups.scores, groups.size, strict=True)
    )
