"""PPO's clipped ratio of single tokens, with separate bounds (clip-higher, DAPO, arXiv 2503.14476)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from budgeteer.rl.ratio.protocol import Ratio, Tokens


def clipped(low: float = 0.2, high: float = 0.28) -> Ratio:
    """min(r A, clip(r, 1 - low, 1 + high) A) with the token's own ratio r = exp(logprob - old).

    Helps whenever rollouts are used for more than one optimiser step; does nothing in the first one, where r = 1.

    Args:
        low, high: how far below and above 1 the ratio pays, 0 or more.

    >>> import torch
    >>> from budgeteer.rl.ratio import Tokens
    >>> ones, row = torch.ones(2), torch.zeros(2, dtype=torch.int64)
    >>> tokens = Tokens(torch.log(2 * ones), 0 * ones, torch.tensor([1.0, -1.0]), row, ones.bool())
    >>> [round(value, 4) for value in clipped()(tokens).tolist()]
    [1.28, -2.0]
    """

    def surrogate(tokens: Tokens) -> Tensor:
        ratio = (tokens.logprob - tokens.old).exp()
        return (ratio * tokens.advantage).minimum(ratio.clamp(1 - low, 1 + high) * tokens.advantage)

    return surrogate
