"""Stop a row once its answer is complete: what follows cannot change the reward."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.stopper import CONTINUE, FINISH, Event, Stopper


def answered(every: int = 1) -> Stopper:
    """FINISH every row whose answer is complete.

    Helps when the policy goes on after its answer (base models do); saves nothing when it ends by itself. Sound
    for any verifier that reads the first complete answer: the reward is the same, so no weight is needed.

    Args:
        every: poll after every so many tokens; a row may overshoot by ``every - 1``.

    >>> from budgeteer.core.stopper import Event
    >>> import numpy as np
    >>> event = Event(np.array([0, 1]), np.array([9, 9]), np.array([5, -1]), np.array([8, -1]), lambda: np.zeros(2))
    >>> answered().step((), event)[0].tolist()
    [1, 0]
    """

    def step(state: Any, event: Event) -> tuple[NDArray[np.int8], Any]:
        return np.where(event.answered >= 0, FINISH, CONTINUE).astype(np.int8), state

    return Stopper(lambda rows: (), step, every)
