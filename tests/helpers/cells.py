"""Entries of a layer's cache, made up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS, HEADS, KV_HEADS, WIDTH = 2, 6, 2, 4
GROUP = HEADS // KV_HEADS


def draw(*shape: int, rng: torch.Generator) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=rng)


def fields(
    rng: torch.Generator, tokens: int, queries: int, padded: int, size: int, drawn: int | None = None
) -> dict[str, Any]:
    """Fields of :class:`~budgeteer.cache.Cells` of a prompt whose last tokens are read; row 0 begins with padding.

    Args:
        rng: keys, values and then queries are drawn from it.
        tokens: of each row.
        queries: that are given, the last ones.
        padded: tokens of padding.
        size: entries that each row keeps.
        drawn: queries that are drawn, of which the last are given; None = as many as are given.
    """
    valid = torch.ones(ROWS, tokens, dtype=torch.bool)
    valid[0, :padded] = False
    drawn = queries if drawn is None else drawn
    return {
        "keys": draw(ROWS, KV_HEADS, tokens, WIDTH, rng=rng),
        "values": draw(ROWS, KV_HEADS, tokens, WIDTH, rng=rng),
        "slots": torch.arange(tokens).expand(ROWS, KV_HEADS, tokens),
        "valid": valid[:, None].expand(ROWS, KV_HEADS, tokens),
        "queries": 2 * draw(ROWS, HEADS, drawn, WIDTH, rng=rng)[:, :, drawn - queries :],
        "query_slots": torch.arange(tokens - queries, tokens),
        "query_valid": valid[:, tokens - queries :],
        "scaling": 0.6,
        "size": torch.tensor([size, size]),
        "layer": 1,
        "layers": 4,
    }
