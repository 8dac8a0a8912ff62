"""The rules of recipes: numpy only, on rollouts that nobody sampled."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np

from budgeteer.check._allocator import Objective, check_allocator
from budgeteer.check._common import CheckFailed, same
from budgeteer.check._reward import check_reward
from budgeteer.check._stopper import check_stopper
from budgeteer.check._weight import check_weight
from budgeteer.core.plan import ABORTED, CUT, ENDED, F64, FINISHED, I64, Items, Plan
from budgeteer.rl.history import History, record
from budgeteer.rl.recipe import Recipe, SelectFn, View
from budgeteer.rl.rollouts import Rollouts

ROWS = 33
"""Rollouts of a step: eight prompts with four and one with a single one, as :func:`check_stopper` has them."""
MOST = 64
"""Tokens of a rollout."""


def check_recipe(recipe: Recipe, *, ordered: bool = False, objective: Objective | None = None, seed: int = 0) -> None:
    """Look at a recipe part by part, and raise :class:`CheckFailed` at the first broken rule.

    Rules: the allocator, the stopper, the reward and the token weight keep those of their own checks; the settings are
    ones that the trainer knows; the advantage and the row weight (0 or more) give one finite number a row, aborted rows
    included; the selection gives indices of rows, none of them twice, and
    the same ones with the same seed; rows are grouped by key: neither the order of the rows nor that of the prompts
    changes what a row gets; with ``aborted="failure"`` an aborted row has the advantage of a row that failed; what is
    given stays as it is.

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
    rng = np.random.default_rng([seed, 10])
    rollouts, view = _step(recipe, rng)
    if recipe.reward is not None:
        try:
            check_reward(recipe.reward, seed=seed)
        except CheckFailed as error:
            raise CheckFailed(f"the recipe's reward: {error}") from error
        rollouts = replace(rollouts, reward=recipe.reward.score(recipe.reward.init(), rollouts.columns()))
    if recipe.stopper is not None:
        try:
            check_stopper(recipe.stopper(view), rows=(ROWS,), seed=seed)
        except CheckFailed as error:
            raise CheckFailed(f"the recipe's stopper: {error}") from error
    given = copy.deepcopy(view)
    try:
        check_weight(recipe.token_weight, seed=seed)
    except CheckFailed as error:
        raise CheckFailed(f"the recipe's token weight: {error}") from error
    parts: dict[str, Callable[[Rollouts], F64]] = {
        "advantage": lambda rows: recipe.advantage(rows, view),
        "row_weight": lambda rows: recipe.row_weight(rows, view),
    }
    for name, part in parts.items():
        _by_key(name, part, rollouts, rng)
    if recipe.aborted == "failure":
        failed = replace(rollouts, status=np.where(rollouts.status == ABORTED, ENDED, rollouts.status).astype(np.int8))
        if not np.allclose(recipe.advantage(rollouts, view), recipe.advantage(failed, view)):
            raise CheckFailed("aborted is 'failure', and an aborted row has not the advantage of one that failed")
    if recipe.select is not None:
        _select(recipe.select, rollouts)
    if not same(given, view):
        raise CheckFailed("a part changed the view it was given; copy before writing")


def _settings(recipe: Recipe) -> None:
    low, high = recipe.clip
    for rule, holds in {
        f"aborted is {recipe.aborted!r}; it is 'mask' or 'failure'": recipe.aborted in ("mask", "failure"),
        f"pace is {recipe.pace!r}; it is 'step' or 'run'": recipe.pace in ("step", "run"),
        f"rounds is {recipe.rounds} and oversample {recipe.oversample}; at least 1": recipe.rounds >= 1
        and recipe.oversample >= 1,
        f"thin is {recipe.thin}; None, or at least 1": recipe.thin is None or recipe.thin >= 1,
        f"clip is {recipe.clip}; two finite bounds of 0 or more": 0 <= low < math.inf and 0 <= high < math.inf,
        f"the name is {recipe.name!r}; give one": isinstance(recipe.name, str) and bool(recipe.name),
    }.items():
        if not holds:
            raise CheckFailed(rule)


