"""The tables of RL in the docs and the figures in README are made of the committed rows by benchmarks/rlvr.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("torch")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import rlvr

    return rlvr


@pytest.fixture
def content(script):
    return json.loads(script.TARGET.read_text())


def test_the_pages_hold_the_numbers_of_the_file(script, content):
    assert (ROOT / "docs" / "rlvr.md").read_text() == script.page(content)
    findings = (ROOT / "docs" / "findings.md").read_text()
    assert script.between(findings, script.short(content), script.BEGIN, script.END) == findings
    assert (ROOT / "docs" / "curve.svg").read_text() == script.picture("real", content["pools"]["real"]["runs"]) + "\n"


def test_the_gains_that_readme_names_are_those_of_the_table(script, content):
    readme = (ROOT / "README.md").read_text()
    rows = [line for line in script.short(content).splitlines() if line.startswith("| `prompt-selection@50%`")]
    gains = [line.split("|")[5].strip() for line in rows]
    assert len(gains) == 2
    for gain in gains:
        assert gain in readme.partition("## What it gains")[2].partition("##")[0]


def test_the_strongest_plain_baseline_and_the_untrained_policy_stand_in_every_table(script, content):
    for name, pool in content["pools"].items():
        if name not in (script.CLOCK, script.FAST):
            arms = script.by_arm(pool["runs"])
            assert {script.START, script.REFERENCE, "uniform-answer-stop@50%"} <= arms.keys(), name


def test_a_new_run_takes_the_place_of_its_old_row_and_all_others_stay(script):
    old = [{"arm": "duet@50%", "seed": 200, "accuracy": 0.5}, {"arm": "grpo@100%", "seed": 200, "accuracy": 0.6}]
    new = [{"arm": "duet@50%", "seed": 200, "accuracy": 0.7}, {"arm": "duet@50%", "seed": 201, "accuracy": 0.8}]
    merged = [(row["arm"], row["seed"], row["accuracy"]) for row in script.merge(old, new)]
    assert merged == [("grpo@100%", 200, 0.6), ("duet@50%", 200, 0.7), ("duet@50%", 201, 0.8)]


def test_differences_are_paired_over_the_seeds_that_both_sides_have(script):
    a = {1: {"accuracy": 0.5}, 2: {"accuracy": 0.7}, 3: {"accuracy": 0.9}}
    b = {2: {"accuracy": 0.6}, 3: {"accuracy": 0.6}, 4: {"accuracy": 0.0}}
    # +0.1 and +0.3: mean 0.2, standard error 0.1, t(1) = 12.706
    found = script.difference(a, b)
    assert (found.n, found.mean) == (2, pytest.approx(0.2))
    assert found.high == pytest.approx(0.2 + 1.2706, abs=1e-4)
    assert script.difference(a, {7: {"accuracy": 0.0}}) is None
