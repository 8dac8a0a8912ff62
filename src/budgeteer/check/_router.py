"""The rules of routers."""

from __future__ import annotations

import copy
import json
import math

import numpy as np

from budgeteer.check._common import CheckFailed, refuses, same
from budgeteer.core.allocator import State, dump_state, load_state
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.core.router import Router

EXPERTS, TOKENS, STEPS, LAST = 8, 128, 400, 40
SKEW = 0.3
"""By how much the scores of the best expert are above those of the worst."""
LESS = 0.9
"""Share of its first excess over the mean that the fullest expert may keep."""


def check_router(router: Router, *, seed: int = 0) -> None:
    """Route a stream of tokens and raise :class:`CheckFailed` at the first broken rule.

    Rules: every token gets the same number of distinct experts, each in range, with finite weights of the same shape;
    ``route`` and ``observe`` do not change their arguments and have no other memory; a state survives JSON; on scores
    that favour some experts the loads become more even; scores and loads of another shape or that are not finite,
    loads below 0, and no experts are refused with InvalidInput.

    Args:
        router: the router to check.
        seed: of the scores.
    """
    rng = np.random.default_rng([seed, 8])
    skew = SKEW * np.linspace(1, 0, EXPERTS)
    start = state = router.init(EXPERTS)
    fullest: list[tuple[int, int]] = []
    for step in range(STEPS):
        scores = rng.random((TOKENS, EXPERTS)) + skew
        load = _load(_route(router, state, scores))
        if step >= STEPS - LAST:
            fullest.append((int(_load(_route(router, start, scores)).max()), int(load.max())))
        state = _observe(router, state, load)
    mean = float(load.mean())
    before, after = np.mean(fullest, axis=0) / mean
    if not after - 1 < LESS * (before - 1):
        raise CheckFailed(
            f"the fullest expert has {before:.2f} times the mean load by the first state and {after:.2f}"
            f" by that after {STEPS} steps: loads become more even"
        )
    _refusals(router, state)


def _load(chosen: I64) -> I64:
    return np.bincount(chosen.ravel(), minlength=EXPERTS).astype(np.int64)


def _route(router: Router, state: State, scores: F64) -> I64:
    before, given = copy.deepcopy(state), scores.copy()
    chosen, weight = router.route(state, scores)
    if not same(state, before) or not np.array_equal(scores, given):
        raise CheckFailed("route changed the state or the scores it was given; copy before writing")
    back = load_state(router.init(EXPERTS), json.loads(json.dumps(dump_state(state))))
    if not same(back, state):
        raise CheckFailed("the state did not survive JSON")
    again = router.route(back, scores)
    if not np.array_equal(chosen, again[0]) or not np.array_equal(weight, again[1], equal_nan=True):
        raise CheckFailed("the same state and scores gave other experts: route keeps no memory")
    if (
        chosen.ndim != 2
        or len(chosen) != TOKENS
        or not 1 <= chosen.shape[1] <= EXPERTS
        or chosen.dtype.kind not in "iu"
    ):
        raise CheckFailed(f"route chose {chosen.dtype} of shape {chosen.shape} for {TOKENS} tokens; integers [T, K]")
    if not np.all((chosen >= 0) & (chosen < EXPERTS)):
        raise CheckFailed(f"route chose expert {int(chosen.max())} of {EXPERTS}; experts are in range")
    if any(len(set(row)) != len(row) for row in chosen.tolist()):
        raise CheckFailed("route chose an expert twice for one token; they are distinct")
    if weight.shape != chosen.shape or not np.all(np.isfinite(weight)):
        raise CheckFailed(f"weights of shape {weight.shape} for {chosen.shape}; give a finite one for every choice")
    return chosen


def _observe(router: Router, state: State, load: I64) -> State:
    before, given = copy.deepcopy(state), load.copy()
    after, again = (router.observe(state, load) for _ in range(2))
    if not same(state, before) or not np.array_equal(load, given):
        raise CheckFailed("observe changed the state or the load it was given; return a new state")
    if not same(after, again):
        raise CheckFailed("the same state and load gave another state: observe keeps no memory")
    return after


def _refusals(router: Router, state: State) -> None:
    refuses(InvalidInput, "0 experts are refused", router.init, 0)
    for bad in (math.nan, math.inf):
        refuses(InvalidInput, f"a score of {bad} is refused", router.route, state, np.full((2, EXPERTS), bad))
        refuses(InvalidInput, f"a load of {bad} is refused", router.observe, state, np.full(EXPERTS, bad))
    one_more = EXPERTS + 1
    refuses(InvalidInput, "scores of more experts are refused", router.route, state, np.ones((2, one_more)))
    refuses(InvalidInput, "loads of more experts are refused", router.observe, state, np.ones(one_more))
    refuses(InvalidInput, "a load below 0 is refused", router.observe, state, np.arange(EXPERTS) - 1.0)
