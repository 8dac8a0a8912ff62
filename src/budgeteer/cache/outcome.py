"""What becomes of each entry: it stays as it is, stays in fewer bits or numbers, or has no place."""

from __future__ import annotations

import torch
from torch import Tensor

from budgeteer.cache.layer import BudgetedLayer
from budgeteer.cache.protocol import Codec
from budgeteer.cache.selecting import Selection
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput

LENGTHS = 16
"""Bytes of a head's two numbers of entries: all of them, and those in fewer bits."""


def require_uniform(selected: Selection) -> None:
    """Refuse a split of other sizes where the rest gives each head its numbers.

    Raises:
        InvalidInput: it has other sizes.
    """
    if selected.rest.fitted is not None and selected.split != registry.part_of("split", "uniform"):
        raise InvalidInput(
            f"{selected.name}: all entries stay, in as many numbers of each head as were found for the budget; give "
            "split=uniform"
        )


def fates(
    selected: Selection, layer: BudgetedLayer, scores: Tensor, counts: Tensor, size: Tensor, full: int
) -> tuple[Tensor, Tensor | None, Codec | None]:
    """Which entries [B, K, n] stay as they are, which in fewer bits, and the codec of these.

    Args:
        selected: the method.
        layer: whose entries they are.
        scores: [B, K, n], with infinities as :meth:`Selection.scores` has them.
        counts: [B, K] of the split.
        size: [B] of the budget.
        full: bytes of an entry of one head as it is, with all that is held beside it.
    """
    assert layer.storage is not None
    rest = selected.rest
    if layer.window is not None or (rest.codec is None and rest.fitted is None):
        return selected.keep(scores, counts), None, None
    columns = layer.storage.heads()
    pair = [columns[name] for name in ("keys", "values")]
    plain = sum(column.shape[-1] * column.element_size() for column in pair)
    if rest.fitted is not None:
        there, must = scores > float("-inf"), scores == float("inf")
        low = there & ~must
        heads, several = scores.shape[1], low.sum((1, 2)).double()
        room = (size * heads - must.sum((1, 2))) * full - LENGTHS * heads - several * (full - plain)
        share = (room / (several * plain).clamp(min=1)).clamp(0, 1)
        whole = (counts >= there.sum(-1)).all(1)
        return must, low, rest.fitted(layer.index, torch.where(whole, 1.0, share))
    assert rest.codec is not None
    entry, head = rest.codec.cost(pair[0].shape[-1], pair[1].shape[-1])
    first, next_ones = selected.bands(scores, counts, full, full - plain + entry, head + LENGTHS // 2)
    keep = selected.keep(scores, first)
    return keep, selected.keep(scores, first + next_ones) & ~keep, rest.codec
