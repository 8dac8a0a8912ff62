"""Rows that go on from other rows: what the trainer's model attends to in traces, and heads that are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from accelerate.utils import gather_object

from budgeteer.adapters.trl.measure import measured
from budgeteer.adapters.trl.sampling import Row, Sampling
from budgeteer.adapters.trl.sharded import whole
from budgeteer.models.attention import attention_of_last
from budgeteer.rl.compress import ATTENTION, STEP, read
from budgeteer.rl.rollouts import Rollouts
from budgeteer.rl.step import Round


def headed(
    trainer: Any, sampling: Sampling, part: Rollouts, rows: list[Row], work: Round
) -> tuple[Rollouts, list[Row]]:
    """A round whose rows go on from tokens of other rollouts or of earlier steps: with the lengths at which thinking
    and answer were complete, heads included, and with the log-probabilities of heads that are trained on without any.

    Args:
        trainer: TRL's.
        sampling: what marks thinking and answer.
        part: the whole rows.
        rows: the same, with their heads.
        work: the round.
    """
    if work.asked is None or not any((when >= 0).any() for when in work.asked.versions):
        return part, rows
    part = measured(trainer, part, True, heads=True) if work.asked.learnt else part
    rows = sampling.marked(rows)
    told = [
        row if row.logprob is None else row._replace(logprob=part.logprob[i, : len(row.tokens)].tolist())
        for i, row in enumerate(rows)
    ]
    closed, answered = (np.array([getattr(row, name) for row in rows], np.int64) for name in ("closed", "answered"))
    return replace(part, closed=closed, answered=answered), told


def attended(trainer: Any, part: Rollouts, probe: Sequence[int]) -> Rollouts:
    """The verified rollouts with what the end of their thinking attends to, in the model that is trained.

    Args:
        trainer: TRL's; each of its processes reads a part of the rows.
        part: the rollouts.
        probe: token ids behind the thinking.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    decode = partial(trainer._tokenizer.batch_decode, skip_special_tokens=False)
    mine = np.array_split(np.arange(len(part)), trainer.accelerator.num_processes)[trainer.accelerator.process_index]
    with whole(trainer):
        own = read(part.take(mine), decode, partial(attention_of_last, model), probe).more
    pairs = gather_object(list(zip(own[ATTENTION], own[STEP], strict=True)))
    columns = {name: np.stack([pair[i] for pair in pairs]) for i, name in enumerate((ATTENTION, STEP))}
    return replace(part, more={**part.more, **columns})
