"""Routes: regressions and hulls against oracles, methods by hand, budgets, files and streams."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from budgeteer.core.errors import BudgeteerError, InvalidInput, UnknownName
from budgeteer.lab.routing import corrected, measure
from budgeteer.route import bandit, boundary, cascade, classifier, pareto_bandit, similarity
from budgeteer.route._boundary import _advantages
from budgeteer.route._pareto_bandit import Statistics
from budgeteer.route.evaluate import dollars, hull, prices_of, splits
from budgeteer.route.features import Features, learnt
from budgeteer.route.kit import height, logistic, rising, sigmoid
from budgeteer.route.protocol import Outcomes, best
from budgeteer.route.saved import fitted, load, reads_prompts_only, save
from budgeteer.route.table import Table, read

RNG = np.random.default_rng(0)


def outcomes(n=200, models=3, seed=0, noise=0.0):
    """Requests of a difficulty that the second feature shows; model j solves those below its strength."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n)
    x = np.column_stack([np.ones(n), hard, rng.normal(size=n)])
    strength = np.linspace(0.4, 0.95, models)
    score = ((hard[:, None] < strength) ^ (rng.random((n, models)) < noise)).astype(float)
    cost = np.tile(4.0 ** np.arange(models), (n, 1)) * (0.9 + 0.2 * rng.random((n, models)))
    return Outcomes(x, score, cost, np.where(score > 0, 0.9, 0.1))


NONE = np.full((1, 3), np.nan)

# what is shared


def test_logistic_regression_is_where_its_gradient_is_zero():
    x, y = np.column_stack([np.ones(50), RNG.normal(size=(50, 3))]), RNG.random(50)
    weight = RNG.random(50)
    w = logistic(x, y, 0.7, weight)
    np.testing.assert_allclose(x.T @ (weight * (sigmoid(x @ w) - y)) + 0.7 * w, 0, atol=1e-6)
    assert sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("seed", range(5))
def test_rising_steps_are_the_isotonic_regression(seed):
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.integers(0, 12, 30) / 4.0), rng.random(30)
    names, places, counts = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(places, y) / counts
    wanted = optimize.isotonic_regression(means, weights=counts).x
    steps = rising(x, y)
    np.testing.assert_allclose(height(steps, names), wanted)
    assert height(steps, np.array([-9.0]))[0] == pytest.approx(wanted[0])


def test_the_hull_is_the_best_mix_of_two_models():
    linprog = pytest.importorskip("scipy.optimize").linprog
    for seed in range(10):
        rng = np.random.default_rng(seed)
        score, cost = rng.random((6, 4)), rng.random((6, 4))
        made = Outcomes(np.ones((6, 1)), score, cost, score * np.nan)
        for budget in (0.1, 0.4, 0.6, 2.0):
            found = linprog(-score.mean(0), A_ub=[cost.mean(0), np.ones(4)], b_ub=[budget, 1.0])
            assert hull(made, budget) == pytest.approx(-found.fun, abs=1e-9)


def test_of_equal_values_the_cheaper_model_is_taken():
    at = best(np.array([[0.5, 0.5, 0.4]]), np.array([[2.0, 1.0, 0.0]]))
    assert at(0.0).final.tolist() == [1]
    assert at(0.0).paid.tolist() == [[False, True, False]]
    assert at(0.2).final.tolist() == [2]  # 0.1, 0.3, 0.4


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"x": np.ones((2, 1)) * np.inf}, "give finite ones"),
        ({"x": np.ones((0, 1))}, "at least one request"),
        ({"score": np.ones((2, 1)), "cost": np.ones((2, 1)), "signal": np.ones((2, 1))}, "two models or more"),
        ({"score": np.full((2, 2), 1.5)}, "scores are from 0 to 1"),
        ({"cost": np.full((2, 2), -1.0)}, "finite numbers from 0"),
        ({"cost": np.ones((3, 2))}, r"give \[n, m\] of each"),
    ],
)
def test_outcomes_that_are_none_are_refused(change, why):
    given = {"x": np.ones((2, 1)), "score": np.ones((2, 2)), "cost": np.ones((2, 2)), "signal": np.ones((2, 2))}
    with pytest.raises(InvalidInput, match=why):
        Outcomes(**{**given, **change})


# features and tables


