"""Predicts the success rate of a prompt without rollouts from the prompts with rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from budgeteer.core.plan import F64

DIMENSIONS = 128
"""Width of the features: hashed token counts, log length, constant."""


def prompt_features(prompts: Sequence[Sequence[int]]) -> F64:
    """[n, DIMENSIONS] hashed bag of tokens, scaled to about unit size, with log length and a constant.

    What a prompt consists of tells its family, its length and its operands, which is most of what makes it hard;
    no forward pass is needed.
    """
    x = np.zeros((len(prompts), DIMENSIONS))
    buckets = DIMENSIONS - 2
    for i, prompt in enumerate(prompts):
        x[i, :buckets] = np.minimum(np.bincount(np.asarray(prompt) % buckets, minlength=buckets), 4) / 2
        x[i, -2] = np.log(len(prompt)) / 2
    x[:, -1] = 1.0
    return x


@dataclass(frozen=True, slots=True)
class Ridge:
    """Ridge regression of rewards on prompt features, with forgetting.

    Attributes:
        gram: [d, d] discounted sum of n x x'; moment: [d] discounted sum of n x r; each prompt weighs by its rollouts.
    """

    gram: F64
    moment: F64

    @staticmethod
    def empty() -> Ridge:
        """Nothing seen."""
        return Ridge(np.zeros((DIMENSIONS, DIMENSIONS)), np.zeros(DIMENSIONS))

    def update(self, x: F64, rollouts: F64, right: F64, decay: float) -> Ridge:
        """Add prompts x [m, d] with their numbers of rollouts [m] and summed rewards [m]; the past counts ``decay``."""
        gram = decay * self.gram + (x * rollouts[:, None]).T @ x
        return replace(self, gram=gram, moment=decay * self.moment + x.T @ right)

    def predict(self, x: F64, penalty: float = 60.0) -> F64:
        """[n] predicted success rates of x [n, d], in [0.02, 0.98]; 0.5 before anything was seen.

        The penalty, in rollouts, shrinks all coefficients but the constant's.
        """
        if not self.gram.any():
            return np.full(len(x), 0.5)
        ridge = np.full(DIMENSIONS, penalty)
        ridge[-1] = 1e-3
        weights = np.linalg.solve(self.gram + np.diag(ridge), self.moment)
        return np.clip(x @ weights, 0.02, 0.98)
