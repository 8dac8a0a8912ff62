"""The token that decides whether to think carries no gradient (AdaCoT, arXiv 2505.11896)."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64, I64

__all__ = ["decision_mask"]


def decision_mask(length: I64, group: I64) -> F64:
    """[n, t] weights with t the largest length: 0 for a row's first token, 1 / (all other tokens of the batch) for the
    others.

    AdaCoT's selective loss masking. The first token decides where the prompt ends with the tag that opens the thinking:
    the model goes on thinking, or closes the tag at once. What the policy decides then stays as it was learnt before,
    up to what other tokens move in the shared weights.

    Helps when: a stage of training has prompts of one kind only, such as mathematics, and every reward would push
    towards thinking always. Not where the model writes the opening tag itself: there it is the tag that is masked.

    >>> decision_mask(np.array([1, 3]), np.array([0, 0])).tolist()
    [[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]
    """
    weights = np.full((len(length), int(length.max(initial=0))), 1.0 / max(int((length - 1).sum()), 1))
    weights[:, :1] = 0.0
    return weights
