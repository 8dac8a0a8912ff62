"""One line: what is compared between the policy that learns and the one that sampled.

Paper: "Title", arXiv 0000.00000.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

    from budgeteer.rl.ratio import Ratio, Tokens


def capped(most: float = 2.0) -> Ratio:
    """The token's ratio, at most ``most``, times its advantage.

    Formula: min(r, most) A with r = exp(logprob - old).
    Helps when single ratios are large; does not keep the policy near when advantages are negative.

    Args:
        most: above 1.

    Raises:
        InvalidInput: a cap of 1 or less.

    >>> import torch
    >>> from budgeteer.rl.ratio import Tokens
    >>> new, row = torch.log(torch.tensor([1.0, 4.0])), torch.zeros(2, dtype=torch.int64)
    >>> capped()(Tokens(new, torch.zeros(2), torch.ones(2), row, torch.ones(2).bool())).tolist()
    [1.0, 2.0]
    """
    if not most > 1:
        raise InvalidInput(f"capped(most={most}); give more than 1, the ratio of a policy that has not moved")

    def surrogate(tokens: Tokens) -> Tensor:
        return (tokens.logprob - tokens.old).exp().clamp(max=most) * tokens.advantage

    return surrogate
