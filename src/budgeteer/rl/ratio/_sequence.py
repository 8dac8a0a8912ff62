"""One ratio for the whole rollout, as the reward is for the whole rollout (GSPO, arXiv 2507.18071)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from budgeteer.rl.ratio.protocol import Ratio, Tokens


def sequence(low: float = 3e-4, high: float = 4e-4) -> Ratio:
    """min(s A, clip(s, 1 - low, 1 + high) A) with the row's s = exp(mean over its tokens of (logprob - old)).

    The form of GSPO for single tokens: the value of s is the row's, the gradient goes through the token's own
    logprob, ``s = stop(s) * exp(logprob - stop(logprob))``; with one advantage a row it is GSPO. Use it with the
    token weight ``sequence-mean``, as the paper does.
    Helps where single ratios are noisy (long rollouts, mixtures of experts); does not help where a few tokens decide.

    Args:
        low, high: how far below and above 1 the ratio pays; those of the paper's experiments.

    >>> import torch
    >>> from budgeteer.rl.ratio import Tokens
    >>> new, row = torch.tensor([0.2, 0.0, 0.1]), torch.tensor([0, 0, 1])
    >>> tokens = Tokens(new, torch.zeros(3), torch.ones(3), row, torch.ones(3).bool())
    >>> [round(value, 4) for value in sequence(0.5, 0.5)(tokens).tolist()]  # exp(0.1) for all
    [1.1052, 1.1052, 1.1052]
    """

    def surrogate(tokens: Tokens) -> Tensor:
        gap = (tokens.logprob.detach() - tokens.old) * tokens.sampled
        rows = int(tokens.row.max()) + 1 if len(tokens.row) else 0
        total = gap.new_zeros(rows).index_add(0, tokens.row, gap)
        count = gap.new_zeros(rows).index_add(0, tokens.row, tokens.sampled.to(gap.dtype))
        mean = (total / count.clamp(min=1))[tokens.row]
        ratio = mean.exp() * (tokens.logprob - tokens.logprob.detach()).exp()
        return (ratio * tokens.advantage).minimum(ratio.clamp(1 - low, 1 + high) * tokens.advantage)

    return surrogate
