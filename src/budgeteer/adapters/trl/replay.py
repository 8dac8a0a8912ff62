"""The batch that TRL trains on: with rollouts of earlier steps, the log-probabilities of who sampled them, and what
recipes read beside the rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from budgeteer.adapters.trl.beside import packed
from budgeteer.adapters.trl.drawn import Drawn, completions_of
from budgeteer.adapters.trl.penalty import weigh_kl
from budgeteer.adapters.trl.sampling import Row
from budgeteer.adapters.trl.update import Weighted, filled
from budgeteer.rl.rollouts import Rollouts
from budgeteer.rl.step import Update


def with_replayed(
    drawn: Drawn, rollouts: Rollouts, first: int, data: Sequence[Mapping[str, Any]], at: Sequence[int], tokenizer: Any
) -> Drawn:
    """What was drawn in this step, and behind it the rows of earlier steps.

    Args:
        drawn: of this step.
        rollouts: of the update, in which rows of earlier steps stand behind those of this one.
        first: index of the first of those.
        data: the data set.
        at: row of the data set of each of ``rollouts.keys``.
        tokenizer: of the model.
    """
    old = np.arange(first, len(rollouts))
    inputs = [dict(data[at[g]]) for g in rollouts.group[old].tolist()]
    prompt_ids = [list(prompt) for prompt in rollouts.prompts_of(old)]
    rows = [
        Row(
            -1, rollouts.tokens[i, :n].tolist(), int(rollouts.status[i]), int(rollouts.closed[i]),
            int(rollouts.answered[i]), None, (~rollouts.sampled[i, :n]).tolist(), float(rollouts.weight[i]),
        )
        for i, n in zip(old.tolist(), rollouts.length[old].tolist(), strict=True)
    ]  # fmt: skip
    completions = completions_of(tokenizer, data[0]["prompt"], prompt_ids, [row.tokens for row in rows])
    nothing = drawn.rewards[0].new_full((len(old), drawn.rewards[0].shape[1]), float("nan"))  # was counted in its step
    return Drawn(
        [*drawn.inputs, *inputs],
        [*drawn.prompt_ids, *prompt_ids],
        [*drawn.rows, *rows],
        [*drawn.completions, *completions],
        [*drawn.rewards, nothing],
    )


def sampled_logprobs(logprob: NDArray[np.float32], own: slice, count: int, width: int) -> torch.Tensor:
    """[rows of this process, width] log-probabilities with which the tokens of TRL's batch were sampled.

    Args:
        logprob: [k, t] of the rows of all processes, NaN where nothing was sampled: 0 there, which the loss masks.
        own: rows of this process.
        count: of all processes, k or more.
        width: tokens of a completion in the batch of this process.
    """
    made = np.zeros((count, width), np.float32)
    most = min(width, logprob.shape[1])
    made[: len(logprob), :most] = np.nan_to_num(logprob[:, :most], nan=0.0)
    return torch.from_numpy(made[own])


def batch_of(trainer: Any, drawn: Drawn, update: Update, chosen: Weighted, tokens: int) -> Any:
    """TRL's batch of an update.

    With a replay or a carry the ratio of each token is to the log-probability with which it was sampled, in this step
    or in an earlier one, as in :class:`budgeteer.rl.trainer.Trainer`; what is done with the ratio is TRL's, unless the
    recipe has a loss of its own. Without either TRL says what the ratio is to.

    Args:
        trainer: a :class:`~budgeteer.adapters.trl.BudgetedGRPOTrainer`.
        drawn: of this step.
        update: what is learnt.
        chosen: the rows that are learnt from.
        tokens: that losses which are means over tokens are means over.
    """
    recipe, rollouts, given, more = trainer.spending.recipe, update.rollouts, update.given, drawn
    if recipe.replay is not None:
        at = trainer.spending.places(rollouts.keys).tolist()
        more = with_replayed(drawn, rollouts, len(given), trainer._rows, at, trainer.processing_class)
    rows = np.concatenate([given, np.arange(len(drawn.rows), len(more.rows))])[chosen.rows]
    batch = trainer._batch(more, rows, chosen.advantage, tokens)
    count, width = filled(len(rows), trainer._multiple()), batch["completion_ids"].shape[1]
    each, mine = count // trainer.accelerator.num_processes, trainer.accelerator.process_index
    own, device = slice(mine * each, (mine + 1) * each), trainer.accelerator.device
    old = sampled_logprobs(rollouts.logprob[chosen.rows], own, count, width).to(device)
    if recipe.replay is not None or recipe.carry is not None:
        batch["old_per_token_logps"] = old
    if update.kl_scale is not None and trainer.beta:
        weigh_kl(trainer, update, chosen, batch, own, old)
    return batch | {name: value.to(device) for name, value in packed(update.beside, count).items()}
