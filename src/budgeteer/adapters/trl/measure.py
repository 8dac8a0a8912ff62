"""Log-probabilities and entropies of rollouts, for recipes that read them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from trl.trainer.utils import pad

from budgeteer.adapters.trl.sharded import whole
from budgeteer.rl.fork import Fork
from budgeteer.rl.history import Std
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.rollouts import Role, Rollouts


def reads_logprobs(recipe: Recipe, beta: float) -> bool:
    """Whether parts of a recipe read with which probability tokens were sampled.

    Args:
        recipe: to train with.
        beta: weight of the KL penalty.
    """
    again = recipe.replay is not None or recipe.carry is not None or isinstance(recipe.branch, Fork)
    return again or recipe.memory.std == Std.SCORE or (recipe.kl_weight is not None and beta > 0)


def measured(trainer: Any, part: Rollouts, logprobs: bool, *, heads: bool = False) -> Rollouts:
    """The rollouts with the entropy of each token that the policy sampled, by one more forward pass.

    Args:
        trainer: TRL's; each of its processes computes a part of the rows.
        part: the rollouts.
        logprobs: with the log-probabilities, too, which plain generation does not give.
        heads: also of the tokens of other rollouts at the heads of rows; those of earlier steps keep their own.
    """
    width, device, size = part.tokens.shape[1], trainer.accelerator.device, trainer.args.per_device_train_batch_size
    mine = np.array_split(np.arange(len(part)), trainer.accelerator.num_processes)[trainer.accelerator.process_index]
    own = []
    with torch.no_grad(), whole(trainer):
        for first in range(0, len(mine), size):
            some = mine[first : first + size]
            prompts = [torch.tensor(prompt) for prompt in part.prompts_of(some)]
            before = pad(prompts, padding_value=trainer._tokenizer.pad_token_id, padding_side="left")
            real = pad([torch.ones_like(ids) for ids in prompts], padding_value=0, padding_side="left")
            within = torch.from_numpy(np.arange(width) < part.length[some, None]).long()
            ids = torch.cat([before, torch.from_numpy(part.tokens[some])], 1).to(device)
            mask = torch.cat([real, within], 1).to(device)
            logprob, entropy, _ = trainer._get_per_token_logps_and_entropies(
                trainer.model, ids, mask, width, compute_entropy=True
            )
            own += list(zip(logprob.float().cpu().numpy(), entropy.float().cpu().numpy(), strict=True))
    pairs, policy = gather_object(own), part.sampled | (part.role == Role.CARRIED)
    logprob, entropy = (np.stack([pair[i] for pair in pairs]) for i in (0, 1))
    told = policy if heads else part.role == Role.SAMPLED
    return replace(
        part,
        logprob=np.where(told, logprob, part.logprob) if logprobs else part.logprob,
        entropy=np.where(policy, entropy, np.float32(np.nan)),
    )
