"""Losses beside that of the rollouts, in TRL's batches: each micro-batch reads its part of what the terms read.

What is read travels in the batch, row by row, so that TRL shuffles, splits and keeps it with the rollouts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from budgeteer.core.errors import InvalidInput
from budgeteer.rl.beside import Reading, log_odds
from budgeteer.rl.recipe import Recipe


def refuse_beside(recipe: Recipe, processes: int) -> None:
    """Refuse losses beside that of the rollouts where several processes train.

    Args:
        recipe: to train with.
        processes: that train.

    Raises:
        InvalidInput: says what to do instead.
    """
    if recipe.beside and processes > 1:
        raise InvalidInput(
            f"recipe {recipe.name!r} has the loss {recipe.beside[0].name!r} beside that of the rollouts, a second "
            "forward pass before one backward pass, which processes that share a gradient do not do; there are "
            f"{processes}, train with one"
        )


def packed(readings: Sequence[Reading], count: int) -> dict[str, Tensor]:
    """What the terms read, as tensors whose first dimension is the rows of a batch, each with r rows of a reading.

    Args:
        readings: of each term.
        count: rows of the batch.

    Returns:
        For each term: ``ids`` [count, r, l] of prompts and tokens, right-padded; ``first`` [count, r] places of the
        first tokens; ``length`` [count, r] numbers of tokens, 0 = nothing is read; ``tokens`` and, where they are held
        against others, ``other`` [count, r, t]; ``total`` [count] tokens of the whole reading.

    >>> reading = Reading(((7,), (8, 9)), np.array([[1, 2], [3, 0]]), np.array([2, 1]))
    >>> made = packed([reading], 4)
    >>> made["beside ids 0"][:, 0].tolist()
    [[7, 1, 2], [8, 9, 3], [0, 0, 0], [0, 0, 0]]
    """
    made: dict[str, Tensor] = {}
    for i, reading in enumerate(readings):
        first = np.array([len(prompt) for prompt in reading.prompts], np.int64)
        ids = np.zeros((len(reading), int((first + reading.length).max(initial=1))), np.int64)
        for row, prompt in enumerate(reading.prompts):
            end = first[row] + reading.length[row]
            ids[row, : first[row]] = prompt
            ids[row, first[row] : end] = np.maximum(reading.tokens[row, : reading.length[row]], 0)
        values = {"ids": ids, "first": first, "length": reading.length, "tokens": reading.tokens}
        if reading.other is not None:
            values["other"] = reading.other
        each = max(-(-len(reading) // count), 1)
        for name, rows in values.items():
            full = np.zeros((each * count, *rows.shape[1:]), np.int64)
            full[: len(rows)] = rows
            spread = full.reshape(each, count, *rows.shape[1:]).swapaxes(0, 1)
            made[f"beside {name} {i}"] = torch.from_numpy(spread.copy())
        made[f"beside total {i}"] = torch.full((count,), int(reading.length.sum()))
    return made


def loss_beside(trainer: Any, model: Any, inputs: Mapping[str, Any], loss: Tensor) -> Tensor:
    """The loss of a micro-batch with that of the terms.

    Over the micro-batches of an optimiser step that learns from a whole generation they are ``weight * mean``. Of
    several such steps each has the tokens that came to it, at a weight with which that is the mean of the steps.

    Args:
        trainer: TRL's.
        model: that learns.
        inputs: the micro-batch.
        loss: that of its rollouts.
    """
    steps, own = trainer.args.steps_per_generation, trainer.current_gradient_accumulation_steps
    for i, term in enumerate(trainer.spending.recipe.beside):
        if f"beside ids {i}" not in inputs:  # of a generation without rollouts
            continue
        length = inputs[f"beside length {i}"].flatten(0, 1)
        part = [inputs[f"beside {name} {i}"].flatten(0, 1)[length > 0] for name in ("ids", "first", "tokens")]
        other = inputs.get(f"beside other {i}")
        held = None if other is None else other.flatten(0, 1)[length > 0]
        mean = loss.new_zeros(())
        if (length > 0).any():
            gaps = _log_odds(trainer, model, part[0], part[1], length[length > 0], part[2], held)
            mean = term.loss(gaps).sum() * (steps / inputs[f"beside total {i}"][0])
        trainer._metrics["train"][f"beside/{term.name}"].append(mean.item())
        loss = loss + term.weight * mean / own
    return loss


def _log_odds(
    trainer: Any, model: Any, ids: Tensor, first: Tensor, length: Tensor, tokens: Tensor, other: Tensor | None
) -> Tensor:
    """[m] log-odds of the tokens of some rows."""
    longest = int((first + length).max())
    within = torch.arange(longest, device=ids.device) < (first + length)[:, None]
    with trainer.accelerator.autocast():
        logits = model(input_ids=ids[:, :longest], attention_mask=within.long()).logits
    row, place = (torch.arange(tokens.shape[1], device=ids.device) < length[:, None]).nonzero(as_tuple=True)
    logp = logits[row, first[row] + place - 1].float().log_softmax(-1)
    return log_odds(logp, tokens[row, place], None if other is None else other[row, place])
