"""Online allocation: worked prices, hard budgets, regret against HiGHS, the knapsack's bound."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linprog

from budgeteer.check import CheckFailed, check_online
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.evidence import dual_descent as evidence
from budgeteer.lab.evidence import online_knapsack as sacks
from budgeteer.online import dual_descent, online_knapsack


@pytest.mark.parametrize("mirror", ["euclidean", "entropy"])
@pytest.mark.parametrize("resources", [1, 3])
def test_dual_descent_keeps_the_rules(mirror, resources):
    check_online(dual_descent((300,) * resources, 400, mirror=mirror), resources=resources)


def test_online_knapsack_keeps_the_rules():
    check_online(online_knapsack(300, 0.05, 3.0))


def test_check_online_rejects_what_overspends_or_forgets():
    honest = dual_descent((300,), 400)
    free = honest._replace(step=lambda state, value, cost, share=None: (0, state))
    with pytest.raises(CheckFailed):
        check_online(free)
    greedy = honest._replace(
        step=lambda state, value, cost, share=None: (
            int(np.argmax(value)),
            type(state)((state.left[0] - cost[int(np.argmax(value))][0],), state.price),
        )
    )
    with pytest.raises(CheckFailed, match="without value"):
        check_online(greedy)
    with pytest.raises(CheckFailed, match="observe"):
        check_online(honest._replace(observe=lambda state, planned, actual: state))


# dual descent, by hand: B = (100, 40), T = 4, so the pace is (25, 10); rate 1 and scale 2: eta = 1 * 2 / (2 * pace^2),
# that is (1/625, 1/100)


def test_euclidean_prices_worked_by_hand():
    pacer = dual_descent((100, 40), 4, scale=2.0, rate=1.0)
    state = pacer.init()
    option, state = pacer.step(state, (1.0,), ((50, 5),))
    assert option == 0
    assert state.left == (50, 35)
    assert state.price == pytest.approx((25 / 625, 0.0))  # 25 too much of the first; the second stays at 0
    option, state = pacer.step(state, (3.0,), ((0, 36),))
    assert option == -1  # worth it, but only 35 are left
    assert state.left == (50, 35)
    assert state.price == pytest.approx((0.0, 26 / 100))  # the price moves all the same
    option, state = pacer.step(state, (2.0, 1.0), ((0, 10), (0, 0)))  # 2 - 2.6 < 1
    assert option == 1
    assert state.price == pytest.approx((0.0, 0.16))


def test_entropy_prices_worked_by_hand():
    pacer = dual_descent((100,), 4, scale=1.0, rate=1.0, mirror="entropy", price=(0.02,))
    option, state = pacer.step(pacer.init(), (2.0,), ((50,),))
    assert option == 0
    assert state.price[0] == pytest.approx(0.02 * math.exp(0.5 * 25 / 25))
    option, state = pacer.step(state, (0.0,), ((10,),))
    assert option == -1
    assert state.price[0] == pytest.approx(0.02)  # saved one pace: exp(-0.5)
    for _ in range(100):
        _, state = pacer.step(state, (0.0,), ((10,),))
    assert state.price == (0.01,)  # scale / budget: it does not get lost at 0


def test_one_huge_request_does_not_overflow_the_price():
    pacer = dual_descent((100,), 4, mirror="entropy")
    option, state = pacer.step(pacer.init(), (1e9,), ((1e7,),))
    assert option == -1
    assert math.isfinite(state.price[0])


def test_observe_books_the_difference_and_moves_the_price_as_if_known():
    pacer = dual_descent((100,), 4, rate=1.0)
    _, state = pacer.step(pacer.init(), (1.0,), ((50,),))
    seen = pacer.observe(state, (50,), (80,))
    _, direct = pacer.step(pacer.init(), (1.0,), ((80,),))
    assert seen.left == direct.left == (20,)
    assert seen.price == pytest.approx(direct.price)
    over = pacer.observe(seen, (0,), (30,))
    assert over.left == (-10,)  # booked, not dropped
    assert pacer.step(over, (1e6,), ((1,),))[0] == -1


def test_shares_of_the_clock_pace_an_unknown_number_of_requests():
    """A day of 5,000 requests where 1,000 were expected, each worth U(0, 1) and costing 1 of a budget of 500."""
    rng = np.random.default_rng(0)
    times, values = np.sort(rng.random(5000)), rng.random(5000).tolist()
    spent = {}
    for clock in (True, False):
        pacer = dual_descent((500,), 1000)
        state, half, total, last = pacer.init(), 0, 0.0, 0.0
        for time, value in zip(times.tolist(), values, strict=True):
            share = time - last if clock else None
            last = time
            option, state = pacer.step(state, (value,), ((1,),), share=share)
            total += value if option == 0 else 0
            if time < 0.5:
                half = 500 - state.left[0]
        spent[clock] = half, total
    assert 220 <= spent[True][0] <= 280  # half of the budget by noon
    assert spent[False][0] > 450
    assert spent[True][1] > 0.97 * sum(sorted(values)[-500:])
    assert spent[False][1] < 0.85 * sum(sorted(values)[-500:])


amounts = st.integers(1, 1000)


@settings(max_examples=100, deadline=None)
@given(
    budget=st.lists(amounts, min_size=1, max_size=3),
    stream=st.lists(
        st.lists(st.tuples(st.floats(0, 10), st.lists(st.integers(0, 400), min_size=3, max_size=3)), max_size=3),
        max_size=40,
    ),
    mirror=st.sampled_from(["euclidean", "entropy"]),
)
def test_no_budget_is_ever_exceeded(budget, stream, mirror):
    pacer = dual_descent(tuple(budget), 20, mirror=mirror)
    state, spent = pacer.init(), np.zeros(len(budget), np.int64)
    for menu in stream:
        option, state = pacer.step(state, [v for v, _ in menu], [c[: len(budget)] for _, c in menu])
        if option >= 0:
            spent += menu[option][1][: len(budget)]
        assert np.all(spent <= budget)
        assert state.left == tuple((np.array(budget) - spent).tolist())  # integers stay exact


def test_a_state_continues_after_json():
    pacer = dual_descent((50.0, 9.0), 30)
    rng = np.random.default_rng(1)
    menus = [(rng.random(2).tolist(), rng.random((2, 2)).tolist()) for _ in range(30)]
    state = pacer.init()
    whole = []
    for menu in menus:
        option, state = pacer.step(state, *menu)
        whole.append(option)
    state, parts = pacer.init(), []
    for menu in menus:
        state = load_state(pacer.init(), json.loads(json.dumps(dump_state(state))))
        option, state = pacer.step(state, *menu)
        parts.append(option)
    assert parts == whole


@pytest.mark.parametrize(
    "call",
    [
        lambda: dual_descent((), 4),
        lambda: dual_descent((0,), 4),
        lambda: dual_descent((math.nan,), 4),
        lambda: dual_descent((1,), 0),
        lambda: dual_descent((1,), 4, scale=-1),
        lambda: dual_descent((1,), 4, mirror="kl"),
        lambda: dual_descent((1,), 4, price=(1, 2)),
        lambda: dual_descent((1,), 4).step(dual_descent((1,), 4).init(), (1,), ((-1,),)),
        lambda: dual_descent((1,), 4).step(dual_descent((1,), 4).init(), (1,), ((math.nan,),)),
        lambda: dual_descent((1,), 4).step(dual_descent((1,), 4).init(), (1,), ((1, 1),)),
        lambda: dual_descent((1,), 4).step(dual_descent((1,), 4).init(), (1, 2), ((1,),)),
        lambda: dual_descent((1,), 4).step(dual_descent((1,), 4).init(), (1,), ((1,),), share=-0.1),
        lambda: online_knapsack(0, 1, 2),
        lambda: online_knapsack(1, 0, 2),
        lambda: online_knapsack(1, 3, 2),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(InvalidInput):
        call()


# the optimum that regret is measured against


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_is_that_of_the_full_linear_program(seed):
    value, cost, budget = evidence.requests("independent", 256, seed)
    rows, d, m = cost.shape
    once = sparse.kron(sparse.eye(rows), np.ones((1, d)))
    limits = sparse.vstack([once, sparse.csr_matrix(cost.reshape(rows * d, m).T)]).tocsr()
    whole = linprog(-value.ravel(), A_ub=limits, b_ub=np.r_[np.ones(rows), budget], method="highs")
    assert evidence.optimum(value, cost, budget)[0] == pytest.approx(-whole.fun, rel=2e-5)
    assert evidence.optimum(value, cost, budget)[0] >= -whole.fun - 1e-7


def test_regret_slopes_can_fail():
    sizes = (64, 256, 1024)
    assert evidence.growth("independent", sizes=sizes, seeds=6).estimate < 0.7
    assert evidence.growth("independent", "greedy", sizes=sizes, seeds=4).verdict == "refuted here"


def test_alpha_regret_can_fail():
    assert evidence.alpha_regret("rising", "euclidean", sizes=(4096,), seeds=3).verdict == "shown"
    assert evidence.alpha_regret("rising", "greedy", sizes=(16384,), seeds=3).verdict == "refuted here"
    assert evidence.plain_regret("stairs", sizes=(1024, 4096), seeds=3).verdict == "shown"


@pytest.mark.parametrize("how", ["euclidean", "entropy"])
@pytest.mark.parametrize("stream", ["independent", "trend"])
def test_the_compiled_copy_collects_what_the_method_does(how, stream):
    value, cost, budget = evidence.requests(stream, 1024, 3)
    for shares in (None, np.random.default_rng(0).dirichlet(np.ones(1024))):
        own = evidence.play(evidence.make(how, budget, 1024, 0.7), value, cost, budget, shares)
        assert evidence.collect(how, value, cost, budget, 0.7, shares) == pytest.approx(own, rel=1e-12)


def test_the_drift_deviates_by_two_roots():
    size, seeds = 4096, 400
    high = np.mean([evidence.level("drifting", size, np.random.default_rng(s)) > 1 for s in range(seeds)], axis=0)
    smooth = high.reshape(64, -1).mean(axis=1)
    assert np.abs(smooth - smooth.mean()).sum() * size / 64 == pytest.approx(2 * size**0.5, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=40, max_size=200), alpha=st.sampled_from([2, 4]))
def test_any_sequence_keeps_the_adversarial_bound(values, alpha):
    """OPT / alpha - R <= beta + sqrt(T) (G^2 rate / 2 + 1 / (2 rate)): unit costs at alpha times the pace."""
    size, rate = len(values), 0.5
    pacer = dual_descent((size / alpha,), size, rate=rate)
    state, got = pacer.init(), 0.0
    for value in values:
        option, state = pacer.step(state, (value,), ((1,),))
        got += value if option == 0 else 0.0
    best = sum(sorted(values)[-math.ceil(size / alpha) :])
    square = max(1, alpha - 1) ** 2
    assert best / alpha - got <= alpha + math.sqrt(size) * (rate * square / 2 + 1 / (2 * rate)) + 1e-9


# online knapsack


def test_threshold_worked_by_hand():
    # L = 1, U = e: Psi(z) = (e^2)^z / e, so Psi(1/2) = 1 and Psi(1) = e
    method = online_knapsack(10, 1.0, math.e)
    half = method.observe(method.init(), (0,), (5,))
    assert method.step(half, (1.001,), ((1,),))[0] == 0
    assert method.step(half, (0.999,), ((1,),))[0] == -1
    assert method.step(half, (6,), ((6,),))[0] == -1  # does not fit
    # of a menu, the most valuable above the threshold, not the densest
    assert method.step(half, (2.0, 3.0, 3.5), ((1,), (2,), (4,)))[0] == 1


@settings(max_examples=50, deadline=None)
@given(
    density=st.lists(st.floats(1, 20), min_size=1, max_size=400),
    spread=st.sampled_from([2.0, 20.0]),
)
def test_any_stream_of_small_items_keeps_the_bound(density, spread):
    items = 100
    density = np.clip(density, 1, spread)
    got = run(density, items, spread)
    assert sacks.best(density, items) / got <= (math.log(spread) + 1) * (1 + 2 / items * math.log(spread) + 1 / items)


def run(density, items, high):
    method = online_knapsack(items, 1.0, high)
    state, total = method.init(), 0.0
    for value in density.tolist():
        option, state = method.step(state, (value,), ((1.0,),))
        total += value if option == 0 else 0.0
    return total


@pytest.mark.parametrize("seed", range(3))
def test_menus_keep_their_bound(seed):
    """Menus of three options against the linear program in hindsight."""
    rng = np.random.default_rng(seed)
    rows, budget, high = 600, 200.0, 20.0
    cost = rng.uniform(0.2, 1.5, (rows, 3))
    value = cost * np.exp(rng.uniform(0, math.log(high), (rows, 3)) * np.linspace(0, 1, rows)[:, None])
    best, _ = evidence.optimum(value, cost[..., None], np.array([budget]))
    method = online_knapsack(budget, 1.0, high)
    got = evidence.play(method, value, cost[..., None], np.array([budget]))
    assert best / got <= math.log(high) + 2


def test_knapsack_verdicts_can_fail():
    assert sacks.ratio("rising", seeds=3).verdict == "shown"
    assert sacks.tight(seeds=3).verdict == "shown"
    assert sacks.ratio("rising", accept_all=True, seeds=3).verdict == "refuted here"


@pytest.mark.parametrize("worth", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", [dual_descent((300,), 400), online_knapsack(300, 0.05, 3.0)])
def test_values_that_are_not_finite_are_refused(method, worth):
    with pytest.raises(InvalidInput, match="value"):
        method.step(method.init(), (0.5, worth), ((1,), (1,)))
    with pytest.raises(InvalidInput):
        method.observe(method.init(), (1.0,), (worth,))


def test_check_online_rejects_what_takes_any_value():
    honest = online_knapsack(300, 0.05, 3.0)

    def credulous(state, value, cost, share=None):
        value = [0.0 if math.isnan(v) else min(v, 1e9) for v in value]
        return honest.step(state, value, cost)

    with pytest.raises(CheckFailed, match="value of nan"):
        check_online(honest._replace(step=credulous))


@pytest.mark.parametrize("horizon", [0, math.nan, math.inf])
def test_a_horizon_that_never_ends_is_refused(horizon):
    with pytest.raises(InvalidInput, match="horizon"):
        dual_descent((300,), horizon)
