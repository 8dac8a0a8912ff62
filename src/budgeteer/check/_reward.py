"""The rules of rewards."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np

from budgeteer.check._common import CheckFailed, same
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.plan import ABORTED, CUT, ENDED, F64, FINISHED
from budgeteer.rl.reward.protocol import Columns, Reward

ROWS, MOST, STEPS = 24, 64, 5


def check_reward(reward: Reward, *, seed: int = 0) -> None:
    """Score made-up rollouts of some steps, and raise :class:`CheckFailed` at the first broken rule.

    Rules: the reward is one finite number per row; rows are grouped by ``group``: neither the order of the rows nor the
    numbers of the groups change the reward of a row; ``score`` and ``observe`` do not change the state and the columns
    that they are given, and have no other memory; a state survives JSON; a step without rows works.

    Args:
        reward: the reward to check.
        seed: of the rollouts.
    """
    if not isinstance(reward, Reward):
        raise CheckFailed(f"the factory made {reward!r}, no Reward")
    rng = np.random.default_rng([seed, 11])
    state = reward.init()
    for turn in range(STEPS):
        n = 0 if turn == 1 else ROWS
        rows = Columns(
            (rng.random(n) < 0.5).astype(np.float64),
            rng.integers(1, MOST + 1, n),
            rng.integers(0, 6, n),
            np.full(n, MOST),
            rng.choice(np.array([ENDED, FINISHED, ABORTED, CUT], np.int8), n),
        )
        given = copy.deepcopy((state, rows))
        scored = _scores(reward, state, rows)
        order = rng.permutation(n)
        mixed = Columns(
            *(getattr(rows, name)[order] for name in ("correct", "length", "group", "max_tokens", "status"))
        )
        if not np.allclose(_scores(reward, state, mixed), scored[order]):
            raise CheckFailed(
                "the reward changes with the order of the rows; group by Columns.group, never by position"
            )
        if not np.allclose(_scores(reward, state, replace(rows, group=5 - rows.group)), scored):
            raise CheckFailed("the reward changes with the numbers of the groups; they are only names")
        back = load_state(reward.init(), json.loads(json.dumps(dump_state(state))))
        if not same(back, state):
            raise CheckFailed("the state did not survive JSON")
        if not np.array_equal(_scores(reward, back, rows), scored):
            raise CheckFailed("the same state and rows gave another reward: score keeps no memory")
        after, again = reward.observe(state, rows), reward.observe(state, rows)
        if not same(given, (state, rows)):
            raise CheckFailed("score or observe changed the state or the columns it was given; copy before writing")
        if not same(after, again):
            raise CheckFailed("the same state and rows gave another state: observe keeps no memory")
        state = after


def _scores(reward: Reward, state: object, rows: Columns) -> F64:
    scored = np.asarray(reward.score(state, rows))
    if scored.shape != rows.correct.shape or not np.all(np.isfinite(scored)):
        raise CheckFailed(f"score returned {scored.tolist()} for {len(rows.correct)} rows; one finite number a row")
    return scored
