"""Sizes of layers or heads that were found beforehand on texts, as PrefixKV, EpiCache and TCA-Attention have them.

Papers: "PrefixKV: Adaptive Prefix KV Cache is What Vision Instruction-Following Models Need for Efficient Generation",
arXiv 2412.03409; "EpiCache: Episodic KV Cache Management for Long Conversational Question Answering"; "Training-free
Context-adaptive Attention for Efficient Long Context Modeling", arXiv 2512.09238.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from budgeteer.cache.kit import compete as competing
from budgeteer.cache.protocol import Groups, Split
from budgeteer.cache.tables import table_of
from budgeteer.core.errors import InvalidInput

F64 = NDArray[np.float64]


def profile(sizes: str | Mapping[str, Any] = "", compete: bool = False) -> Split:
    """Give each layer, or head, the share of its entries that was found for a budget like this.

    Formula: the file has, for total shares r_1 < ... < r_m, the share s(l, r) that layer l keeps, whose mean over the
    layers is r. Between two of them, and to nothing at 0 and all at 1, shares are on a straight line, so that their
    mean is the budget's share. Whole entries go to the largest fractions. A layer that must keep more (protected
    entries) takes it from the others, in proportion to what they have beyond that.
    With sizes of heads, s(l, k, r), all of this holds for them in place of the layers. With sizes of layers the heads
    of a layer are equal, or compete.
    Helps where layers, or heads, differ in the same way on all texts: nothing is computed with the prompt, each layer
    chooses as soon as it was read, and no more than one whole layer is held. ``budgeteer cache train`` finds them on
    texts of yours: ``prefix`` those of PrefixKV (the split ``prefix`` finds them for each prompt anew), ``epi-cache``
    those of EpiCache, and ``tca-attention`` those of TCA-Attention, one for each head.

    Args:
        sizes: their JSON file, or its content: ``shares`` rising, ``sizes`` [layers][shares], or
            [layers][heads][shares], in [0, 1] and, if they are for one model only, its ``fingerprint``.
        compete: whether the entries of all heads of a layer compete for its places, as in EpiCache.
    """
    table = table_of(sizes, "sizes", "profile")
    rows = np.array(table.rows)
    if (rows < 0).any() or (rows > 1).any() or not np.allclose(rows.mean(0), table.shares, atol=1e-6):
        raise InvalidInput("profile: sizes are shares in [0, 1] whose mean over the layers and heads is the share")
    if compete and table.heads > 1:
        raise InvalidInput("profile: heads that have sizes of their own do not compete; leave out compete")

    def each(groups: Groups) -> tuple[Tensor, ...]:
        layers, heads = len(rows) // table.heads, groups.scores[0].shape[1]
        if groups.layers != layers:
            raise InvalidInput(f"profile: sizes of {layers} layers for {groups.layers}; measure this model")
        if table.heads not in (1, heads):
            raise InvalidInput(f"profile: sizes of {table.heads} heads a layer for {heads}; measure this model")
        found = list[Tensor]()
        for place, (scores, size, tokens) in enumerate(zip(groups.scores, groups.size, groups.tokens, strict=True)):
            has, must = (scores > float("-inf")).sum(-1), (scores == float("inf")).sum(-1)
            whole = zip(size.tolist(), tokens.tolist(), must.amax(1).tolist(), strict=True)
            of = slice((groups.layer + place) * table.heads, (groups.layer + place + 1) * table.heads)
            given = [_sizes(table.shares, table.rows, row)[of] for row in whole]
            counts = torch.tensor(given, device=scores.device)
            if compete:
                found += competing([scores], counts[:, 0] * heads)
            else:
                found.append(counts.minimum(has).maximum(must))
        return tuple(found)

    return Split(each, fingerprint=table.fingerprint)


@lru_cache(1024)
def _sizes(
    shares: tuple[float, ...], table: tuple[tuple[float, ...], ...], row: tuple[int, int, int]
) -> tuple[int, ...]:
    """Entries of each row of a table, for a row of a batch with (size, tokens, entries that are always kept)."""
    size, tokens, least = row
    most, total = max(tokens, least), size * len(table)
    known = (0.0, *shares, 1.0)
    wanted = np.array([np.interp(size / max(tokens, 1), known, (0.0, *layer, 1.0)) for layer in table]) * tokens
    wanted = fitted(wanted, least, most, total)
    found = np.floor(wanted + 1e-9)
    order = np.argsort(-(wanted - found), kind="stable")
    order = order[found[order] < most][: max(int(total - found.sum()), 0)]
    found[order] += 1
    return tuple(int(count) for count in found)


def fitted(wanted: F64, least: float, most: float, total: float) -> F64:
    """Sizes with the sum ``total``, each in [least, most], near those that are wanted.

    They are first brought into the range. If their sum is then too large, what each has above ``least`` shrinks by one
    factor; if it is too small, what each lacks to ``most`` does.
    """
    inside: F64 = wanted.clip(least, most)
    over = inside.sum() - total
    room = (inside - least if over > 0 else most - inside).sum()
    if room <= 0:
        return inside
    part = min(abs(over) / room, 1.0)
    towards = least if over > 0 else most
    near: F64 = inside + part * (towards - inside)
    return near
