"""The low-variance estimate of the divergence from the starting policy (GRPO, arXiv 2402.03300)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["low_variance"]


def low_variance(logprob: Tensor, base: Tensor) -> Tensor:
    """``exp(gap) - gap - 1`` with ``gap = base - logprob``: 0 or more a token, and on average KL(policy || base).

    >>> import torch
    >>> round(low_variance(torch.tensor([0.0]), torch.tensor([1.0])).item(), 4)
    0.7183
    """
    gap = base - logprob
    return gap.exp() - gap - 1
