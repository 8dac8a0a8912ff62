"""One line: which rows the method ends, forces or bends, and when.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import I64
from budgeteer.core.steer import CONTINUE, FINISH, Action, Need, Snapshot, Steer, shared


@shared
def deadline(share: float = 0.5, every: int = 4) -> Steer:
    """FINISH a row that is still thinking after ``share`` of its cap.

    Helps when long thinking rarely changes the answer; does not when the hard problems are the ones that need it.

    Args:
        share: of the row's cap, in (0, 1].
        every: asked after every so many tokens, >= 1.

    Raises:
        InvalidInput: a share outside (0, 1].

    >>> from budgeteer.core.steer import Rows
    >>> method = deadline()
    >>> state = method.init(Rows(("a", "b"), np.array([100, 100]), seed=0))
    >>> action, state = method.step(state, Snapshot.of([52, 52], closed=[-1, 30]))
    >>> action.decision.tolist()
    [1, 0]
    """
    if not 0 < share <= 1:
        raise InvalidInput(f"deadline(share={share}); give a share of the cap above 0, at most 1")

    def step(state: I64, now: Snapshot) -> tuple[Action, I64]:
        # the state has an entry a row, here its cap at the start; a snapshot says which rows are still running
        late = (now.closed < 0) & (now.length >= share * state[now.row])
        return Action(np.where(late, FINISH, CONTINUE).astype(np.int8)), state

    return Steer(lambda rows: rows.max_tokens, step, frozenset({Need.TOKENS, Need.MARKERS}), every)
