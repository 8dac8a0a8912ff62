"""The benchmark of routes holds out whole models, and a task with its source."""

from __future__ import annotations

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


def test_the_page_has_the_tables_of_the_file(script):
    made = script.markdown(json.loads(script.OUT.read_text(encoding="utf-8")))
    assert made in (BENCHMARKS.parent / "docs" / "route.md").read_text(encoding="utf-8")
