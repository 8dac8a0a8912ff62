"""docs/baselines.md is what benchmarks/baseline_tables.py makes of the committed files; its columns on rows by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import baseline_tables

    return baseline_tables


def test_the_page_is_that_of_the_committed_files(script):
    assert script.PAGE.read_text(encoding="utf-8") == script.page()
    assert script.main(["--check"]) == 0


def row(name, right, **more):
    interval = {"mean": 0.05, "low": 0.01, "high": 0.09}
    return {
        "name": name, "accuracy": {"mean": right}, "minus_greedy": interval, "at_equal_all": None,
        "at_equal_cached": interval, "output": 10.0, "all": 1030.0, **more,
    }  # fmt: skip


def test_a_check_is_held_against_the_check_alone_with_as_many_samples_or_the_next_number(script):
    rows = [
        row("greedy", 0.5),
        row("self-consistency 1", 0.4),
        row("greedy first, checked 8", 0.6),
        row("greedy first, checked 32", 0.8),
        row("best-of-n checked 4", 0.55),
        row("best-of-n checked 32, enough", 0.75),
        row("adaptive-vote risk=0.1", 0.45),
    ]
    of = {each["name"]: each for each in rows}
    assert script.checks(of, of["best-of-n checked 4"]) == pytest.approx(-0.05)
    assert script.checks(of, of["best-of-n checked 32, enough"]) == pytest.approx(-0.05)
    assert script.checks(of, of["adaptive-vote risk=0.1"]) is None
    assert script.checks(of, of["greedy first, checked 8"]) is None
    lines = script.replayed(rows, ("greedy", "self*", "best-of-n checked 4"), ("at_equal_all", "at_equal_cached"))
    assert lines[2] == "| `greedy` | 50.0 % |  | - | +5.0 [+1.0, +9.0] | - | +10.0 | 10 | 1,030 |"
    assert lines[3] == "| `self-consistency 1` | 40.0 % | +5.0 [+1.0, +9.0] |  |  | - |  | 10 | 1,030 |"
    assert (
        lines[4]
        == "| `best-of-n checked 4` | 55.0 % | +5.0 [+1.0, +9.0] | - | +5.0 [+1.0, +9.0] | -5.0 | +15.0 | 10 | 1,030 |"
    )
    assert len(lines) == 5


def test_a_frontier_takes_the_interval_of_the_file_else_the_difference_of_the_means(script):
    def point(name, right):
        return {
            "strategy": name, "budget": "output:64", "limit": 64, "accuracy": {"mean": right},
            "tokens": {"output": 60.0, "input": 40.0},
        }  # fmt: skip

    results = {
        "points": [point("greedy", 0.3), point("one request", 0.2), point("forced", 0.6)],
        "differences": [
            {"a": "forced", "b": "greedy", "budget": "output:64", "mean": 0.3, "low": 0.25, "high": 0.36},
            {"a": "forced", "b": "greedy", "budget": "output:96", "mean": 0.9, "low": 0.9, "high": 0.9},
        ],
    }
    lines = script.budgeted(results, {"greedy": "greedy", "one request, prompt once": "one request"})
    assert lines[0] == "| strategy, budget | right | greedy | one request, prompt once | sampled | all tokens |"
    assert lines[2] == "| `greedy`, 64 | 30.0 % |  | +10.0 | 60 | 100 |"
    assert lines[4] == "| `forced`, 64 | 60.0 % | +30.0 [+25.0, +36.0] | +40.0 | 60 | 100 |"
