"""The Stopper protocol: when a running row should end, decided for all rows at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import I64

CONTINUE, FINISH, ABORT = 0, 1, 2
"""Go on; close the thinking and take the answer; end the row without an answer."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a stopper may know of the rows before they start.

    Attributes:
        keys: n item keys, one a row (they repeat).
        max_tokens: [n] hard cap of each row.
        seed: makes every random decision of the stopper repeatable.
    """

    keys: tuple[str, ...]
    max_tokens: I64
    seed: int


@dataclass(frozen=True, slots=True)
class Event:
    """One poll of the running rows.

    Attributes:
        row: [m] indices into Rows of the rows still running.
        length: [m] tokens sampled so far.
        closed: [m] length at which the thinking was closed by its marker, -1 = not yet.
        answered: [m] length at which the answer was complete, -1 = not yet.
        margin: call for [m] p(1st) - p(2nd) of the last token's distribution; computed on demand, since it costs.
    """

    row: I64
    length: I64
    closed: I64
    answered: I64
    margin: Callable[[], NDArray[np.float32]]


class Stopper(NamedTuple):
    """Two pure functions and how often to call the second.

    Attributes:
        init: ``(rows) -> state``.
        step: ``(state, event) -> (decisions [m] int8, state)``. An ABORT keeps the tokens already spent on the bill.
        every: poll after every so many sampled tokens.
        kept_weight: ``(state) -> [n] float64`` importance weight of each row that the gate chose to let run
            (1 for a row that was never gated).
    """

    init: Callable[[Rows], Any]
    step: Callable[[Any, Event], tuple[NDArray[np.int8], Any]]
    every: int = 4
    kept_weight: Callable[[Any], NDArray[np.float64]] | None = None
