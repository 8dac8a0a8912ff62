"""Soft landing: thinking ends at the first good place in the last part of its budget, not where the budget ends.

As inference engines have it: the end is taken when the closing tag is among the likeliest next tokens.
"""

from __future__ import annotations

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import Action, Need, Snapshot, State, Steer, shared
from budgeteer.steer.kit import decisions, thinking


@shared
def soft_landing(most: int, *, share: float = 0.3, likely: int = 4) -> Steer:
    """FINISH a row that still thinks after ``most`` tokens, or, in the last ``share`` of these, as soon as the first
    token of the closing marker is among the ``likely`` likeliest next ones.

    Helps where a cut in the middle of a sentence costs answers, and a model comes to points where it could stop. Does
    not where the model never thinks of stopping: then it is budget forcing; nor where it could stop early on wrong
    grounds: a larger ``share`` takes thinking away from rows that would have used it.

    Args:
        most: tokens of thinking, >= 1.
        share: of ``most``, in [0, 1]; 0 is budget forcing.
        likely: rank in the distribution at which closing counts as likely, >= 1; 1 = the model would close greedily.

    Raises:
        InvalidInput: a value outside its range.
    """
    if most < 1 or not 0 <= share <= 1 or likely < 1:
        raise InvalidInput(
            f"soft_landing(most={most}, share={share}, likely={likely}); most >= 1, share in [0, 1] and likely >= 1"
        )
    begins = most - int(share * most)

    def step(state: State, now: Snapshot) -> tuple[Action, State]:
        open_ = thinking(now)
        over = open_ & (now.length >= most)
        for i in np.flatnonzero(open_ & ~over & (now.length >= begins)).tolist():
            marker = now.close(i)
            if marker:
                logits = now.logits[i]
                over[i] = int((logits > logits[marker[0]]).sum()) < likely
        return Action(decisions(over)), state

    return Steer(lambda rows: (), step, frozenset({Need.TOKENS, Need.MARKERS, Need.LOGITS}))
