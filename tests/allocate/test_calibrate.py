"""Item parameters from answers: against sums by brute force, an optimiser of scipy's, and parameters that are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss

from budgeteer.allocate.kit.calibrate import GENERAL, SPECIFIC, calibrate
from budgeteer.core.errors import InvalidInput


def answers(models, slope, intercept, seed, missing=0.0):
    rng = np.random.default_rng(seed)
    ability = rng.normal(size=(models, slope.shape[1]))
    p = 1 / (1 + np.exp(-(ability @ slope.T - intercept)))
    right = (rng.random(p.shape) < p).astype(float)
    right[rng.random(p.shape) < missing] = np.nan
    return right, ability


def bank(n, groups, seed):
    rng = np.random.default_rng(seed)
    slope = np.zeros((n, 1 + groups))
    slope[:, 0] = rng.lognormal(0, 0.4, n)
    if groups:
        slope[np.arange(n), 1 + np.arange(n) % groups] = rng.lognormal(-0.4, 0.3, n)
    return slope, rng.normal(0, 1.2, n)


def loss(right, slope, intercept, groups):
    """Penalised negative log-likelihood, summed over every combination of abilities."""
    (a, u), (b, v) = hermegauss(GENERAL), hermegauss(SPECIFIC)
    u, v = u / u.sum(), v / v.sum()
    thetas = np.array(list(itertools.product(a, *[b] * groups)))
    weights = np.array([math.prod(w) for w in itertools.product(u, *[v] * groups)])
    p = 1 / (1 + np.exp(-(thetas @ slope.T - intercept)))
    chance = [np.where(np.isnan(row), 1.0, np.where(row == 1, p, 1 - p)).prod(1) for row in right]
    total = -sum(math.log(weights @ one) for one in chance)
    prior = ((slope[:, 0] - 1) ** 2).sum() + (slope[:, 1:] ** 2).sum() + (intercept**2).sum() / 9
    return total + prior / 2


@pytest.mark.parametrize("groups", [0, 2])
def test_the_loss_is_that_of_brute_force(groups):
    slope, intercept = bank(5, groups, 3)
    right, _ = answers(6, slope, intercept, 4, missing=0.2)
    right[0] = np.nan  # a model that was asked nothing changes nothing
    right[1] = 1.0
    names = [f"g{i % groups}" for i in range(5)] if groups else None
    fit = calibrate(right, names, rounds=400, near=1e-12)
    assert fit.loss[-1] == pytest.approx(loss(right, fit.slope, fit.intercept, groups), rel=1e-6)
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(fit.loss))


def test_the_parameters_are_the_best_that_scipy_finds():
    optimize = pytest.importorskip("scipy.optimize")
    slope, intercept = bank(4, 0, 5)
    right, _ = answers(12, slope, intercept, 6)
    fit = calibrate(right, rounds=600, near=1e-12)

    def of(x):
        return loss(right, x[:4, None], x[4:], 0)

    found = optimize.minimize(of, np.array([1.0] * 4 + [0.0] * 4), method="BFGS")
    assert fit.loss[-1] == pytest.approx(found.fun, abs=1e-4)
    assert np.concatenate([fit.slope[:, 0], fit.intercept]) == pytest.approx(found.x, abs=0.02)


def test_known_parameters_are_found_from_many_models():
    slope, intercept = bank(40, 2, 7)
    right, ability = answers(800, slope, intercept, 8, missing=0.1)
    fit = calibrate(right, ["ab"[i % 2] for i in range(40)], rounds=25)
    assert np.abs(fit.intercept - intercept).mean() < 0.15
    assert np.abs(fit.slope[:, 0] - slope[:, 0]).mean() < 0.15
    assert np.abs(np.abs(fit.slope[:, 1:]) - slope[:, 1:]).mean() < 0.2
    assert np.corrcoef(fit.abilities[:, 0], ability[:, 0])[0, 1] > 0.8


def test_what_everybody_answers_has_finite_parameters():
    right = np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    fit = calibrate(right)
    assert np.isfinite(fit.slope).all()
    assert fit.intercept[0] < -0.5 < 0.5 < fit.intercept[1]


@pytest.mark.parametrize(
    ("right", "groups", "message"),
    [
        ([[1.0, 0.0]], None, "at least 2 models"),
        ([[1.0, 2.0], [0.0, 1.0]], None, r"\[0, 1\]"),
        ([[1.0, np.nan], [0.0, np.nan]], None, "1 questions have no answer"),
        ([[1.0, 0.0], [0.0, 1.0]], ["a"], "1 groups for 2 questions"),
    ],
)
def test_bad_answers_are_refused(right, groups, message):
    with pytest.raises(InvalidInput, match=message):
        calibrate(np.array(right), groups)
