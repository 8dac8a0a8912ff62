"""OpenRLHF: advantages for groups of any size, in place of a method of its experience maker."""

from __future__ import annotations

from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.rl.rows import advantages

METHODS = {
    "rloo": "rloo",
    "reinforce_baseline": "batch-scaled",
    "group_norm": "grpo:unbiased=true",
    "dr_grpo": "centred",
}
"""``--algo.advantage.estimator`` -> the advantage of ``budgeteer.rl.rows``."""


def install(maker: Any = None) -> None:
    """Give OpenRLHF's experience maker :func:`compute_advantages_and_returns`.

    OpenRLHF 0.11 has no option for it, and its trainer lives in a process of its own: name this function as the
    ``worker_process_setup_hook`` of ``ray.init``.

    Args:
        maker: the class; None = OpenRLHF's ``RemoteExperienceMaker``.
    """
    if maker is None:
        from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

        maker = RemoteExperienceMaker
    maker.compute_advantages_and_returns = compute_advantages_and_returns


def compute_advantages_and_returns(self: Any, experiences: list[Any]) -> list[Any]:
    """Advantages and returns of a batch, its groups formed by prompt and label.

    OpenRLHF's own cuts the batch into groups of ``n_samples_per_prompt`` rows by position, and fails or mixes prompts
    where some have more or fewer. Length penalties, KL penalty and clipping are OpenRLHF's; ``reinforce_baseline`` is
    scaled over rows, not over tokens. Rows without a token of action get no gradient and enter no mean.

    Args:
        self: the experience maker.
        experiences: parts of the batch, in any order of rows.

    Raises:
        InvalidInput: an estimator that compares no rollouts of a prompt.
    """
    import torch
    from openrlhf.models.utils import compute_reward
    from openrlhf.trainer.ppo_utils.length_penalty import apply_length_penalties

    args = self.strategy.args
    chosen = args.algo.advantage.estimator
    if chosen not in METHODS:
        raise InvalidInput(f"--algo.advantage.estimator {chosen} compares no rollouts; choose {', '.join(METHODS)}")
    method = "centred" if chosen == "reinforce_baseline" and args.algo.advantage.no_std_norm else METHODS[chosen]
    apply_length_penalties(experiences, args)
    keys = [pair for part in experiences for pair in zip(part.prompts, part.labels, strict=True)]
    rewards = torch.cat([part.rewards for part in experiences])
    length = torch.cat([part.action_mask.sum(-1) for part in experiences])
    value = torch.from_numpy(advantages(method, rewards.double().cpu().numpy(), keys, length=length.cpu().numpy()))
    sizes = [len(part.rewards) for part in experiences]
    for part, own in zip(experiences, torch.split(value.to(rewards), sizes), strict=True):
        reward = compute_reward(
            own, self.kl_ctl.value, part.kl, action_mask=part.action_mask, reward_clip_range=args.reward.clip_range
        )
        part.returns = self.get_cumulative_returns(reward, part.action_mask, 1.0)
        part.advantages = part.returns.clone()
        part.info["return"] = reward.sum(dim=-1)
        part.kl = None
    return experiences
