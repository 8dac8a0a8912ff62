"""Pools of training and held-out problems for the main job; the two are disjoint by construction."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from budgeteer.errors import InvalidInput, UnknownName
from budgeteer.lab.tasks.base import Environment, Item
from budgeteer.lab.tasks.chains import Chains
from budgeteer.lab.tasks.gym import FAMILIES, Gym
from budgeteer.lab.tasks.jsonl import JsonLines


class Mixture:
    """Several environments as one; an item goes back to the environment it came from."""

    def __init__(self, name: str, environments: Sequence[Environment]) -> None:
        self.name = name
        self._of = {item.key: env for env in environments for item in env.items}
        self.items: Sequence[Item] = [item for env in environments for item in env.items]

    def verify(self, item: Item, answer: str | None) -> float:
        """The score of the item's own environment."""
        return self._of[item.key].verify(item, answer)


@dataclass(frozen=True, slots=True)
class Pool:
    """A training environment's items split in two.

    Attributes:
        environment: verifies both parts.
        train, heldout: items; no prompt is in both.
    """

    environment: Environment
    train: tuple[Item, ...]
    heldout: tuple[Item, ...]


MIXES: dict[str, list[tuple[float, str, dict[str, int]]]] = {
    "real": [
        (0.22, "chains", {"min_steps": 1, "max_steps": 2}),
        (0.22, "chain_sum", {"min_terms": 2, "max_terms": 3}),
        (0.18, "gcd", {}),
        (0.14, "chains", {"min_steps": 6, "max_steps": 8}),
        (0.14, "number_filtering", {"min_numbers": 4, "max_numbers": 6}),
        (0.10, "chain_sum", {"min_terms": 6, "max_terms": 8}),
    ],
    "hard": [(1.0, "chains", {"min_steps": 5, "max_steps": 8})],
    "homogeneous": [(1.0, "chains", {"min_steps": 4, "max_steps": 4})],
}
"""Shares and settings of each named pool."""


def build(name: str, seed: int, train: int, heldout: int) -> Pool:
    """A named pool, or the items of a JSON-lines file, split at random.

    Args:
        name: a key of MIXES, a task family (``chains`` or one of reasoning-gym's), or a path to a ``.jsonl`` file.
        seed: of the problems and of the split.
        train, heldout: number of items of each part.

    Raises:
        UnknownName: no such pool or task, with the nearest names.
        InvalidInput: too few distinct problems.
    """
    total = train + heldout
    if name.endswith((".jsonl", ".jsonl.gz")):
        environment: Environment = JsonLines(name)
    else:
        mix = MIXES.get(name)
        if mix is None:
            if name != "chains" and name not in FAMILIES:
                raise UnknownName("task or pool", name, [*MIXES, "chains", *FAMILIES])
            mix = [(1.0, name, {})]
        parts: list[Environment] = []
        for share, family, settings in mix:
            size = round(share * total)
            parts.append(Chains(size, seed, **settings) if family == "chains" else Gym(family, size, seed, **settings))
        environment = Mixture(name, parts)
    seen: dict[str, Item] = {}
    for item in environment.items:
        seen.setdefault(item.prompt, item)
    items = sorted(seen.values(), key=lambda item: item.key)
    random.Random(f"split-{seed}").shuffle(items)
    if len(items) < total:
        short = total - len(items)
        if short > 0.02 * total or len(items) <= heldout:
            raise InvalidInput(f"{name} has {len(items)} distinct problems, {total} asked; ask for fewer")
        train -= short
    return Pool(environment, tuple(items[heldout : heldout + train]), tuple(items[:heldout]))
