"""What becomes of each entry: it stays as it is, stays in fewer bits or numbers, or has no place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from budgeteer.cache.layer import BudgetedLayer
from budgeteer.cache.protocol import Codec
from budgeteer.cache.selecting import Selection
from budgeteer.core import registry
from budgeteer.core.bisection import largest
from budgeteer.core.errors import InvalidInput

LENGTHS = 16
"""Bytes of a head's two numbers of entries: all of them, and those in fewer bits."""


def require_uniform(selected: Selection) -> None:
    """Refuse a split of other sizes where the rest, or the score, says itself what each layer and head gets.

    Raises:
        InvalidInput: it has other sizes.
    """
    if selected.split == registry.part_of("split", "uniform"):
        return
    if selected.rest.fitted is not None:
        raise InvalidInput(
            f"{selected.name}: all entries stay, in as many numbers of each head as were found for the budget; give "
            "split=uniform"
        )
    if selected.by_precision:
        raise InvalidInput(
            f"{selected.name}: layers hold equally many entries and differ in how many of them stay as they are; give "
            "split=uniform, or layers=false, with which a split may give layers different sizes"
        )


class Cost(NamedTuple):
    """Bytes of one head.

    Attributes:
        full: of an entry as it is, with all that is held beside it.
        low: of an entry in fewer bits.
        head: beside the entries in fewer bits.
    """

    full: int
    low: int
    head: int


class Layer(NamedTuple):
    """A row of a layer whose entries are to have states; a head of it stands for all.

    Attributes:
        has, must: entries of a head, and those that stay as they are in any case.
        size: entries as they are that its bytes are worth.
        precision: how much of it should stay as it is, against the other layers.
        cost: of its entries.
    """

    has: int
    must: int
    size: int
    precision: float
    cost: Cost


def states(layers: Sequence[Layer], full: float) -> list[tuple[int, int]]:
    """How many entries of a head stay as they are in each layer, and how many next ones in fewer bits (ARKV).

    Formula: with p_l = precision of a layer / the highest of all layers, and w_l = what must stay, every layer holds
    c_l = min(w_l + m, all) entries, of which max(w_l + round(p_l m), floor(``full`` size)) stay as they are; m is the
    largest number with which the layers together take no more bytes than their sizes. So they hold equally many
    entries, the one with the highest precision holds all of its as they are, and where all entries have a place, more
    of them stay as they are.
    """
    if all(layer.size >= layer.has for layer in layers):
        return [(layer.has, 0) for layer in layers]
    if any(layer.cost.low >= layer.cost.full for layer in layers):  # nothing is saved by fewer bits
        return [(min(layer.size, layer.has), 0) for layer in layers]
    most = max(layer.precision for layer in layers)
    shares = [layer.precision / most if most > 0 else 1.0 for layer in layers]

    def given(m: int) -> list[tuple[int, int]]:
        found = []
        for layer, share in zip(layers, shares, strict=True):
            held = min(layer.must + m, layer.has)
            first = max(layer.must + round(share * m), int(full * layer.size))
            found.append((min(first, held), held - min(first, held)))
        return found

    def fits(m: int) -> bool:
        taken = sum(
            first * layer.cost.full + low * layer.cost.low + (layer.cost.head if low else 0)
            for layer, (first, low) in zip(layers, given(m), strict=True)
        )
        return taken <= sum(layer.size * layer.cost.full for layer in layers)

    longest = max(layer.has for layer in layers)
    return given(largest(fits, round(longest / max(min(shares), 1e-3))))


def precise(
    selected: Selection,
    layers: Sequence[BudgetedLayer],
    scores: Sequence[Tensor],
    sizes: Sequence[Tensor],
    full: Sequence[int],
) -> dict[int, tuple[Tensor, Tensor]]:
    """Index of a layer that holds entries in fewer bits -> [B, K] entries of :func:`states` of each kind.

    Args:
        selected: a method whose layers differ in how much of them stays as it is.
        layers: all of the model.
        scores: of each [B, K, n], with infinities as :meth:`Selection.scores` has them.
        sizes: of each [B], of the budget.
        full: of each, bytes of an entry of one head as it is, with all that is held beside it.
    """
    of = [place for place, layer in enumerate(layers) if layer.window is None]
    has = [(scores[place] > float("-inf")).sum(-1) for place in of]
    must = [(scores[place] == float("inf")).sum(-1).amax(1).tolist() for place in of]
    most, costs = [each.amax(1).tolist() for each in has], [_cost(selected, layers[place], full[place]) for place in of]
    found = {layers[place].index: (each.clone(), each.clone()) for place, each in zip(of, has, strict=True)}
    for row in range(len(sizes[0])):
        given = []
        for i, place in enumerate(of):
            precision = layers[place].precision
            assert precision is not None
            given.append(Layer(most[i][row], must[i][row], int(sizes[place][row]), float(precision[row]), costs[i]))
        for i, (first, low) in enumerate(states(given, selected.rest.full)):
            firsts, lows = found[layers[of[i]].index]
            firsts[row] = has[i][row].clamp(max=first)
            lows[row] = (has[i][row] - firsts[row]).clamp(max=low)
    return found


def _cost(selected: Selection, layer: BudgetedLayer, full: int) -> Cost:
    """Bytes of the entries of a layer, as they are and in the codec of the rest."""
    assert layer.storage is not None
    assert selected.rest.codec is not None
    columns = layer.storage.heads()
    pair = [columns[name] for name in ("keys", "values")]
    plain = sum(column.shape[-1] * column.element_size() for column in pair)
    entry, head = selected.rest.codec.cost(pair[0].shape[-1], pair[1].shape[-1])
    return Cost(full, full - plain + entry, head + LENGTHS // 2)


def fates(
    selected: Selection,
    layer: BudgetedLayer,
    scores: Tensor,
    counts: Tensor,
    size: Tensor,
    full: int,
    numbers: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor | None, Codec | None]:
    """Which entries [B, K, n] stay as they are, which in fewer bits, and the codec of these.

    Args:
        selected: the method.
        layer: whose entries they are.
        scores: [B, K, n], with infinities as :meth:`Selection.scores` has them.
        counts: [B, K] of the split.
        size: [B] of the budget.
        full: bytes of an entry of one head as it is, with all that is held beside it.
        numbers: [B, K] each, how many stay as they are and in fewer bits; None = as the rest's share says.
    """
    assert layer.storage is not None
    rest = selected.rest
    if layer.window is not None or (rest.codec is None and rest.fitted is None):
        return selected.keep(scores, counts), None, None
    if rest.fitted is not None:
        columns = layer.storage.heads()
        plain = sum(columns[name].shape[-1] * columns[name].element_size() for name in ("keys", "values"))
        there, must = scores > float("-inf"), scores == float("inf")
        low = there & ~must
        heads, several = scores.shape[1], low.sum((1, 2)).double()
        room = (size * heads - must.sum((1, 2))) * full - LENGTHS * heads - several * (full - plain)
        share = (room / (several * plain).clamp(min=1)).clamp(0, 1)
        whole = (counts >= there.sum(-1)).all(1)
        return must, low, rest.fitted(layer.index, torch.where(whole, 1.0, share))
    assert rest.codec is not None
    first, next_ones = numbers or selected.bands(scores, counts, *_cost(selected, layer, full))
    keep = selected.keep(scores, first)
    return keep, selected.keep(scores, first + next_ones) & ~keep, rest.codec
