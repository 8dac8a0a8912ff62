"""Thompson sampling, successive halving, optimal design: worked numbers, enumeration, and oracles of SciPy."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import beta

from budgeteer import Items, Outcomes
from budgeteer.allocate import (
    Bank,
    optimal_design,
    successive_halving,
    thompson,
    uniform,
)
from budgeteer.allocate._optimal_design import gains, information, mode
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.evidence import optimal_design as design_evidence
from budgeteer.lab.evidence import successive_halving as halving_evidence
from budgeteer.lab.evidence import thompson as thompson_evidence


def seen(**rewards):
    keys = tuple(key for key, values in rewards.items() for _ in values)
    reward = np.array([value for values in rewards.values() for value in values], dtype=np.float64)
    return Outcomes(keys, np.ones(len(keys), np.int64), reward, reward * 0, np.ones(len(keys), np.int8))


def make(cost):
    return Items(tuple("abcdefgh"[: len(cost)]), np.asarray(cost, dtype=np.float64))


def split(method, budget, items, state=None, seed=0):
    state = method.init(items) if state is None else state
    return method.allocate(budget, items, state, rng=np.random.default_rng(seed)).units.tolist()


# Thompson


def test_thompson_share_is_the_chance_of_being_best():
    """P(theta_a / 2 > theta_b / 1) for Beta(4, 2) and Beta(2, 3), by integration."""
    items, method = make([2.0, 1.0]), thompson()
    state = method.observe(method.init(items), seen(a=[1, 1, 1, 0], b=[1, 0, 0]))
    chance, _ = quad(lambda x: beta.pdf(x, 2, 3) * beta.sf(2 * x, 4, 2), 0, 1)
    # of n units, a share p costs 2 and the rest 1: a budget of B buys B / (1 + p) units
    budget = 60_000
    got = split(method, budget, items, state)
    share = got[0] / sum(got)
    assert abs(share - chance) < 4 * np.sqrt(chance * (1 - chance) / sum(got))
    assert 2 * got[0] + got[1] == budget


def test_thompson_counts_add_up_and_unknown_keys_start_at_the_prior():
    method = thompson()
    state = method.observe(method.init(make([1.0])), seen(a=[1, 0.25], z=[0]))
    state = method.observe(state, seen(a=[1]))
    right, wrong = state.of(("z", "new", "a"))
    assert right.tolist() == [0, 0, 2.25]
    assert wrong.tolist() == [1, 0, 0.75]


def test_thompson_buys_until_nothing_fits():
    for seed in range(20):
        got = split(thompson(), 25, make([10.0, 4.0]), seed=seed)
        assert 25 - (10 * got[0] + 4 * got[1]) < 4


@pytest.mark.parametrize("reward", [-0.1, 1.5, np.nan])
def test_rewards_outside_0_to_1_are_refused(reward):
    for method in (thompson(), successive_halving()):
        with pytest.raises(InvalidInput, match="reward"):
            method.observe(method.init(make([1.0])), seen(a=[reward]))


def test_thompson_verdicts_can_fail():
    assert thompson_evidence.gain(seeds=5).verdict == "shown"
    assert thompson_evidence.gain(uniform(), seeds=5).verdict != "shown"
    forgetful = thompson()._replace(observe=lambda state, outcomes: state)
    assert thompson_evidence.gain(forgetful, seeds=5).verdict != "shown"


# successive halving


def test_halving_rounds_worked_by_hand():
    # 8 items, 96 units: three rounds of 32, so 4 each, then 8 each of 4, then 16 each of 2
    items, method = Items(tuple("abcdefgh"), np.ones(8)), successive_halving()
    state, left = method.init(items), 96
    rates = dict(zip("abcdefgh", [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6], strict=True))
    plans = []
    for _ in range(3):
        units = split(method, left, items, state)
        left -= sum(units)
        plans.append(units)
        state = method.observe(state, seen(**{k: [rates[k]] * n for k, n in zip(items.keys, units, strict=True) if n}))
    assert plans == [[4] * 8, [0, 8, 0, 8, 0, 8, 0, 8], [0, 16, 0, 16, 0, 0, 0, 0]]
    assert left == 0
    assert set(items.keys) - set(state.out) == {"b"}
    assert split(method, 100, items, state) == [0] * 8  # one is left: the end


def test_halving_of_an_odd_number_keeps_the_larger_half():
    method = successive_halving()
    state = method.observe(method.init(make([1] * 5)), seen(a=[1], b=[1], c=[1], d=[0], e=[0]))
    assert state.out == ("d", "e")
    state = method.observe(state, seen(a=[1], b=[0], c=[1]))
    assert state.out == ("d", "e", "b")


def test_halving_does_not_prefer_names_at_ties():
    method, left = successive_halving(), []
    for round_ in range(300):
        state = method.observe(method.init(make([1] * 2)), seen(a=[1] * (round_ + 1), b=[1] * (round_ + 1)))
        left += set("ab") - set(state.out)
    assert 110 < left.count("a") < 190  # binomial(300, 1/2), five standard deviations


def test_halving_state_survives_json_between_rounds():
    method, items = successive_halving(), make([1] * 4)
    state = method.observe(method.init(items), seen(a=[1], b=[0], c=[1], d=[0]))
    back = load_state(method.init(items), json.loads(json.dumps(dump_state(state))))
    assert back.out == state.out
    assert split(method, 8, items, back) == [4, 0, 4, 0]


def test_halving_verdicts_can_fail(monkeypatch):
    assert halving_evidence.simple_regret("sparse", seeds=60).verdict == "shown"
    monkeypatch.setattr(halving_evidence, "halving", lambda rate, budget, rng: int(rng.integers(len(rate))))
    assert halving_evidence.simple_regret("sparse", seeds=60).verdict == "refuted here"


# optimal design


def test_gain_worked_by_hand():
    # one ability, prior variance 1, a = 2, eta = 0: k = (1 + pi / 2)^-1/2, w = k / 4, gain = 4 w / (1 + 4 w)
    k = (1 + np.pi / 2) ** -0.5
    assert information(np.array([[2.0]]), np.zeros(1), np.eye(1)) == pytest.approx(k / 4)
    assert gains(np.array([[2.0]]), np.zeros(1), np.eye(1), np.eye(1)) == pytest.approx(k / (1 + k))


def test_information_is_the_average_over_the_posterior():
    slope, v, mean = np.array([[1.5, 0.5]]), np.array([[0.8, 0.2], [0.2, 0.5]]), np.array([0.7])
    std = float(np.sqrt(slope @ v @ slope.T)[0, 0])

    def weighed(x):
        p = 1 / (1 + np.exp(-(mean[0] + std * x)))
        return p * (1 - p) * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)

    assert information(slope, mean, v)[0] == pytest.approx(quad(weighed, -9, 9)[0], rel=0.03)


def test_gain_is_the_drop_of_the_summed_variance():
    rng = np.random.default_rng(0)
    slope, mean = rng.normal(size=(5, 3)), rng.normal(size=5)
    root, aims = rng.normal(size=(3, 3)), rng.normal(size=(4, 3))
    v = root @ root.T + np.eye(3)
    w = information(slope, mean, v)
    for j in range(5):
        after = np.linalg.inv(np.linalg.inv(v) + w[j] * np.outer(slope[j], slope[j]))
        drop = sum(x @ v @ x - x @ after @ x for x in aims)
        assert gains(slope, mean, v, aims.T @ aims)[j] == pytest.approx(drop)


@pytest.mark.parametrize("seed", range(3))
def test_mode_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    slope, intercept, right = 3 * rng.normal(size=(30, 3)), rng.normal(size=30), rng.integers(0, 2, 30).astype(float)

    def loss(theta):
        eta = slope @ theta - intercept
        return np.sum(np.logaddexp(0, eta) - right * eta) + theta @ theta / 2

    theta, precision = mode(slope, intercept, right, np.eye(3))
    oracle = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
    assert loss(theta) <= oracle.fun + 1e-9
    assert np.allclose(theta, oracle.x, atol=1e-4)
    assert np.linalg.eigvalsh(precision).min() >= 1


def test_the_first_question_is_the_best_one_and_no_question_is_asked_twice():
    rng = np.random.default_rng(1)
    bank = Bank(tuple("abcdefgh"), rng.normal(size=(8, 2)), rng.normal(size=8))
    items, method = Items(bank.keys, rng.integers(1, 5, 8).astype(float)), optimal_design(bank)
    best = np.argmax(gains(bank.slope, -bank.intercept, np.eye(2), np.eye(2)) / items.cost)
    assert split(method, int(items.cost[best]), items)[best] == 1
    state = method.observe(method.init(items), seen(a=[1], c=[0]))
    assert split(method, 1000, items, state) == [0, 1, 0, 1, 1, 1, 1, 1]


def test_at_equal_costs_the_discount_changes_nothing():
    rng = np.random.default_rng(2)
    bank = Bank(tuple("abcdefgh"), rng.normal(size=(8, 2)), rng.normal(size=8))
    items = Items(bank.keys, np.full(8, 7.0))
    plans = [split(optimal_design(bank, discount=power), 21, items) for power in (0.0, 0.5, 1.0)]
    assert plans[0] == plans[1] == plans[2]
    assert sum(plans[0]) == 3


def test_cost_discount_prefers_information_per_token():
    bank = Bank(("dear", "cheap"), np.array([[1.0], [0.9]]), np.zeros(2))
    items = Items(bank.keys, np.array([30.0, 10.0]))
    assert split(optimal_design(bank, discount=0), 30, items) == [1, 0]
    assert split(optimal_design(bank, discount=1), 30, items) == [0, 1]


def test_design_state_survives_json():
    bank = Bank(("a", "b"), np.array([[1.0], [0.9]]), np.zeros(2))
    method, items = optimal_design(bank), make([1, 1])
    state = method.observe(method.init(items), seen(a=[1]))
    back = load_state(method.init(items), json.loads(json.dumps(dump_state(state))))
    assert back.asked == ("a",)
    assert np.array_equal(back.precision, state.precision)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Bank(("a", "a"), np.ones((2, 1)), np.ones(2)),
        lambda: Bank(("a",), np.ones(1), np.ones(1)),
        lambda: Bank(("a",), np.full((1, 1), np.nan), np.ones(1)),
        lambda: optimal_design(Bank(("a",), np.ones((1, 1)), np.ones(1)), discount=-1),
        lambda: optimal_design(Bank(("a",), np.ones((1, 1)), np.ones(1)), prior=-np.eye(1)),
        lambda: optimal_design(Bank(("a",), np.ones((1, 1)), np.ones(1)), targets=np.ones((1, 2))),
        lambda: split(optimal_design(Bank(("a",), np.ones((1, 1)), np.ones(1))), 5, make([1, 1])),
        lambda: thompson(prior=(0, 1)),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(InvalidInput):
        call()


def test_design_verdict_can_fail(monkeypatch):
    assert design_evidence.error("random", tokens=False, seeds=4).estimate < 0.8
    made = []

    def random_then_reader(bank, aims):  # the chooser is made first, then the reader
        made.append(bank)
        return uniform(1) if len(made) % 2 else optimal_design(bank, aims)

    monkeypatch.setattr(design_evidence, "optimal_design", random_then_reader)
    random = design_evidence.error("random", tokens=False, seeds=2)
    assert random.estimate == 1
    assert random.verdict == "refuted here"
