"""Pools of training and held-out problems for the main job; the two are disjoint by construction."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput
from budgeteer.core.rows import STDIN
from budgeteer.lab.tasks import files
from budgeteer.lab.tasks.named import Task, digest, load, parse


@dataclass(frozen=True, slots=True)
class Pool:
    """A task's problems split in two.

    Attributes:
        environment: verifies both parts.
        train, heldout: items; no prompt is in both.
    """

    environment: Task
    train: tuple[Item, ...]
    heldout: tuple[Item, ...]

    def digest(self) -> str:
        """16 hexadecimal digits that change when a problem of either part, an answer or the verifier does."""
        return digest((*self.train, *self.heldout), f"{self.environment.identity} {len(self.train)}")


MADE = 512
"""Training problems of a generated task, where all that are left are asked for."""


def build(task: str, seed: int, train: int | None, heldout: int) -> Pool:
    """A task's problems, split at random.

    Args:
        task: as :mod:`budgeteer.lab.tasks.named` reads it.
        seed: of the problems and of the split.
        train, heldout: number of items of each part; ``train=None`` = all that are not held out, of a task that makes
            as many as it is asked for MADE.

    Raises:
        UnknownName: no such task, with the nearest names.
        InvalidInput: too few distinct problems, or some without an answer.
    """
    for option, number in (("--train-items", train), ("--heldout-items", heldout)):
        if number is not None and number < 1:
            raise InvalidInput(f"{option} is {number}; give at least 1")
    source = parse(task)[0].name
    if source == STDIN or Path(source).is_fifo():
        stream = "standard input" if source == STDIN else f"the pipe {source}"
        raise InvalidInput(f"training reads its task more than once; write {stream} to a file and name that")
    total = (MADE if train is None else train) + heldout
    loaded = load(task, size=total, seed=seed)
    if not loaded.counted and (bare := [item for item in loaded.items if item.answer is None]):
        raise InvalidInput(
            f"{len(bare)} of {len(loaded.items)} problems of {task} have no answer, such as {bare[0].key!r}; they have "
            f"the fields {files.fields_of(bare)}; name the one with the answer with --answer-field"
        )
    seen: dict[str, Item] = {}
    for item in loaded.items:
        seen.setdefault(item.prompt, item)
    items = sorted(seen.values(), key=lambda item: item.key)
    random.Random(f"split-{seed}").shuffle(items)
    if train is None:
        train = MADE if loaded.counted else max(len(items) - heldout, 1)
        total = train + heldout
    if len(items) < total:
        short = total - len(items)
        if short > 0.02 * total or len(items) <= heldout:
            raise InvalidInput(
                f"{task} has {len(items)} distinct problems, {total} asked: {train} to train on, {heldout} held out; "
                f"lower --train-items or --heldout-items, so that they sum to {len(items)} at most"
            )
        train -= short
    return Pool(loaded, tuple(items[heldout : heldout + train]), tuple(items[:heldout]))
