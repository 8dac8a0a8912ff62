"""How much of what a head reads stays the same over time: which heads FlexiCache has to ask at every token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from budgeteer.cache.budgeted_cache import BudgetedCache
from budgeteer.core.budget import Budget
from budgeteer.core.errors import InvalidInput
from budgeteer.models.inside import argument_of


def corrected(first: Tensor, later: Tensor, total: int) -> Tensor:
    """How much two choices out of ``total`` entries have in common, corrected for chance.

    Formula: with A and B of k entries each, (|A and B| / k - k / total) / (1 - k / total): 1 for equal choices, 0 on
    the mean for choices at random. (The paper's name for it; its own formula was not at hand.)

    Args:
        first, later: [..., n] bool, equally many True.
        total: entries that could be chosen, more than k.
    """
    count = first.sum(-1).double()
    chance = count / total
    return ((first & later).sum(-1) / count - chance) / (1 - chance)


def stability(
    model: Any, ids: Tensor, budget: Budget | str, method: str = "quest", *, tokens: int = 48, apart: int = 16
) -> Tensor:
    """[layers, key-value heads] float64: what choices ``apart`` tokens apart have in common, while a model writes.

    Args:
        model: a decoder of transformers.
        ids: [B, n] prompts without padding, whose greedy continuation is watched.
        budget: that the choices have; it should be that of the use.
        method: a score that looks at the query, without a rest.
        tokens: that are written, more than ``apart``.
        apart: tokens from one choice to the other, >= 1.

    Returns:
        The mean of :func:`corrected` over rows and tokens; NaN in layers that hold nothing in cold memory.
    """
    if not 1 <= apart < tokens:
        raise InvalidInput(f"{tokens} tokens hold no two choices {apart} apart; give more tokens than apart, >= 1")
    cache = BudgetedCache(model, budget, f"{method},rest=offload" if ":" in method else f"{method}:rest=offload")
    chosen: list[list[Tensor | None]] = []
    given = ids
    with torch.no_grad():
        for _ in range(tokens + 1):
            given = model(given, **{argument_of(model): cache}, logits_to_keep=1).logits[:, -1:].argmax(-1)
            if cache.get_seq_length() > ids.shape[1]:
                chosen.append([None if layer.cold is None else layer.read_slots() for layer in cache.layers])
    found = []
    for index in range(len(cache.layers)):
        pairs = [(a[index], b[index]) for a, b in zip(chosen, chosen[apart:], strict=False)]
        shares = [
            corrected(torch.nn.functional.pad(a, (0, b.shape[-1] - a.shape[-1])), b, b.shape[-1]).mean(0)
            for a, b in pairs
            if a is not None and b is not None
        ]
        heads = model.config.get_text_config().num_key_value_heads
        found.append(torch.stack(shares).mean(0) if shares else torch.full((heads,), torch.nan).double())
    return torch.stack(found)


def unstable(stable: Tensor, share: float = 0.25) -> list[list[int]]:
    """[layer, head] of the ``share`` of heads with the least stability, as ``flexi-cache`` takes them.

    >>> unstable(torch.tensor([[0.9, 0.2], [0.5, 0.7]]))
    [[0, 1]]
    """
    count = int(share * int((~stable.isnan()).sum()))
    order = stable.flatten().nan_to_num(torch.inf).argsort(stable=True)[:count]
    return sorted([int(place) // stable.shape[1], int(place) % stable.shape[1]] for place in order)
