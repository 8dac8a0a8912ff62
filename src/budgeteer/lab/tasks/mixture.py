"""Several environments as one, and the named pools that are made so."""

from __future__ import annotations

from collections.abc import Sequence

from budgeteer.core.environment import Environment, Item
from budgeteer.lab.tasks.chains import Chains
from budgeteer.lab.tasks.gym import Gym


class Mixture:
    """Several environments as one; an item goes back to the environment it came from."""

    def __init__(self, name: str, environments: Sequence[Environment]) -> None:
        self.name = name
        self._of = {item.key: env for env in environments for item in env.items}
        self.items: Sequence[Item] = [item for env in environments for item in env.items]

    def verify(self, item: Item, answer: str | None) -> float:
        """The score of the item's own environment."""
        return self._of[item.key].verify(item, answer)


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


def mix(name: str, size: int, seed: int) -> Mixture:
    """About ``size`` problems of a named pool: each share is rounded to whole problems."""
    return Mixture(
        name,
        [
            Chains(round(share * size), seed, **settings)
            if family == "chains"
            else Gym(family, round(share * size), seed, **settings)
            for share, family, settings in MIXES[name]
            if round(share * size)
        ],
    )


def real(size: int, seed: int) -> Mixture:
    """Chains, sums, greatest common divisors and filters of numbers, easy and hard ones: what training runs on."""
    return mix("real", size, seed)


def hard(size: int, seed: int) -> Mixture:
    """Chains of 5 to 8 steps."""
    return mix("hard", size, seed)


def homogeneous(size: int, seed: int) -> Mixture:
    """Chains of 4 steps: nothing to choose between problems."""
    return mix("homogeneous", size, seed)
