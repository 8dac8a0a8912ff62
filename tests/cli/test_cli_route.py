"""budgeteer route: fit writes a router that chooses, eval prints and writes what was measured."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from budgeteer import cli
from budgeteer.route.saved import load


@pytest.fixture
def table(tmp_path):
    """Sums are hard for the small model, where they have many terms."""
    path, rng = tmp_path / "routes.csv", np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "score:small", "score:large", "cost:small", "cost:large", "signal:small"])
        for i in range(120):
            terms = int(rng.integers(2, 12))
            right = int(terms < 7)
            prompt = " + ".join(map(str, rng.integers(1, 9, terms)))
            writer.writerow([f"q{i}", prompt, right, 1, 0.001, 0.01, 0.9 if right else 0.2])
    return path


def test_eval_prints_the_models_and_a_row_for_each_budget(table, tmp_path, capsys):
    out = tmp_path / "found.json"
    command = ["route", "eval", str(table), "--ignore", "id", "--splits", "3", "--shares", "25%,50%", "--out", str(out)]
    assert cli.main([*command, "--methods", "classifier", "cascade"]) == 0
    printed = capsys.readouterr().out
    assert "120 requests" in printed
    assert "small" in printed
    rows = json.loads(out.read_text())["rows"]
    assert [(row["method"], row["share"]) for row in rows] == [
        ("classifier", 0.25), ("classifier", 0.5), ("cascade", 0.25), ("cascade", 0.5),
    ]  # fmt: skip
    for row in rows:
        assert f"{100 * row['gain']:+5.1f} points" in printed
    assert rows[1]["gain"] > 0.1  # half of the requests are hard, and their length says which
    assert rows[1]["score"] > 0.9


def test_all_methods_that_can_are_measured_by_default(table, capsys):
    assert cli.main(["route", "eval", str(table), "--ignore", "id", "--splits", "2", "--shares", "50%"]) == 0
    lines = capsys.readouterr().out.split("\n\n")[1].splitlines()[1:]
    assert [line.split()[0] for line in lines] == [
        "similarity", "classifier", "cascade", "bandit", "pareto-bandit", "boundary",
    ]  # fmt: skip


def test_fit_writes_a_router_that_chooses_by_the_prompt(table, tmp_path, capsys):
    out = tmp_path / "router.json"
    command = ["route", "fit", str(table), "--ignore", "id", "--method", "classifier", "--out", str(out)]
    assert cli.main([*command, "--budget", "0.006"]) == 0
    assert "classifier of 120 requests and small, large" in capsys.readouterr().out
    router = load(out)
    assert cli.main([*command[:-1], str(tmp_path / "again.json"), "--budget", "$0.006"]) == 0  # as money is written
    assert load(tmp_path / "again.json").price == router.price
    chosen = router.choose({"prompt": ["1 + 2", "1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 1 + 2"]})
    assert [router.models[number] for number in chosen] == ["small", "large"]


def test_models_of_one_price_are_measured_without_the_route_between_cheap_and_dear(table, tmp_path, capsys):
    equal = tmp_path / "equal.csv"
    equal.write_text(table.read_text().replace(",0.001,0.01,", ",0.01,0.01,"))
    assert cli.main(["route", "eval", str(equal), "--ignore", "id", "--splits", "2", "--shares", "50%"]) == 0
    lines = capsys.readouterr().out.split("\n\n")[1].splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["similarity", "classifier", "cascade", "bandit", "pareto-bandit"]
