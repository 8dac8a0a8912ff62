"""What an agent says of its remaining budget, against what came of the run."""

from __future__ import annotations

import json

import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.lab.awareness import Said, answer, measured, question, read


def test_measures_by_hand() -> None:
    said = [
        Said("good", 200, 1000, True, 600, 1000),  # needs 800: covered, width 1/2, middle right
        Said("good", 500, 1000, True, 100, 300),  # needs 500: not covered, width 0.4, middle wrong by 0.6
        Said("good", 900, 1000, True, impossible=True),
        Said("other", 100, 400, True),  # nothing that could be read
        Said("bad", 100, 1000, False, 10, 20),
        Said("bad", 400, 1000, False, impossible=True),
        Said("bad", 700, 1000, False, impossible=True),
        Said("worse", 900, 3000, False, 10, 20),
    ]
    found = measured(said)
    assert (found.asked, found.runs, found.readable) == (8, 4, 7 / 8)
    assert found.sees_possible.mean == pytest.approx((2 / 3 + 0) / 2)
    assert found.sees_impossible.mean == pytest.approx((2 / 3 + 0) / 2)
    assert found.covers.mean == 0.5
    assert found.width == pytest.approx((0.5 + 0.4) / 2)
    assert found.error == pytest.approx((0 + 0.6) / 2)
    assert found.score.mean == pytest.approx(((1 - 0.5) / 3 + 0) / 2)
    assert found.saved == pytest.approx((1000 - 400) / (1000 + 3000))
    assert found.lost == 0.5


def test_runs_of_one_kind_leave_the_other_measures_out() -> None:
    only_bad = measured([Said("bad", 1, 2, False, impossible=True)])
    assert (only_bad.sees_possible, only_bad.covers, only_bad.score, only_bad.lost) == (None,) * 4
    assert only_bad.saved == 0.5
    with pytest.raises(InvalidInput, match="never asked"):
        measured([])


def test_an_interval_wider_than_the_need_scores_nothing() -> None:
    assert measured([Said("a", 0, 100, True, 0, 250)]).score.mean == 0  # it covers, and says nothing


def test_answers_and_the_question() -> None:
    assert answer("I think <answer>[1,200, 3000]</answer>") == (1200, 3000)
    assert answer("<answer>[1,200, 3,000]</answer>") == (1200, 3000)
    assert answer("<answer>[ 1200,3000 ]</answer>") == (1200, 3000)
    assert answer("<answer>[1, 2, 3]</answer>") is None
    assert answer("<answer>[3000, 1200]</answer>") is None
    assert answer("<answer>[1, 2]</answer> no: <answer>impossible.</answer>") is False
    assert answer("<answer>3000</answer>") is None
    asked = question([100, 250], 1000)
    assert "2 turns and spent 350 tokens (100, 250)" in asked
    assert "within 1000 tokens" in asked


def test_rows_of_a_file(tmp_path) -> None:
    file = tmp_path / "said.jsonl"
    run = {"run": "a", "spent": 10, "total": 30, "done": True}
    rows = [run | {"text": "<answer>[10, 30]</answer>"}, run | {"low": 10, "high": 30}, run | {"low": "impossible"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows[:2], rows[2] | {"high": None}]))
    first, second, third = read(str(file))
    assert first == second == Said("a", 10, 30, True, 10, 30)
    assert third == Said("a", 10, 30, True, impossible=True)
    for wrong, said in [
        (run, "neither text nor low and high"),
        (run | {"text": "", "done": "perhaps"}, "give true or false"),
        (run | {"text": "", "spent": 40}, "holds what was spent"),
        (run | {"low": "x", "high": 3}, "give a number"),
    ]:
        file.write_text(json.dumps(wrong) + "\n")
        with pytest.raises(InvalidInput, match=said):
            read(str(file))
    for other in ({"total": 40}, {"done": False}):
        file.write_text("".join(json.dumps(row) + "\n" for row in (rows[0], rows[0] | other)))
        with pytest.raises(InvalidInput, match="line 2: the run a has another total or done"):
            read(str(file))
