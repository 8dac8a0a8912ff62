"""ZIP-RC's utility by brute force, and the choices that follow from it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer.steer._zip_rc import Costs, candidates, cut_offs, decide, expected_max, middles, start, utility

VALUES, LENGTHS = np.array([0.0, 0.5, 1.0]), (0, 4, 8)
TOKENS = middles(LENGTHS)


def tables(seed, k):
    return np.random.default_rng(seed).dirichlet(np.ones(9) * 0.5, k).reshape(k, 3, 3)


def brute(joint, finished, mean, costs, kept, cut):
    """G of one set and one cut by going through every outcome of every kept sample."""
    cells = list(itertools.product(range(3), range(3)))
    total = 0.0
    for outcome in itertools.product(cells, repeat=len(kept)):
        p, value, left = 1.0, max(finished, default=0.0), [0.0]
        for i, (v, length) in zip(kept, outcome, strict=True):
            p *= joint[i, v, length]
            value = max(value, 0.0 if length >= cut else VALUES[v])
            left.append(TOKENS[min(length, cut)])
        total += p * (value - costs.tokens * sum(left) / mean - costs.steps * max(left) / mean)
    return total


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("finished", [(), (0.5,), (0.7, 0.2)])
def test_utility_is_that_of_all_outcomes(seed, finished):
    joint, costs = tables(seed, 3), Costs(0.11, 0.07)
    kept = np.array(list(itertools.product([False, True], repeat=3)))
    got = utility(joint, np.array(finished), 5.0, VALUES, TOKENS, costs, kept)
    for cut in (1, 2, 3):
        for c, chosen in enumerate(kept):
            want = brute(joint, finished, 5.0, costs, np.flatnonzero(chosen), cut)
            assert got[cut - 1, c] == pytest.approx(want, abs=1e-9)


def test_expected_max_by_hand():
    """Two fair coins: the best of both is 1 in three of four cases."""
    p = np.array([[0.5, 0.5], [0.5, 0.5]])
    kept = np.array([[True, True], [True, False], [False, False]])
    assert expected_max(np.array([0.0, 1.0]), p, kept) == pytest.approx([0.75, 0.5, 0.0])


def test_a_cut_moves_what_is_late():
    joint = np.arange(9.0).reshape(1, 3, 3) / 36
    first, second, none = cut_offs(joint)
    assert none.tolist() == joint.tolist()
    assert (36 * second[0]).round(9).tolist() == [[0, 1, 15], [3, 4, 0], [6, 7, 0]]
    # value bins 0, 1, 2 lose 1 + 2, 4 + 5 and 7 + 8
    assert (36 * first[0]).round(9).tolist() == [[0, 27, 0], [3, 0, 0], [6, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 6), done=st.integers(0, 2), cost=st.floats(0, 0.5))
def test_the_choice_is_the_best_of_its_candidates(seed, k, done, cost):
    joint, rng = tables(seed, k), np.random.default_rng(seed)
    finished, costs = rng.uniform(0, 1, done), Costs(cost, cost / 2)
    keep = decide(joint, np.full(k, 3.0), finished, np.full(done, 9.0), VALUES, TOKENS, costs)
    sets = candidates(joint, VALUES, TOKENS)
    mean = np.concatenate([3.0 + joint.sum(1) @ TOKENS, np.full(done, 9.0)]).mean()
    gains = utility(joint, finished, mean, VALUES, TOKENS, costs, sets).max(0)
    possible = gains if done else gains[sets.any(1)]
    own = utility(joint, finished, mean, VALUES, TOKENS, costs, keep[None]).max()
    assert own == pytest.approx(possible.max())
    assert done or keep.any()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 6), done=st.integers(0, 2))
def test_without_costs_everything_is_kept(seed, k, done):
    finished = np.random.default_rng(seed).uniform(0, 1, done)
    args = tables(seed, k), np.zeros(k), finished, np.full(done, 9.0), VALUES, TOKENS
    assert decide(*args, Costs(0.0, 0.0)).all()
    assert decide(*args, Costs(99.0, 99.0)).sum() == (0 if done else 1)


def test_how_many_to_start_by_hand():
    """Half of the samples are right, all take 2 tokens: the n-th raises E[max] by 2^-n and costs 0.1."""
    prior = np.zeros((3, 3))
    prior[0, 0] = prior[2, 0] = 0.5
    args = VALUES, TOKENS, Costs(0.1, 0.0)
    assert start(prior, 8, np.array([]), *args) == 3  # 1/8 pays, 1/16 does not
    assert start(prior, 2, np.array([]), *args) == 2
    assert start(prior, 8, np.array([1.0]), *args) == 0
    assert start(prior, 8, np.array([0.5]), *args) == 2  # half of the gain: 1/4, 1/8, then 1/16
