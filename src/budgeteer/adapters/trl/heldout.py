"""Completions of prompts that are not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from budgeteer.adapters.trl.generating import context_of
from budgeteer.adapters.trl.refusals import refuse_prompts
from budgeteer.adapters.trl.sampling import chunks
from budgeteer.adapters.trl.sharded import whole


def completions(trainer: Any, prompts: Sequence[Any], keys: Sequence[str], seed: int) -> list[list[int]]:
    """One completion of each prompt by the trainer's own generation, at its cap and temperature; on nobody's bill.

    The random numbers of training are left as they were. Each process generates a part.

    Args:
        trainer: TRL's.
        prompts, keys: as in its data set.
        seed: of the draws.

    Returns:
        Token ids, in all processes those of all prompts.

    Raises:
        InvalidInput: a prompt leaves no room for a completion.
    """
    ids = [list(map(int, row)) for row in trainer._tokenize_prompts(list(prompts))[0]]
    refuse_prompts(ids, trainer.max_completion_length, context_of(trainer), keys)
    process, processes = trainer.accelerator.process_index, trainer.accelerator.num_processes
    first, last = len(ids) * process // processes, len(ids) * (process + 1) // processes
    size = trainer.args.per_device_train_batch_size * trainer.args.steps_per_generation
    own: list[list[int]] = []
    learning = trainer.model.training
    trainer.model.eval()
    try:
        with torch.random.fork_rng(), whole(trainer):
            torch.manual_seed(seed * 1009 + process)
            for numbers in chunks(first, last, size):
                made, _ = trainer._generate_single_turn([ids[i] for i in numbers.tolist()], None, {}, 1)
                own += [list(map(int, np.asarray(row))) for row in made]
    finally:
        trainer.model.train(learning)
    gathered: list[list[int]] = gather_object(own)
    return gathered
