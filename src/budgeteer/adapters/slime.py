"""slime: advantages for groups of any size, as the function of ``--custom-reward-post-process-path``."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from budgeteer.core.errors import InvalidInput
from budgeteer.rl.rows import advantages

_NAN = float("nan")


def post_process_rewards(args: Any, samples: Sequence[Any]) -> tuple[list[Any], list[float]]:
    """What slime trains with instead of raw rewards: each sample's advantage among the rollouts of its prompt.

    slime's own normalisation cuts the batch into groups of equal size, and makes one group of it where that does not go
    up. Here groups are formed by ``group_index``. The samples of one rollout (``rollout_id``) count once, with the last
    one's reward, and have one advantage. Aborted, removed and empty samples get 0 and enter no mean.

    The advantage is that of ``--advantage-estimator``: of ``grpo``, ``gspo`` and ``cispo`` GRPO's (without
    ``--grpo-std-normalization`` Dr. GRPO's), of ``reinforce_plus_plus_baseline`` the reward minus the mean, which slime
    whitens later. An attribute ``budgeteer_advantage`` of ``args`` (``--custom-config-path``) names another one of
    :data:`budgeteer.rl.rows.GROUPED`, such as ``rloo``.

    Args:
        args: of slime.
        samples: all samples of a step.

    Returns:
        (raw rewards, advantages), in the order of the samples.

    Raises:
        InvalidInput: an estimator without groups, or a sample without ``group_index``.
    """
    method = getattr(args, "budgeteer_advantage", None) or _method(args)
    raw = [sample.get_reward_value(args) for sample in samples]
    if any(sample.group_index is None for sample in samples):
        raise InvalidInput(
            "a sample has no group_index; set it to the number of its prompt in custom generate functions"
        )
    last: dict[Hashable, int] = {}
    rollout: list[Hashable] = []
    for i, sample in enumerate(samples):
        own = ("alone", i) if sample.rollout_id is None else (sample.group_index, sample.rollout_id)
        rollout.append(own)
        if _counts(sample) or own not in last:
            last[own] = i
    rows = sorted(last.values())
    value = advantages(
        method,
        [_NAN if raw[i] is None or not _counts(samples[i]) else raw[i] for i in rows],
        [samples[i].group_index for i in rows],
        length=[_tokens(samples[i]) for i in rows],
    )
    of = dict(zip((rollout[i] for i in rows), value.tolist(), strict=True))
    return raw, [of[own] if _counts(sample) else 0.0 for own, sample in zip(rollout, samples, strict=True)]


def _method(args: Any) -> str:
    if args.advantage_estimator in ("grpo", "gspo", "cispo"):
        return "grpo:unbiased=true" if args.grpo_std_normalization else "centred"
    if args.advantage_estimator == "reinforce_plus_plus_baseline":
        return "centred"
    raise InvalidInput(
        f"--advantage-estimator {args.advantage_estimator} compares no rollouts of a prompt; choose grpo, gspo, "
        "cispo or reinforce_plus_plus_baseline, or leave out --custom-reward-post-process-path"
    )


def _tokens(sample: Any) -> int:
    """Tokens that the policy sampled."""
    return int(sample.response_length if sample.loss_mask is None else sum(sample.loss_mask))


def _counts(sample: Any) -> bool:
    return not sample.remove_sample and sample.status.value != "aborted" and _tokens(sample) > 0
