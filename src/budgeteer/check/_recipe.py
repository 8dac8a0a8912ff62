"""The rules of recipes: numpy only, on made-up rollouts."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from budgeteer.check._advantage import check_advantage, check_importance
from budgeteer.check._allocator import Objective, check_allocator
from budgeteer.check._carry import check_carry
from budgeteer.check._common import CheckFailed, same
from budgeteer.check._made_up import ROWS, made_up
from budgeteer.check._ratio import check_ratio
from budgeteer.check._reward import check_reward, made_up_columns
from budgeteer.check._schedule import check_schedule
from budgeteer.check._steer import check_steer
from budgeteer.check._stream import check_stream
from budgeteer.check._variant import check_variant
from budgeteer.check._weight import check_weight
from budgeteer.core.plan import ABORTED, ENDED, I64
from budgeteer.rl.recipe import Aborted, Recipe, SelectFn
from budgeteer.rl.rollouts import Rollouts


def check_recipe(recipe: Recipe, *, ordered: bool = False, objective: Objective | None = None, seed: int = 0) -> None:
    """Look at a recipe part by part, and raise :class:`CheckFailed` at the first broken rule.

    Rules: the allocator, the steer, the reward, the token weight, the advantage, the importance, the stream, the
    carry and the variant keep those of their own checks; the settings are ones that the trainer knows; the selection
    gives indices of rows, none of them twice, and the same ones with the same seed; with ``aborted=Aborted.FAILURE`` an
    aborted row has the advantage of a row that failed; the arguments are not changed.

    Args:
        recipe: the recipe to check.
        ordered, objective: of its allocator, as in :func:`check_allocator`.
        seed: of the rollouts.
    """
    if not isinstance(recipe, Recipe):
        raise CheckFailed(f"the factory made {recipe!r}, no Recipe")
    _settings(recipe)
    try:
        check_allocator(recipe.allocator, ordered=ordered, objective=objective, seed=seed)
    except CheckFailed as error:
        raise CheckFailed(f"the recipe's allocator: {error}") from error
    rollouts, view = made_up(seed, recipe.memory)
    if recipe.reward is not None:
        try:
            check_reward(recipe.reward, seed=seed)
        except CheckFailed as error:
            raise CheckFailed(f"the recipe's reward: {error}") from error
        columns = made_up_columns(rollouts, recipe.reward.needs, np.random.default_rng([seed, 16]))
        rollouts = replace(rollouts, reward=recipe.reward.score(recipe.reward.init(), columns))
    steer = recipe.steer_of(view)
    if steer is not None:
        try:
            check_steer(steer, rows=(ROWS,), seed=seed)
        except CheckFailed as error:
            raise CheckFailed(f"the recipe's steer: {error}") from error
    given = copy.deepcopy(view)
    parts: list[tuple[str, Callable[..., None], Any]] = [
        ("token weight", check_weight, recipe.token_weight),
        ("advantage", check_advantage, recipe.advantage),
        ("importance", check_importance, recipe.importance),
        ("ratio", check_ratio, recipe.loss.ratio),
        ("stream", check_stream, recipe.stream),
        ("carry", check_carry, recipe.carry),
        ("variant", check_variant, recipe.variant),
        *((name, check_schedule, getattr(recipe.schedules, name)) for name in ("temperature", "max_tokens", "lr")),
    ]
    for name, check, part in parts:
        if part is None or (check is check_ratio and importlib.util.find_spec("torch") is None):
            continue
        try:
            check(part, seed=seed)
        except CheckFailed as error:
            raise CheckFailed(f"the recipe's {name}: {error}") from error
    if recipe.aborted == Aborted.FAILURE:
        failed = replace(rollouts, status=np.where(rollouts.status == ABORTED, ENDED, rollouts.status).astype(np.int8))
        if not np.allclose(recipe.advantage(rollouts, view), recipe.advantage(failed, view)):
            raise CheckFailed("aborted is 'failure', and an aborted row has not the advantage of one that failed")
    if recipe.select is not None:
        _select(recipe.select, rollouts)
    if not same(given, view):
        raise CheckFailed("a part changed the view it was given; copy before writing")


def _settings(recipe: Recipe) -> None:
    for rule, holds in {
        f"rounds is {recipe.rounds} and oversample {recipe.oversample}; at least 1": recipe.rounds >= 1
        and recipe.oversample >= 1,
        f"thin is {recipe.thin}; None, or at least 1": recipe.thin is None or recipe.thin >= 1,
        f"the name is {recipe.name!r}; give one": isinstance(recipe.name, str) and bool(recipe.name),
    }.items():
        if not holds:
            raise CheckFailed(rule)


def _select(select: SelectFn, rollouts: Rollouts) -> None:
    rows: list[I64] = [select(rollouts, np.random.default_rng(3)) for _ in range(2)]
    chosen = rows[0]
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1 or not np.all((chosen >= 0) & (chosen < ROWS)):
        raise CheckFailed(f"select gave {chosen.tolist()} of {ROWS} rows; give indices of rows")
    if len(set(chosen.tolist())) < len(chosen):
        raise CheckFailed("select gave a row twice; a row enters the update once")
    if not np.array_equal(chosen, rows[1]):
        raise CheckFailed("select gave other rows with the same seed; draw from rng only")
