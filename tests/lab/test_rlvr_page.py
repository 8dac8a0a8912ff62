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
    gains = [line.split("|")[6].strip() for line in rows]
    assert len(gains) == 2
    for gain in gains:
        assert gain in readme.partition("## What it gains")[2].partition("##")[0]


def test_what_readme_and_findings_say_of_greedy_decoding_is_in_the_tables(script, content):
    real, greedy = (script.by_arm(content["pools"][pool]["runs"]) for pool in ("real", script.GREEDY))
    start = f"{script.mean(real[script.START], 'greedy_accuracy')} %"
    against = [
        script.interval(script.difference(real[arm], real[script.START], "accuracy", "greedy_accuracy"))
        for arm in (script.REFERENCE, "prompt-selection@50%")
    ]
    gain = script.interval(script.difference(greedy[script.REFERENCE], greedy[script.START], "greedy_accuracy"))
    for page in ("README.md", "docs/findings.md"):
        text = " ".join((ROOT / page).read_text().split())
        for said in (start, *against, gain):
            assert said in text, (page, said)


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


def test_greedy_decoding_without_training_stands_in_every_table_with_a_policy_that_all_start_from(script, content):
    for name, pool in content["pools"].items():
        if name not in (script.CLOCK, script.TIDY):  # the tidy policy was not kept: docs/rlvr.md says so
            start = script.by_arm(pool["runs"])[script.START]
            assert all("greedy_accuracy" in row for row in start.values()), name


def test_drawn_accuracies_are_held_against_greedy_decoding_without_training(script):
    def row(arm, seed, accuracy, **more):
        return {"arm": arm, "seed": seed, "accuracy": accuracy, "seconds": 1.0, **more}

    rows = [row("untrained@0", s, 0.5, greedy_accuracy=0.7) for s in (1, 2)]
    rows += [row("grpo@100%", 1, 0.6), row("grpo@100%", 2, 0.8), row("grpo@100%", 3, 0.0)]
    config = {"train": 1, "config": {"steps": 1, "prompts": 1, "group": 1, "max_tokens": 1, "lr": 1.0}}
    lines = script.section("real", config, rows)
    cells = {line.split(" | ")[0]: line.split(" | ") for line in lines if line.startswith("| ")}
    column = cells["| arm"].index("minus untrained, greedy")
    # -10 and +10 points over seeds 1 and 2: mean 0, standard error 10, t(1) = 12.706
    assert cells["| grpo@100%"][column] == "+0.0 [-127.1, +127.1]"
    assert cells["| untrained@0"][column] == "-20.0 [-20.0, -20.0]"
    assert any("without any training, the policy is right on 70.0 %" in line for line in lines)
    assert "greedy" not in cells["| arm"]  # no trained policy was decoded so
    for each in rows[2:]:
        each["greedy_accuracy"] = 0.75
    lines = script.section("real", config, rows)
    cells = {line.split(" | ")[0]: line.split(" | ") for line in lines if line.startswith("| ")}
    assert cells["| grpo@100%"][cells["| arm"].index("greedy")] == "75.0"
    assert cells["| grpo@100%"][cells["| arm"].index("greedy minus untrained, greedy")] == "+5.0 [+5.0, +5.0]"
