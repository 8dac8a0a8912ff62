"""PPO's clipped ratio with separate bounds (clip-higher, DAPO, arXiv 2503.14476)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["clipped"]


def clipped(logprob: Tensor, old: Tensor, advantage: Tensor, *, low: float = 0.2, high: float = 0.28) -> Tensor:
    """Surrogate to maximise per token: min(r A, clip(r, 1 - low, 1 + high) A), r = exp(logprob - old).

    Args:
        logprob, old, advantage: [m] of the same m tokens; gradient flows through logprob.

    >>> one = torch.tensor([1.0])
    >>> old, new = torch.log(one), torch.log(2 * one)
    >>> round(clipped(new, old, one).item(), 4), round(clipped(new, old, -one).item(), 4)
    (1.28, -2.0)
    """
    ratio = (logprob - old).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
