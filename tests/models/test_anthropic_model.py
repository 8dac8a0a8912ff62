"""Claude by the Messages API: what is sent, what is read, and what a failure costs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("anthropic")

from budgeteer.core.errors import EndpointDown, InvalidInput, ModelError
from budgeteer.core.usage import Usage
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models import anthropic as claude
from budgeteer.models.anthropic import Anthropic
from budgeteer.models.chat import THINK, Chat, Message, Thinking, continued
from budgeteer.models.load import load_model
from budgeteer.models.model import Chunk, Finish, Request, Response
from budgeteer.solve import Budgeted
from helpers.upstream import Step, Upstream, begin, end, error, event, hang_up

CHAT = Chat((Message("system", "Be brief."), Message("user", "2 + 2?")), tags=THINK)


def says(thought: str, text: str, stop: str | None = "end_turn") -> Step:
    """Streams a thinking block and a text block in two deltas each; without ``stop`` the stream breaks off."""

    async def step(server: Upstream, writer: Any, path: str, body: Any) -> None:
        await begin(writer)
        message = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "stop_reason": None,
                   "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 1}}  # fmt: skip
        await event(writer, {"type": "message_start", "message": message}, "message_start")
        for i, (kind, key, said) in enumerate((("thinking_delta", "thinking", thought), ("text_delta", "text", text))):
            for part in (said[: len(said) // 2], said[len(said) // 2 :]):
                delta = {"type": "content_block_delta", "index": i, "delta": {"type": kind, key: part}}
                if part:
                    await event(writer, delta, "content_block_delta")
        if stop is None:
            writer.close()
            return
        ending = {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}}
        await event(writer, {**ending, "usage": {"output_tokens": 7}}, "message_delta")
        await event(writer, {"type": "message_stop"}, "message_stop")
        await end(writer)

    return step


def ask(
    *steps: Step, chat: Chat = CHAT, most: int = 4000, temperature: float = 1.5, **options: Any
) -> tuple[list[Chunk | Response], Upstream]:
    async def whole() -> tuple[list[Chunk | Response], Upstream]:
        async with Upstream(*steps) as upstream:
            model = Anthropic("c", base_url=upstream.url.removesuffix("/v1"), api_key="k", **options)
            try:
                request = Request(chat, most, stop=("x",), temperature=temperature)
                return [piece async for piece in model.stream(request)], upstream
            finally:
                await model.aclose()

    return asyncio.run(whole())


def test_a_chat_is_sent_and_read() -> None:
    (*chunks, response), upstream = ask(says("2 + 2\n", "It is 4."))
    assert isinstance(response, Response)
    assert response.choices[0].text == "<think>\n2 + 2\n</think>\n\nIt is 4."
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)) == response.choices[0].text
    assert (response.choices[0].finish, response.choices[0].tokens) == (Finish.STOP, 7)
    assert response.usage == Usage.from_anthropic({"input_tokens": 9, "output_tokens": 7})
    (body,) = upstream.bodies
    assert body == {
        "model": "c",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "2 + 2?"}],
        "max_tokens": 4000,
        "stop_sequences": ["x"],
        "stream": True,
    }
    assert ask(says("", "4"), temperature=0.5)[1].bodies[0]["temperature"] == 0.5


def test_a_model_that_takes_no_temperature_is_asked_without_one_from_then_on() -> None:
    async def whole() -> list[dict[str, Any]]:
        async with Upstream(error(400, message="`temperature` is deprecated for this model."), says("", "4")) as up:
            model = Anthropic("c", base_url=up.url.removesuffix("/v1"), api_key="k")
            for _ in range(2):
                assert (await model.generate(Request(CHAT, 9, temperature=0.0))).choices[0].text.endswith("4")
            await model.aclose()
            return up.bodies

    assert [body.get("temperature") for body in asyncio.run(whole())] == [0.0, None, None]
    with pytest.raises(ModelError, match="at most 1"):  # out of range is another matter
        ask(error(400, message="temperature: at most 1"), temperature=0.5)


@pytest.mark.parametrize(
    ("thinking", "sent"),
    [
        (Thinking(tokens=2000), {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
        (Thinking(on=False), {"thinking": {"type": "disabled"}}),
        (Thinking(on=True, effort="low"), {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
    ],
)
def test_thinking_in_the_words_of_the_api(thinking: Thinking, sent: dict[str, Any]) -> None:
    _, upstream = ask(says("", "4"), chat=Chat(CHAT.messages, thinking))
    (body,) = upstream.bodies
    assert {name: body[name] for name in sent} == sent
    assert "temperature" not in body


def test_a_model_is_told_the_budget_of_its_task() -> None:
    for thinking, told in (
        (Thinking(task=20_000), {}),
        (Thinking(task=64_000, effort="high"), {"effort": "high"}),
    ):
        _, upstream = ask(says("", "4"), chat=Chat(CHAT.messages, thinking))
        (body,), (headers,) = upstream.bodies, upstream.headers
        assert body["output_config"] == {**told, "task_budget": {"type": "tokens", "total": thinking.task}}
        assert headers["anthropic-beta"] == "task-budgets-2026-03-13"


def test_answers_without_thinking_cut_and_full_ones() -> None:
    for step, text, finish, output in (
        (says("", "4"), "<think>\n\n</think>\n\n4", Finish.STOP, 7),
        (says("so", "", "max_tokens"), "<think>\nso", Finish.LENGTH, 7),
        (says("so", "4 is", None), "<think>\nso\n</think>\n\n4 is", Finish.CUT, None),
    ):
        response = ask(step)[0][-1]
        assert isinstance(response, Response)
        assert (response.choices[0].text, response.choices[0].finish, response.usage.output) == (text, finish, output)


def test_an_answer_that_is_begun_needs_the_word_of_the_caller() -> None:
    begun = continued(Chat(CHAT.messages), "It is ")
    (_, response), upstream = ask(says("", "4"), chat=begun, prefill=True)
    assert isinstance(response, Response)
    assert response.choices[0].text == "4"
    assert upstream.bodies[0]["messages"][-1] == {"role": "assistant", "content": "It is"}
    with pytest.raises(InvalidInput, match="prefill=True"):
        ask(says("", "4"), chat=begun)


def test_what_does_not_fit_is_refused_before_it_is_sent() -> None:
    for chat, most, match in (
        (Chat(CHAT.messages, Thinking(tokens=100)), 4000, "takes 1024 or more"),
        (Chat(CHAT.messages, Thinking(tokens=4000)), 4000, "leaves none for the answer"),
        (Chat(CHAT.messages, Thinking(task=19_999)), 4000, "takes 20,000 or more"),
    ):
        with pytest.raises(InvalidInput, match=match):
            ask(says("", "4"), chat=chat, most=most)
    model = Anthropic("c", api_key="k")
    for request, match in (
        (Request("raw", 9), "does not continue raw text"),
        (Request(CHAT, 9, n=2), "one choice a call"),
        (Request(CHAT, 9, logprobs=True), "log-probabilities"),
    ):
        with pytest.raises(InvalidInput, match=match):
            asyncio.run(model.generate(request))


def test_failures_say_whether_they_may_be_billed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claude, "_FIRST_WAIT", 0.001)
    _, upstream = ask(error(529), error(429), says("", "4"))
    assert upstream.calls == 3  # refused before they ran: free, and tried again
    for step, billed in ((error(400), False), (error(500), True), (hang_up, True)):
        with pytest.raises(ModelError) as raised:
            ask(step)
        assert raised.value.billed is billed
        assert not isinstance(raised.value, EndpointDown)
    with pytest.raises(EndpointDown, match="start it"):
        asyncio.run(Anthropic("c", base_url="http://127.0.0.1:9", api_key="k").generate(Request(CHAT, 9)))


def test_it_is_charged_as_it_says_and_never_below_when_cut() -> None:
    async def spent(step: Step) -> int:
        async with Upstream(step) as upstream:
            model = Anthropic("c", base_url=upstream.url.removesuffix("/v1"), api_key="k")
            ledger = MemoryLedger()
            ledger.open("q", [Limit("output", 5000)])
            budgeted = Budgeted(model, Allowance(ledger, "q", {"output": 5000}), retries=0)
            await budgeted.generate(Request(Chat(CHAT.messages, Thinking(tokens=1024)), 2000))
            await model.aclose()
            return budgeted.spend.units["output"]

    assert asyncio.run(spent(says("so", "4"))) == 7
    assert asyncio.run(spent(says("so", "4", None))) == 2000  # what it thought unseen cannot be counted


def test_it_is_named_on_the_command_line() -> None:
    assert load_model("anthropic:claude-x", api_key="k").name == "claude-x"
