"""Which parts of a text a cache holds."""

from __future__ import annotations

import torch

from budgeteer.cache import BudgetedCache

PARTS = 20
"""Of a text, from its beginning to its end."""


def places(cache: BudgetedCache, parts: int = PARTS) -> list[list[float]]:
    """For each layer and part of the text: the entries that are held, of those that its heads had there.

    Args:
        cache: that a text went through.
        parts: of the text, as equal as whole tokens come; one with no token has 0.
    """
    found = []
    for layer in cache.layers:
        assert layer.storage is not None
        slots = layer.storage.slots(layer.seen).cpu()
        part = torch.arange(layer.seen) * parts // layer.seen
        had = torch.bincount(part, minlength=parts) * slots.shape[0] * slots.shape[1]
        held = torch.bincount(part[slots[slots >= 0]], minlength=parts)
        found.append((held.double() / had.clamp(min=1)).tolist())
    return found
