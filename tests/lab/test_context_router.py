"""The benchmark of BudgetMem's router trains on other questions, and its page has what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    pytest.importorskip("bm25s")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import context_router

    return context_router


def test_the_router_finds_the_tier_that_a_state_shows_and_shuffled_states_show_none(script):
    kind = np.random.default_rng(0).integers(0, 3, 90)  # the tier that keeps all of the evidence
    recall = np.eye(3)[kind]
    states = np.eye(3)[kind] + 0.01 * np.random.default_rng(1).normal(size=(90, 3))
    row = script.row_of(256, recall, states)
    assert row["best"][0] == 1.0
    assert row["trained"][0] > 0.95
    assert row["shuffled"][0] < 0.5
    assert row["minus_shuffled"][1] > 0.3
    np.testing.assert_allclose(row["tiers"], np.bincount(kind, minlength=3) / 90, atol=0.05)


def test_a_question_is_routed_by_others_alone(script):
    """A state that no other question has teaches nothing: each question has a vector of its own."""
    recall = np.eye(3)[np.random.default_rng(0).integers(0, 3, 60)]
    found = script.routed(np.eye(60), recall, 0)
    assert recall[np.arange(60), found].mean() < 0.6


def test_high_is_the_sum_of_both_standardised(script):
    import context

    texts = ["the red ship", "a blue car", "red red sky"]
    vectors = {"red?": [1.0, 0.0], texts[0]: [1.0, 0.0], texts[1]: [0.0, 1.0], texts[2]: [-1.0, 0.0]}
    found = context.fused(lambda some: np.array([vectors[text] for text in some]))("red?", texts)
    words = context.scores("red?", texts)
    cosines = np.array([1.0, 0.0, -1.0])  # mean 0, standard deviation sqrt(2/3)
    np.testing.assert_allclose(found, (words - words.mean()) / words.std() + cosines / np.sqrt(2 / 3))


def test_the_page_has_the_table_of_the_file(script):
    rows = json.loads(script.OUT.read_text(encoding="utf-8"))["rows"]
    assert [row["budget"] for row in rows] == list(script.BUDGETS)
    assert script.table(rows) in script.PAGE.read_text(encoding="utf-8")
