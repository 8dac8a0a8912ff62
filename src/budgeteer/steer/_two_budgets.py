"""A budget for the thinking and another one for the answer (Elastic Reasoning, arXiv 2505.05315)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import Action, Need, Snapshot, State, Steer, shared
from budgeteer.steer.kit import decisions, thinking


@shared
def two_budgets(think: int, answer: int) -> Steer:
    """FINISH a row that still thinks after ``think`` tokens, and cap a row whose thinking is closed ``answer`` tokens
    behind the marker.

    A thinking that closes early does not give its tokens to the answer, as in the paper's rollouts. Helps to train, or
    to ask, where an answer of bounded length has to follow at any rate. Tokens of a forced marker are no part of the
    answer's budget; a forced lead of the answer (``Style.end``) is.

    Args:
        think, answer: tokens, 1 or more.

    Raises:
        InvalidInput: fewer.

    >>> from budgeteer.core.steer import Snapshot
    >>> action, _ = two_budgets(8, 4).step((), Snapshot.of([7, 8, 9], cap=[20, 20, 20], closed=[-1, -1, 5]))
    >>> action.decision.tolist(), action.cap.tolist()
    ([0, 1, 0], [20, 20, 9])
    """
    if min(think, answer) < 1:
        raise InvalidInput(f"two_budgets(think={think}, answer={answer}); give 1 token or more of each")

    def step(state: State, now: Snapshot) -> tuple[Action, State]:
        over = thinking(now) & (now.length >= think)
        cap = np.where(now.closed >= 0, np.minimum(now.cap, now.closed + answer), now.cap)
        return Action(decisions(over), cap=cap), state

    return Steer(lambda rows: (), step, frozenset({Need.TOKENS, Need.MARKERS}))
