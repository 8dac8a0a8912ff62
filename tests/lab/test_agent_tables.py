"""The tables of docs/agents.md are those of the committed file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from budgeteer.lab.simulated import Simulated
from budgeteer.models.chat import calls_in
from budgeteer.solve.runner import Settings, run

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
    assert script.between(text, script.tables(results), script.BEGIN, script.END) == text


def test_a_table_has_a_row_a_strategy_and_a_column_a_budget(script):
    def point(strategy, budget, right):
        accuracy = {"mean": right, "low": right - 0.1, "high": right + 0.1}
        return {"strategy": strategy, "budget": budget, "accuracy": accuracy, "tools": 2.25, "used": {"mean": 3e9}}

    points = [point(name, budget, right) for budget, right in (("$1", 0.2), ("$2", 0.5)) for name in ("react", "bats")]
    made = script.tables({"many tools": {"questions": 7, "points": points}})
    assert "| `react:turns=20` | 20 [10, 30] | 50 [40, 60] | 2.2, $0.0030 |" in made
    assert "| strategy | $1 | $2 | calls of tools and dollars used at $2 |" in made
    assert made.count("\n| `") == 2
    marks = script.BEGIN, script.END
    page = f"before\n{script.BEGIN}{made}{script.END}\nafter\n"
    assert script.between(page, "\n", *marks) == f"before\n{script.BEGIN}\n{script.END}\nafter\n"
    with pytest.raises(SystemExit, match="lacks the marks"):
        script.between("before", made, *marks)


def test_a_small_model_is_shown_calls_that_are_read_as_calls(script):
    calls = calls_in(script.EXAMPLES)
    assert [call.name for call in calls] == ["search"] * 3
    assert calls[1].arguments == {"query": "Carl Weiss born"}
    for text in script.EXAMPLES.split("Question:")[1:]:
        assert script.stated(text) in ("Graz, Austria", "Ben Holt", "Hugh II")
    assert script.stated("  \n") is None
    assert script.shown("Who?") == f"{script.EXAMPLES}Question: Who?\nAnswer:"
    for spec in script.BY_SMALL.values():
        script.built(spec)


def test_a_small_model_searches_in_raw_text(script):
    rows = [
        {
            "question": "Who is the mother of Ada?",
            "answers": ["Bea"],
            "gold_sentences": ["Bea is the mother of Ada."],
            "candidate_sentences": ["Bea is the mother of Ada.", "Oslo is a city."],
        }
    ]
    asked = script.searches(rows)

    def write(prompt, rng):
        how, _, begun = prompt.rpartition("Question: Who is the mother of Ada?")
        assert how.startswith("You can call these tools:")
        assert how.endswith(script.EXAMPLES)
        if "<tool_response>\nBea is the mother of Ada.\n" in begun:
            return "Answer: Bea.\n\nQuestion: Who"
        return script.call_of("search", '{"query": "mother Ada"}')

    settings = Settings(tools=lambda question: asked.task.tools(asked.items[question.id]))
    strategy = script.built(script.BY_SMALL["react"])
    done = asyncio.run(run(asked.questions, strategy, Simulated(write), script.WORKED, "5k, tool:search:2", settings))
    assert done.rows[0]["answer"] == "Bea"
    assert done.rows[0]["tools"] == {"search": 1}
