"""benchmarks/adar1_thinker.py: its table by hand, the model that draws together, and the committed page."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
for needed in ("torch", "trl", "transformers"):
    pytest.importorskip(needed)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import adar1_thinker

    return adar1_thinker


def row(arm, seed, accuracy, tokens, **drawn):
    return {"arm": arm, "seed": seed, "accuracy": accuracy, "tokens": tokens, "cut": 0.5, "drawn": drawn}


def test_differences_are_paired_by_seed(script):
    config = {"samples": 3, "problems": 9, "steps": 2, "batch": 4, "heldout": 8}
    untrained = [row("start", 1, 0.5, 200), row("start", 2, 0.7, 100)]
    runs = [row("AdaR1", seed, right, 100, short=1_000, pairs=500) for seed, right in ((1, 0.6), (2, 0.8))]
    table = script.summary({"config": config, "untrained": untrained, "runs": runs}).splitlines()
    assert table[4].startswith("| start | 2 | 60.0 [")
    cells = [cell.strip() for cell in table[5].split("|")]
    # +10 and +10 points; -100 and 0 tokens: t of one degree of freedom is 12.706, the standard error 50
    assert cells[4] == "+10.0 [+10.0, +10.0]"
    assert cells[6] == "-50.0 [-685.3, +585.3]"
    assert cells[7:9] == ["50 %", "1,500"]


def test_untrained_rows_are_of_the_same_problems(script):
    config = {"train": 512, "heldout": 192, "max_tokens": 512}
    rows = script.untrained(config, [500])
    assert [row["arm"] for row in rows] == ["start", "start, usual effort", "start, low effort"]
    for other, seeds in (({**config, "max_tokens": 99}, [500]), (config, [1])):
        with pytest.raises(SystemExit, match=r"has not the rows of seeds .* run rewards_thinker"):
            script.untrained(other, seeds)


def test_requests_that_come_together_are_drawn_together(script):
    from budgeteer.models.chat import Chat, Message, Thinking
    from budgeteer.models.model import Finish, Request

    model = script.Together(script.THINKER, "long")
    drawn = []
    tokens = model._drawer.tokens
    model._drawer.tokens = lambda prompts, *more: drawn.append(len(prompts)) or tokens(prompts, *more)

    async def all_at_once():
        chats = [Chat((Message("user", f"What is {n} + 1?"),), Thinking(effort="low")) for n in (3, 40)]
        return await asyncio.gather(
            *(model.generate(Request(chat, 6, n=n)) for chat, n in zip(chats, (2, 1), strict=True))
        )

    first, second = asyncio.run(all_at_once())
    assert drawn == [3]
    assert [len(each.choices) for each in (first, second)] == [2, 1]
    for each in (first, second):
        for choice in each.choices:
            assert choice.text.startswith("<think>")
            assert (choice.tokens, choice.finish) == (6, Finish.LENGTH)
        assert each.usage.output == 6 * len(each.choices)
        assert each.usage.input > 6


def test_the_page_holds_the_numbers(script):
    content = json.loads(script.TARGET.read_text())
    page = (ROOT / "docs" / "rewards-measured.md").read_text()
    from pages import between

    assert between(page, script.summary(content), *script.MARKS) == page
