"""The benchmark of CARROT's configuration agent trains on other questions than those that it is asked about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    pytest.importorskip("bm25s")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import context_agent

    return context_agent


def test_the_agent_finds_the_setting_that_a_vector_shows_and_shuffled_vectors_show_none(script):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100, 4))
    recall = np.zeros((100, len(script.SETTINGS)))
    recall[np.arange(100), np.where(vectors[:, 0] > 0, 0, 23)] = 1.0  # the first by words, the last by vectors
    agent, one, by_words = script.chosen(vectors, recall, 0)
    assert agent.mean() > 0.8
    assert one.mean() < 0.65
    assert (by_words == (vectors[:, 0] > 0)).mean() > 0.8
    blind = script.chosen(rng.permutation(vectors), recall, 0)[0]
    assert agent.mean() - blind.mean() > 0.2


def test_a_setting_that_was_not_measured_counts_as_its_neighbour(script):
    Setting = script.Setting
    assert [script.nearest(one) for one in script.SETTINGS] == list(range(len(script.SETTINGS)))
    assert script.SETTINGS[script.nearest(Setting("words", 1.3, 12, 0.05))] == Setting("words", 1.0, 10, 0.0)
    assert script.SETTINGS[script.nearest(Setting("vectors", 3.9, 28, 0.9))] == Setting("vectors", 4.0, 30, 1.0)


def test_a_row_a_budget_stands_in_the_table(script):
    row = {name: [0.5, 0.4, 0.6] for name in (*script.SHOWN, "minus_one", "minus_shuffled")}
    table = script.table([row | {"budget": 1024, "words": 0.25}])
    assert table.count("50 [40, 60]") == len(script.SHOWN)
    assert "| 1,024 |" in table
    assert "+50 [+40, +60] | +50 [+40, +60] | 25 |" in table
