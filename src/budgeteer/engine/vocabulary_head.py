"""A head that is computed by unused vocabulary rows of the model itself, together with its logits.

Paper: "Zero-Overhead Introspection for Adaptive Test-Time Compute", arXiv 2512.01457.
"""

from __future__ import annotations

import torch
from torch import Tensor

from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import Need
from budgeteer.engine.head import Head, other_size


class LinearHead(Head):
    """``((x - mean) / scale) w2 + b2`` of the last layer's state x: what a vocabulary row can compute.

    It is trained, and then written into the model (:mod:`budgeteer.lab.heads.vocabulary`).
    """

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the weights that training changes."""
        return ("w2", "b2")

    def features(self, states: Tensor) -> Tensor:
        """[m, h] the last layer's state, standardised."""
        w = self.weights
        return (states[:, -1].to(w["mean"]) - w["mean"]) / w["scale"]

    def rows(self) -> tuple[Tensor, Tensor]:
        """(rows [K, h] of the output matrix of a model, bias [K]) that compute the same from the state itself."""
        w = self.weights
        matrix = (w["w2"] / w["scale"][:, None]).T
        return matrix, w["b2"] - matrix @ w["mean"]


class VocabularyHead(Head):
    """``logits[slots : slots + K] + b2``: K rows of the output matrix that belong to no token.

    The engine that draws tokens has to exclude these rows, which :attr:`budgeteer.core.steer.Internals.never` names.
    Its settings hold ``slots``, its weights ``b2`` [K] and ``columns`` [M].
    """

    @property
    def reads(self) -> Need:
        """The logits."""
        return Need.LOGITS

    @property
    def trained(self) -> tuple[str, ...]:
        """Nothing: it is in the model."""
        return ()

    def __call__(self, states: Tensor) -> Tensor:
        """[m, M] of logits [m, V].

        Raises:
            InvalidInput: there are too few logits, or the engine excluded the rows before the head could read them.
        """
        bias, first = self.weights["b2"], self.settings["slots"]
        own = states[:, first : first + len(bias)].to(bias)
        if own.shape[1] != len(bias):
            raise other_size(first + len(bias), states.shape[1])
        if not torch.isfinite(own).all():
            raise InvalidInput(
                f"the logits {first} to {first + len(bias) - 1}, which are the head, were excluded before it could "
                f"read them; let the engine exclude them afterwards"
            )
        return self.shared(own + bias)
