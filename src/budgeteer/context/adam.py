"""Adam's steps, for the small networks of this package that are trained without torch."""

from __future__ import annotations

import numpy as np

from budgeteer.core.plan import F64


class Adam:
    """Steps for one array of weights, in the direction of the gradients (arXiv 1412.6980).

    Args:
        shape: of the array.
        rate: of a step.
        epsilon: added to the root of the mean square.
    """

    def __init__(self, shape: tuple[int, ...], rate: float, epsilon: float) -> None:
        self.rate, self.epsilon, self.steps = rate, epsilon, 0
        self.mean, self.square = np.zeros(shape), np.zeros(shape)

    def step(self, gradient: F64) -> F64:
        """The step for a gradient."""
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean, square = self.mean / (1 - 0.9**self.steps), self.square / (1 - 0.999**self.steps)
        found: F64 = self.rate * mean / (np.sqrt(square) + self.epsilon)
        return found
