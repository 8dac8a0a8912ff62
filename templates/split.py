"""One line: how many entries of a KV cache each layer and head keeps.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache import Groups, Split

if TYPE_CHECKING:
    from torch import Tensor


def lend() -> Split:
    """Let the first head of a layer lend a quarter of what it need not keep to the last one.

    Formula: the first head keeps size - m, the last size + m, m = a quarter of what the first head keeps beyond what it
    must keep, as far as the last one has entries for it.
    Helps when the last head reads more widely than the first; does not where heads are alike.

    >>> import torch
    >>> scores, eight = torch.zeros(1, 2, 20), torch.tensor([8])
    >>> lend().sizes(Groups((scores,), (eight,), (torch.tensor([20]),), 0, 1))[0].tolist()
    [[6, 10]]
    """
    return Split(_sizes)


def _sizes(groups: Groups) -> tuple[Tensor, ...]:
    found = []
    for scores, size in zip(groups.scores, groups.size, strict=True):
        has, must = (scores > float("-inf")).sum(-1), (scores == float("inf")).sum(-1)
        sizes = has.minimum(size[:, None])
        lent = ((sizes[:, 0] - must[:, 0]) // 4).minimum(has[:, -1] - sizes[:, -1])
        sizes[:, 0] -= lent
        sizes[:, -1] += lent
        found.append(sizes)
    return tuple(found)
