"""Joint choices: RCO against brute force, pivotal rounding by exact enumeration, matching, load balance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, milp
from scipy.stats import chisquare

from budgeteer.allocate import pivotal
from budgeteer.core.errors import InvalidInput
from budgeteer.joint import riemannian
from budgeteer.joint._riemannian import (
    cells,
    expected_cost,
    gumbel_pairs,
    normal,
    project,
    retract,
    round_choices,
    softmax,
)
from budgeteer.lab.evidence import load_balance as load_evidence
from budgeteer.lab.evidence import pivotal as pivotal_evidence
from budgeteer.lab.evidence import riemannian as rco_evidence
from budgeteer.online import load_balance, online_matching

# RCO's geometry


@pytest.fixture
def manifold():
    rng = np.random.default_rng(0)
    cost = rng.uniform(1, 5, (6, 4))
    return rng.normal(size=(6, 4)), cost, 17.0


def test_normal_is_the_gradient_of_the_expected_cost(manifold):
    logits, cost, _ = manifold
    by_hand = approx_fprime(logits.ravel(), lambda a: expected_cost(a.reshape(6, 4), cost), 1e-7)
    assert np.allclose(normal(logits, cost).ravel(), by_hand, atol=1e-5)


def test_normal_worked_by_hand():
    # p = (1/4, 3/4), costs (0, 4): E = 3, n = (1/4 * -3, 3/4 * 1)
    logits, cost = np.log(np.array([[1.0, 3.0]])), np.array([[0.0, 4.0]])
    assert np.allclose(normal(logits, cost), [[-0.75, 0.75]])
    assert project(np.array([[1.0, 0.0]]), normal(logits, cost)) == pytest.approx(np.array([[0.5, 0.5]]))
    # p_2 = e^{4 t} * 3 / (1 + 3 e^{4 t}) = 1/2 at t = -log(3) / 4
    assert np.allclose(retract(logits, cost, 2.0), logits - np.log(3) / 4 * cost)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.001, 0.999), scale=st.sampled_from([0.1, 1.0, 30.0, 1000.0]))
def test_retraction_meets_the_budget_and_projection_is_tangent(seed, share, scale):
    rng = np.random.default_rng(seed)
    logits, cost = scale * rng.normal(size=(5, 3)), rng.uniform(0, 9, (5, 3))
    least, most = cost.min(axis=1).sum(), cost.max(axis=1).sum()
    budget = least + share * (most - least)
    moved = retract(logits, cost, budget)
    assert expected_cost(moved, cost) == pytest.approx(budget, rel=1e-7)
    away = normal(moved, cost)
    tangent = project(rng.normal(size=(5, 3)), away)
    assert abs((tangent * away).sum()) < 1e-9


def test_gumbel_pairs_choose_in_proportion_and_negated_ones_do_not():
    p, draws = np.array([0.6, 0.3, 0.1]), 100_000
    g = gumbel_pairs(2 * draws, (3,), np.random.default_rng(0))
    for half in (g[:draws], g[draws:]):
        assert chisquare(np.bincount(np.argmax(np.log(p) + half, axis=1)), p * draws).pvalue > 1e-3
    wrong = np.bincount(np.argmax(np.log(p) - g[:draws], axis=1))
    assert chisquare(wrong, p * draws).pvalue < 1e-12
    assert np.corrcoef(g[:draws].ravel(), g[draws:].ravel())[0, 1] < -0.7


# RCO's rounding


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 0.99), whole=st.booleans())
def test_rounding_is_the_knapsack_of_brute_force(seed, share, whole):
    rng = np.random.default_rng(seed)
    n, k = 4, 3
    cost = rng.integers(0, 9, (n, k)).astype(float) if whole else rng.uniform(0, 9, (n, k))
    score = rng.normal(size=(2, n, k))
    least, most = cost.min(axis=1).sum(), cost.max(axis=1).sum()
    budget = least + share * (most - least)
    if not least < budget:
        return
    every = np.array(list(itertools.product(range(k), repeat=n)))
    spent = cost[np.arange(n), every].sum(axis=1)
    for one, choice in zip(score, round_choices(score, *cells(cost, budget)), strict=True):
        assert cost[np.arange(n), choice].sum() <= budget + 1e-9
        worth = one[np.arange(n), every].sum(axis=1)
        got = one[np.arange(n), choice].sum()
        assert got <= worth[spent <= budget + 1e-9].max() + 1e-12
        # cells round up: at least the best of what leaves four cells, of a millionth each, free
        slack = 0.0 if whole else n * (budget - least) / 1_000_000
        assert got >= worth[spent <= budget - slack + 1e-12].max(initial=-np.inf) - 1e-12


def test_rounding_against_a_mixed_integer_program():
    rng = np.random.default_rng(3)
    n, k = 30, 5
    cost, score = rng.integers(1, 40, (n, k)).astype(float), rng.normal(size=(n, k))
    budget = 500
    once = np.kron(np.eye(n), np.ones(k))
    found = milp(
        -score.ravel(),
        integrality=np.ones(n * k),
        bounds=(0, 1),
        constraints=[(once, 1, 1), (cost.ravel()[None], 0, budget)],
    )
    (choice,) = round_choices(score[None], *cells(cost, budget))
    assert score[np.arange(n), choice].sum() == pytest.approx(-found.fun)


# RCO as a whole


@pytest.mark.parametrize("seed", range(3))
def test_separate_groups_give_the_exact_optimum_and_interacting_ones_the_brute_force_one(seed):
    for strength in (0.0, 0.5):
        loss, cost, error, budget = rco_evidence.problem(seed, (6, 3), strength)
        found = riemannian(loss, cost, budget, -error, rng=np.random.default_rng(seed))
        assert found.loss == pytest.approx(rco_evidence.brute(loss, cost, budget))
        assert cost[np.arange(6), found.choice].sum() <= budget
        assert expected_cost(found.logits, cost) == pytest.approx(budget, rel=1e-9)
        assert found.calls == 801


def test_brute_force_is_right():
    loss, cost, _, budget = rco_evidence.problem(0, (4, 3), 1.0)
    every = [np.array(c) for c in itertools.product(range(3), repeat=4)]
    values = [loss(np.eye(3)[c])[0] for c in every if cost[np.arange(4), c].sum() <= budget]
    assert rco_evidence.brute(loss, cost, budget) == pytest.approx(min(values))


def test_every_sample_fits_the_budget():
    rng = np.random.default_rng(5)
    cost, table = rng.uniform(0, 7, (9, 4)), rng.normal(size=(9, 4))
    budget, spent = 25.3, []

    def loss(y):
        assert np.array_equal(np.sort(y, axis=1)[:, -2:], np.tile([0.0, 1.0], (9, 1)))
        spent.append(float((y * cost).sum()))
        return float((y * table).sum()), table

    riemannian(loss, cost, budget, np.zeros((9, 4)), rng=rng, steps=40)
    assert max(spent) <= budget


def test_torch_gives_what_numpy_gives():
    torch = pytest.importorskip("torch")
    loss, cost, error, budget = rco_evidence.problem(1, (6, 3), 0.5)
    pair = torch.tensor(np.stack([loss(e.reshape(6, 3))[1].ravel() - error.ravel() for e in np.eye(18)]))
    alone = torch.tensor(error)

    def by_autograd(y):
        y = y.requires_grad_()
        value = (y * alone).sum() + y.ravel() @ pair @ y.ravel() / 2
        value.backward()
        return float(value.detach()), y.grad

    ours = riemannian(loss, cost, budget, -error, rng=np.random.default_rng(0), steps=30)
    theirs = riemannian(by_autograd, cost, budget, torch.tensor(-error), rng=np.random.default_rng(0), steps=30)
    assert isinstance(theirs.logits, torch.Tensor)
    assert np.allclose(theirs.logits.numpy(), ours.logits, atol=1e-6)
    assert theirs.choice.tolist() == ours.choice.tolist()
    assert theirs.loss == pytest.approx(ours.loss)
    assert np.allclose(softmax(theirs.logits).numpy(), softmax(ours.logits), atol=1e-6)


@pytest.mark.slow
def test_rco_verdicts_can_fail(monkeypatch):
    assert rco_evidence.against_proxy(0.5, (20, 5), "choice", seeds=4).verdict == "shown"
    honest = rco_evidence.riemannian
    monkeypatch.setattr(
        rco_evidence,
        "riemannian",
        lambda loss, *args, **kwargs: honest(lambda y: (loss(y)[0], -loss(y)[1]), *args, **kwargs),
    )  # uphill
    assert rco_evidence.against_proxy(0.5, (20, 5), "choice", seeds=4).verdict == "refuted here"


def test_single_precision_meets_the_budget_as_well_as_it_can():
    torch = pytest.importorskip("torch")
    logits, cost = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(24.0).reshape(6, 4)
    assert expected_cost(retract(logits, cost, 70.0), cost) == pytest.approx(70, rel=1e-3)


def test_a_loss_that_is_not_finite_is_refused():
    cost = np.array([[1.0, 3.0]] * 3)
    with pytest.raises(InvalidInput, match="finite"):
        riemannian(lambda y: (float("nan"), y), cost, 5.0, np.zeros((3, 2)), rng=np.random.default_rng(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_or_a_start_that_is_not_finite_is_refused(bad):
    cost, start = np.array([[1.0, 3.0]] * 3), np.zeros((3, 2))
    wrong = np.array([[0.0, bad]] * 3)
    with pytest.raises(InvalidInput, match="gradient"):
        riemannian(lambda y: (1.0, wrong), cost, 5.0, start, rng=np.random.default_rng(0))
    with pytest.raises(InvalidInput, match="start"):
        riemannian(lambda y: (1.0, y), cost, 5.0, wrong, rng=np.random.default_rng(0))
    torch = pytest.importorskip("torch")
    with pytest.raises(InvalidInput, match="gradient"):
        riemannian(lambda y: (1.0, torch.tensor(wrong)), cost, 5.0, torch.tensor(start), rng=np.random.default_rng(0))
    for arguments in ({"rate": bad}, {"temperature": (bad, 0.1)}, {"steps": 1.5}, {"samples": 0}):
        with pytest.raises(InvalidInput):
            riemannian(lambda y: (1.0, y), cost, 5.0, start, rng=np.random.default_rng(0), **arguments)


@pytest.mark.parametrize("budget", [0.0, 3.0, 9.0, 50.0, np.nan, np.inf])
def test_a_budget_without_a_choice_is_refused(budget):
    with pytest.raises(InvalidInput, match="between"):
        riemannian(
            lambda y: (0.0, y), np.array([[1.0, 3.0]] * 3), budget, np.zeros((3, 2)), rng=np.random.default_rng(0)
        )


# pivotal sampling


class Scripted:
    """A generator whose uniform draws are given, so that all outcomes can be enumerated."""

    def __init__(self, draws):
        self.draws = draws

    def random(self, n):
        assert n == len(self.draws)
        return np.array(self.draws)


def distribution(p, levels=20):
    """Exact joint distribution for chances that are multiples of 1 / levels and thresholds that fall on a fine grid."""
    found = {}
    grid = (np.arange(levels) + 0.5) / levels
    for draws in itertools.product(grid, repeat=len(p) - 1):
        chosen = tuple(pivotal(np.array(p), Scripted([0.5, *draws, 0.5])).tolist())
        found[chosen] = found.get(chosen, 0) + 1 / levels ** (len(p) - 1)
    return found


@pytest.mark.parametrize(
    # each meeting's threshold, a / s or (1 - b) / (2 - s), is a multiple of 1 / 20 whatever came before
    ("p", "total"),
    [((0.5, 0.5), 1), ((0.2, 0.3, 0.5), 1), ((0.8, 0.7, 0.5), 2), ((0.5, 0.5, 0.5, 0.5), 2)],
)
def test_pivotal_marginals_are_exact_by_enumeration(p, total):
    found = distribution(p)
    assert sum(found.values()) == pytest.approx(1)
    assert {sum(chosen) for chosen in found} == {total}
    for i in range(len(p)):
        assert sum(w for chosen, w in found.items() if chosen[i]) == pytest.approx(p[i])
    for i, j in itertools.combinations(range(len(p)), 2):
        both = sum(w for chosen, w in found.items() if chosen[i] and chosen[j])
        assert both <= p[i] * p[j] + 1e-12


def test_pivotal_worked_by_hand():
    p = np.array([0.2, 0.3, 0.5])
    # 0.2 against 0.3: the first goes on with chance 0.4; then 0.5 against 0.5
    assert pivotal(p, Scripted([0, 0.39, 0.49, 0])).tolist() == [True, False, False]
    assert pivotal(p, Scripted([0, 0.41, 0.49, 0])).tolist() == [False, True, False]
    assert pivotal(p, Scripted([0, 0.41, 0.51, 0])).tolist() == [False, False, True]
    # 0.8 against 0.7: the first is in with chance 0.3 / 0.5, and the second goes on with 0.5
    q = np.array([0.8, 0.7, 0.5])
    assert pivotal(q, Scripted([0, 0.59, 0.49, 0])).tolist() == [True, True, False]
    assert pivotal(q, Scripted([0, 0.61, 0.51, 0])).tolist() == [False, True, True]


def test_pivotal_frequencies_pass_chi_square_with_a_fraction_left():
    p, draws, rng = np.array([0.15, 0.9, 0.4, 0.33, 0.6, 0.07]), 40_000, np.random.default_rng(1)
    got = np.array([pivotal(p, rng) for _ in range(draws)])
    assert set(got.sum(axis=1)) == {2, 3}  # 2.45
    for i in range(6):
        yes = got[:, i].sum()
        assert chisquare([yes, draws - yes], [p[i] * draws, (1 - p[i]) * draws]).pvalue > 1e-4
    cover = np.cov(got.T)
    assert np.all(cover[~np.eye(6, dtype=bool)] < 4 * 0.25 / np.sqrt(draws))
    assert cover.sum() == pytest.approx(0.45 * 0.55, rel=0.05)  # variance of the size


@settings(max_examples=200, deadline=None)
@given(p=st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.1, 1e-13])), max_size=40))
def test_pivotal_size_is_the_sum_up_to_rounding(p):
    chosen = pivotal(np.array(p), np.random.default_rng(0))
    assert np.floor(sum(p) - 1e-9) <= chosen.sum() <= np.ceil(sum(p) + 1e-9)
    assert all(c for c, x in zip(chosen, p, strict=True) if x == 1)
    assert not any(c for c, x in zip(chosen, p, strict=True) if x == 0)


def test_pivotal_of_tenths_has_a_fixed_size_in_spite_of_rounding():
    for seed in range(200):
        assert pivotal(np.full(1000, 0.1), np.random.default_rng(seed)).sum() == 100


@pytest.mark.parametrize("p", [[-0.1], [1.1], [np.nan], [[0.5]]])
def test_pivotal_refuses_what_is_no_chance(p):
    with pytest.raises(InvalidInput):
        pivotal(np.array(p), np.random.default_rng(0))


# online matching


@pytest.mark.parametrize("seed", range(10))
def test_the_matching_bound_is_above_the_best_online_method(seed):
    value, chance = pivotal_evidence.instance(seed)
    best, plan = pivotal_evidence.best_online(value, chance), online_matching(value, chance)
    assert best <= plan.bound + 1e-9
    assert np.all((plan.propose >= 0) & (plan.propose <= 1))
    rng = np.random.default_rng(seed)
    runs = [pivotal_evidence.serve(plan, chance, rng, False) for _ in range(300)]
    assert np.mean(runs) <= best + 4 * np.std(runs) / np.sqrt(300)
    assert np.mean(runs) >= 0.678 * best


def test_best_online_worked_by_hand():
    # one resource: take 1 now, or wait for 3 with chance 1/2
    assert pivotal_evidence.best_online(np.array([[1.0, 3.0]]), np.array([1.0, 0.5])) == 1.5
    assert pivotal_evidence.best_online(np.array([[2.0, 3.0]]), np.array([1.0, 0.5])) == 2.0


def test_a_taken_resource_is_not_matched_again():
    plan = online_matching(np.array([[1.0, 1.0], [0.5, 0.9]]), np.array([1.0, 1.0]))
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert plan.serve(1, np.array([False, False]), rng) == -1
        assert plan.serve(1, np.array([False, True]), rng) in (-1, 1)


def test_matching_refuses_bad_input():
    for value, chance in (([[1.0]], [0.0]), ([[1.0]], [0.5, 0.5]), ([[-1.0]], [0.5]), ([1.0], [1.0])):
        with pytest.raises(InvalidInput):
            online_matching(np.array(value), np.array(chance))


# load balance


def test_bias_updates_worked_by_hand():
    sign, proportional = load_balance(1, 0.1), load_balance(1, 0.1, "proportional")
    load = np.array([6, 3, 0])  # mean 3
    assert np.allclose(sign.observe(sign.init(3), load).bias, [-0.1, 0, 0.1])
    assert np.allclose(proportional.observe(proportional.init(3), load).bias, [-0.1, 0, 0.1])
    uneven = np.array([5, 1, 0])  # mean 2: signs -1, 1, 1 have mean 1/3; errors -1.5, 0.5, 1 have mean 0
    assert np.allclose(sign.observe(sign.init(3), uneven).bias, 0.1 * (np.array([-1, 1, 1]) - 1 / 3))
    assert np.allclose(proportional.observe(proportional.init(3), uneven).bias, [-0.15, 0.05, 0.1])
    slower = load_balance(1, 0.1, decay=0.5)
    state = slower.observe(slower.observe(slower.init(3), load), load)
    assert np.allclose(state.bias, np.array([-0.1, 0, 0.1]) * (1 + 2**-0.5))
    assert sign.observe(state, np.zeros(3)) is state


def test_the_bias_chooses_and_never_weighs():
    rng = np.random.default_rng(0)
    router = load_balance(3, 0.5)
    state, scores = router.init(8), rng.random((50, 8))
    for _ in range(20):
        chosen, weight = router.route(state, scores)
        assert np.array_equal(weight, np.take_along_axis(scores, chosen, axis=1))
        assert all(len(set(row)) == 3 for row in chosen.tolist())
        biased = scores + state.bias
        left_out = np.sort(biased, axis=1)[:, :-3]
        assert np.all(np.take_along_axis(biased, chosen, axis=1).min(axis=1) >= left_out.max(axis=1))
        state = router.observe(state, np.bincount(chosen.ravel(), minlength=8))
        assert abs(state.bias.sum()) < 1e-9


def test_loads_converge_on_the_same_tokens_to_those_of_the_even_assignment():
    rng = np.random.default_rng(1)
    scores = rng.random((400, 4)) + np.array([1.0, 0.3, 0.0, -0.5])
    router = load_balance(1, 0.3, "proportional", decay=0.6)
    state = router.init(4)
    for _ in range(3000):
        chosen, weight = router.route(state, scores)
        load = np.bincount(chosen.ravel(), minlength=4)
        state = router.observe(state, load)
    assert np.abs(load - 100).max() <= 3
    even = load_evidence_best(scores)
    assert float(weight.sum()) == pytest.approx(even, rel=0.01)


def load_evidence_best(scores):
    from scipy.optimize import linear_sum_assignment

    slots = np.repeat(scores, 100, axis=1)  # a hundred places an expert
    return float(slots[linear_sum_assignment(slots, maximize=True)].sum())


def test_load_verdicts_can_fail(monkeypatch):
    monkeypatch.setattr(load_evidence, "STEPS", 200)
    assert load_evidence.violation("proportional", rate=0.03, seeds=2).estimate < 0.35
    assert load_evidence.violation("none", seeds=2).estimate > 1
    assert load_evidence.preference(seeds=2).estimate == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: load_balance(0),
        lambda: load_balance(1, -1),
        lambda: load_balance(1, rule="loss"),
        lambda: load_balance(3).init(2),
        lambda: load_balance(1).route(load_balance(1).init(2), np.ones((4, 3))),
        lambda: load_balance(1).observe(load_balance(1).init(2), np.ones(3)),
        lambda: load_balance(1).observe(load_balance(1).init(2), np.array([np.nan, 1.0])),
        lambda: load_balance(1).observe(load_balance(1).init(2), np.array([np.inf, 1.0])),
        lambda: load_balance(1).observe(load_balance(1).init(2), np.array([-1.0, 3.0])),
        lambda: load_balance(1).route(load_balance(1).init(2), np.array([[0.5, np.nan]])),
        lambda: load_balance(1).route(load_balance(1).init(2), np.array([[0.5, np.inf]])),
        lambda: load_balance(1.5),
    ],
)
def test_load_balance_refuses_bad_input(call):
    with pytest.raises(InvalidInput):
        call()
