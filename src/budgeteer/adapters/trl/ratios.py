"""A recipe's own loss within TRL's: its ratio to who sampled, as an advantage of each token at the moment of the loss.

TRL's losses of the PPO kind are, up to fixed weights, sums of ``ratio * advantage`` over tokens. With a ratio to the
policy of this very moment, which is 1, nothing is clipped and the gradient of each token is its advantage. So the
derivative of the recipe's surrogate by the token's log-probability, put there as the advantage, gives the recipe's
gradient, and TRL still decides how tokens and batches weigh.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from budgeteer.adapters.trl.sampling import setting
from budgeteer.core.errors import InvalidInput
from budgeteer.rl.ratio import Loss, Ratio, Tokens
from budgeteer.rl.ratio.kit import low_variance

CLIPPED = frozenset({"grpo", "bnpo", "dr_grpo", "dapo", "luspo"})
"""Losses of TRL that are weighted sums of a clipped ratio times the advantage."""
_OF_RATIO = {
    "epsilon": 0.2,
    "epsilon_high": None,
    "delta": None,
    "importance_sampling_level": "token",
    "off_policy_mask_threshold": None,
}
"""Settings of what TRL does with the ratio -> their defaults."""


def refuse_loss(name: str, loss: Loss, args: Any) -> None:
    """Refuse settings beside which a recipe's own loss would not be what it says, or which it would ignore.

    Args:
        name: of the recipe, for errors.
        loss: of the recipe.
        args: the ``GRPOConfig``.

    Raises:
        InvalidInput: says what to set instead.
    """
    if loss == Loss():
        return
    if args.use_vllm:
        raise InvalidInput(
            f"{name} has a ratio of its own to who sampled, and with use_vllm TRL multiplies by another one; generate "
            "without vLLM, or choose another recipe"
        )
    if args.loss_type not in CLIPPED:
        raise InvalidInput(
            f"{name} has a ratio of its own, which takes the place of a clipped one, and loss_type={args.loss_type!r} "
            f"has none; set one of {', '.join(sorted(CLIPPED))}, which say how tokens weigh"
        )
    if changed := [key for key, value in _OF_RATIO.items() if getattr(args, key) != value]:
        raise InvalidInput(
            f"{name} has a ratio of its own, beside which {', '.join(changed)} would say nothing; leave that at the "
            "default, or choose another recipe"
        )
    if args.beta and args.use_bias_correction_kl:
        raise InvalidInput(
            f"{name} has a ratio of its own, and use_bias_correction_kl multiplies the KL penalty by TRL's; set "
            "use_bias_correction_kl=False beside beta"
        )
    if loss.kl is not low_variance:
        raise InvalidInput(f"{name} has an estimate of the KL penalty of its own, and here beta weighs TRL's; drop it")


@contextmanager
def ratio_of(trainer: Any, inputs: Mapping[str, Any], ratio: Ratio) -> Iterator[dict[str, Any]]:
    """Within the block TRL's ``_compute_loss`` has the gradient of this ratio, given what is yielded.

    Args:
        trainer: TRL's.
        inputs: a micro-batch. Its ``old_per_token_logps``, if any, are of who sampled the tokens; otherwise that was
            the policy as it is now.
        ratio: of the recipe. Its value at a token has a gradient at this token alone, and is proportional to the size
            of the advantage, which has the token's weight in it.
    """
    given = dict(inputs)
    read = trainer._get_per_token_logps_and_entropies

    def reading(*args: Any, **more: Any) -> Any:
        made = read(*args, **more)
        now = made[0].detach()
        mask = given["completion_mask"] * given.get("tool_mask", 1) > 0
        old = inputs.get("old_per_token_logps")
        given["advantages"] = derivative(ratio, now, now if old is None else old, inputs["advantages"], mask)
        given["old_per_token_logps"] = now
        return made

    with setting(trainer, _get_per_token_logps_and_entropies=reading):
        yield given


def derivative(ratio: Ratio, logprob: Tensor, old: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
    """[k, t] derivative of the surrogate of each token by its log-probability, 0 where ``mask`` is not.

    Args:
        ratio: of a recipe.
        logprob, old: [k, t] now, and of who sampled.
        advantage: [k] or [k, t].
        mask: [k, t] the tokens that count.

    >>> from budgeteer.rl.ratio import truncated
    >>> now, old = torch.log(torch.tensor([[0.9, 0.6, 0.5]])), torch.log(torch.tensor([[0.3, 0.3, 0.5]]))
    >>> mask = torch.tensor([[True, True, False]])
    >>> [round(value, 4) for value in derivative(truncated(2.5), now, old, torch.tensor([-1.0]), mask)[0].tolist()]
    [-2.5, -2.0, 0.0]
    """
    made = torch.zeros_like(logprob)
    if not mask.any():
        return made
    each = advantage.unsqueeze(1).expand_as(logprob) if advantage.dim() == 1 else advantage
    row = torch.arange(len(logprob), device=logprob.device).unsqueeze(1).expand_as(mask)
    with torch.enable_grad():
        own = logprob[mask].requires_grad_()
        tokens = Tokens(own, old[mask], each[mask], row[mask], torch.ones_like(own, dtype=torch.bool))
        (made[mask],) = torch.autograd.grad(ratio(tokens).sum(), own)
    return made
