"""PrefixKV's sizes of layers: the same share of the attention in each.

Paper: "PrefixKV: Adaptive Prefix KV Cache is What Vision Instruction-Following Models Need for Efficient Generation",
arXiv 2412.03409.
"""

from __future__ import annotations

import torch
from torch import Tensor

from budgeteer.cache.kit import compete
from budgeteer.cache.protocol import Groups, Split


def prefix() -> Split:
    """Give each layer as many entries as it takes to hold a share p of its scores, with one p for all; heads are equal.

    Formula: with the scores of a layer on the mean over heads, in falling order and with the sum 1, and C_l(k) the sum
    of the first k: k_l = the least k with C_l(k) >= p, and p such that the sizes sum to the budget. The entry k of a
    layer is needed when p exceeds C_l(k - 1); so the entries with the smallest C_l(k - 1) get the places, which meets
    the budget exactly and leaves the least share of any layer as large as can be. The paper finds p by bisection,
    stops within 5 entries and scales the rest. Protected entries are kept and are not part of the sums.
    Helps when some layers read a handful of entries and others read widely. Scores have to be 0 or more, as sums of
    attention are. All layers are held until the last one was read.
    """
    return Split(_sizes, together=True)


def _sizes(groups: Groups) -> tuple[Tensor, ...]:
    places = [_order(scores) for scores in groups.scores]
    won = compete(places, sum(groups.size[1:], start=groups.size[0]))
    has = [(scores > float("-inf")).sum(-1) for scores in groups.scores]
    return tuple(most.minimum(size) for most, size in zip(has, won, strict=True))


def _order(scores: Tensor) -> Tensor:
    """[B, 1, n]: -C(k - 1) of the k-th best entry of a layer, +inf for protected ones, -inf where none is."""
    most = (scores > float("-inf")).sum(-1).amax(1)
    mean = scores.masked_fill(scores == float("-inf"), 0.0).double().mean(1)
    ordered = mean.sort(dim=-1, descending=True).values
    sure = ordered == float("inf")
    shares = ordered.masked_fill(sure, 0.0).clamp(min=0.0)
    shares = shares / shares.sum(-1, keepdim=True).clamp(min=1e-300)
    before = shares.cumsum(-1) - shares
    nothing = torch.arange(scores.shape[-1], device=scores.device) >= most[:, None]
    return (-before).masked_fill(sure, float("inf")).masked_fill(nothing, float("-inf"))[:, None]
