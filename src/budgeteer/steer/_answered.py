"""Stop a row once its answer is complete: what follows cannot change the reward."""

from __future__ import annotations

from budgeteer.core.steer import Action, Need, Rows, Snapshot, Steer, shared
from budgeteer.steer.kit import decisions


@shared
def answered(every: int = 1) -> Steer:
    """FINISH every row whose answer is complete.

    Helps when the policy goes on after its answer (base models do); saves nothing when it ends by itself. Sound
    for any verifier that reads the first complete answer: the reward is the same, so no weight is needed.

    Args:
        every: asked after every so many tokens; a row may overshoot by ``every - 1``.

    >>> from budgeteer.core.steer import Snapshot
    >>> now = Snapshot.of([9, 9], closed=[5, -1], answered=[8, -1])
    >>> answered().step((), now)[0].decision.tolist()
    [1, 0]
    """

    def init(rows: Rows) -> tuple[()]:
        return ()

    def step(state: tuple[()], now: Snapshot) -> tuple[Action, tuple[()]]:
        return Action(decisions(now.answered >= 0)), state

    return Steer(init, step, frozenset({Need.MARKERS}), every)