def test_features_are_made_of_the_training_rows():
    made = learnt({"prompt": ("a b", "c"), "size": (1.0, 3.0), "task": ("x", "y"), "id": (1.0, 2.0)}, ["id"])
    assert made == Features(True, {"size": (2.0, 1.0)}, {"task": ("x", "y")})
    first = made.of({"prompt": ["a b"], "size": [5.0], "task": ["x"]})
    other = made.of({"prompt": ["A  b"], "size": [5.0], "task": ["never seen"]})
    assert first.shape == (1, 1 + 128 + 3 + 1 + 2)
    assert first[0, 0] == 1.0
    assert first[0, -3:].tolist() == [3.0, 1.0, 0.0]
    assert other[0, -2:].tolist() == [0.0, 0.0]
    assert np.abs(first[0, 1:129]).sum() == pytest.approx(math.sqrt(2))  # two words of length 1 together
    np.testing.assert_array_equal(first[0, 1:129], other[0, 1:129])
    assert Features.from_json(json.loads(json.dumps(made.to_json()))) == made
    with pytest.raises(InvalidInput, match="reads size, task, which"):
        made.of({"prompt": ["a"]})
    with pytest.raises(InvalidInput, match="no column describes"):
        learnt({"id": (1, 2)}, ["id"])
    with pytest.raises(InvalidInput, match="no column 'idd' to leave out; the requests have id"):
        learnt({"id": (1, 2)}, ["idd"])


def test_a_text_that_is_another_one_in_most_rows_is_no_category():
    few, many = (f"q{i % 30}" for i in range(40)), tuple(f"q{i % 31}" for i in range(40))
    assert len(learnt({"question": tuple(few)}).categories["question"]) == 30
    with pytest.raises(
        InvalidInput, match="'question' has 31 values in 40 rows, too many for a category; call it prompt"
    ):
        learnt({"question": many})
    assert learnt({"prompt": many, "question": many}, ["question"]).categories == {}


def test_tables_are_read_from_csv_and_json_lines(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("task,score:a,score:b,cost:a,cost:b,signal:a\nx,1,0.5,0.1,2,0.3\ny,0,1,0.2,3,0.4\n")
    table = read(str(path))
    assert table.models == ("a", "b")
    assert (table.score.tolist(), table.cost.tolist()) == ([[1, 0.5], [0, 1]], [[0.1, 2], [0.2, 3]])
    assert table.signal[:, 0].tolist() == [0.3, 0.4]
    assert np.isnan(table.signal[:, 1]).all()
    assert dict(table.fields) == {"task": ("x", "y")}
    lines = tmp_path / "t.jsonl"
    rows = [{"n": 3, "score:a": 1, "score:b": 0.5, "cost:a": 0.1, "cost:b": 2} for _ in range(2)]
    lines.write_text("\n".join(map(json.dumps, rows)))
    assert dict(read(str(lines)).fields) == {"n": (3.0, 3.0)}
    path.write_text("prompt,score:a,score:b,cost:a,cost:b\n12,1,0.5,0.1,2\n7,0,1,0.2,3\n")
    assert dict(read(str(path)).fields) == {"prompt": ("12", "7")}  # a prompt is a text, whatever stands in it


GOOD = {"score:a": 1, "cost:a": 1, "score:b": 1, "cost:b": 1}


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "has no row"),
        ([{"score:a": 1, "cost:a": 1}], "scores of 1 models"),
        ([{"prompt": "x"}], "scores of 0 models"),
        ([{"cost:a": 1, "cost:b": 1}], "scores of 0 models"),
        ([{**GOOD, "score:": 1, "cost:": 1}], "a column 'score:' without a name"),
        ([{**GOOD, "cost:c": 1}], "line 1 has cost:c, and the models with scores in the first row are a, b; give"),
        ([{**GOOD, "signal:c": 1}], "line 1 has signal:c, and the models"),
        ([GOOD, {**GOOD, "score:c": 1, "cost:c": 1}], "line 2 has score:c, and the models"),
        ([{"score:a": 1, "cost:a": 1, "score:b": 1}], "line 1: cost:b is None; give a number"),
        ([{"score:a": 2, "cost:a": 1, "score:b": 1, "cost:b": 1}], "score:a is 2; give a finite number from 0 to 1"),
        ([{"score:a": 1, "cost:a": "x", "score:b": 1, "cost:b": 1}], "cost:a is 'x'"),
        ([{"score:a": 1, "cost:a": float("nan"), "score:b": 1, "cost:b": 1}], "cost:a is nan"),
        ([{**GOOD, "cost:a": -1}], "cost:a is -1; give a finite number from 0$"),
        ([{"t": 1, **GOOD}, GOOD], "line 2 has no t"),
        ([[1]], "give an object"),
    ],
)  # fmt: skip
def test_tables_that_are_none_are_refused(tmp_path, rows, why):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(BudgeteerError, match=why):
        read(str(path))


