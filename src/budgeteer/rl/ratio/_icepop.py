"""Leave out the tokens whose probability has moved too far (IcePop of Ring-1T, arXiv 2510.18855)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

    from budgeteer.rl.ratio.protocol import Ratio, Tokens


def icepop(low: float = 0.5, high: float = 5.0) -> Ratio:
    """r A with the token's own ratio r = exp(logprob - old) where low <= r <= high, and 0 outside.

    A token outside the bounds carries no gradient at all, unlike under PPO's clip, which lets it be pushed back. The
    paper masks by the ratio of the training engine to the sampling engine and clips the rest by the ratio to the start
    of the update; here both are one ratio, to the policy that sampled the token, in whatever step that was.
    Helps where that policy is another one: rollouts carried over several steps, engines that round differently. Does
    nothing where r stays near 1. The masked tokens still count in the mean of the loss.

    Args:
        low, high: bounds of the ratio, 0 <= low <= 1 <= high; the defaults are those of the authors' experiments.

    Raises:
        InvalidInput: other bounds.

    >>> import torch
    >>> from budgeteer.rl.ratio import Tokens
    >>> moved, row = torch.log(torch.tensor([0.4, 0.5, 1.0, 6.0])), torch.zeros(4, dtype=torch.int64)
    >>> tokens = Tokens(moved, torch.zeros(4), -2 * torch.ones(4), row, torch.ones(4).bool())
    >>> [round(value, 4) for value in icepop()(tokens).tolist()]
    [-0.0, -1.0, -2.0, -0.0]
    """
    if not 0 <= low <= 1 <= high:
        raise InvalidInput(f"icepop(low={low}, high={high}); give 0 <= low <= 1 <= high")
    # rounding of float32 must not decide at the bounds themselves
    least, most = math.log(low) - 1e-6 if low else -math.inf, math.log(high) + 1e-6

    def surrogate(tokens: Tokens) -> Tensor:
        gap = tokens.logprob - tokens.old
        inside = (gap.detach() >= least) & (gap.detach() <= most)
        # masked before the exponential: its overflow would make the gradient NaN
        return inside * gap.where(inside, gap.new_zeros(())).exp() * tokens.advantage

    return surrogate
