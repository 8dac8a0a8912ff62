"""Advantages with the signature that verl and SkyRL share: token-level rewards, a mask and an index in, tensors out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from budgeteer.core.errors import InvalidInput
from budgeteer.rl.rows import advantages

if TYPE_CHECKING:
    from torch import Tensor

ESTIMATORS = {
    "grpo": "grpo:unbiased=true",
    "dr_grpo": "centred",
    "rloo": "rloo",
    "reinforce_plus_plus_baseline": "batch-scaled",
    "opo": "opo",
    "pass_at_2": "pass-at-k:k=2",
    "pass_at_4": "pass-at-k:k=4",
    "pass_at_8": "pass-at-k:k=8",
}
"""Names as trainers have them -> the advantage of ``budgeteer.rl.rows``."""
LEAST = {"pass_at_2": 3, "pass_at_4": 5, "pass_at_8": 9}
"""Rows that a group needs before any of them can have an advantage, where it is more than 2."""
PREFIX = "budgeteer_"
"""What the names begin with in the registries of trainers."""

Estimator = Callable[..., "tuple[Tensor, Tensor]"]


def estimator(method: str) -> Estimator:
    """An advantage as trainers call it.

    Args:
        method: of :data:`budgeteer.rl.rows.GROUPED`, such as ``"rloo"``.

    Returns:
        ``(token_level_rewards [n, t], response_mask [n, t], index [n], **ignored) -> (advantages, returns)``, both
        [n, t] and equal: the row's advantage on every token that the mask has. A row's reward is that of its tokens
        together.
        Rows without a token in the mask (padding, rejected and empty rows) are left out of the statistics.

    >>> import torch
    >>> rewards, mask = torch.tensor([[0, 1.0], [0, 0], [0, 0]]), torch.tensor([[1, 1], [1, 0], [0, 0]])
    >>> estimator("rloo")(rewards, mask, ["a", "a", "a"])[0].tolist()
    [[1.0, 1.0], [-1.0, -0.0], [0.0, 0.0]]
    """

    def compute(
        token_level_rewards: Tensor, response_mask: Tensor, index: Any = None, **ignored: Any
    ) -> tuple[Tensor, Tensor]:
        import torch

        if index is None:
            raise InvalidInput("the batch has no index of prompts (uid); advantages of groups need one")
        reward = token_level_rewards.detach().sum(dim=-1).double().cpu().numpy()
        length = response_mask.detach().sum(dim=-1).cpu().numpy()
        value = torch.from_numpy(advantages(method, reward, list(index), length=length))
        value = value.to(token_level_rewards.device, token_level_rewards.dtype)
        made = value.unsqueeze(-1) * response_mask
        return made, made

    return compute