# methods


def test_similarity_is_the_mean_over_the_nearest():
    known, test = outcomes(60), outcomes(20, seed=1)
    state = similarity(5).fit(known, RNG)
    for price in (0.0, 0.02, 0.1):
        routed = similarity(5).route(state, test.x, test.signal)(price)
        for row in range(20):
            near = np.argsort(((known.x - test.x[row]) ** 2).sum(1), kind="stable")[:5]
            value = known.score[near].mean(0) - price * known.cost[near].mean(0)
            assert value[routed.final[row]] == pytest.approx(value.max())
    few = similarity(50).fit(outcomes(4), RNG)
    assert len(similarity(50).route(few, test.x, test.signal)(0.0).final) == 20


def test_a_cascade_by_hand():
    """Signals of the small model: 0.9 is right 1 in 1, 0.5 is right 1 in 2, 0.1 never; the large one always is."""
    signal = np.array([[0.9], [0.5], [0.5], [0.1], [0.1]]) * np.array([[1.0, np.nan]])
    score = np.array([[1, 1], [1, 1], [0, 1], [0, 1], [0, 1]], float)
    known = Outcomes(np.ones((5, 1)), score, np.tile([1.0, 10.0], (5, 1)), signal)
    state = cascade().fit(known, RNG)
    assert state.order.tolist() == [0, 1]
    at = cascade().route(state, known.x, signal)
    for price, on in ((0.04, [0, 1, 1, 1, 1]), (0.06, [0, 0, 0, 1, 1]), (0.2, [0, 0, 0, 0, 0])):
        routed = at(price)  # gains 0, 1/2 and 1 against a price of 10 dollars
        assert routed.final.tolist() == on
        assert routed.paid.tolist() == [[True, bool(go)] for go in on]
    falling = replace(known, signal=-signal)
    assert cascade().route(cascade().fit(falling, RNG), known.x, -signal)(0.06).final.tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(InvalidInput, match="a cascade looks at answers"):
        cascade().fit(replace(known, signal=signal * np.nan), RNG)


def test_a_cascade_may_pass_over_a_model_and_pays_all_that_it_called():
    """The middle one is as weak as the small one: from the small one it goes to the large one at once."""
    score = np.array([[1, 1, 1], [0, 0, 1]] * 10, float)
    signal = np.where(score > 0, 0.9, 0.1)
    known = Outcomes(np.ones((20, 1)), score, np.tile([1.0, 2.0, 3.0], (20, 1)), signal)
    routed = cascade().route(cascade().fit(known, RNG), known.x, signal)(0.1)
    assert routed.final.tolist() == [0, 2] * 10
    assert dollars(routed, known) == pytest.approx((1 + 4) / 2)


def test_a_bandit_pays_one_model_a_request_and_every_model_once():
    state = bandit().fit(outcomes(150), np.random.default_rng(0))
    assert state.calls.sum() == 150
    assert state.calls.min() >= 1
    d = state.a.shape[1]
    np.testing.assert_allclose(state.a.sum(0)[0, 0], 3 * 3.0 + 150)  # the first feature is 1 in all
    assert np.linalg.eigvalsh(state.a).min() >= 3.0 - 1e-9
    assert d == 3


def test_the_boundary_s_advantages_by_hand():
    easy, large = np.array([True, True, False, False]), np.array([True, False, True, False])
    small, big = _advantages(easy, large, 0.5)
    # easy: 1.5 is the reference, the large one has 1 or 0; hard: the large one's 1 is; intractable: nothing
    assert small.tolist() == [0.0, 0.0, -1.0, 0.0]
    assert big.tolist() == [-0.5, -1.5, 0.0, 0.0]


