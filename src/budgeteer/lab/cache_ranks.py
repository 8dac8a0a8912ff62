"""The search of the ranks of a cache's projections (``matryoshka``): which head can do with fewer numbers."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from budgeteer.cache.attend import attentions, updated
from budgeteer.cache.layer import readable
from budgeteer.cache.projections import Projections
from budgeteer.lab.cache_gates import Watch, divergence

AGAIN = 4
"""So often a search tries every head anew: what a cut raised the divergence by can fall, too."""


class Searched(NamedTuple):
    """How far a search of ranks is.

    Attributes:
        cuts: heads that lost a step of their rank, in order.
        rises: [units], what the divergence last rose by with one step less of a head, nats a token; -inf = never tried.
    """

    cuts: list[int]
    rises: list[float]


def search(
    model: Any,
    given: Projections,
    texts: Tensor,
    together: float,
    watch: Watch = lambda how_far: None,
    *,
    begun: Searched | None = None,
    keep: Callable[[Searched], None] = lambda searched: None,
) -> Tensor:
    """Cuts that raise the divergence from the model least, one step of a head's rank at a time.

    Each round takes the cuts that raise it least, ``together`` of all heads at once; so until every head is down to its
    last step. Greedy: what heads lose together is not looked at within a round. It is lazy (Minoux 1978): what a cut
    raised the divergence by in an earlier round stands for what it does now until it would be taken, and then it is
    tried anew; every head is, :data:`AGAIN` times. Where such rises never fall, as more is cut, that finds what trying
    all heads in each round does. A try computes the layers from the one of its head on, since those before it are as
    in the round's beginning.

    Args:
        model: as :func:`train_projections` has it, attached.
        given: projections.
        texts: [n, length].
        together: share of the heads that are cut in a round; one at least.
        watch: is told how far the search is.
        begun: where it goes on.
        keep: is given what a round has found.

    Returns:
        [n] int64 as :attr:`Projections.cuts` has them.
    """
    shape, width = given.basis.shape[:3], given.basis.shape[-1] // given.steps
    cuts, rises = begun or Searched([], [-math.inf] * given.units)
    found, rises = list(cuts), list(rises)
    left = given.steps - torch.bincount(torch.tensor(found, dtype=torch.long), minlength=given.units)
    count, blocks = given.units * (given.steps - 1), _blocks(model)
    with torch.no_grad():
        wanted = model(input_ids=texts, use_cache=False).logits.float().log_softmax(-1)
        while len(found) < count:
            with _noted(blocks) as outputs:
                before = _apart(model, given, texts, wanted, (left * width).reshape(shape))
            waiting = [(rises[unit], unit) for unit in torch.nonzero(left > 1)[:, 0].tolist()]
            heapq.heapify(waiting)
            tried, best = set[int](), list[int]()
            while waiting and len(best) < max(int(together * given.units), 1):
                _, unit = waiting[0]
                if unit in tried:
                    best.append(heapq.heappop(waiting)[1])
                    continue
                watch(f"searches ranks: {len(found)} of {count} cuts, try {len(tried) + 1} of this round")
                left[unit] -= 1
                layer = unit // shape[2] % shape[1]
                with _from_layer(blocks[:layer], outputs):
                    after = _apart(model, given, texts, wanted, (left * width).reshape(shape))
                left[unit] += 1
                rises[unit] = after - before
                tried.add(unit)
                heapq.heapreplace(waiting, (rises[unit], unit))
            left[best] -= 1
            if AGAIN * (len(found) + len(best)) // count > AGAIN * len(found) // count:
                rises = [-math.inf] * given.units
            found += best
            keep(Searched(list(found), list(rises)))
    return torch.tensor(found)


def _blocks(model: Any) -> list[Any]:
    """The layers of a model: what its attention modules are parts of."""
    index = {module: module.layer_idx for module in attentions(model)}
    found = {index[part]: module for module in model.modules() for part in module.children() if part in index}
    return [found[layer] for layer in sorted(found)]


@contextmanager
def _noted(blocks: Sequence[Any]) -> Iterator[list[Any]]:
    """What each layer gives in the call inside."""
    outputs: list[Any] = [None] * len(blocks)

    def noting(layer: int) -> Callable[..., None]:
        def note(module: Any, given: Any, output: Any) -> None:
            outputs[layer] = output

        return note

    handles = [block.register_forward_hook(noting(layer)) for layer, block in enumerate(blocks)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _from_layer(blocks: Sequence[Any], outputs: Sequence[Any]) -> Iterator[None]:
    """Calls inside take what these first layers gave before, so that only those behind them compute."""
    for block, output in zip(blocks, outputs, strict=False):
        block.forward = lambda *given, output=output, **named: output
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def lost(model: Any, given: Projections, texts: Tensor, share: float) -> float:
    """KL(model || the model with projected keys and values), nats a token, at a share of the numbers."""
    with torch.no_grad():
        wanted = model(input_ids=texts, use_cache=False).logits.float().log_softmax(-1)
        return _apart(model, given, texts, wanted, given.ranks(share))


def _apart(model: Any, given: Projections, texts: Tensor, wanted: Tensor, ranks: Tensor) -> float:
    device = texts.device
    with projected(given.basis.to(device), given.mean.to(device), ranks.to(device)):
        said = model(input_ids=texts, use_cache=False).logits.float().log_softmax(-1)
    return float(divergence(said, wanted))


@contextmanager
def projected(basis: Tensor, mean: Tensor, ranks: Tensor) -> Iterator[None]:
    """Attention over projected keys and values, in calls of a model without a cache; logits are not capped.

    Args:
        basis: [2, L, K, d, d].
        mean: [2, L, K, d].
        ranks: [2, L, K].
    """
    places = torch.arange(basis.shape[-1], device=basis.device)

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, *others: Any
    ) -> Tensor:
        layer, group = module.layer_idx, query.shape[1] // key.shape[1]
        read = []
        for kind, numbers in enumerate((key, value)):
            m, u = mean[kind, layer][:, None], basis[kind, layer]
            kept = places < ranks[kind, layer][:, None]  # [K, d]
            inside = ((numbers.float() - m) @ u) * kept[:, None]
            read.append((m + inside @ u.transpose(-1, -2)).to(numbers.dtype).repeat_interleave(group, dim=1))
        seen = None if mask is None else readable(mask)[..., : key.shape[2]]
        out = functional.scaled_dot_product_attention(
            query, read[0], read[1], attn_mask=seen, is_causal=mask is None, scale=scaling
        )
        return out.transpose(1, 2).contiguous()

    updated.gated = attention
    try:
        yield
    finally:
        updated.gated = None
