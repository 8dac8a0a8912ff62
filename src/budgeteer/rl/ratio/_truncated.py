"""Weigh a token by its ratio, up to a bound (truncated importance sampling, as in DART, arXiv 2509.23866)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

    from budgeteer.rl.ratio.protocol import Ratio, Tokens


def truncated(high: float = 2.0) -> Ratio:
    """min(r, high) A with r = exp(logprob - old); the weight is a constant, and the gradient is min(r, high) A.

    Unlike under PPO's clip, no token loses its gradient, and a token of an old rollout that the policy has made
    likelier weighs at most ``high``. Helps where rollouts are of other policies: of earlier steps, of another engine.
    Does not bound how far one batch moves the policy: use one update a batch, or a penalty.

    Args:
        high: largest weight, 1 or more. The paper's could not be found; 2 is usual.

    Raises:
        InvalidInput: a bound below 1.

    >>> import torch
    >>> from budgeteer.rl.ratio import Tokens
    >>> moved, row = torch.log(torch.tensor([0.5, 3.0])), torch.zeros(2, dtype=torch.int64)
    >>> tokens = Tokens(moved, torch.zeros(2), torch.tensor([1.0, -1.0]), row, torch.ones(2).bool())
    >>> [round(value, 4) for value in truncated()(tokens).tolist()]
    [0.5, -2.0]
    """
    if not 1 <= high < math.inf:
        raise InvalidInput(f"truncated(high={high}); give a finite bound of 1 or more")

    def surrogate(tokens: Tokens) -> Tensor:
        weight = (tokens.logprob - tokens.old).detach().clamp(max=math.log(high)).exp()
        return weight * tokens.advantage * (1 + tokens.logprob - tokens.logprob.detach())

    return surrogate