def test_the_boundary_s_policy_calls_the_large_model_on_hard_requests_alone():
    known = outcomes(400, models=2)
    route = boundary(penalty=0.01)
    state = route.fit(known, RNG)
    assert state.ends.tolist() == [0, 1]
    routed = route.route(state, known.x, known.signal)(1 / state.dearer)  # odds above 1
    hard = (known.score[:, 1] > 0) & (known.score[:, 0] == 0)
    assert np.mean(routed.final[hard]) > 0.9
    assert np.mean(routed.final[known.score[:, 0] > 0]) < 0.1
    # what neither solves teaches nothing: other features there give the same policy
    neither = known.score.sum(1) == 0
    moved = replace(known, x=np.where(neither[:, None], 7.0, known.x))
    np.testing.assert_allclose(route.fit(moved, RNG).w, state.w)
    alike = replace(known, cost=np.ones_like(known.cost))
    with pytest.raises(InvalidInput, match="all models cost the same"):
        route.fit(alike, RNG)


def test_pareto_bandit_follows_its_formula_step_by_step():
    """Again with plain lists and dense inverses: what it serves and how lambda moves."""
    test = outcomes(120, seed=3, noise=0.2)
    route = pareto_bandit(explore=0.1, forget=0.99, penalty=2.0)
    state = route.fit(outcomes(80, seed=2), RNG)
    budget = 5.0
    a, b, cost = state.a.copy(), state.b.copy(), state.cost
    dear = np.log(cost / cost.min()) / np.log(cost.max() / cost.min())
    dual, mean, last, wanted = 0.0, budget, [0, 0, 0], []
    for t, x in enumerate(test.x):
        value = []
        for m in range(3):
            inverse = np.linalg.inv(a[m])
            width = math.sqrt(x @ inverse @ x / 0.99 ** (t - last[m]))
            value.append(x @ inverse @ b[m] + 0.1 * width - dual * dear[m])
            if dual > 0 and cost[m] > cost.max() / (1 + dual) and m:
                value[-1] = -math.inf
        m = int(np.argmax(value))
        kept = 0.99 ** (t - last[m])
        a[m] = kept * a[m] + np.outer(x, x) + 2.0 * 0.01 * (t - last[m]) * np.eye(3)
        b[m] = kept * b[m] + test.score[t, m] * x
        last[m] = t
        wanted.append(m)
        mean = 0.95 * mean + 0.05 * test.cost[t, m]
        dual = min(5, max(0, dual + 0.05 * (mean / budget - 1)))
    routed = route.stream(state, test, budget)
    assert routed.final.tolist() == wanted
    assert len(set(wanted)) > 1


def test_pareto_bandit_keeps_its_budget_and_leaves_a_model_that_became_useless():
    known, test = outcomes(300), outcomes(1500, seed=1)
    route = pareto_bandit()
    state = route.fit(known, RNG)
    assert isinstance(state, Statistics)
    for budget in (2.0, 4.0, 8.0):
        assert dollars(route.stream(state, test, budget), test) < 1.15 * budget
    before = route.stream(state, test, 8.0).final
    fallen = int(np.argmax(np.bincount(before, minlength=3)))
    worse = test.score.copy()
    worse[500:, fallen] = 0.0  # what served most becomes useless
    after = route.stream(state, replace(test, score=worse), 8.0).final
    assert after[:500].tolist() == before[:500].tolist()
    assert np.mean(after[-300:] == fallen) < 0.5 * np.mean(before[-300:] == fallen)


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (similarity, {"neighbours": 0}), (classifier, {"penalty": 0}), (bandit, {"explore": -1}),
        (pareto_bandit, {"forget": 0}), (boundary, {"thrift": 2}),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(factory, options):
    with pytest.raises(InvalidInput, match=r"; give "):
        factory(**options)


# budgets


@pytest.mark.parametrize("route", [similarity(), classifier(), cascade(), boundary()], ids=range(4))
def test_the_price_of_a_budget_is_the_lowest_that_keeps_it(route):
    known, test = outcomes(600, noise=0.1), outcomes(600, seed=1, noise=0.1)
    low, high = (known.cost.mean(0).min(), known.cost.mean(0).max())
    budgets = [low + share * (high - low) for share in (0.2, 0.5, 0.8)]
    prices = prices_of(route, known, budgets)
    assert prices == sorted(prices, reverse=True)
    state = route.fit(known, RNG)
    for budget, price in zip(budgets, prices, strict=True):
        spent = dollars(route.route(state, test.x, test.signal)(price), test)
        assert spent < 1.15 * budget
    assert prices_of(route, known, [1e9]) == [0.0]
    with pytest.raises(InvalidInput, match=r"no price keeps this route within 1e-05 .* costs 1\.0"):
        prices_of(route, known, [1e-5])
    with pytest.raises(InvalidInput, match="a budget of nan"):
        prices_of(route, known, [math.nan])
    with pytest.raises(InvalidInput, match="5 requests to learn from are too few"):
        prices_of(route, known.take(np.arange(5)), [1.0])


