"""Forecasts of runs: the interval's formula again in a loop, coverage on made-up runs, files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from budgeteer import cli
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.forecast import PENALTY, Runs, evaluate, features, forecast, least, read


def made_up(n, seed=0, told=1.0):
    """Runs whose turns cost about as much as their first ones, as far as ``told`` goes."""
    rng = np.random.default_rng(seed)
    level = np.exp(rng.normal(size=n))
    costs = []
    for i in range(n):
        turns = int(rng.integers(12, 30))
        first = level[i] ** told * np.exp(0.1 * rng.normal(size=10))
        costs.append(np.concatenate([first, level[i] * np.exp(0.1 * rng.normal(size=turns - 10))]))
    keys = tuple(f"r{i}" for i in range(n))
    return Runs(keys, keys, tuple(costs), {})


def test_features_by_hand():
    runs = Runs(("a",), ("a",), (np.array([1.0, 3.0, 99.0]),), {"tokens": (np.array([2.0, 2.0, 9.0]),)})
    np.testing.assert_allclose(features(runs, 2, [1, 1]), [[1, math.log(4), math.log(1.5), math.log(4), 0]], atol=1e-9)
    assert features(runs, 0, [1, 1]).tolist() == [[1.0]]


def test_a_turn_that_costs_nothing_counts_as_the_smallest_that_costs_something():
    runs = Runs(("a", "b"), ("a", "b"), (np.array([0.0, 0.0, 9.0]), np.array([2.0, 0.0, 4.0])), {})
    assert least(runs) == [2.0]
    ln = math.log
    np.testing.assert_allclose(features(runs, 2, [2.0]), [[1, ln(2), 0], [1, ln(2), 0]], atol=1e-9)


def test_runs_that_end_with_free_turns_do_not_take_the_forecast_with_them():
    """Every fourth run costs nothing after its fifth turn; the others go on as they began."""
    costs, rng = [], np.random.default_rng(0)
    for i in range(80):
        cost = np.exp(rng.normal()) * np.exp(0.1 * rng.normal(size=20))
        costs.append(np.concatenate([cost[:5], np.zeros(15)]) if i % 4 == 0 else cost)
    keys = tuple(f"r{i}" for i in range(80))
    runs = Runs(keys, keys, tuple(costs), {})
    known, new = runs.take(range(60)), runs.take(range(60, 80))
    found = forecast(known, new, 5, level=0.9)
    whole = [cost.sum() for cost in new.cost]
    assert sum(one.low <= cost <= one.high for one, cost in zip(found, whole, strict=True)) >= 16
    for one, cost in zip(found, new.cost, strict=True):
        assert one.low == pytest.approx(cost[:5].sum())  # it may be over
        assert one.high < 300 * cost[:5].sum()  # and not e^20 times as much
        assert one.cost > cost[:5].sum()


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_the_interval_is_the_jackknife_plus(level):
    known, new, turns = made_up(25), made_up(4, seed=1), 5
    x, y = features(known, turns, least(known)), np.array([math.log(cost[turns:].sum()) for cost in known.cost])
    mean, deviation = x[:, 1:].mean(0), x[:, 1:].std(0)

    def scaled(given):
        return np.column_stack([np.ones(len(given)), (given[:, 1:] - mean) / deviation])

    def fitted(rows):
        weights = np.diag([0.0, *[PENALTY] * len(mean)])
        a = scaled(x)[rows]
        return np.linalg.solve(a.T @ a + weights, a.T @ y[rows])

    z = scaled(features(new, turns, least(known)))
    found = forecast(known, new, turns, level=level)
    for k in range(4):
        low, high = [], []
        for i in range(25):
            w = fitted([j for j in range(25) if j != i])
            residual = abs(y[i] - scaled(x)[i] @ w)
            low.append(z[k] @ w - residual)
            high.append(z[k] @ w + residual)
        spent = new.cost[k][:turns].sum()
        alpha = 1 - level
        assert found[k].low == pytest.approx(spent + math.exp(sorted(low)[math.floor(alpha * 26) - 1]))
        assert found[k].high == pytest.approx(spent + math.exp(sorted(high)[math.ceil((1 - alpha) * 26) - 1]))
        assert found[k].cost == pytest.approx(spent + math.exp(z[k] @ fitted(range(25))))
        assert spent < found[k].low < found[k].cost < found[k].high


def test_few_runs_give_an_interval_without_limits_and_too_few_none():
    found = forecast(made_up(12), made_up(1, seed=3), 3, level=0.99)
    assert found[0].high == math.inf
    with pytest.raises(InvalidInput, match="9 known runs or groups have more than 3 turns; give 10"):
        forecast(made_up(9), made_up(1), 3)
    with pytest.raises(InvalidInput, match="a level of 1"):
        forecast(made_up(12), made_up(1), 3, level=1)


def test_runs_of_one_group_are_left_out_together():
    """Each run twice: by itself a repetition would make residuals of nearly 0."""
    once = made_up(15, told=0.0)
    twice = Runs(tuple("ab"[i % 2] + once.keys[i // 2] for i in range(30)), tuple(once.keys[i // 2] for i in range(30)),
                 tuple(once.cost[i // 2] for i in range(30)), {})  # fmt: skip
    apart = Runs(twice.keys, twice.keys, twice.cost, {})
    new = made_up(1, seed=9, told=0.0)
    whole, leaky = (forecast(each, new, 5, level=0.8)[0] for each in (twice, apart))
    assert whole.high / whole.low > leaky.high / leaky.low


def test_intervals_cover_and_turns_that_tell_narrow_them():
    (told,) = evaluate(made_up(90), [5], splits=6, level=0.8)
    assert 0.7 < told.coverage < 0.92
    assert 0.7 < told.blind_coverage < 0.92
    assert told.ratio < 0.5 * told.blind_ratio
    assert told.low > 0
    (untold,) = evaluate(made_up(90, told=0.0), [5], splits=6, level=0.8)
    assert untold.low < 0.05
    assert untold.ratio > 0.7 * untold.blind_ratio


def write(path, runs, turns=None):
    rows = [
        {"run": key, "task": key, "cost_usd": value, "n": i}
        for key, cost in zip(runs.keys, runs.cost, strict=True)
        for i, value in enumerate(cost[:turns].tolist())
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_measures_and_forecasts(tmp_path, capsys):
    whole = write(tmp_path / "whole.jsonl", made_up(40))
    going = write(tmp_path / "going.jsonl", made_up(2, seed=5), 6)
    assert cli.main(["lab", "forecast", str(whole), "--turns", "4,6", "--splits", "3", "--group", "task"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("40 runs")
    assert [line.split()[0] for line in lines[2:]] == ["4", "6"]
    assert cli.main(["lab", "forecast", str(whole), "--of", str(going), "--columns", "n", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["run"], row["turns"]) for row in rows] == [("r0", 6), ("r1", 6)]
    assert all(row["spent"] < row["low"] < row["cost"] < row["high"] for row in rows)
    assert cli.main(["lab", "forecast", str(whole), "--of", str(going)]) == 0
    assert capsys.readouterr().out.startswith("r0: ")


def test_a_run_that_is_longer_than_all_that_are_known_is_named(tmp_path, capsys):
    whole = write(tmp_path / "whole.jsonl", made_up(12))
    turns = [{"run": "long", "cost_usd": 1.0} for _ in range(500)]
    (tmp_path / "going.jsonl").write_text("".join(json.dumps(row) + "\n" for row in turns))
    assert cli.main(["lab", "forecast", str(whole), "--of", str(tmp_path / "going.jsonl")]) == 2
    assert "the run 'long' of " in capsys.readouterr().err
    with (tmp_path / "going.jsonl").open("a") as file:  # the others have their forecasts
        file.writelines(json.dumps({"run": "short", "cost_usd": 1.0}) + "\n" for _ in range(3))
    assert cli.main(["lab", "forecast", str(whole), "--of", str(tmp_path / "going.jsonl"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert [(row["run"], row["cost"] is None) for row in json.loads(out)] == [("long", True), ("short", False)]
    assert "no forecast of the run 'long' of " in err
    assert cli.main(["lab", "forecast", str(whole), "--of", str(tmp_path / "going.jsonl")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "long: 500 are spent in 500 turns"


@pytest.mark.parametrize(
    ("content", "why"),
    [("", "has no turns"), ('{"run": "a", "cost": 1}', "line 1 has no cost_usd; it has run, cost: name the columns")],
)
def test_a_file_without_turns_or_a_column_says_so(tmp_path, content, why):
    (tmp_path / "f.jsonl").write_text(content)
    with pytest.raises(InvalidInput, match=why):
        read(str(tmp_path / "f.jsonl"), ("run",), "cost_usd", None, ())


def test_runs_that_cost_nothing_are_refused(tmp_path):
    path = tmp_path / "free.csv"
    path.write_text("run,cost_usd\na,0\n")
    with pytest.raises(InvalidInput, match="the run 'a' costs nothing"):
        read(str(path), ["run"], "cost_usd", None, [])


def test_runs_whose_names_join_alike_are_two(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("model,run,cost\na b,c,1\na,b c,2\na b,c,3\n")
    runs = read(str(path), ["model", "run"], "cost", None, [])
    assert [cost.tolist() for cost in runs.cost] == [[1, 3], [2]]
