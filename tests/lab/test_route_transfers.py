"""The benchmark of routes holds out whole models, and a task with its source."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from budgeteer.route.table import Table

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import route

    return route


def table(score, cost, **fields):
    score = np.asarray(score, float)
    names = tuple("abcdefg"[: score.shape[1]])
    return Table(names, score, np.broadcast_to(np.asarray(cost, float), score.shape), score * np.nan, fields)


def test_nothing_is_learnt_of_a_models_own_scores(script):
    rng = np.random.default_rng(0)
    score, cost = rng.random((30, 5)), [1.0, 1.0, 2.0, 9.0, 9.0]
    made = script.new_models(table(score, cost, x=tuple(range(30))), None)
    assert [part[0].models for part in made] == [(a, b) for b in "de" for a in "abc"]
    pair, train, heldout = made[1]  # b, and d
    assert sorted([*train, *heldout]) == list(range(30))
    assert len(heldout) == 10
    np.testing.assert_allclose(pair.score[train, 0], score[train][:, [0, 2]].mean(axis=1))  # the other cheap ones
    np.testing.assert_allclose(pair.score[train, 1], score[train, 4])  # the other dear one
    np.testing.assert_array_equal(pair.score[heldout], score[heldout][:, [1, 3]])
    np.testing.assert_array_equal(pair.cost, np.tile([1.0, 9.0], (30, 1)))
    own, train, _ = script.new_models(table(score, cost, x=tuple(range(30))), None, own=True)[1]
    np.testing.assert_array_equal(own.score[train], score[train][:, [1, 3]])


def test_new_tasks_are_held_out_whole(script):
    task = tuple("pqrstu"[i % 6] for i in range(30))
    score = np.random.default_rng(0).random((30, 4))
    for _, train, heldout in script.new_models(table(score, [1.0, 1.0, 9.0, 9.0], task=task), "task"):
        assert not {task[i] for i in train} & {task[i] for i in heldout}
        assert len({task[i] for i in heldout}) == 2


def test_another_task_is_learnt_from_one_table_and_measured_on_the_other(script):
    source = table(np.zeros((12, 2)), [1.0, 9.0], log_chars=tuple(range(12)), subject=("s",) * 12)
    target = table(np.ones((9, 2)), [1.0, 9.0], prompt=("four",) * 9)
    made = script.other_task(source, target, 3)
    assert len(made) == 3
    for both, train, heldout in made:
        assert list(both.fields) == ["log_chars"]
        assert both.score[train].sum() == 0
        assert both.score[heldout].sum() == 2 * len(heldout) == 6
        np.testing.assert_allclose(np.array(both.fields["log_chars"])[heldout], np.log(4))
    assert {tuple(heldout) for _, _, heldout in made} != {tuple(made[0][2])}


def test_a_route_that_reads_what_is_hard_gains_on_models_that_it_never_saw(script):
    hard = np.random.default_rng(0).random(240) < 0.5
    score = np.column_stack([~hard, ~hard, ~hard | (np.arange(240) % 9 == 0), np.ones(240), np.ones(240)])
    made = script.new_models(table(score, [1.0, 1.0, 1.0, 9.0, 9.0], hard=tuple(hard.astype(float))), None)
    rows = {row["share"]: row for row in script.measured(made, ["classifier"], [], "test")}
    assert rows[0.5]["gain"] > 0.15  # a mix has 75 % at the half of the way, the route nearly all
    assert rows[0.5]["above"] == 1.0


def test_six_models_answered_the_same_prompts(script, tmp_path):
    names = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    lines: dict[str, list[dict[str, object]]] = {"routellm_gsm8k_mmlu/gsm8k": [], "gsm8k_model_solutions/solutions": []}
    for i in range(6):  # right: small 0, 1, 2 and 3 of 6, mixtral 4, gpt4 6
        two = {"prompt": f"add {i}", "mixtral_correct": i < 4, "gpt4_correct": True}
        lines["routellm_gsm8k_mmlu/gsm8k"].append({**two, "mixtral_response_chars": 9, "gpt4_response_chars": 8})
        four = {name: {"is_correct": i < right} for right, name in enumerate(names)}
        digest = hashlib.sha1(f"add {i}".encode()).hexdigest()
        lines["gsm8k_model_solutions/solutions"].append({"item": i, "question_sha1": digest, **four})
    for name, rows in lines.items():
        (tmp_path / name).parent.mkdir()
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    found = script.six(tmp_path)
    assert found.models == ("mixtral", "gpt4", *names)
    np.testing.assert_allclose(found.score.mean(axis=0), np.array([4, 6, 0, 1, 2, 3]) / 6)
    cheap, dear = (script.dollars(5, 240, price) for price in (script.MIXTRAL, script.GPT4))
    np.testing.assert_allclose(found.cost, np.tile([dear, dear, cheap, cheap, cheap, dear], (6, 1)))
    assert len(script.new_models(found, None)) == 9
    lines["gsm8k_model_solutions/solutions"][2]["question_sha1"] = "other"
    with gzip.open(tmp_path / "gsm8k_model_solutions/solutions.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in lines["gsm8k_model_solutions/solutions"])
    with pytest.raises(AssertionError, match="another question: add 2"):
        script.six(tmp_path)


def test_the_page_has_the_tables_of_the_file(script):
    made = script.markdown(json.loads(script.OUT.read_text(encoding="utf-8")))
    assert made in (BENCHMARKS.parent / "docs" / "route.md").read_text(encoding="utf-8")
