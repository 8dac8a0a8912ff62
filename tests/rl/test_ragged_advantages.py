"""Advantages of ragged groups: each against the plain sum over its definition, and where groups go wrong."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from budgeteer.check._made_up import made_up
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.plan import F64, I64
from budgeteer.rl.advantage import batch_scaled, centred_advantage, grpo_advantage, opo, pass_at_k, rloo
from budgeteer.rl.rollouts import Rollouts
from budgeteer.rl.rows import GROUPED, advantages, turn_advantages

ROLLOUTS, VIEW = made_up(0)
A = np.array


def rows(reward: list[float], group: list[int]) -> Rollouts:
    """Rollouts with these rewards in these groups, in this order."""
    made = ROLLOUTS.take(np.arange(len(ROLLOUTS)) < len(reward))
    values = A(reward, np.float64)
    return replace(made, group=A(group, np.int64), reward=values, verified=values)


def subsets(reward: F64, group: I64, k: int) -> F64:
    """Pass@k's advantage by listing every subset."""
    advantage = np.zeros(len(reward))
    for g in set(group.tolist()):
        members = np.flatnonzero(group == g).tolist()
        if len(members) <= k:
            continue
        best = {chosen: max(reward[list(chosen)]) for chosen in itertools.combinations(members, k)}
        mean = np.mean(list(best.values()))
        deviation = math.sqrt(mean * (1 - mean))
        for i in members if deviation > 1e-9 else []:
            advantage[i] = (np.mean([value for chosen, value in best.items() if i in chosen]) - mean) / deviation
    return advantage


def test_rloo_by_hand():
    # group 0: 1, 0, 0.5 -> means of the others 0.25, 0.75, 0.5; group 1 alone; group 2 all equal
    given = rows([1, 7, 0, 0.5, 2, 2], [0, 1, 0, 0, 2, 2])
    np.testing.assert_allclose(rloo(given, VIEW), [0.75, 0, -0.75, 0, 0, 0], atol=1e-12)


def test_one_scale_for_the_batch_by_hand():
    # centred: group 0 0.5, -0.5; group 1 0; group 2 0.25, 0.25, 0.25, -0.75; their mean square is (0.5 + 0.75) / 7
    given = rows([1, 3, 0, 1, 1, 1, 0], [0, 1, 0, 2, 2, 2, 2])
    scale = math.sqrt(1.25 / 7)
    wanted = A([0.5, 0, -0.5, 0.25, 0.25, 0.25, -0.75]) / scale
    np.testing.assert_allclose(batch_scaled(given, VIEW), wanted)
    assert not batch_scaled(rows([1, 1, 0], [0, 0, 1]), VIEW).any()  # nothing differs within a prompt


def test_pass_at_k_by_hand():
    # 1 of 4 right, k = 2: all wrong in 3 of 6 pairs, R = 1/2 = S; every pair of the right row is right: (1 - 1/2) / S;
    # a wrong row is with the right one in 1 of its 3 pairs: (1/3 - 1/2) / S
    given = rows([0, 1, 0, 0], [0, 0, 0, 0])
    np.testing.assert_allclose(pass_at_k(given, VIEW, k=2), [-1 / 3, 1, -1 / 3, -1 / 3])


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
def test_pass_at_k_is_the_mean_over_all_subsets(k):
    rng = np.random.default_rng(k)
    group = rng.integers(0, 6, 33)
    reward = (rng.random(33) < 0.3).astype(float)
    given = rows(reward.tolist(), group.tolist())
    np.testing.assert_allclose(pass_at_k(given, VIEW, k=k), subsets(reward, group, k), atol=1e-9)
    if k == 1:
        np.testing.assert_allclose(pass_at_k(given, VIEW, k=1), grpo_advantage(given, VIEW), atol=1e-9)


