"""A run over HTTP at an endpoint that fails in every way there is: the budget holds against the endpoint's own bill."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

pytest.importorskip("openai")

from budgeteer.metering.estimate import Bounds
from budgeteer.models import openai as endpoint
from budgeteer.models.model import PREFIX
from budgeteer.models.openai import OpenAI
from budgeteer.solve import Question, Style
from budgeteer.solve.runner import Pause, Settings, run
from budgeteer.strategies import direct, self_consistency
from helpers.upstream import Act, Upstream

STYLE = Style(lambda text: text, lambda text: text.strip() or None, "", answer_tokens=4)
QUESTIONS = [Question(f"q{i}", f"question number {i} of them all") for i in range(48)]
ACTS = (
    Act(), Act(), Act(), Act(words=30), Act(usage=None), Act(usage=lambda read, made, n: (read, made // n)),
    Act(usage=lambda read, made, n: (0, 1)), Act(status=500), Act(status=500, ran=True),
    Act(status=429, headers=(("retry-after", "0.01"),)), Act(status=503), Act(cut=0), Act(cut=3), Act(hang=0),
    Act(hang=2),
)  # fmt: skip


WORDS = Bounds(tokens=lambda text: len(text.split()), overhead=0)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)


def test_a_page_instead_of_an_answer_is_told_as_the_reason_where_no_retry_fits():
    async def page(server, writer, path, body):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\n<html")
        await writer.drain()

    async def whole():
        async with Upstream(page) as upstream:
            model = OpenAI(upstream.url, "m", capabilities=frozenset({PREFIX}))
            try:
                return await run(QUESTIONS[:2], direct(), model, STYLE, "output:20", Settings())
            finally:
                await model.aclose()

    for row in asyncio.run(whole()).rows:
        assert row["stopped_by"].startswith("error: ModelError: m answered without a choice")
        assert row["stopped_by"].endswith("the budget has no room for another attempt")
        assert (row["units"], row["wasted"]) == ({"output": 20}, {"output": 20})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("budget", ["300", "output:60", "all:900, output:40"])
def test_32_questions_at_a_faulty_endpoint(tmp_path, seed, budget):
    """The first run is broken off in the middle, the second goes on against an endpoint that is well by then."""
    out, rng = tmp_path / "rows.jsonl", random.Random(seed)
    pause, told = Pause(), []

    async def go(upstream, pause=None):
        def on_row(row, progress):
            told.append(row)
            if pause is not None and len(told) == 10:
                pause.hard.set()

        model = OpenAI(upstream.url, "m", capabilities=frozenset({PREFIX}), stall=0.2, retries=2, bounds=WORDS)
        try:
            return await run(
                QUESTIONS, self_consistency(3, max_tokens=12), model, STYLE, budget,
                Settings(out=out, concurrency=32, seed=seed, timeout=5, on_row=on_row, pause=pause),
            )  # fmt: skip
        finally:
            await model.aclose()

    async def both():
        async with Upstream(*rng.choices(ACTS, k=400)) as faulty, Upstream(Act()) as well:
            first = await go(faulty, pause)
            billed = faulty.billed
            return first, await go(well), billed, billed + well.billed

    first, second, early, billed = asyncio.run(both())
    assert first.paused
    assert len(first.rows) < 48
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == sorted(question.id for question in QUESTIONS)
    assert all(row["answer"] is not None or row["stopped_by"] for row in rows)
    assert sum(row["answer"] is not None for row in rows) > 12
    for kind, units in second.spent.items():
        assert units <= second.limit[kind]
        assert sum(row["units"][kind] for row in rows) <= units
    assert second.overshoot == dict.fromkeys(second.limit, 0)
    if "all" in second.spent:
        assert early <= first.spent["all"]
        assert billed <= second.spent["all"]