@pytest.mark.parametrize("route", [similarity(), classifier(), pareto_bandit(), boundary()], ids=range(4))
def test_the_cheapest_model_s_own_price_is_a_budget(route):
    made = outcomes(60, 2)
    known = Outcomes(made.x, made.score, np.tile([0.0001, 0.004], (60, 1)), made.signal)
    (price,) = prices_of(route, known, [0.0001])
    routed = route.route(route.fit(known, RNG), known.x, known.signal)(price)
    assert dollars(routed, known) < 0.0005  # the large model hardly ever answers
    with pytest.raises(InvalidInput, match="no price keeps this route within 9"):
        prices_of(route, known, [0.00009])


def table(n=240, models=3, seed=0):
    made = outcomes(n, models, seed, noise=0.05)
    fields = {"hard": tuple(made.x[:, 1].tolist()), "task": tuple(f"t{i % 6}" for i in range(n))}
    return Table(tuple("abc"[:models]), made.score, made.cost, made.signal, fields)


def test_splits_hold_out_whole_groups():
    made = table()
    for train, held in splits(made, 4, "task", 0):
        assert sorted([*train, *held]) == list(range(240))
        tasks = np.array(made.fields["task"])
        assert not set(tasks[train]) & set(tasks[held])
        assert len(set(tasks[held])) == 2
    assert [len(held) for _, held in splits(made, 2, None, 0)] == [80, 80]
    first, again = (next(iter(splits(made, 1, None, seed)))[1].tolist() for seed in (0, 0))
    assert first == again
    with pytest.raises(InvalidInput, match="no column 'kind'; it has hard, task"):
        next(splits(made, 1, "kind", 0))
    with pytest.raises(InvalidInput, match="the table has 2 requests; give 3 or more"):
        next(splits(made.take(np.arange(2)), 1, None, 0))


def test_models_that_cost_nothing_leave_nothing_to_save():
    made = replace(table(), cost=np.zeros((240, 3)))
    with pytest.raises(InvalidInput, match="no model costs anything"):
        measure(made, ["classifier"], (0.5,), count=2)


@pytest.mark.parametrize("method", ["similarity", "classifier", "cascade", "bandit", "pareto-bandit", "boundary"])
def test_models_that_cost_the_same_or_nothing_are_routed_by_score_alone(method):
    for cost in (0.0, 1.0):
        made = replace(table(), cost=np.full((240, 3), cost))
        if method == "boundary":
            with pytest.raises(InvalidInput, match="take another route, such as classifier"):
                fitted(method, made, 2.0)
        else:
            assert fitted(method, made, 2.0).price == 0.0


@pytest.mark.parametrize("method", ["similarity", "classifier", "bandit", "pareto-bandit", "boundary"])
def test_no_requests_get_no_models_and_few_rows_are_refused(method):
    router = fitted(method, table(), 5.0, without=["task"])
    assert router.choose({"hard": []}).tolist() == []
    assert len(router.choose({"hard": [0.5]})) == 1
    with pytest.raises(InvalidInput, match="1 requests to learn from are too few to fit a route and its price; give 8"):
        fitted(method, table(1), 5.0)


def test_measuring_says_what_is_above_the_mix_of_single_models():
    rows = measure(table(), ["classifier", "pareto-bandit"], (0.2, 0.5), count=3, without=["task"])
    assert [(row.method, row.share) for row in rows] == [
        ("classifier", 0.2), ("classifier", 0.5), ("pareto-bandit", 0.2), ("pareto-bandit", 0.5),
    ]  # fmt: skip
    for row in rows:
        assert row.low < row.gain < row.high
        assert row.gain == pytest.approx(row.score - row.hull)
        assert sum(row.called.values()) == pytest.approx(1.0)
    assert rows[0].gain > 0.02
    assert json.loads(json.dumps(rows[0].to_json()))["method"] == "classifier"
    with pytest.raises(InvalidInput, match="0% of the way"):
        measure(table(), ["classifier"], (0.0,), count=2)
    with pytest.raises(UnknownName):
        measure(table(), ["clasifier"], (0.5,), count=2)