def test_a_k_that_no_group_has_costs_no_time():
    assert pass_at_k(ROLLOUTS, VIEW, k=10**12).tolist() == [0.0] * len(ROLLOUTS)


def test_pass_at_k_refuses_a_k_below_one():
    with pytest.raises(InvalidInput, match="k=0; give 1 or more"):
        pass_at_k(ROLLOUTS, VIEW, k=0)


@pytest.mark.parametrize("advantage", [grpo_advantage, centred_advantage, rloo, batch_scaled, opo, pass_at_k])
@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_what_has_no_baseline_has_no_gradient(advantage, reward):
    """A rollout that is alone, and a prompt whose rollouts are alike, beside one that has both."""
    group = [0, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    given = rows([reward, reward, reward, reward, 1, 0, 0, 0, 1, 0], group)
    value = advantage(given, VIEW)
    np.testing.assert_allclose(value[:4], 0, atol=1e-12)
    assert value[4] > 0 > value[5]
    if advantage is not opo:  # its baseline weighs rows by length
        assert abs(value[4:].sum()) < 1e-9


@pytest.mark.parametrize("advantage", [grpo_advantage, centred_advantage, rloo, pass_at_k])
def test_a_prompt_alone_counts(advantage):
    """What other prompts drew, and how many rows of other prompts there are, changes nothing."""
    own = [1, 0, 0, 1, 0]
    alone = advantage(rows(own, [0] * 5), VIEW)
    beside = advantage(rows([1, *own, 0, 0, 1], [1, *[0] * 5, 2, 2, 2]), VIEW)
    np.testing.assert_allclose(beside[1:6], alone)


def test_the_deviation_of_a_sample_by_hand():
    # 1, 0, 0: mean 1/3, squares 4/9 + 1/9 + 1/9 = 2/3 over 2 rows
    value = grpo_advantage(rows([1, 0, 0, 1], [0, 0, 0, 1]), VIEW, unbiased=True)
    np.testing.assert_allclose(value, A([2 / 3, -1 / 3, -1 / 3, 0]) / math.sqrt(1 / 3))


# -- rows of other trainers --------------------------------------------------------------------------------------------


def test_opo_by_hand():
    # group a: (3 * 1 + 1 * 0 + 4 * 0.5) / 8 = 0.625; b is alone; c all equal
    value = advantages("opo", [1, 7, 0, 0.5, 2, 2], list("abaacc"), length=[3, 2, 1, 4, 5, 9])
    np.testing.assert_allclose(value, [0.375, 0, -0.625, -0.125, 0, 0], atol=1e-12)


@pytest.mark.parametrize("method", GROUPED)
def test_rows_that_do_not_count_change_nothing(method):
    """Padding of a prompt of its own, a rejected row of a group, a row that nobody scored, and a row left out."""
    reward, keys, length = [1, 0, 0, 0, 0, 0, 1, 0], list("aaaaabbb"), [4, 2, 5, 3, 1, 2, 2, 6]
    plain = advantages(method, reward, keys, length=length)
    more = advantages(
        method, [*reward, 0, 1, math.nan, 1], [*keys, "pad", "a", "b", "b"], length=[*length, 0, 0, 3, 3],
        counted=[True] * 11 + [False],
    )  # fmt: skip
    np.testing.assert_allclose(more[:8], plain)
    assert not more[8:].any()
    assert plain.any()


@pytest.mark.parametrize("method", GROUPED)
def test_rows_have_the_advantages_of_rollouts(method):
    """What other trainers get is what a recipe trains with."""
    rng = np.random.default_rng(3)
    group, reward = rng.integers(0, 5, 33), rng.integers(0, 2, 33).astype(float)
    given = rows(reward.tolist(), group.tolist())
    part = dict(zip(GROUPED, (grpo_advantage, centred_advantage, rloo, batch_scaled, opo, pass_at_k), strict=True))[
        method
    ]
    sampled = given.sampled.sum(1)
    np.testing.assert_allclose(advantages(method, reward, [f"p{g}" for g in group], length=sampled), part(given, VIEW))


def test_rows_are_refused():
    assert advantages("rloo", [], []).shape == (0,)
    assert not advantages("rloo", [math.nan, 1], ["a", "b"], length=[1, 0]).any()
    with pytest.raises(InvalidInput, match="'tempo' reads more of a rollout"):
        advantages("tempo", [1, 0], ["a", "a"])
    with pytest.raises(InvalidInput, match="k=0; give 1 or more"):
        advantages("pass-at-k:k=0", [1, 0], ["a", "a"])
    with pytest.raises(InvalidInput, match=r"length has shape \(1,\) for 2 rows"):
        advantages("rloo", [1, 0], ["a", "a"], length=[1])
    with pytest.raises(InvalidInput, match="a reward is infinite"):
        advantages("rloo", [math.inf, 0], ["a", "a"])
    with pytest.raises(UnknownName, match="did you mean 'rloo'"):
        advantages("rlo", [1, 0], ["a", "a"])


def test_a_prior_is_the_baseline_of_a_lone_row_by_hand() -> None:
    # group a: (2 * 0.25 + 1) / 3 and (2 * 0.25 + 0) / 3 are the baselines; b alone: its prior; c has none and is alone
    reward, keys, prior = [0, 1, 1, 1, math.nan], ["a", "b", "a", "c", "a"], [0.25, 0.5, 0.25, math.nan, 0.25]
    wanted = [0 - 1.5 / 3, 1 - 0.5, 1 - 0.5 / 3, 0, 0]
    np.testing.assert_allclose(advantages("shrunk", reward, keys, prior=prior), wanted)
    with pytest.raises(InvalidInput, match="differs within a prompt"):
        advantages("shrunk", reward, keys, prior=[0.25, 0.5, 0.75, math.nan, 0.25])
    for method, given in (("shrunk", None), ("rloo", prior)):
        with pytest.raises(InvalidInput, match="shrunk needs prior"):
            advantages(method, reward, keys, prior=given)


def test_turns_are_compared_with_the_same_turn_by_hand() -> None:
    none = math.nan
    reward = [[1, 0, 2], [0, 1, none], [5, none, none], [0, 3, none]]
    # returns with discount 0.5: [1.5, 1, 2], [0.5, 1], [5], [1.5, 3]; prompt a has rows 0, 1, 3, and b row 2 alone
    value = turn_advantages("rloo", reward, ["a", "a", "b", "a"], discount=0.5)
    wanted = [[0.5, -1, 0], [-1, -1, 0], [0, 0, 0], [0.5, 2, 0]]
    np.testing.assert_allclose(value, wanted, atol=1e-12)


@pytest.mark.parametrize("method", [*GROUPED, "shrunk"])
def test_a_reward_at_the_end_of_equally_many_turns_is_the_rollouts_advantage_in_each(method) -> None:
    last, keys = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0], [*"aaaabbb"]
    prior = {"prior": [0.5] * 7} if method == "shrunk" else {}
    once = advantages(method, last, keys, **prior)
    value = turn_advantages(method, [[0, 0, r] for r in last], keys, **prior)
    np.testing.assert_allclose(value, np.repeat(once[:, None], 3, axis=1))


@pytest.mark.parametrize(
    ("reward", "discount", "message"),
    [
        ([1.0, 0.0], 1.0, r"give \[n, turns\]"),
        ([[1.0]], 1.0, "for 2 rows"),
        ([[math.nan, 1.0], [1.0, 1.0]], 1.0, "give 0 to a turn"),
        ([[1.0], [0.0]], 1.5, "from 0 to 1"),
        ([[math.inf], [0.0]], 1.0, "infinite"),
    ],
)
def test_turns_that_are_none_are_refused(reward, discount, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        turn_advantages("rloo", reward, ["a", "a"], discount=discount)
