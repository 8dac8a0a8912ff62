"""The Matching protocol: resources that serve once, and requests that come or do not come."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import F64


class Matching(Protocol):
    """A plan for n resources and T requests, made before the stream; it serves the requests as they come."""

    @property
    def bound(self) -> float:
        """No online method expects more value than this."""
        ...

    def serve(self, time: int, free: NDArray[np.bool_], rng: np.random.Generator) -> int:
        """The resource that serves the request which came at ``time``, or -1 for none.

        Args:
            time: index of the request, 0 to T - 1.
            free: [n] true for resources not used yet; the caller marks the returned one as used.
            rng: of everything that is drawn.
        """
        ...


class MakeMatching(Protocol):
    """A method of matching: a function that makes the plan, and refuses bad input with InvalidInput."""

    def __call__(self, value: F64, chance: F64) -> Matching:
        """Make the plan.

        Args:
            value: [n, T] >= 0, of serving request t with resource i.
            chance: [T] in (0, 1], that request t comes, independently of the others.
        """
        ...
