"""ZIP-RC: the utility by brute force, the table by hand, and what the controller does at the ends of its range."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput
from budgeteer.steer._zip_rc import Costs, candidates, cut_offs, decide, expected_max, middles, start, utility
from budgeteer.strategies import zip_rc
from budgeteer.strategies._zip_rc import Table
from helpers.insides import STYLE, ask

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


def test_the_table_by_hand():
    table = Table.fit([4, 4, 20, 20], [1, 1, 0, 1], ["a"] * 4, lengths=(0, 8, 16), every=8)
    assert table.predict("a", 0)[:, 0].round(2).tolist() == [0.0, 0.5]
    assert table.predict("a", 0)[:, 2].round(2).tolist() == [0.25, 0.25]
    assert table.predict("a", 500)[:, 0].round(2).tolist() == [0.5, 0.5]  # 4 tokens left, both alike
    assert table.value("a", 4) == 1.0
    assert table.value("a", 20) == 0.5
    with pytest.raises(InvalidInput, match="no class 'b'"):
        table.predict("b", 0)


def write(prompt, rng):
    """A quick right answer or a long wrong one."""
    return "ab</think>5\n" if rng.random() < 0.5 else "a" * 60 + "</think>7\n"


def of(costs, **options):
    rng = random.Random(0)
    traces = [write("", rng) for _ in range(400)]
    table = Table.fit([len(t) for t in traces], ["5" in t for t in traces], ["all"] * 400, every=8)
    return zip_rc(table, costs=costs, samples=4, **options)


def test_a_black_box_is_asked_in_streams_and_late_samples_are_closed():
    careful, free = (ask(of(costs), Scripted(write), output=4000, seed=3) for costs in (Costs(0.05, 0.0), Costs(0, 0)))
    assert careful[0].answer == "5"
    assert careful[1].spend.usage.output < free[1].spend.usage.output / 2
    # with no costs, no sample is closed before its end
    assert len(free[0].traces) == 4
    assert free[1].spend.estimated == 0


@pytest.mark.parametrize("output", [0, 1, 5, 12, 40, 150])
def test_a_black_box_and_any_budget(output):
    answer, budgeted = ask(of(Costs(0.05, 0.05)), Scripted(write), output=output, seed=1)
    assert budgeted.spend.units["output"] <= output
    if output == 0:
        assert (answer.answer, answer.stopped_by) == (None, "budget")
    assert answer == ask(of(Costs(0.05, 0.05)), Scripted(write), output=output, seed=1)[0]


def test_a_verifier_has_the_last_word():
    """Wrong answers are more frequent, but the check knows."""
    from budgeteer.strategies._zip_rc import Pool

    class Ask:
        style, check = STYLE, staticmethod(lambda answer: float(answer == "5"))

    pool = Pool(Ask)
    for text in ("x</think>7\n", "x</think>7\n", "x</think>5\n", "x"):
        pool.add(text, 3, 0.4)
    assert pool.answer("done").answer == "5"
    assert pool.known == [(0.0, 3), (0.0, 3), (1.0, 3), (0.0, 3)]


def test_bad_settings_are_refused():
    with pytest.raises(InvalidInput, match="samples=0"):
        zip_rc(samples=0)
    with pytest.raises(InvalidInput, match="one of each"):
        Table.fit([1, 2], [1.0], ["a"])
