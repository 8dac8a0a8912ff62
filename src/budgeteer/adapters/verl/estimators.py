"""Estimators of advantages and the policy loss that verl's registries get, and whom they tell that a step is scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from budgeteer.adapters.token_level import ESTIMATORS, PREFIX, Estimator, estimator
from budgeteer.adapters.verl.rewarding import NAME, rewarded
from budgeteer.core.errors import InvalidInput
from budgeteer.rl.ratio import Tokens, sequence

if TYPE_CHECKING:
    from torch import Tensor

WATCHERS: list[Callable[[], None]] = []
"""Called in the trainer's process once a step, when all rewards of its rollouts are there and none is cleared yet."""


def register(core_algos: Any) -> None:
    """Put everything into verl's registries, once: a second call changes nothing.

    Args:
        core_algos: ``verl.trainer.ppo.core_algos``.
    """
    for name, method in ESTIMATORS.items():
        if PREFIX + name not in core_algos.ADV_ESTIMATOR_REGISTRY:
            core_algos.register_adv_est(PREFIX + name)(_watched(estimator(method), name))
    core_algos.register_policy_loss(PREFIX + "gspo")(_gspo(core_algos))


def _watched(compute: Estimator, name: str) -> Estimator:
    def estimate(
        token_level_rewards: Tensor, response_mask: Tensor, index: Any = None, config: Any = None, **more: Any
    ) -> tuple[Tensor, Tensor]:
        if name == "grpo" and config is not None and not config.get("norm_adv_by_std_in_grpo", True):
            raise InvalidInput(
                "algorithm.norm_adv_by_std_in_grpo=false; choose algorithm.adv_estimator=budgeteer_dr_grpo"
            )
        if config is not None and config.get(NAME) and index is not None:
            token_level_rewards = rewarded(token_level_rewards, response_mask, index, config)
        made = compute(token_level_rewards, response_mask, index)
        for watcher in WATCHERS:
            watcher()
        return made

    return estimate


def _gspo(core_algos: Any) -> Callable[..., tuple[Tensor, dict[str, Any]]]:
    def loss(
        old_log_prob: Tensor, log_prob: Tensor, advantages: Tensor, response_mask: Tensor,
        loss_agg_mode: str = "seq-mean-token-mean", config: Any = None, rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:  # fmt: skip
        """The loss of the recipe ``gspo`` (arXiv 2507.18071), with verl's clip ratios and means over tokens."""
        import torch

        low = config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low
        high = config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high
        row = torch.arange(len(log_prob), device=log_prob.device).unsqueeze(1).expand_as(log_prob)
        flat = [part.reshape(-1) for part in (log_prob, old_log_prob, advantages, row, response_mask.bool())]
        tokens = Tokens(*flat)
        value = -sequence(low, high)(tokens).view_as(log_prob)
        if rollout_is_weights is not None:
            value = value * rollout_is_weights
        made = core_algos.agg_loss(
            loss_mat=value, loss_mask=response_mask, loss_agg_mode=loss_agg_mode, **config.global_batch_info
        )
        gap = ((old_log_prob - log_prob.detach()) * response_mask).sum() / response_mask.sum().clamp(min=1)
        return made, {"actor/ppo_kl": gap.item()}

    return loss
