"""One line: which rows the method ends, and when.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import I64
from budgeteer.core.stopper import CONTINUE, FINISH, Event, Stopper


def deadline(share: float = 0.5, every: int = 4) -> Stopper:
    """FINISH a row that is still thinking after ``share`` of its cap.

    Helps when long thinking rarely changes the answer; does not when the hard problems are the ones that need it.

    Args:
        share: of the row's cap, in (0, 1].
        every: poll after every so many tokens, >= 1.

    Raises:
        InvalidInput: a share outside (0, 1].

    >>> from budgeteer.core.stopper import Rows
    >>> rows = Rows(("a", "b"), np.array([100, 100]), seed=0)
    >>> event = Event(np.array([0, 1]), np.array([52, 52]), np.array([-1, 30]), np.array([-1, -1]), lambda: np.zeros(2))
    >>> method = deadline()
    >>> method.step(method.init(rows), event)[0].tolist()
    [1, 0]
    """
    if not 0 < share <= 1:
        raise InvalidInput(f"deadline(share={share}); give a share of the cap above 0, at most 1")

    def step(state: I64, event: Event) -> tuple[NDArray[np.int8], I64]:
        # the state is the cap of every row; an event names the rows that are still running
        late = (event.closed < 0) & (event.length >= share * state[event.row])
        return np.where(late, FINISH, CONTINUE).astype(np.int8), state

    return Stopper(lambda rows: rows.max_tokens, step, every)
