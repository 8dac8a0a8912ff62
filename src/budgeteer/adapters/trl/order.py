"""Which prompts come next, and who decides: TRL's order, and plans that one process makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list

from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import I64, Outcomes, Plan
from budgeteer.rl.recipe import Stream


@dataclass(frozen=True, slots=True)
class Taken:
    """State of the order of prompts: how many were taken."""

    prompts: int


def keys_of(rows: Any) -> list[str]:
    """The key of each row of a data set: its column ``key``, or the row's number.

    Raises:
        InvalidInput: a key repeats.
    """
    if "key" not in rows.column_names:
        return [str(i) for i in range(len(rows))]
    keys = [str(key) for key in rows["key"]]
    if len(set(keys)) < len(keys):
        raise InvalidInput("the column 'key' of the data set repeats; give each row a key of its own")
    return keys


def trl_order(size: int, shuffle: bool) -> Stream:
    """The prompts in TRL's order: epochs of random order without the remainder of a generation.

    Args:
        size: prompts a generation.
        shuffle: ``shuffle_dataset``.

    >>> stream = trl_order(2, shuffle=False)
    >>> stream.pick(Taken(2), ("a", "b", "c", "d", "e"), 3, 0).tolist()
    [2, 3, 0]
    """

    def order(n: int, seed: int, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        rows = list(range(n))
        for _ in range(epoch + 1 if shuffle else 0):  # each epoch goes on with the generator of the one before
            rows = torch.randperm(n, generator=generator).tolist()
        return rows[: n // size * size]

    def pick(state: Taken, keys: tuple[str, ...], count: int, seed: int) -> I64:
        epoch, offset = divmod(state.prompts, len(keys) // size * size)
        ahead = order(len(keys), seed, epoch)[offset:] + order(len(keys), seed, epoch + 1)
        return np.array(list(dict.fromkeys(ahead))[:count], np.int64)

    def observe(state: Taken, keys: tuple[str, ...], taken: I64, outcomes: Outcomes) -> Taken:
        return Taken(state.prompts + len(taken))

    return Stream(lambda: Taken(0), pick, observe)


def on_one_process(allocator: Allocator) -> Allocator:
    """The same allocator, whose plans are made by the first process and sent to the others."""

    def allocate(budget: int, items: Any, state: Any, *, rng: np.random.Generator) -> Plan:
        main = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
        plan = [allocator.allocate(budget, items, state, rng=rng) if main else None]
        made: Plan = broadcast_object_list(plan)[0]
        return made

    return allocator._replace(allocate=allocate)
