"""Entries at random: what any other score has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.cache.protocol import Cells, Score

if TYPE_CHECKING:
    from torch import Tensor

_FACTORS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)


def random() -> Score:
    """Keep entries at random, each layer and head its own.

    Formula: a number in [0, 1) that is a hash of (seed, layer, head, slot). An entry keeps its number, so that choosing
    again later leaves a random sample of all entries.
    Helps when nothing is known; it is the control of every other score. Nothing is protected.
    """
    return Score(_score)


def _score(cells: Cells, memory: Tensor) -> Tensor:
    import torch

    heads = torch.arange(cells.keys.shape[1], device=cells.slots.device)[None, :, None]
    mixed = cells.slots * _FACTORS[0] + (heads + 1) * _FACTORS[1] + (cells.layer + 1) * _FACTORS[2] + cells.seed
    for _ in range(3):  # an integer hash of 32 bits, three rounds
        mixed = mixed & 0xFFFFFFFF
        mixed = ((mixed ^ (mixed >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 16)) & 0xFFFFFF).double() / 2**24
