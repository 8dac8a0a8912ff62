"""Short answers on prompts that they suffice for, long ones on the others (arXiv 2505.20101)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, right
from budgeteer.rl.reward.counted import DELIBERATE
from budgeteer.rl.reward.kit import group_mean, near_cap, weights
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms


def adaptive_deep(bonus: float = 0.5, margin: float = 0.0, share: float = 0.2) -> Reward:
    """The verifier's score, ``bonus`` for a right row of the kind that its prompt needs, and a penalty near the cap.

    A prompt's rollouts are of two kinds, long (the column ``deliberate`` is 1) and short. Short suffices if the share
    of right rows among the short ones is at least that among the long ones less ``margin``; then right short rows get
    the bonus, else right long ones. A kind without rows has the share 0; where neither kind has a right row nobody
    gets it. The penalty is that of ``overlong`` over the last ``share`` of the cap.

    Helps with prompts of mixed difficulty, given rollouts of both kinds for each: half of them with each instruction
    (``variant=both-kinds``). The paper's thresholds and bonus could not be seen: these are this project's reading of
    its description. The recipe ``adaptive-deep`` adds its loss on the first token, which learns to choose without an
    instruction.

    Args:
        bonus: 0 or more.
        margin: by which short may be worse and suffices all the same, in [0, 1].
        share: of the cap, in (0, 1].

    Raises:
        InvalidInput: a value outside these.

    >>> rows = Columns([1, 0, 1, 1], [50, 50, 9, 9], [0, 0, 0, 0], [99] * 4, [1] * 4, deliberate=[1, 1, 0, 0])
    >>> adaptive_deep().score((), rows).tolist()
    [1.0, 0.0, 1.5, 1.5]
    """
    if not (weights(bonus) and 0 <= margin <= 1 and 0 < share <= 1):
        raise InvalidInput(
            f"adaptive_deep(bonus={bonus}, margin={margin}, share={share}); give 0 to 1e6, 0 to 1, and a share of the "
            "cap above 0, at most 1"
        )

    def terms(state: object, rows: Columns) -> dict[str, F64]:
        long = rows.column(DELIBERATE, "adaptive_deep") > 0
        wanted = needed(rows.correct, long, rows.group, margin)
        return {
            "correct": rows.correct,
            "kind": np.where(right(rows.correct) & (long == wanted), bonus, 0.0),
            "length": near_cap(rows, share),
        }

    return of_terms(terms, needs=(DELIBERATE,))


def needed(correct: F64, long: NDArray[np.bool_], group: I64, margin: float) -> I64:
    """[n] kind that a row's prompt needs: 1 = long, 0 = short, -1 = it cannot be told, for no row is right.

    Args:
        correct: [n] scores.
        long: [n] whether a row thinks at length.
        group: [n] number of each row's prompt.
        margin: by which the share of right short rows may be less than that of long ones.

    >>> needed(np.array([1.0, 0, 0, 0]), np.array([True, False] * 2), np.array([0, 0, 1, 1]), 0.0).tolist()
    [1, 1, -1, -1]
    """
    good = right(correct) * 1.0
    of_short, of_long = (group_mean(good, group, kind) for kind in (~long, long))
    suffices = (of_short >= of_long - margin - 1e-9) & (of_short > 0)
    return np.where(suffices, 0, np.where(of_long > 0, 1, -1))
