"""Allocators that draw in rounds or remember tasks: C-GRPO, probing, DART's curation; by hand and by brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from budgeteer.allocate import conformal, curated, probing
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import Items, Outcomes

A = np.array
RNG = np.random.default_rng


def outcomes(groups: dict[str, list[int]], tokens: int = 3) -> Outcomes:
    keys = [key for key, rows in groups.items() for _ in rows]
    rewards = A([float(x) for rows in groups.values() for x in rows])
    n = len(keys)
    return Outcomes(tuple(keys), np.full(n, tokens), rewards, np.zeros(n), np.ones(n, np.int8))


def items_of(keys: list[str], drawn: list[int], right: list[int], cost: float = 1.0, **columns: object) -> Items:
    return Items(tuple(keys), np.full(len(keys), cost), drawn=A(drawn), right=A(right), **columns)


def test_calibration_and_exits_by_hand() -> None:
    method = conformal((2, 4), calibration=3, margin=0.2)
    items = items_of(["a", "b", "c"], [0, 0, 0], [0, 0, 0])
    state = method.init(items)
    assert method.allocate(9, items, state, rng=RNG(0)).units.tolist().count(4) == 2  # whole groups while calibrating
    state = method.observe(state, outcomes({"a": [1, 0, 1, 1], "b": [0, 0, 1, 0], "d": [1, 1, 1]}))  # d is too short
    assert len(state.thresholds) == 0
    state = method.observe(state, outcomes({"c": [0, 0, 0, 0]}))
    # scores at 2 and 4: a 1/2, 1/4; b 1, 3/4; c 1, 1. Solve rate 2/3, delta 1/3 + 0.2, the ceil(4 * 7/15) = 2nd
    assert state.thresholds.tolist() == [1.0, 0.75]
    first = method.allocate(100, items, state, rng=RNG(0))
    assert first.units.tolist() == [2, 2, 2]
    # at 2 the threshold is 1: any success ends it; without one it goes on to 4, and there to no more
    second = method.allocate(100, items_of(["a", "b", "c"], [2, 2, 2], [1, 2, 0]), state, rng=RNG(0))
    assert second.units.tolist() == [0, 0, 2]
    assert not method.allocate(100, items_of(["c"], [4], [0]), state, rng=RNG(0)).units.any()


@pytest.mark.parametrize("seed", range(5))
def test_conformal_against_a_loop_over_the_grid(seed) -> None:
    rng, grid, m = RNG(seed), (2, 4, 8, 16), 20 + seed
    passes = rng.random((m, 16)) < rng.beta(0.5, 0.5, (m, 1))
    scores = {k: sorted(1 - row[:k].sum() / k for row in passes) for k in grid}
    delta = min(max(1 - sum(s < 1 for s in scores[16]) / m + 0.05, 0.05), 0.95)
    quantile = {k: scores[k][min(max(math.ceil((m + 1) * (1 - delta)), 1), m) - 1] for k in grid}
    method = conformal(grid, calibration=m)
    state = method.observe(
        method.init(items_of(["x"], [0], [0])), outcomes({f"{i}": r.astype(int).tolist() for i, r in enumerate(passes)})
    )
    for row in RNG(seed + 100).random((60, 16)) < 0.2:
        used = next((k for k in grid if row[:k].any() and 1 - row[:k].sum() / k <= quantile[k]), 16)
        drawn = 0
        while True:
            item = items_of(["x"], [drawn], [int(row[:drawn].sum())])
            more = int(method.allocate(1000, item, state, rng=rng).units[0])
            if not more:
                break
            drawn += more
        assert drawn == used


def test_thresholds_are_found_again() -> None:
    method = conformal((1, 2), calibration=1, every=2)
    state = method.init(items_of(["a"], [0], [0]))
    for _ in range(2):
        state = method.observe(state, outcomes({"a": [1, 0]}))
        assert len(state.thresholds)
    assert len(method.observe(state, outcomes({"a": [1, 0]})).thresholds) == 0


def expected(p: float, drawn: int, right: int, more: int) -> float:
    """Value of a group after ``more`` rollouts, over all their outcomes."""
    total = 0.0
    for rewards in itertools.product([0, 1], repeat=more):
        chance = math.prod(p if r else 1 - p for r in rewards)
        good, n = right + sum(rewards), drawn + more
        total += chance * (p * (1 - p) * (1 - 1 / n) if 0 < good < n else 0.0)
    return total


def test_probing_buys_the_largest_expected_gains() -> None:
    drawn, right, rate = [3, 3, 3, 0], [0, 3, 1, 0], A([0.5, 0.7, 0.4, 0.5])
    items = items_of(list("abcd"), drawn, right, pass_rate=rate)
    found = probing().allocate(6, items, (), rng=RNG(0)).units
    p = (3 * rate[:3] + A(right[:3])) / 6

    def value(units: tuple[int, ...]) -> float:
        return sum(expected(float(p[i]), drawn[i], right[i], n) for i, n in enumerate(units))

    best = max((u for u in itertools.product(range(7), repeat=3) if sum(u) == 6), key=value)
    assert found[3] == 0  # nothing was drawn in the first round: it is too late
    assert value(tuple(found[:3].tolist())) == pytest.approx(value(best))
    opening = probing(share=0.5).allocate(12, items_of(list("abcd"), [0] * 4, [0] * 4, pass_rate=rate), (), rng=RNG(0))
    assert sorted(opening.units.tolist()) == [0, 0, 3, 3]


def test_curation_by_hand() -> None:
    method = curated(most=6, least=2, easy=0.5, slack=2.0)
    state = method.init(items_of(["a"], [0], [0]))
    state = method.observe(state, outcomes({"a": [1, 1, 1, 0], "b": [0, 0]}, tokens=7))
    state = method.observe(state, outcomes({"c": [1, 1]}, tokens=5))
    plan = method.allocate(1000, items_of(["a", "b", "c", "new"], [0] * 4, [0] * 4), state, rng=RNG(0))
    # a: 3 of 4, half way from 0.5 to 1: 4 rollouts, 14 tokens; b never, so no cap; c always
    assert plan.units.tolist() == [4, 6, 2, 6]
    assert plan.max_tokens.tolist() == [14, 0, 10, 0]
    assert not method.allocate(1000, items_of(["b"], [6], [0]), state, rng=RNG(0)).units.any()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: conformal((4, 2)), "rising numbers"),
        (lambda: conformal(()), "rising numbers"),
        (lambda: conformal(calibration=0), "1 or more prompts"),
        (lambda: probing(first=1), "2 <= first"),
        (lambda: probing(share=0.0), "0 < share"),
        (lambda: curated(least=9), "1 <= least <= most"),
        (lambda: curated(slack=0.5), "slack of 1 or more"),
    ],
)
def test_bad_settings_are_refused(make, said) -> None:
    with pytest.raises(InvalidInput, match=said):
        make()
