"""What was computed of a prompt for one cache, for the others that are filled from the same prefill."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Known:
    """Sums over all queries of a prompt, by layer and name, each computed once.

    Attributes:
        saved: seconds that the sums took which the present cache asked for, and which an earlier one had computed.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[int, str], tuple[Tensor, float]] = {}
        self.begin()

    def begin(self) -> None:
        """Another cache is filled from now on."""
        self.saved, self._asked = 0.0, set[tuple[int, str]]()

    def of(self, layer: int, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """A sum of a layer, computed if nobody asked for it before."""
        new = (layer, name) not in self._asked
        self._asked.add((layer, name))
        if (layer, name) in self._sums:
            found, seconds = self._sums[layer, name]
            self.saved += seconds * new
            return found
        began = time.perf_counter()
        found = compute()
        if found.is_cuda:
            import torch

            torch.cuda.synchronize(found.device)
        self._sums[layer, name] = found, time.perf_counter() - began
        return found
