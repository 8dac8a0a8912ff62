"""SkyRL: estimators of advantages for groups of any size, in its registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from budgeteer.adapters.token_level import ESTIMATORS, PREFIX, Estimator, estimator
from budgeteer.core.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor


def register(registry: Any = None) -> list[str]:
    """Put the estimators into SkyRL's ``AdvantageEstimatorRegistry``, for ``trainer.algorithm.advantage_estimator``.

    To be called where the configuration is validated and in the process of the trainer: at the head of the script that
    starts the run. In ``step_wise_trajectories`` SkyRL passes the last step of each trajectory, so that a trajectory
    counts once. Rows that ``apply_overlong_filtering`` removes from the loss are still in the mask that estimators see,
    and enter the mean of their group.

    Args:
        registry: the registry; None = SkyRL's.

    Returns:
        The names.
    """
    if registry is None:
        from skyrl.backends.skyrl_train.utils.ppo_utils import AdvantageEstimatorRegistry

        registry = AdvantageEstimatorRegistry
    names = [PREFIX + name for name in ESTIMATORS]
    there = set(registry.list_available())
    for name in names:
        if name not in there:
            registry.register(name, advantage_of(name.removeprefix(PREFIX)))
    return names


def advantage_of(name: str) -> Estimator:
    """One of :data:`budgeteer.adapters.token_level.ESTIMATORS` with the signature of SkyRL's estimators."""
    compute = estimator(ESTIMATORS[name])

    def advantage(
        token_level_rewards: Tensor,
        response_mask: Tensor,
        index: Any,
        grpo_norm_by_std: bool = True,
        **ignored: Any,
    ) -> tuple[Tensor, Tensor]:
        if name == "grpo" and not grpo_norm_by_std:
            raise InvalidInput("grpo_norm_by_std=false; choose advantage_estimator=budgeteer_dr_grpo")
        return compute(token_level_rewards, response_mask, index)

    return advantage
