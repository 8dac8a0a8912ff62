"""The tables of docs/agents.md are those of the committed file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("bm25s")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import agent_strategies

    return agent_strategies


def test_the_page_has_the_tables_of_the_file(script):
    results = json.loads(script.OUT.read_text(encoding="utf-8"))
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.page_with(text, script.tables(results)) == text


def test_a_table_has_a_row_a_strategy_and_a_column_a_budget(script):
    def point(strategy, budget, right):
        accuracy = {"mean": right, "low": right - 0.1, "high": right + 0.1}
        return {"strategy": strategy, "budget": budget, "accuracy": accuracy, "tools": 2.25, "used": {"mean": 3e9}}

    points = [point(name, budget, right) for budget, right in (("$1", 0.2), ("$2", 0.5)) for name in ("react", "bats")]
    made = script.tables({"many tools": {"questions": 7, "points": points}})
    assert "| `react:turns=20` | 20 [10, 30] | 50 [40, 60] | 2.2, $0.0030 |" in made
    assert "| strategy | $1 | $2 | calls of tools and dollars used at $2 |" in made
    assert made.count("\n| `") == 2
    page = f"before\n{made}\nafter\n"
    assert script.page_with(page, f"{script.BEGIN}\n{script.END}") == f"before\n{script.BEGIN}\n{script.END}\nafter\n"
