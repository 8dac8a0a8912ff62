"""Successive halving: find the best item by dropping the worse half after every round."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from budgeteer.allocate._uniform import uniform
from budgeteer.allocate.kit.counts import Counts
from budgeteer.core.allocator import Allocator
from budgeteer.core.plan import Items, Outcomes, Plan, spend, whole


@dataclass(frozen=True, slots=True)
class Bracket:
    """What the items have shown, and who is out."""

    counts: Counts
    out: tuple[str, ...]


def successive_halving() -> Allocator:
    """One round: an equal share of what is left for each round to come, spread evenly over the items still in.

    With k items in, ``ceil(log2 k)`` rounds remain, and the round may spend ``budget / ceil(log2 k)``, as
    :func:`budgeteer.allocate._uniform` would on the k items. ``observe``, called once a round with all its outcomes
    (rewards in [0, 1]), keeps the ``ceil(k / 2)`` items with the largest mean ``(right + 1/2) / (drawn + 1)`` over
    all rounds; the 1/2 only matters when the budget did not give all of them the same units. Ties fall by a digest of
    key and counts: ``observe`` has no generator, and the order of names would be a bias. An empty plan means that one
    is left. Each round is a rule, not an optimum: ``Plan.value`` and ``gap`` are NaN.

    When it helps: the best of many items is wanted (a prompt, a tool, a setting, a search branch), a few of them
    are close to the best, and most are clearly worse. When not: all are alike (any choice is as good), or reward on
    the way counts, for which :func:`budgeteer.allocate._thompson` spends less on the worse ones.

    Papers: Karnin, Koren, Somekh, "Almost Optimal Exploration in Multi-Armed Bandits" (ICML 2013); "Non-stochastic Best
    Arm Identification and Hyperparameter Optimization", arXiv 1502.07943.

    >>> items = Items(("a", "b", "c", "d"), cost=np.full(4, 1.0))
    >>> method = successive_halving()
    >>> state = method.init(items)
    >>> method.allocate(16, items, state, rng=np.random.default_rng(0)).units  # two rounds of 8
    array([2, 2, 2, 2])
    >>> keys = ("a", "a", "b", "b", "c", "c", "d", "d")
    >>> reward = np.array([1.0, 1, 0, 0, 1, 0, 0, 0])
    >>> state = method.observe(state, Outcomes(keys, np.ones(8, int), reward, np.zeros(8), np.ones(8, np.int8)))
    >>> method.allocate(8, items, state, rng=np.random.default_rng(0)).units
    array([4, 0, 4, 0])
    """
    even = uniform()

    def allocate(budget: int, items: Items, state: Bracket, *, rng: np.random.Generator) -> Plan:
        budget, out = whole("budget", budget), set(state.out)
        alive = np.flatnonzero([key not in out for key in items.keys])
        rounds = (len(alive) - 1).bit_length()  # ceil(log2 k)
        share = budget // rounds if rounds else 0
        part = even.allocate(share, items.take(alive), (), rng=rng)
        units = np.zeros(len(items), np.int64)
        units[alive] = part.units
        return Plan(items.keys, units, spend(units, items.cost))

    def observe(state: Bracket, outcomes: Outcomes) -> Bracket:
        counts = state.counts.add(outcomes)
        out = set(state.out)
        alive = [key for key in counts.keys if key not in out]
        right, wrong = counts.of(tuple(alive))
        mean = (right + 0.5) / (right + wrong + 1)

        def rank(i: int) -> tuple[float, bytes]:
            text = f"{alive[i]}\0{counts.right.tolist()}\0{counts.wrong.tolist()}"
            return -float(mean[i]), hashlib.blake2b(text.encode()).digest()

        order = sorted(range(len(alive)), key=rank)
        dropped = tuple(sorted(alive[i] for i in order[(len(alive) + 1) // 2 :]))
        return Bracket(counts, state.out + dropped)

    return Allocator(lambda items: Bracket(Counts.none(items.keys), ()), allocate, observe)
