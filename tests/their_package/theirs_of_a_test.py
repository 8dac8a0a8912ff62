"""A package of somebody else with one small method of every part, and two recipes that are broken on purpose."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from budgeteer.allocate import uniform
from budgeteer.core.allocator import stateless
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.core.joint import Assignment
from budgeteer.core.method import Method
from budgeteer.core.online import Online, require_menu
from budgeteer.core.plan import Plan
from budgeteer.core.router import Router
from budgeteer.core.stopper import ABORT, CONTINUE, Stopper
from budgeteer.ledger import Allowance
from budgeteer.models.model import Request
from budgeteer.rl import recipes
from budgeteer.solve import Answer, Strategy, derive
from budgeteer.strategies.kit.aggregate import Ranked
from budgeteer.strategies.kit.score import Scorer

SCALE = 1.0
MARK = Path(os.environ.get("THEIRS_MARK", os.devnull))


def advantage(rollouts, view):
    MARK.write_text("a run of theirs is busy")
    return SCALE * recipes.grpo_advantage(rollouts, view)


def broken(rollouts, view):
    while not MARK.exists():
        time.sleep(0.05)
    raise ValueError("their advantage is broken")


def recipe():
    """GRPO with an advantage of theirs."""
    return replace(recipes.grpo(), name="theirs", advantage=advantage)


def broken_recipe():
    """Fails in its first step."""
    return replace(recipes.grpo(), name="theirs-broken", advantage=broken)


def no_recipe():
    """Makes something else."""
    return 7


def their_uniform():
    """One unit each, as many rounds as everybody can have."""

    def allocate(budget, items):
        units = np.full(len(items), int(budget // items.cost.sum()) if len(items) else 0)
        return Plan(items.keys, units, items.spend(units))

    return stateless(allocate)


def their_threshold(budget, price):
    """Take the best option that is worth its price, as long as it fits; a price of 0 takes whatever has value."""

    def step(state, value, cost, *, share=None):
        require_menu(value, cost, 1)
        gains = [(v - price * c[0], -i) for i, (v, c) in enumerate(zip(value, cost, strict=True))
                 if v > 0 and c[0] <= state.left[0]]  # fmt: skip
        if not gains or max(gains)[0] <= 0:
            return -1, state
        option = -max(gains)[1]
        return option, state._take(cost[option][0])

    def observe(state, planned, actual):
        return state._take(actual[0] - planned[0])

    return Online(lambda: Left((float(budget),)), step, observe)


class Left(tuple):
    """Placeholder, replaced below."""


def their_search(loss, cost, budget, start, *, rng):
    """The best of some random choices within the budget."""
    n, k = cost.shape
    if start.shape != cost.shape or not np.all(np.isfinite(start)) or not np.all(np.isfinite(cost) & (cost >= 0)):
        raise InvalidInput("their search needs finite costs of 0 or more and finite logits of their shape")
    if not cost.min(axis=1).sum() <= budget:
        raise InvalidInput(f"their search: nothing costs as little as {budget}")
    best, lowest, calls = cost.argmin(axis=1), np.inf, 0
    for turn in range(50):
        choice = rng.integers(0, k, n) if turn else best
        if cost[np.arange(n), choice].sum() <= budget:
            value, _ = loss(np.eye(k)[choice])
            calls += 1
            if not np.isfinite(value):
                raise InvalidInput(f"their search: the loss is {value}")
            best, lowest = (choice, value) if value < lowest else (best, lowest)
    return Assignment(best, best, float(lowest), calls)


def their_rounding(chance, rng):
    """Systematic sampling in a random order: exact, and in a random order hardly any pair is favoured."""
    if chance.ndim != 1 or not np.all((chance >= 0) & (chance <= 1)):
        raise InvalidInput("their rounding needs chances [n] in [0, 1]")
    order = rng.permutation(len(chance))
    ends = np.cumsum(chance[order]) + rng.random()
    chosen = np.zeros(len(chance), np.bool_)
    chosen[order] = np.floor(ends + 1e-9) > np.floor(np.append(ends[:0], np.concatenate([[0], ends[:-1]])) + 1e-9)
    return chosen


class Reserved:
    """Every request takes the free resource of most value; no online method expects more than all requests' best."""

    def __init__(self, value, chance):
        self.value, self.bound = value, float(chance @ value.max(axis=0))

    def serve(self, time, free, rng):
        worth = np.where(free, self.value[:, time], 0.0)
        return int(worth.argmax()) if worth.max() > 0 else -1


def their_matching(value, chance):
    """Greedy matching."""
    if value.ndim != 2 or chance.shape != value.shape[1:] or not np.all(np.isfinite(value) & (value >= 0)):
        raise InvalidInput("their matching needs values [n, T] >= 0 and chances [T]")
    if not np.all((chance > 0) & (chance <= 1)):
        raise InvalidInput("their matching needs chances in (0, 1]")
    return Reserved(value.copy(), chance)
