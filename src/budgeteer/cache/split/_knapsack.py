"""Sizes of layers by measured losses: the least loss that the places allow, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from budgeteer.allocate import menu_knapsack
from budgeteer.cache.protocol import Groups, Split
from budgeteer.cache.tables import table_of
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items, Menu


def knapsack(losses: str | Mapping[str, Any] = "") -> Split:
    """Give each layer one of the shares whose loss was measured, with the least sum of losses; heads are equal.

    Formula: with l(i, s) what was lost when layer i alone kept a share s of its entries, one share s(i) a layer,
    min sum over i of l(i, s(i)) subject to sum over i of floor(s(i) n) <= size x layers. Solved exactly, by
    :func:`budgeteer.allocate.menu_knapsack`. Places that no better choice can use go to all layers alike. A budget
    below the least measured share is divided equally.
    Helps where layers differ in what a cut costs them, in whatever shape: losses need not fall evenly, as the sizes of
    ``prefix`` and ``layers`` assume. It takes losses of single layers to add up. ``budgeteer cache train knapsack``
    measures them, for one method on one model.

    Args:
        losses: their JSON file, or its content: ``shares`` rising, the last one 1, ``losses`` [layers][shares] and, if
            they are for one model only, its ``fingerprint``.
    """
    shares, table, fingerprint = table_of(losses, "losses", "knapsack")
    if len(shares) < 2 or shares[-1] != 1:
        raise InvalidInput("knapsack: give losses at two shares or more, the last one 1")

    def sizes(groups: Groups) -> tuple[Tensor, ...]:
        if groups.layers != len(table):
            raise InvalidInput(f"knapsack: losses of {len(table)} layers for {groups.layers}; measure this model")
        found = []
        for place, (scores, size, tokens) in enumerate(zip(groups.scores, groups.size, groups.tokens, strict=True)):
            has, must = (scores > float("-inf")).sum(-1), (scores == float("inf")).sum(-1)
            least = must.amax(1)
            rows = zip(size.tolist(), tokens.tolist(), least.tolist(), strict=True)
            given = [_solved(shares, table, row)[groups.layer + place] for row in rows]
            found.append(torch.tensor(given, device=scores.device)[:, None].minimum(has).maximum(must))
        return tuple(found)

    return Split(sizes, fingerprint=fingerprint)


@lru_cache(1024)
def _solved(
    shares: tuple[float, ...], table: tuple[tuple[float, ...], ...], row: tuple[int, int, int]
) -> tuple[int, ...]:
    """Entries of a head of each layer, for a row of (size, tokens, entries that are always kept)."""
    size, tokens, least = row
    every = [max(int(share * tokens), least) for share in shares]
    options = [
        k for k, count in enumerate(every) if k + 1 == len(every) or count < every[k + 1]
    ]  # of equal ones the last
    counts, room = [every[k] for k in options], (size - every[options[0]]) * len(table)
    if room < 0:
        return (size,) * len(table)
    more = [count - counts[0] for count in counts[1:]]
    gains = [[lost[options[0]] - lost[k] for k in options[1:]] for lost in table]
    items = Items(tuple(str(layer) for layer in range(len(table))), menu=Menu.of([more] * len(table), gains))
    plan = menu_knapsack(exact=True).allocate(room, items, (), rng=np.random.default_rng(0))
    found = [counts[int(option)] for option in plan.units]
    left = size * len(table) - sum(found)
    return tuple(min(count + left // len(table), max(tokens, least)) for count in found)
