"""A recipe's own loss within TRL's: its ratio to who sampled, as an advantage of each token at the moment of the loss.

TRL's losses of the PPO kind are, up to fixed weights, sums of ``ratio * advantage`` over tokens. With a ratio to the
policy of this very moment, which is 1, nothing is clipped and the gradient of each token is its advantage. So the
derivative of the recipe's surrogate by the token's log-probability, put there as the advantage, gives the recipe's
gradient, and TRL still decides how tokens and batches weigh.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from budgeteer.adapters.trl.penalty import FACTOR, beyond
from budgeteer.adapters.trl.sampling import setting
from budgeteer.core.errors import InvalidInput
from budgeteer.rl.ratio import Loss, Ratio, Tokens, clipped
from budgeteer.rl.ratio.kit import low_variance
from budgeteer.rl.recipe import Recipe

CLIPPED = frozenset({"grpo", "bnpo", "dr_grpo", "dapo", "luspo"})
"""Losses of TRL that are weighted sums of a clipped ratio times the advantage."""
_OF_CLIP = {"epsilon": 0.2, "epsilon_high": None}
_OF_RATIO = {"delta": None, "importance_sampling_level": "token", "off_policy_mask_threshold": None}
"""Settings of what TRL does with the ratio -> their defaults."""


def refuse_loss(recipe: Recipe, args: Any) -> None:
    """Refuse settings beside which a recipe's own loss would not be what it says, or which it would ignore.

    Args:
        recipe: to train with.
        args: the ``GRPOConfig``.

    Raises:
        InvalidInput: says what to set instead.
    """
    own = recipe.loss != Loss()
    if not own and (recipe.kl_weight is None or not args.beta):
        return
    name = f"recipe {recipe.name!r} " + ("has a ratio of its own" if own else "weighs the KL penalty row by row")
    if args.use_vllm:
        raise InvalidInput(
            f"{name}, and with use_vllm TRL multiplies by a ratio to vLLM; generate without it, or choose another "
            "recipe"
        )
    if args.loss_type not in CLIPPED:
        raise InvalidInput(
            f"{name}, which is computed in the place of a clipped ratio, and loss_type={args.loss_type!r} has none; "
            "set dapo, or, where the recipe does not weigh tokens by itself, another one of "
            f"{', '.join(sorted(CLIPPED))}"
        )
    settings = _OF_RATIO | _OF_CLIP if own else _OF_RATIO
    if changed := [key for key, value in settings.items() if getattr(args, key) != value]:
        raise InvalidInput(
            f"{name}, beside which {', '.join(changed)} would say nothing; leave that at the default, or choose "
            "another recipe"
        )
    if args.beta and args.use_bias_correction_kl:
        raise InvalidInput(
            f"{name}, and use_bias_correction_kl multiplies the KL penalty by TRL's ratio; set "
            "use_bias_correction_kl=False beside beta"
        )
    if recipe.kl_weight is not None and args.beta and args.top_entropy_quantile != 1:
        raise InvalidInput(
            f"{name}, and top_entropy_quantile={args.top_entropy_quantile} leaves tokens out of all but that penalty; "
            "set it to 1"
        )
    if recipe.kl_weight is not None and args.beta and (recipe.replay is not None or recipe.carry is not None):
        raise InvalidInput(
            f"{name} and learns from rollouts of earlier steps, whose divergence is not measured here; leave one out"
        )
    if recipe.loss.kl is not low_variance:
        raise InvalidInput(f"{name}, and has its own estimate of the KL penalty, where beta weighs TRL's; drop it")


@contextmanager
def own_ratio(trainer: Any, inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Within the block TRL's ``_compute_loss`` has the gradient of the recipe's ratio and of its KL weights, given what
    is yielded; TRL's own, if the recipe has neither.

    The value of a ratio at a token has to have its gradient at this token alone, and to be proportional to the size of
    the advantage, which has the token's weight in it.

    Args:
        trainer: TRL's.
        inputs: a micro-batch. Its ``old_per_token_logps``, if any, are of who sampled the tokens; otherwise that was
            the policy as it is now.
    """
    loss, factor = trainer.spending.recipe.loss, inputs.get(FACTOR)
    if loss == Loss() and factor is None:
        yield inputs
        return
    ratio = clipped(trainer.epsilon_low, trainer.epsilon_high) if loss == Loss() else loss.ratio
    given = dict(inputs)
    read = trainer._get_per_token_logps_and_entropies

    def reading(*args: Any, **more: Any) -> Any:
        made = read(*args, **more)
        now = made[0].detach()
        mask = given["completion_mask"] * given.get("tool_mask", 1) > 0
        old = inputs.get("old_per_token_logps")
        advantage = derivative(ratio, now, now if old is None else old, inputs["advantages"], mask)
        if factor is not None:
            advantage = advantage + beyond(trainer.beta, factor, now, inputs["ref_per_token_logps"])
        given["advantages"] = advantage
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
