"""Online matching that gives resources up: the chances on which the paper's proof rests, and what it costs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

pytest.importorskip("scipy")

from budgeteer.check import best_online
from budgeteer.online import online_matching

STREAMS = 1500


def instance(seed, n=4, times=5):
    rng = np.random.default_rng([seed, 21])
    return rng.exponential(1.0, (n, times)) * (rng.random((n, times)) < 0.8), rng.uniform(0.3, 0.9, times)


def streams(value, chance, discards, seed, count=STREAMS):
    """Value of every stream, free or not [streams, T + 1, n], and the resources that were given up unmatched."""
    plan, rng = online_matching(value, chance, discards), np.random.default_rng([seed, 22])
    n, times = value.shape
    worth, free, lost = np.zeros(count), np.ones((count, times + 1, n), np.bool_), 0
    for k in range(count):
        for t in range(times):
            now = free[k, t]
            gone = plan.given_up(t, now, rng)
            assert not (gone & ~now).any()
            free[k, t + 1] = now & ~gone
            lost += int(gone.sum())
            if rng.random() < chance[t]:
                i = plan.serve(t, now, rng)
                if i >= 0:
                    assert now[i]
                    worth[k] += value[i, t]
                    free[k, t + 1, i] = False
    return plan, worth, free, lost


@pytest.mark.parametrize("seed", [1, 2])
def test_resources_are_free_with_the_chances_of_the_program_and_not_together(seed):
    value, chance = instance(seed)
    plan, worth, free, lost = streams(value, chance, True, seed)
    assert lost > 0  # otherwise nothing is tested
    # x_it = q_t (1 - sum of x before) propose_it
    left = np.ones(len(value))
    for t, q in enumerate(chance):
        assert np.abs(free[:, t].mean(0) - left).max() < 5 * 0.5 / math.sqrt(STREAMS)
        for i, j in itertools.combinations(range(len(value)), 2):
            together = (free[:, t, i] & free[:, t, j]).mean()
            assert together <= left[i] * left[j] + 4 * 0.5 / math.sqrt(STREAMS)
        left = left - q * left * plan.propose[:, t]
    error = worth.std() / math.sqrt(STREAMS)
    assert 0.678 * best_online(value, chance) - 4 * error <= worth.mean() <= plan.bound + 4 * error


def test_the_first_resources_are_matched_as_often_as_their_proposals_sum_to():
    value, chance = np.array([[3.0], [2.0], [1.0]]), np.array([0.5])
    plan = online_matching(value, chance, discards=True)
    object.__setattr__(plan, "propose", np.array([[0.5], [0.7], [0.4]]))
    rng, free = np.random.default_rng(0), np.ones(3, np.bool_)
    got = np.bincount([plan.serve(0, free, rng) + 1 for _ in range(STREAMS)], minlength=4) / STREAMS
    assert got == pytest.approx([0.0, 0.5, 0.5, 0.0], abs=0.05)  # min(1, 0.5), then min(1, 1.2)
    # 0.5 * 0.7 in all: 0.5 * 0.5 by a match, and of the other 0.75 a share of (0.35 - 0.25) / 0.75
    gone = np.mean([plan.given_up(0, free, rng) for _ in range(STREAMS)], axis=0)
    assert gone == pytest.approx([0.0, 0.1 / 0.75, 0.5 * 0.4], abs=0.05)
    without = np.array([False, True, True])  # the others move up
    got = np.bincount([plan.serve(0, without, rng) + 1 for _ in range(STREAMS)], minlength=4) / STREAMS
    assert got == pytest.approx([0.0, 0.0, 0.7, 0.3], abs=0.05)


def test_nothing_is_given_up_without_it():
    value, chance = instance(1)
    plan, _, _, lost = streams(value, chance, False, 1, count=200)
    assert (plan.discards, lost) == (False, 0)