def _step(recipe: Recipe, rng: np.random.Generator) -> tuple[Rollouts, View]:
    """Rollouts of a step and what the recipe may look at: groups all right, all wrong and mixed, rows of every end."""
    units = np.array([4] * 8 + [1], np.int64)
    keys = tuple(f"item{i}" for i in range(len(units)))
    group = np.repeat(np.arange(len(units)), units)
    status = rng.choice(np.array([ENDED, FINISHED, ABORTED, CUT], np.int8), ROWS)
    reward = np.where((group == 0) | ((group > 1) & (rng.random(ROWS) < 0.5)), 1.0, 0.0)
    reward[status == ABORTED] = 0.0
    length = rng.integers(1, MOST, ROWS)
    within = np.arange(MOST) < length[:, None]
    unknown = np.full(ROWS, -1)
    tokens = np.where(within, rng.integers(3, 9, (ROWS, MOST)), 0)
    logprob = np.where(within, -rng.random((ROWS, MOST)), 0).astype(np.float32)
    weight = np.where(rng.random(ROWS) < 0.1, 20.0, 1.0)
    rollouts = Rollouts(
        keys, tuple((1, 2, i) for i in range(len(units))), group, tokens, length, np.full(ROWS, MOST), logprob,
        np.zeros((ROWS, MOST), np.bool_), status, unknown, unknown, reward, reward, weight, 27,
    )  # fmt: skip
    history = History.empty()
    for _ in range(2):  # earlier steps saw all prompts but the last
        seen = rollouts.outcomes(rng.normal(size=ROWS)).take(group < len(units) - 1)
        history = record(history, seen, recipe.memory)
    n = len(units)
    rate = np.append(rng.random(n - 1), np.nan)
    items = Items(keys, rng.uniform(10, 60, n), std=rng.uniform(0.05, 0.5, n), pass_rate=rate, visits=np.full(n, 2))
    return rollouts, View(items, Plan(keys, units, items.spend(units)), history, MOST)


def _by_key(name: str, part: Callable[[Rollouts], F64], rollouts: Rollouts, rng: np.random.Generator) -> None:
    found = _column(name, part, rollouts)
    order = rng.permutation(ROWS)
    rows = {f.name: getattr(rollouts, f.name) for f in fields(rollouts)}
    rows = {field: column[order] for field, column in rows.items() if isinstance(column, np.ndarray)}
    if not np.allclose(_column(name, part, replace(rollouts, **rows)), found[order]):
        raise CheckFailed(f"{name} changes with the order of the rows; group by Rollouts.group, never by position")
    turned = replace(
        rollouts,
        keys=rollouts.keys[::-1],
        prompts=rollouts.prompts[::-1],
        group=len(rollouts.keys) - 1 - rollouts.group,
    )
    if not np.allclose(_column(name, part, turned), found):
        raise CheckFailed(f"{name} changes with the order of the prompts; look them up by key, never by position")


def _column(name: str, part: Callable[[Rollouts], F64], rollouts: Rollouts) -> F64:
    given = copy.deepcopy(rollouts)
    found = np.asarray(part(rollouts))
    if not same(given, rollouts):
        raise CheckFailed(f"{name} changed the rollouts it was given; copy before writing")
    if found.shape != (ROWS,) or not np.all(np.isfinite(found)):
        bad = np.flatnonzero(~np.isfinite(found)).tolist() if found.shape == (ROWS,) else []
        where = f", rows {bad} not finite" if bad else ""
        raise CheckFailed(f"{name} has shape {found.shape}{where}; one finite number for each of {ROWS} rows")
    if name != "advantage" and np.any(found < 0):
        raise CheckFailed(f"{name} has {float(found.min())}; weights are 0 or more")
    return found


def _select(select: SelectFn, rollouts: Rollouts) -> None:
    rows: list[I64] = [select(rollouts, np.random.default_rng(3)) for _ in range(2)]
    chosen = rows[0]
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1 or not np.all((chosen >= 0) & (chosen < ROWS)):
        raise CheckFailed(f"select gave {chosen.tolist()} of {ROWS} rows; give indices of rows")
    if len(set(chosen.tolist())) < len(chosen):
        raise CheckFailed("select gave a row twice; a row enters the update once")
    if not np.array_equal(chosen, rows[1]):
        raise CheckFailed("select gave other rows with the same seed; draw from rng only")