def test_the_corrected_interval_by_hand():
    mean, low, high = corrected([1.0, 3.0], 0.5)  # s = sqrt 2, t = 12.706, sqrt(1/2 + 1)
    assert (mean, high - mean) == (2.0, pytest.approx(12.7062 * math.sqrt(2) * math.sqrt(1.5), rel=1e-4))
    assert math.isnan(corrected([1.0])[1])
    assert low < mean


# files


@pytest.mark.parametrize(
    "method", ["similarity:neighbours=3", "classifier", "cascade", "bandit", "pareto-bandit", "boundary"]
)
def test_a_router_in_a_file_chooses_the_same(tmp_path, method):
    made = table()
    router = fitted(method, made, 5.0, without=["task"])
    save(router, tmp_path / "router.json")
    back = load(tmp_path / "router.json")
    assert (back.models, back.price, back.features) == (router.models, router.price, router.features)
    x = router.features.of(made.fields)
    routed = (each.route.route(each.state, x, made.signal)(each.price) for each in (router, back))
    for one, other in zip(*routed, strict=True):
        np.testing.assert_array_equal(one, other)
    if method == "cascade":
        with pytest.raises(InvalidInput, match="it cannot choose beforehand"):
            back.choose(made.fields)
    else:
        assert set(back.choose(made.fields, 1e9).tolist()) == {0}
        wanted = router.route.route(router.state, x, made.signal)(0.05).final
        assert back.choose(made.fields, 0.05).tolist() == wanted.tolist()
    assert not reads_prompts_only(back)
    data = json.loads((tmp_path / "router.json").read_text())
    none = {"models": [], "cost": []}
    four = {"models": ["a", "b", "c", "d"], "cost": [1.0, 4.0, 16.0, 64.0]}
    for change in (
        none,
        {"models": ["a"], "cost": [1.0]},
        four,
        {"models": ["a", "b", "a"]},
        {"cost": [1.0, 4.0, -1.0]},
    ):
        (tmp_path / "router.json").write_text(json.dumps({**data, **change}))
        with pytest.raises(InvalidInput, match="is a damaged router"):
            load(tmp_path / "router.json")


def test_a_damaged_router_is_refused(tmp_path):
    path = tmp_path / "router.json"
    with pytest.raises(InvalidInput, match="cannot read a router"):
        load(path)
    path.write_text("{}")
    with pytest.raises(InvalidInput, match="is no router of this version"):
        load(path)
    save(fitted("classifier", table(), 5.0), path)
    whole = json.loads(path.read_text())
    for change in ({"state": [1]}, {"method": "nobody"}, {"price": -1}, {"models": 7}, {"features": {}}, {"cost": [1]}):
        path.write_text(json.dumps({**whole, **change}))
        with pytest.raises(InvalidInput, match="is a damaged router"):
            load(path)


def test_requests_that_cannot_be_read_are_refused_and_named():
    made = learnt({"prompt": ("a b", "c"), "size": (1.0, 3.0)})
    assert made.of({"prompt": [], "size": []}).shape == (0, made.of({"prompt": ["a"], "size": [1]}).shape[1])
    for fields, match in (
        ({"prompt": "what is 2 + 2?", "size": [1]}, "prompt is the text 'what is 2"),  # would be a request a letter
        ({"prompt": [None], "size": [1]}, "prompt holds None; give a text"),
        ({"prompt": ["a"], "size": ["b"]}, r"size holds \['b'\]; give a finite number"),
        ({"prompt": ["a"], "size": [math.nan]}, "size holds .*; give a finite number"),
        ({"prompt": ["a"], "size": [1, 2]}, "columns of 1 to 2 requests"),
    ):
        with pytest.raises(InvalidInput, match=match):
            made.of(fields)
    with pytest.raises(InvalidInput, match="column 'size' has numbers too large"):
        learnt({"size": (1e308, 1e308)})


def test_a_prompt_with_half_a_character_is_a_prompt():
    text = json.loads('"hard \\ud800"')  # as a request may have it
    made = learnt({"prompt": (text, "c")})
    assert np.isfinite(made.of({"prompt": [text]})).all()
