"""What a probe says of an engine that does all it is asked, and of the same engine with one fault at a time."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable
from typing import Any

import pytest

pytest.importorskip("openai")

from budgeteer.cli import main
from budgeteer.core.errors import EndpointDown, InvalidInput, UnknownName
from budgeteer.models import _probe_checks as checks
from budgeteer.models._probe_calls import Seen
from budgeteer.models.probe import Report, Verdict, probe
from helpers.upstream import Upstream, answer, begin, end, event

HONOURED, IGNORED, BROKEN, REFUSED, UNKNOWN = Verdict
THINKS = 90
"""Tokens that the engine thinks if it is left alone."""


def engine(*faults: str) -> Any:
    """A step of an upstream: a small engine that speaks vLLM's dialect, with these faults. A token is a word."""

    def words(body: dict[str, Any], path: str, choice: int) -> tuple[list[str], list[str], bool]:
        """Thinking, answer, and whether the answer is a tool call."""
        if path == "/v1/completions":
            return [], ["8,", "9,", "10,"] if "seven" not in faults else ["1,", "2,"], False
        hot = body.get("temperature", 1.0) > 0
        drawn = random.Random(f"{body.get('seed')} {choice}" if hot and "seed" not in faults else random.random())
        kwargs = body.get("chat_template_kwargs", {})
        on = kwargs.get("enable_thinking", True) or "switch" in faults
        long = THINKS // 2 if body.get("reasoning_effort") == "low" and "effort" not in faults else THINKS
        tool = "tools" in body
        limit = body.get("thinking_token_budget")
        if limit is not None and "budget" not in faults:
            long = min(long, limit)
        said = ["{}".format(drawn.choice(("so", "then", "but")) if hot else f"w{i}") for i in range(long if on else 0)]
        text = [drawn.choice("abcdefgh") if hot else f"a{i}" for i in range(24)]
        if tool:
            text = ['{"record":', '"Paul",', '"attribute":', '"room"}']
            if limit is not None and "arguments" in faults:
                text.insert(2, "</think>")
        elif limit is not None and "no answer" in faults:
            text = []
        return said, text, tool

    async def step(server: Upstream, writer: Any, path: str, body: dict[str, Any]) -> None:
        if path == "/tokenize":
            await answer(writer, 404 if "render" in faults else 200, {"tokens": [1, 2]})
            return
        if path == "/detokenize":
            await answer(writer, 200, {"prompt": "P"})
            return
        if body.get("logprobs") and "no logprobs" in faults:
            await answer(writer, 400, {"error": {"message": "logprobs are not supported"}})
            return
        cap = body["max_tokens"] if "cap" not in faults else 10_000
        used, of_one = 0, 0
        await begin(writer)
        for i in range(body.get("n", 1)):
            said, text, tool = words(body, path, i)
            stops = body.get("stop", []) if "stop" not in faults else []
            for part in (said, text):
                for stop in stops:
                    if stop in part:
                        del part[part.index(stop) :]
                        text = [] if part is said else text
            pieces = [("reasoning_content", w) for w in said] + [("content", w) for w in text]
            finish = "stop" if len(pieces) <= cap else "length"
            for kind, word in pieces[:cap]:
                delta: dict[str, Any] = {kind: f"{word} "}
                if tool and kind == "content":
                    delta = {"tool_calls": [{"index": 0, "function": {"name": "lookup", "arguments": f"{word} "}}]}
                choice: dict[str, Any] = {"index": i, "delta": delta}
                if path == "/v1/completions":
                    choice = {"index": i, "text": f" {word}"}
                if body.get("logprobs"):
                    choice["logprobs"] = {"content": [{"token": word, "logprob": -0.1}]}
                await event(writer, {"choices": [choice]})
            used += min(len(pieces), cap)
            of_one = of_one or used
            await event(writer, {"choices": [{"index": i, "delta": {}, "finish_reason": finish}]})
        usage = {"prompt_tokens": 9, "completion_tokens": of_one if "one choice" in faults else used}
        if "no usage" not in faults:
            await event(writer, {"choices": [], "usage": usage})
        await event(writer, "[DONE]")
        await end(writer)

    return step


def probed(faults: Iterable[str] = (), dialect: str | None = None) -> Report:
    async def whole() -> Report:
        async with Upstream(engine(*faults)) as upstream:
            return await probe(upstream.url, "m", dialect=dialect, timeout=5.0)

    return asyncio.run(whole())


def untimed(report: Report, *, but: str = "") -> dict[str, Verdict]:
    """Verdicts of the features that no clock decides, as that of closed streams is."""
    return {f.feature: f.verdict for f in report.findings if f.feature not in ("closed streams", but)}


def test_an_engine_that_does_what_it_is_asked() -> None:
    report = probed()
    assert report.dialect == "vllm"
    assert untimed(report) == {
        "max_tokens": HONOURED,
        "usage in streams": HONOURED,
        "n": HONOURED,
        "seed": HONOURED,
        "stop": HONOURED,
        "logprobs": HONOURED,
        "raw text": HONOURED,
        "thinking shown": HONOURED,
        "thinking off": HONOURED,
        "effort": HONOURED,
        "thinking budget": HONOURED,
        "budget beside tools": HONOURED,
        "begun answer": HONOURED,
    }
    assert report.findings[-1].feature == "closed streams"
    said = next(f.said for f in report.findings if f.feature == "thinking budget")
    assert said == f"24 tokens were allowed, about 24 came ({THINKS} without it)"
    assert report.calls <= 25


