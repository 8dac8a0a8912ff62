"""Dr.GRPO."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.rl.advantage import centred_advantage
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes._grpo import grpo


def dr_grpo(length: int = 100) -> Recipe:
    """GRPO without its two biases: rewards are centred and not divided by their deviation, and a rollout's loss is
    divided by one constant and not by its own length (arXiv 2503.20783).

    Each token of n rows weighs ``1 / (n * length)``. (``token-mean`` divides by the mean length of the batch instead,
    which is the same within a step, and follows the lengths over the steps.)

    Args:
        length: the constant, in tokens; the paper takes the cap. A weight beside the learning rate, no more.

    Raises:
        InvalidInput: a length below 1.
    """
    if length < 1:
        raise InvalidInput(f"dr_grpo(length={length}); give 1 token or more")

    def weight(lengths: I64, group: I64) -> F64:
        return np.full(len(lengths), 1.0 / (max(len(lengths), 1) * length))

    return replace(grpo(), name="dr-grpo", advantage=centred_advantage, token_weight=weight)
