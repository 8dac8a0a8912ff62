"""The rules of rewards."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from budgeteer.check._common import CheckFailed, same
from budgeteer.check._made_up import ROWS, made_up
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.column import Column, with_sources
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.rl.recipe import ENTROPY, TEXT
from budgeteer.rl.reward.protocol import ALWAYS, Columns, Reward
from budgeteer.rl.rollouts import OF_SAMPLER, Rollouts

STEPS = 5
WORDS = ("wait", "hmm", "but", "so", "7 + 4 =", "</think>", "12", "[Easy]", "[Hard]", "\n")


def check_reward(reward: Reward, *, seed: int = 0) -> None:
    """Score made-up rollouts of some steps, and raise :class:`CheckFailed` at the first broken rule.

    Rules: the reward is one finite number per row; it reads the columns that are always there and those that ``needs``
    names; rows are grouped by ``group``: neither the order of the rows nor the numbers of the groups change the reward
    of a row; ``score``, ``observe`` and the ``watch`` of a monitor do not change the state and the columns that they
    are given, and have no other memory; a state survives JSON; a step without rows works.

    Columns that come from rollouts or are computed are those of made-up rollouts; others have random values of their
    declared type and range.

    Args:
        reward: the reward to check.
        seed: of the rollouts.
    """
    if not isinstance(reward, Reward):
        raise CheckFailed(f"the factory made {reward!r}, no Reward")
    if isinstance(reward.needs, str) or not all(isinstance(name, str) for name in reward.needs):
        raise CheckFailed(f"needs is {reward.needs!r}; give a tuple of texts")
    rng = np.random.default_rng([seed, 11])
    state = reward.init()
    for turn in range(STEPS):
        some = rng.permutation(ROWS)[: 0 if turn == 1 else 24]  # of some groups no row is left
        rows = made_up_columns(made_up(STEPS * seed + turn)[0].take(some), reward.needs, rng)
        given = copy.deepcopy((state, rows))
        scored = _scores(reward, state, rows)
        order = rng.permutation(len(rows))
        if not np.allclose(_scores(reward, state, rows.take(order)), scored[order]):
            raise CheckFailed(
                "the reward changes with the order of the rows; group by Columns.group, never by position"
            )
        renamed = rows.with_columns(group=rows.group.max(initial=0) - rows.group)
        if not np.allclose(_scores(reward, state, renamed), scored):
            raise CheckFailed("the reward changes with the numbers of the groups; they are only names")
        back = load_state(reward.init(), json.loads(json.dumps(dump_state(state))))
        if not same(back, state):
            raise CheckFailed("the state did not survive JSON")
        if not np.array_equal(_scores(reward, back, rows), scored):
            raise CheckFailed("the same state and rows gave another reward: score keeps no memory")
        after, again = reward.observe(state, rows), reward.observe(state, rows)
        if reward.monitor is not None and len(rows):
            watched, once_more = (reward.monitor.watch(state, rows.only()) for _ in range(2))
            if not same(watched, once_more):
                raise CheckFailed("the same state and rows gave another state: the monitor's watch keeps no memory")
            reward.score(watched, rows)
        if not same(given, (state, rows)):
            raise CheckFailed(
                "score, observe or watch changed the state or the columns it was given; copy before writing"
            )
        if not same(after, again):
            raise CheckFailed("the same state and rows gave another state: observe keeps no memory")
        state = after


def made_up_columns(rollouts: Rollouts, needs: Collection[str], rng: np.random.Generator) -> Columns:
    """What a reward with these needs sees of made-up rollouts."""
    n, length = len(rollouts), rollouts.length
    closed = np.where(rng.random(n) < 0.8, rng.integers(1, length + 1), -1)
    answered = np.where((closed >= 0) & (rng.random(n) < 0.8), length, -1)
    texts = np.array([" ".join(rng.choice(WORDS, 1 + size // 4)) for size in length.tolist()], object)
    have = {*ALWAYS, *OF_SAMPLER, ENTROPY, TEXT}
    lacking = [column for column in with_sources(needs, have) if column.make is None and column.name not in have]
    given = {column.name: _drawn(column, rollouts.tokens.shape, rng) for column in lacking}
    return replace(rollouts, closed=closed, answered=answered, more={TEXT: texts}).columns(needs, given)


def _drawn(column: Column, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.generic]:
    """Random values of a column's type and range."""
    if column.text:
        return rng.choice(WORDS, shape[0]).astype(object)
    least = max(column.least, -9.0)
    most = min(column.most, least + 9)
    size = shape if column.per_token else shape[:1]
    return rng.integers(int(least), int(most) + 1, size) if column.whole else rng.uniform(least, most, size)


def _scores(reward: Reward, state: object, rows: Columns) -> F64:
    try:
        scored = np.asarray(reward.score(state, rows))
    except InvalidInput as error:
        raise CheckFailed(f"score refused the columns that the reward needs: {error}") from error
    if scored.shape != rows.correct.shape or not np.all(np.isfinite(scored)):
        raise CheckFailed(f"score returned {scored.tolist()} for {len(rows)} rows; one finite number a row")
    return scored
