"""Checks of rewards, token weights and recipes: each rule against a method that breaks it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from budgeteer.allocate import uniform
from budgeteer.check import (
    CheckFailed,
    check_recipe,
    check_reward,
    check_weight,
)
from budgeteer.core.stopper import Stopper
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.recipe import Importance, Recipe
from budgeteer.rl.reward.protocol import Reward

RNG = np.random.default_rng(0)


# rewards


def spoiling(state, rows):
    rows.correct[:] = 0
    return rows.correct


REWARDS = {
    "one finite number a row": Reward(lambda state, rows: rows.correct / 0.0),
    "order of the rows": Reward(lambda state, rows: np.cumsum(rows.correct)),
    "numbers of the groups": Reward(lambda state, rows: rows.correct + rows.group),
    "score keeps no memory": Reward(lambda state, rows: rows.correct + 1e-10 * RNG.random()),
    "survive JSON": Reward(lambda state, rows: rows.correct, lambda: [(1, 2)]),
    "changed the state": Reward(spoiling),
    "observe keeps no memory": Reward(
        lambda state, rows: rows.correct, lambda: 0.0, lambda state, rows: state + RNG.random()
    ),
}


@pytest.mark.parametrize("rule", list(REWARDS))
def test_check_reward_rejects_what_breaks_the_rule(rule):
    with np.errstate(all="ignore"), pytest.raises(CheckFailed, match=rule):
        check_reward(REWARDS[rule])


# token weights


def shortening(length, group):
    length[:] = 1
    return length / 1.0


WEIGHTS = {
    "one finite weight": lambda length, group: -1.0 / length,
    "order of the rows": lambda length, group: np.arange(1.0, len(length) + 1),
    "numbers of the groups": lambda length, group: 1.0 + group,
    "changed the lengths": shortening,
    "nothing would be learnt": lambda length, group: 0.0 * length,
}


@pytest.mark.parametrize("rule", list(WEIGHTS))
def test_check_weight_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_weight(WEIGHTS[rule])


# recipes


def recipe(**parts):
    return dataclasses.replace(Recipe("mutant", uniform(), grpo_advantage), **parts)


def centred_by_place(rollouts, view):
    return rollouts.reward - np.arange(len(rollouts)) / len(rollouts)


def by_group_number(rollouts, view):
    return rollouts.reward * (1.0 + rollouts.group)


def aborted_apart(rollouts, view):
    return grpo_advantage(rollouts, view) - (rollouts.status == 3)


def in_place(rollouts, view):
    rollouts.reward[:] -= 0.5
    return rollouts.reward.copy()


def overspent(budget, items):
    return uniform().allocate(2 * budget, items, (), rng=RNG)


RECIPES = {
    "order of the rows": recipe(advantage=centred_by_place),
    "order of the prompts": recipe(advantage=by_group_number),
    "one finite number": recipe(advantage=lambda rollouts, view: grpo_advantage(rollouts, view) * math.nan),
    "importance has": recipe(importance=Importance(lambda rollouts, view: -np.ones(len(rollouts)))),
    "the recipe's token weight": recipe(token_weight=lambda length, group: np.ones(len(length) + 1)),
    "the recipe's reward": recipe(reward=Reward(lambda state, rows: rows.correct[:1])),
    "one that failed": recipe(advantage=aborted_apart, aborted="failure"),
    "aborted is 'drop'": recipe(aborted="drop"),
    "a row twice": recipe(select=lambda rollouts, rng: np.zeros(4, np.int64)),
    "indices of rows": recipe(select=lambda rollouts, rng: np.arange(4) + len(rollouts)),
    "the same seed": recipe(select=lambda rollouts, rng: RNG.permutation(len(rollouts))),
    "changed the rollouts": recipe(advantage=in_place),
    "the recipe's allocator: .*over its budget": recipe(
        allocator=uniform()._replace(allocate=lambda b, items, state, *, rng: overspent(b, items))
    ),
    "the recipe's stopper: Stopper.every": recipe(stopper=lambda view: Stopper(lambda rows: (), None, every=0)),
}


@pytest.mark.parametrize("rule", list(RECIPES))
def test_check_recipe_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_recipe(RECIPES[rule])
