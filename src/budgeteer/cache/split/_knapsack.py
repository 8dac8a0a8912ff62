"""Sizes of layers by measured losses: the least loss that the places allow, exactly, or as another allocator says."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from budgeteer.cache.protocol import Groups, Split
from budgeteer.cache.tables import table_of
from budgeteer.core import registry
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items, Menu


def knapsack(losses: str | Mapping[str, Any] = "", by: str | Allocator = "menu-knapsack:exact=true") -> Split:
    """Give each layer one of the shares whose loss was measured, with the least sum of losses; heads are equal.

    Formula: with l(i, s) what was lost when layer i alone kept a share s of its entries, one share s(i) a layer,
    min sum over i of l(i, s(i)) subject to sum over i of floor(s(i) n) <= size x layers. Solved exactly, by
    :func:`budgeteer.allocate.menu_knapsack`, or by another allocator of menus, whose options are entries more than at
    the least share, and worth what is lost less. Places that no better choice can use go to all layers alike. A budget
    below the least measured share is divided equally.
    Helps where layers differ in what a cut costs them, in whatever shape: losses need not fall evenly, as the sizes of
    ``prefix`` and ``layers`` assume. It takes losses of single layers to add up. ``budgeteer cache train knapsack``
    measures them, for one method on one model.

    Args:
        losses: their JSON file, or its content: ``shares`` rising, the last one 1, ``losses`` [layers][shares] and, if
            they are for one model only, its ``fingerprint``.
        by: an allocator that takes menus, or its name and options, such as ``"greedy-marginal"``.
    """
    allocator = registry.part_of("allocator", by)
    _require_menus(allocator, by)
    shares, table, fingerprint, heads = table_of(losses, "losses", "knapsack")
    if heads > 1:
        raise InvalidInput("knapsack: losses are one list a layer, and these are one a head")
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
            given = [_solved(allocator, shares, table, row)[groups.layer + place] for row in rows]
            found.append(torch.tensor(given, device=scores.device)[:, None].minimum(has).maximum(must))
        return tuple(found)

    return Split(sizes, fingerprint=fingerprint)


@lru_cache(1024)
def _solved(
    allocator: Allocator,
    shares: tuple[float, ...],
    table: tuple[tuple[float, ...], ...],
    row: tuple[int, int, int],
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
    plan = allocator.allocate(room, items, allocator.init(items), rng=np.random.default_rng(0))
    found = [counts[int(option)] for option in plan.units]
    left = size * len(table) - sum(found)
    return tuple(min(count + left // len(table), max(tokens, least)) for count in found)


def _require_menus(allocator: Allocator, given: str | Allocator) -> None:
    """Refuse an allocator that cannot choose one option an item, before a prompt is read."""
    items = Items(("0", "1"), menu=Menu.of([[1], [1]], [[2.0], [1.0]]))
    try:
        allocator.allocate(1, items, allocator.init(items), rng=np.random.default_rng(0))
    except InvalidInput as error:
        raise InvalidInput(
            f"knapsack: by={given!r} takes no menus: {error}; give menu-knapsack, greedy-marginal or max-min"
        ) from error