@pytest.mark.parametrize(
    ("fault", "feature", "verdict"),
    [
        ("cap", "max_tokens", IGNORED),
        ("no usage", "usage in streams", IGNORED),
        ("one choice", "n", BROKEN),
        ("seed", "seed", IGNORED),
        ("stop", "stop", BROKEN),
        ("no logprobs", "logprobs", REFUSED),
        ("switch", "thinking off", IGNORED),
        ("effort", "effort", IGNORED),
        ("budget", "thinking budget", IGNORED),
        ("no answer", "thinking budget", BROKEN),
        ("arguments", "budget beside tools", BROKEN),
        ("render", "begun answer", REFUSED),
        ("seven", "begun answer", IGNORED),
    ],
)
def test_each_fault_is_found_and_only_that(fault: str, feature: str, verdict: Verdict) -> None:
    report, right = probed([fault], "vllm"), probed((), "vllm")
    assert report.verdict(feature) == verdict
    assert untimed(report, but=feature) == untimed(right, but=feature)


@pytest.mark.parametrize(("waited", "verdict"), [(0.2, HONOURED), (2.1, IGNORED)])
def test_closed_streams_that_run_on_delay_the_next_call(waited: float, verdict: Verdict) -> None:
    """A long answer takes 2 s. The call behind eight closed ones waits longer than that, if they are still sampled."""
    closed = 0

    class Served:
        async def chat(self, chat: Any, most: int, *, pieces: int | None = None, temperature: float) -> Seen:
            nonlocal closed
            closed += pieces == 1
            return Seen(seconds=0.1 + (waited if closed == 8 else 0.0))

    plain = Seen(pieces=100, seconds=2.0)
    assert asyncio.run(checks.closed(Served(), plain)).verdict == verdict  # type: ignore[arg-type]
    assert closed == 8
    assert asyncio.run(checks.closed(Served(), Seen(pieces=100, seconds=0.4))).verdict == UNKNOWN  # type: ignore[arg-type]


def test_a_budget_that_nobody_keeps_is_said_so_whatever_the_dialect() -> None:
    report = probed(["budget"])
    said = next(f for f in report.findings if f.feature == "thinking budget")
    assert (report.dialect, said.verdict) == ("openai", IGNORED)
    assert said.said == "no field limits it (vllm, sglang, llama.cpp, nim, openrouter, dashscope were tried)"


def test_what_cannot_be_asked_is_a_clear_error() -> None:
    async def refuses(server: Upstream, writer: Any, path: str, body: Any) -> None:
        await answer(writer, 404, {"error": {"message": "no model m"}})

    async def whole() -> None:
        async with Upstream(refuses) as upstream:
            with pytest.raises(InvalidInput, match=r"404 .*no model m.*one of its models"):
                await probe(upstream.url, "m")
        with pytest.raises(EndpointDown, match="start it"):
            await probe("http://127.0.0.1:9/v1", "m")
        with pytest.raises(UnknownName, match="llama"):
            await probe("http://127.0.0.1:9/v1", "m", dialect="lama.cpp")

    asyncio.run(whole())


@pytest.mark.parametrize(
    "said", [{"hello": "world"}, [1, 2], None, {"choices": None}, {"choices": ["x"]}, {"choices": [{"message": 5}]}]
)
def test_an_answer_that_is_none_is_a_clear_error(said: Any) -> None:
    async def speaks(server: Upstream, writer: Any, path: str, body: Any) -> None:
        await answer(writer, 200, said)

    with Upstream(speaks) as upstream, pytest.raises(InvalidInput, match=r"does not answer a chat.*ends in /v1"):
        asyncio.run(probe(upstream.url, "m"))


@pytest.mark.parametrize("usage", ["many", [3], {"prompt_tokens": "x", "completion_tokens": "y"}])
def test_a_usage_that_is_none_counts_nothing(usage: Any) -> None:
    async def speaks(server: Upstream, writer: Any, path: str, body: Any) -> None:
        choice = {"index": 0, "message": {"content": "4"}, "text": "4", "finish_reason": "length"}
        await answer(writer, 200, {"choices": [choice], "usage": usage})

    with Upstream(speaks) as upstream:
        report = asyncio.run(probe(upstream.url, "m"))
    assert report.verdict("usage in streams") in (IGNORED, BROKEN)
    assert (report.input, report.output) == (0, report.calls)  # a piece a call


def test_the_command_prints_the_findings_and_how_to_use_it(capsys: pytest.CaptureFixture[str]) -> None:
    with Upstream(engine()) as upstream:
        assert main(["probe", f"{upstream.url}#m"]) == 0
        shown = capsys.readouterr().out
        assert main(["probe", f"{upstream.url}#m", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
    assert "thinking budget      honoured  24 tokens were allowed" in shown
    assert f"--model {upstream.url}#m --dialect vllm --style think" in shown
    assert (report["dialect"], report["findings"][0]["verdict"]) == ("vllm", "honoured")
    assert main(["probe", "http://127.0.0.1:9/v1"]) == 2
    assert "URL#MODEL" in capsys.readouterr().err
