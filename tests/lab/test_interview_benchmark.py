"""The benchmark of interviews: what person and model do by hand, equal budgets, and the page's table."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import interview

    return interview


def test_the_person_says_less_of_each_of_several_topics(script):
    def share(question):
        said = 0
        for number in range(400):
            case = script.Interview("fixed", number)
            asyncio.run(case.hear({"question": question}))
            said += len(case.covered & {"pay", "hours", "health"})
        return said / 400

    beside = 0.3 / 12  # another topic of the guide comes up
    assert share("Tell me about pay.") == pytest.approx(0.95 + 2 * beside, abs=0.05)
    assert share("Tell me about pay and hours and health.") == pytest.approx(3 * 0.6 + 3 * 0.4 * beside, abs=0.12)


def test_the_model_reads_what_is_open_and_numbers_what_is_covered(script):
    case, rng = script.Interview("interview", 0), random.Random(0)
    listed = "Open topics:\n2. tools\n4. pay\n13. noise\n"
    assert case.write(f"{listed}Said so far:\nnothing\nA:", rng).splitlines() == [
        " Tell me about tools.", "A: Tell me about pay.", "A: Tell me about noise.", "B: Tell me about tools and pay.",
        "B: Tell me about noise.", "C: Tell me about tools and pay and noise.",
    ]  # fmt: skip
    said = f"{listed}Question: Tell me.\nAnswer: About pay I can tell you.\nWhich open topics, of its own?"
    assert case.write(said, rng) == " 4\ntopic: none\n"


@pytest.mark.parametrize("arm", ["fixed", "fixed, two", "again, two", "interview", "one ahead", "no cost"])
def test_every_way_keeps_to_its_budget_and_covers_something(script, arm):
    few = script.held(arm, {"tool:ask": 2}, 0)
    assert 0 < few["turns"] <= 2
    assert 0 < few["coverage"] < 0.6
    poor = script.held(arm, {"all": 900}, 0)
    assert poor["tokens"] <= 900


def test_the_page_has_the_table_of_the_file(script):
    rows = json.loads(script.PLACE.file.read_text(encoding="utf-8"))["rows"]
    assert {row["arm"] for row in rows} == set(script.ARMS)
    assert script.table(rows) in script.PLACE.page.read_text(encoding="utf-8")
