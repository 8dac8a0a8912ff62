"""What a reward is: a pure function over columns, with a state where it has targets or moving means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import F64, I64

__all__ = ["Columns", "Reward"]


@dataclass(frozen=True, slots=True)
class Columns:
    """One row a rollout.

    Attributes:
        correct: [n] the verifier's score.
        length: [n] sampled tokens.
        group: [n] number of the row's prompt.
        max_tokens: [n] cap of the row.
        status: [n] ENDED, FINISHED, ABORTED or CUT.
    """

    correct: F64
    length: I64
    group: I64
    max_tokens: I64
    status: NDArray[np.int8]


def _nothing() -> Any:
    return ()


def _same(state: Any, columns: Columns) -> Any:
    return state


class Reward(NamedTuple):
    """What advantages are made of, instead of the verifier's score alone.

    History and allocator go on seeing the verifier's score.

    Attributes:
        score: ``(state, columns) -> reward [n]``, finite.
        init: ``() -> state``, which survives JSON.
        observe: ``(state, columns) -> state``, once a step, after ``score``.
    """

    score: Callable[[Any, Columns], F64]
    init: Callable[[], Any] = _nothing
    observe: Callable[[Any, Columns], Any] = _same
