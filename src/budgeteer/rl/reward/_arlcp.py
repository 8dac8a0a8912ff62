"""A penalty split between reflection words and length by how much a rollout reflects (ARLCP, arXiv 2602.12113)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, right
from budgeteer.models.chat import KNOWN_TAGS
from budgeteer.rl.reward.counted import REFLECTIONS
from budgeteer.rl.reward.kit import group_mean, numbered, sigmoid
from budgeteer.rl.reward.protocol import Columns, Reward, of_terms


def arlcp(penalty: float = 0.2, some: int = 40, many: int = 80) -> Reward:
    """A right row's score, less a share for more reflection and more length than its prompt's other right rows.

    With R_i the reflection words and L_i the tokens of row i, and m, s their mean and sample deviation over the right
    rows of its prompt (s = 1 for fewer than two):
    ``r_i = c_i * (1 - w1 * sigmoid((R_i - m_R) / s_R) - w2 * sigmoid((L_i - m_L) / s_L))``. The budget ``penalty`` is
    split by the row's own count: w1 is a quarter of it up to ``some`` words, half up to ``many``, else three quarters;
    w2 is the rest. c_i = 0 for a wrong row, and for a text that does not close its thinking exactly once, or opens it
    more than once, by one kind of tags that are known.

    Helps where reflections are what makes answers long; does not on models that never write such words (then it is a
    length penalty) or that do not think between tags (then everything is worth 0), and "but" and "check" count in
    ordinary prose, too. The paper trains with RLOO (``advantage=rloo``).

    Args:
        penalty: of both terms together, in (0, 1]; a right row keeps more than 1 - penalty.
        some, many: words at which the split changes, 0 <= some <= many.

    Raises:
        InvalidInput: a value outside these.

    >>> texts = ["</think>"] * 3
    >>> rows = Columns([1, 1, 0], [10, 30, 20], [0] * 3, [99] * 3, [1] * 3, text=texts, reflections=[4, 2, 9])
    >>> arlcp().score((), rows).round(4).tolist()
    [0.917, 0.883, 0.0]
    """
    if not (0 < penalty <= 1 and 0 <= some <= many):
        raise InvalidInput(
            f"arlcp(penalty={penalty}, some={some}, many={many}); give a penalty in (0, 1] and 0 <= some <= many"
        )

    def terms(state: object, rows: Columns) -> dict[str, F64]:
        words, good = rows.column(REFLECTIONS, "arlcp"), right(rows.correct)
        tidy = np.array([_tidy(text) for text in rows.column("text", "arlcp").tolist()], np.bool_)
        worth = np.where(tidy, rows.correct, 0.0)
        first = penalty * np.where(words <= some, 0.25, np.where(words <= many, 0.5, 0.75))
        return {
            "correct": worth,
            "reflections": -worth * first * sigmoid(_standard(words, rows, good)),
            "length": -worth * (penalty - first) * sigmoid(_standard(rows.length, rows, good)),
        }

    return of_terms(terms, needs=("text", REFLECTIONS))


def _tidy(text: str) -> bool:
    """Whether a text closes its thinking once, and opens it at most once."""
    return any(text.count(tags.close) == 1 and text.count(tags.open) <= 1 for tags in KNOWN_TAGS)


def _standard(values: I64, rows: Columns, good: NDArray[np.bool_]) -> F64:
    """[n] values less the mean of the right rows of their prompt, over their sample deviation."""
    mean = group_mean(values, rows.group, good)
    index, groups = numbered(rows.group)
    count = np.bincount(index[good], minlength=groups)[index]
    square = group_mean((values - mean) ** 2, rows.group, good)
    spread = np.where(count > 1, np.sqrt(square * count / np.maximum(count - 1, 1)), 1.0)
    return np.asarray((values - mean) / (spread + 1e-6), np.float64)
