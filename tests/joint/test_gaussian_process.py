"""Expected improvement against a Monte Carlo of the posterior, and pairs found with few evaluations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.joint import gaussian_process
from budgeteer.joint._gaussian_process import improvement, kernel

PAIRS = np.array(list(itertools.product(range(8), repeat=2)))


def wrong(seed: int) -> np.ndarray:
    """[8, 8] share of wrong answers of 64 pairs: what the source and the target do, and a little of the pair."""
    rng = np.random.default_rng(seed)
    return 0.5 + rng.normal(0, 0.12, (8, 1)) + rng.normal(0, 0.12, (1, 8)) + rng.normal(0, 0.02, (8, 8))


def test_expected_improvement_is_that_of_draws_of_the_posterior() -> None:
    rng = np.random.default_rng(0)
    seen, values = np.array([0, 9, 20, 33, 50]), np.array([0.3, 0.5, 0.1, 0.4, 0.2])
    found = improvement(PAIRS, seen, values, 0.3)
    # the joint prior of all 64, conditioned by hand through its precision matrix
    prior = kernel(PAIRS, PAIRS) + 1e-9 * np.eye(64)
    pick = np.eye(64)[seen]
    precision = np.linalg.inv(prior) + pick.T @ pick / 0.3**2
    cov = np.linalg.inv(precision)
    scaled = (values - values.mean()) / values.std()
    mean = cov @ pick.T @ scaled / 0.3**2
    draws = rng.multivariate_normal(mean, cov, 40_000)
    sampled = np.maximum(scaled.min() - draws, 0).mean(axis=0)
    assert found == pytest.approx(sampled, abs=0.01)


def test_pairs_are_found_with_a_fifth_of_the_evaluations_and_sooner_than_by_chance() -> None:
    lost, chance = [], []
    for seed in range(20):
        table, rng = wrong(seed), np.random.default_rng(seed)
        found = gaussian_process(
            lambda y, table=table: (float(y[0] @ table @ y[1]), np.zeros((2, 8))),
            np.ones((2, 8)),
            2.0,
            np.zeros((2, 8)),
            rng=rng,
            trials=13,
        )
        assert found.calls == 13
        lost.append(found.loss - table.min())
        chance.append(rng.permutation(table.ravel())[:13].min() - table.min())
    assert np.mean(lost) < 0.01
    assert np.mean(lost) < 0.2 * np.mean(chance)


def test_only_affordable_pairs_are_tried_and_all_of_them_if_there_is_time() -> None:
    cost, tried = np.array([[1.0, 5.0, 9.0], [1.0, 2.0, 3.0]]), []

    def loss(y: np.ndarray) -> tuple[float, np.ndarray]:
        tried.append(tuple(y.argmax(axis=1).tolist()))
        return float(sum(tried[-1])), y

    found = gaussian_process(loss, cost, 7.0, cost * 0, rng=np.random.default_rng(0), trials=99)
    assert sorted(tried) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert (found.choice.tolist(), found.loss) == ([0, 0], 0.0)


def test_the_first_ones_share_no_option() -> None:
    tried: list[tuple[int, ...]] = []

    def loss(y: np.ndarray) -> tuple[float, np.ndarray]:
        tried.append(tuple(y.argmax(axis=1).tolist()))
        return 0.5, y

    gaussian_process(loss, np.ones((2, 4)), 2.0, np.zeros((2, 4)), rng=np.random.default_rng(1), trials=4)
    assert len({a for a, _ in tried}) == len({b for _, b in tried}) == 4


def test_numbers_out_of_range_are_refused() -> None:
    for bad in ({"trials": 0}, {"first": 0}, {"noise": 0.0}):
        with pytest.raises(InvalidInput, match="gaussian_process"):
            gaussian_process(
                lambda y: (0.0, y), np.ones((2, 2)), 2.0, np.zeros((2, 2)), rng=np.random.default_rng(0), **bad
            )
