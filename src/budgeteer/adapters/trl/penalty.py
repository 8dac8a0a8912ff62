"""The KL penalty of TRL's loss, weighed row by row as a recipe says."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from budgeteer.adapters.trl.update import Weighted
from budgeteer.rl.ratio.kit import low_variance
from budgeteer.rl.step import Update

FACTOR = "kl_factor"
"""Name in TRL's batch: [rows] what ``beta`` is multiplied with."""


def weigh_kl(trainer: Any, update: Update, chosen: Weighted, batch: dict[str, Any], own: slice, now: Tensor) -> None:
    """Put the factors of the rows into the batch, and tell the recipe how far each row is from the starting policy.

    It is told before the first update of the generation, where :class:`budgeteer.rl.trainer.Trainer` measures in each
    update: the same, if there is one.

    Args:
        trainer: TRL's, with a ``beta`` above 0.
        update: what is learnt, with factors.
        chosen: the rows of the batch.
        batch: of this process.
        own: its rows among those of all processes.
        now: [rows of this process, width] log-probabilities of their tokens under the policy.
    """
    assert update.kl_scale is not None
    reference, mask = batch["ref_per_token_logps"], batch["completion_mask"] * batch.get("tool_mask", 1)
    factor = np.ones(max(own.stop, len(chosen.rows)), np.float32)
    factor[: len(chosen.rows)] = update.kl_scale[chosen.rows]
    batch[FACTOR] = torch.from_numpy(factor[own]).to(reference.device)
    mean = (low_variance(now, reference) * mask).sum(1) / mask.sum(1)  # NaN of rows that the loss does not see
    kl = np.full(len(update.rollouts), np.nan)
    kl[chosen.rows] = gather_object(mean.tolist())[: len(chosen.rows)]
    trainer.spending.measured(update, kl, {})


def beyond(beta: float, factor: Tensor, now: Tensor, reference: Tensor) -> Tensor:
    """[k, t] what has to be added to the advantages, so that a penalty of ``beta`` has the gradient of one of
    ``beta * factor``.

    Args:
        beta: of TRL.
        factor: [k] of the rows.
        now, reference: [k, t] log-probabilities.
    """
    # the derivative of exp(gap) - gap - 1, gap = reference - now, by now
    return -beta * (factor.unsqueeze(1) - 1) * (1 - (reference - now).exp())
