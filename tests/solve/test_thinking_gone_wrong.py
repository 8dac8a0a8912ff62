"""Endpoints whose thinking goes wrong: what is paid for is counted, what was said is kept, and no tokens are lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from budgeteer.core.budget import Budgets
from budgeteer.models.openai import OpenAI
from budgeteer.solve import Question, styles
from budgeteer.solve.runner import Run, Settings, run
from budgeteer.strategies import budget_forcing, direct
from helpers.upstream import Upstream, begin, end, event

NUMBERS = styles.TaskInfo("sums", numeric=True)


def says(*pieces: tuple[str, str], bills: int | None = None) -> Any:
    """A step that sends these (kind, text), a word a token, up to the cap, and bills what it sent or as told."""

    async def step(server: Upstream, writer: Any, path: str, body: dict[str, Any]) -> None:
        words = [(kind, word) for kind, text in pieces for word in text.split(" ")]
        cap = body.get("max_completion_tokens") or body["max_tokens"]
        await begin(writer)
        for kind, word in words[:cap]:
            await event(writer, {"choices": [{"index": 0, "delta": {kind: f"{word} "}}]})
        finish = "stop" if len(words) <= cap else "length"
        await event(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        used = min(len(words), cap) if bills is None else bills
        await event(writer, {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": used}})
        await event(writer, "[DONE]")
        await end(writer)

    return step


def solved(step: Any, style: str, budget: str, out: Path, *, dialect: str = "vllm", strategy: Any = None) -> Run:
    """One question, ``6 * 7``, through an endpoint that answers so."""

    async def whole() -> Run:
        async with Upstream(step) as upstream:
            model = OpenAI(upstream.url, "m", api_key="k", dialect=dialect)
            try:
                look = styles.style_of(style, NUMBERS.by(model))
                settings = Settings(
                    grade=lambda q, answer: float(answer == "42"), out=out, durable=False, timeout=20, traces=True
                )
                asked = [Question("q", "How much is 6 * 7?")]
                return await run(asked, strategy or direct(400), model, look, Budgets.parse(budget), settings)
            finally:
                await model.aclose()

    return asyncio.run(whole())


def test_an_engine_that_ignores_the_thinking_budget_is_counted_as_it_thinks(tmp_path: Path) -> None:
    """24 tokens of thinking are allowed and 90 come: all are paid for, within what the budget reserved for the call."""
    step = says(("reasoning_content", " ".join(["so"] * 90)), ("content", "The answer is \\boxed{42}."))
    done = solved(step, "think:tokens=24", "output:200", tmp_path / "rows.jsonl")
    (row,) = done.rows
    assert (row["answer"], row["correct"], row["tokens"]["output"]) == ("42", True, 94)
    assert (done.spent["output"], done.overshoot["output"]) == (94, 0)
    tight = solved(step, "think:tokens=24", "output:64", tmp_path / "tight.jsonl")
    assert (tight.rows[0]["answer"], tight.rows[0]["stopped_by"]) == (None, "budget")
    assert (tight.spent["output"], tight.overshoot["output"]) == (64, 0)


def test_an_engine_that_bills_more_than_it_was_allowed_is_a_counted_overshoot(tmp_path: Path) -> None:
    step = says(("reasoning_content", "so so"), ("content", "The answer is \\boxed{42}."), bills=500)
    done = solved(step, "think:tokens=24", "output:200", tmp_path / "rows.jsonl")
    assert (done.rows[0]["answer"], done.spent["output"], done.overshoot["output"]) == ("42", 500, 300)


@pytest.mark.parametrize("kind", ["content", "reasoning_content"])
def test_a_tag_that_never_closes_is_no_answer_and_its_text_is_kept(tmp_path: Path, kind: str) -> None:
    """The engine ends the turn in the midst of the thinking, which it sends between tags or apart."""
    text = ("<think>\n" if kind == "content" else "") + "6 * 7 = 42 so it is \\boxed{42}"
    done = solved(says((kind, text)), "think", "output:200", tmp_path / "rows.jsonl")
    (row,) = done.rows
    assert (row["answer"], row["correct"]) == (None, False)
    assert done.spent["output"] == len(text.split(" "))
    assert "6 * 7 = 42" in (tmp_path / "rows.jsonl.run" / "traces.jsonl").read_text()


def test_a_strategy_that_may_go_on_closes_the_tag_that_the_engine_did_not(tmp_path: Path) -> None:
    """llama.cpp's dialect continues an assistant turn: budget forcing ends the thinking and gets the answer."""

    async def step(server: Upstream, writer: Any, path: str, body: dict[str, Any]) -> None:
        forced = "</think>" in str(body.get("messages", [{}])[-1].get("content", ""))
        said = "42}." if forced else "<think>\n6*7=42 and " + " ".join(["so"] * 300)
        await says(("content", said))(server, writer, path, body)

    done = solved(
        step, "think", "output:120", tmp_path / "rows.jsonl", dialect="sglang", strategy=budget_forcing(thinking=40)
    )
    (row,) = done.rows
    assert (row["answer"], row["correct"], row["calls"]) == ("42", True, 2)
    assert done.spent["output"] <= 120


def test_an_answer_inside_the_tags_does_not_count(tmp_path: Path) -> None:
    step = says(("content", "<think>\n\\boxed{41}\n</think>\n\nIt is \\boxed{42}."))
    assert solved(step, "think", "output:200", tmp_path / "a.jsonl").rows[0]["answer"] == "42"
    empty = says(("content", "<think>\n\\boxed{42}\n</think>\n\n"))
    assert solved(empty, "think", "output:200", tmp_path / "b.jsonl").rows[0]["answer"] is None
