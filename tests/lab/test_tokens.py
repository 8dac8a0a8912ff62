"""Where tokens go: parts and shares by hand, totals that add up, calls without a stage, what is refused."""

from __future__ import annotations

import json
import random

import pytest

from budgeteer import cli
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.tokens import UNKNOWN, Fields, read, rules, shares

ROWS = [
    {"run": "a", "stage": "code", "input": 100, "cached": 40, "output": 50, "reasoning": 20},
    {"run": "a", "stage": "review", "input": 300, "cached": 0, "output": 50, "reasoning": 0},
    {"run": "b", "stage": "code", "input": 10, "output": 10},
    {"run": "b", "stage": "", "input": 20, "output": 0},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_shares_by_hand(tmp_path):
    found = {one.name: one for one in shares(read(write(tmp_path / "f.jsonl", ROWS), "stage", Fields()))}
    assert found["code"].tokens == (60 + 10, 40, 30 + 10, 20)
    assert found["code"].total == 170
    assert found["code"].of_sum == pytest.approx(170 / 540)
    assert found["code"].of_runs.mean == pytest.approx((150 / 500 + 20 / 40) / 2)
    assert found["review"].of_runs.mean == pytest.approx((350 / 500 + 0) / 2)
    assert found[UNKNOWN].total == 20
    assert max(found.values(), key=lambda one: one.total).name == "review" == next(iter(found))


def test_runs_whose_names_join_alike_are_two(tmp_path):
    rows = [{"task": a, "run": b, "stage": "s", "input": 1, "output": 0} for a, b in (("x y", "z"), ("x", "y z"))]
    found = read(write(tmp_path / "f.jsonl", rows), "stage", Fields(run=("task", "run")))
    assert found.run.tolist() == [0, 1]


def test_reasoning_beside_the_output_is_added(tmp_path):
    path = write(tmp_path / "f.jsonl", [{"run": "a", "stage": "s", "input": 1, "output": 5, "reasoning": 20}])
    assert shares(read(path, "stage", Fields(beside=True)))[0].tokens == (1, 0, 5, 20)
    with pytest.raises(InvalidInput, match="counted beside"):
        read(path, "stage", Fields())


def test_all_stages_together_are_all_tokens(tmp_path):
    rng = random.Random(0)
    rows = [
        {"run": rng.randrange(7), "stage": rng.choice(["x", "y", None]), "input": rng.randrange(900), "output": 3}
        for _ in range(300)
    ]
    path = write(tmp_path / "f.jsonl", rows)
    for by in ("stage", "turn"):
        found = shares(read(path, by, Fields()))
        assert sum(one.total for one in found) == sum(row["input"] + 3 for row in rows)
        assert sum(one.calls for one in found) == 300
        assert sum(one.of_runs.mean for one in found) == pytest.approx(1)
    assert [one.name for one in found] == ["1-5", "6-10", "11-20", "21-40", "41-80"]


def test_rules_take_the_first_that_is_found(tmp_path):
    file = tmp_path / "rules.tsv"
    file.write_text("# stages\nedit\tsed -i\nlook\tsed|cat\n")
    rows = [{"run": 1, "do": text, "input": 1, "output": 1} for text in ("sed -i x", "sed -n 1p", "make", "")]
    calls = read(write(tmp_path / "f.jsonl", rows), "do", Fields(), rules(file))
    assert calls.label == ("edit", "look", UNKNOWN, UNKNOWN)
    for text in ("edit sed", "edit\t(", "", "\tx"):
        file.write_text(text)
        with pytest.raises(InvalidInput):
            rules(file)


@pytest.mark.parametrize("bad", [{"input": -1}, {"input": "x"}, {"input": 1.5}, {"cached": 101}, {"output": None}])
def test_numbers_that_cannot_be_are_refused(tmp_path, bad):
    with pytest.raises(InvalidInput):
        read(write(tmp_path / "f.jsonl", [{**ROWS[0], **bad}]), "stage", Fields())


def test_the_command(tmp_path, capsys):
    path = write(tmp_path / "f.jsonl", ROWS)
    assert cli.main(["lab", "tokens", path, "--plot", str(tmp_path / "p.svg")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[2].startswith("review")
    assert "2 runs" in out.splitlines()[-1]
    assert "unknown" in (tmp_path / "p.svg").read_text()
    assert cli.main(["lab", "tokens", path, "--by", "turn", "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)
    assert (only["name"], only["total"], only["of_runs"]["mean"]) == ("1-5", 540, 1.0)
    assert cli.main(["lab", "tokens", path, "--by", "role"]) == 2
    assert "has no role" in capsys.readouterr().err
