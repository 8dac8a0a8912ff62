"""How to think, in the words of each engine: what is sent, and what comes back as a trace."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("openai")

from budgeteer.core.errors import InvalidInput, ModelError, UnknownName
from budgeteer.models.chat import THINK, Chat, Message, Thinking, continued
from budgeteer.models.dialects import DIALECTS, fields
from budgeteer.models.model import PREFILL, PREFIX, Request, Response
from budgeteer.models.openai import OpenAI
from helpers.upstream import Upstream, answer

CHAT = Chat((Message("user", "2 + 2?"),), tags=THINK)
ALL = Chat(CHAT.messages, Thinking(True, "low", 64))
ON = {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "low"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}


@pytest.mark.parametrize(
    ("name", "want"),
    [
        (
            "vllm",
            {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "low", "thinking_token_budget": 64},
        ),
        ("sglang", ON | {"custom_params": {"thinking_budget": 64}, "require_reasoning": True}),
        ("llama.cpp", ON | {"thinking_budget_tokens": 64}),
        ("nim", ON | {"nvext": {"max_thinking_tokens": 64}}),
        ("openrouter", {"reasoning": {"enabled": True, "effort": "low", "max_tokens": 64}}),
    ],
)
def test_each_engine_is_told_in_its_own_fields(name: str, want: dict[str, Any]) -> None:
    assert fields(name, ALL) == want
    assert fields(name, CHAT) == {}


@pytest.mark.parametrize("name", DIALECTS)
def test_what_a_dialect_has_no_field_for_is_refused(name: str) -> None:
    parts = {
        "switch": (Thinking(on=False), "turn the thinking on or off"),
        "effort": (Thinking(effort="low"), "name an effort"),
        "tokens": (Thinking(tokens=8), "limit the tokens of thinking"),
    }
    with pytest.raises(InvalidInput, match="no field for a budget of the task; Anthropic's API has"):
        fields(name, Chat(CHAT.messages, Thinking(task=20_000)))
    for part, (thinking, match) in parts.items():
        chat = Chat(CHAT.messages, thinking)
        if getattr(DIALECTS[name], part) is None:
            with pytest.raises(InvalidInput, match=match):
                fields(name, chat)
        else:
            assert fields(name, chat)
    begun = continued(CHAT, "<think>\nso")
    if DIALECTS[name].goes_on:
        fields(name, begun)
    else:
        with pytest.raises(InvalidInput, match="does not go on with an answer"):
            fields(name, begun)


def asked(
    chat: Chat, message: dict[str, Any], dialect: str = "openai", finish: str = "stop"
) -> tuple[Response, Upstream]:
    """The response to a chat, from an upstream that renders chats as vLLM and llama.cpp do and sends this message."""

    async def step(server: Upstream, writer: Any, path: str, body: Any) -> None:
        if path == "/tokenize":
            said = {"tokens": [1, len(body["messages"]), body["chat_template_kwargs"].get("enable_thinking", True)]}
        elif path == "/detokenize":
            said = {"prompt": f"vllm{body['tokens']}"}
        elif path == "/apply-template":
            said = {"prompt": f"llama{len(body['messages'])}"}
        elif path == "/v1/completions":
            said = {"choices": [{"index": 0, "text": message["content"], "finish_reason": finish}], "usage": USAGE}
        else:
            said = {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": USAGE}
        await answer(writer, 200, said)

    async def whole() -> tuple[Response, Upstream]:
        async with Upstream(step) as upstream:
            model = OpenAI(upstream.url, "m", dialect=dialect)
            assert (PREFILL in model.capabilities) == DIALECTS[dialect].goes_on
            assert PREFIX not in model.capabilities
            try:
                return await model.generate(Request(chat, 99)), upstream
            finally:
                await model.aclose()

    return asyncio.run(whole())


@pytest.mark.parametrize(
    ("message", "finish", "trace"),
    [
        ({"content": "4", "reasoning_content": "2 + 2\n"}, "stop", "<think>\n2 + 2\n</think>\n\n4"),
        ({"content": "4", "reasoning": "2 + 2"}, "stop", "<think>\n2 + 2\n</think>\n\n4"),
        ({"content": "", "reasoning_content": "2 +"}, "length", "<think>\n2 +"),
        ({"content": "4"}, "stop", "<think>\n\n</think>\n\n4"),  # it does not show its thinking, or did not think
        ({"content": "<think>\nso\n</think>\n\n4"}, "stop", "<think>\nso\n</think>\n\n4"),  # a server without a parser
        ({"content": "so\n</think>\n\n4"}, "stop", "so\n</think>\n\n4"),  # and a template that opens the thinking
        ({"content": "so"}, "length", "so"),  # perhaps thinking that was cut: no answer
    ],
)
def test_thinking_that_comes_apart_is_written_into_the_trace(message: dict[str, Any], finish: str, trace: str) -> None:
    response, _ = asked(CHAT, message, finish=finish)
    assert response.choices[0].text == trace
    plain, _ = asked(Chat(CHAT.messages), message, finish=finish)
    assert plain.choices[0].text == message["content"]


@pytest.mark.parametrize(("dialect", "rendered"), [("vllm", "vllm[1, 1, False]"), ("llama.cpp", "llama1")])
def test_an_answer_that_is_begun_follows_what_the_server_renders(dialect: str, rendered: str) -> None:
    chat = Chat(CHAT.messages, Thinking(on=False), tags=THINK)
    response, upstream = asked(continued(chat, "\n</think>\n\nIt is"), {"content": " 4"}, dialect)
    path, body = upstream.requests[-1]
    assert (path, body["prompt"]) == ("/v1/completions", f"{rendered}<think>\n\n</think>\n\nIt is")
    assert response.choices[0].text == " 4"


def test_an_answer_that_is_begun_is_the_last_message_elsewhere() -> None:
    _, upstream = asked(continued(CHAT, "<think>\nso"), {"content": "4"}, "sglang")
    (path, body), *_ = upstream.requests
    assert path == "/v1/chat/completions"
    assert body["messages"][-1] == {"role": "assistant", "content": "<think>\nso"}
    assert body["continue_final_message"] is True


def test_a_server_that_does_not_render_costs_nothing() -> None:
    async def whole() -> None:
        async def step(server: Upstream, writer: Any, path: str, body: Any) -> None:
            await answer(writer, 404, {"detail": "Not Found"})

        async with Upstream(step) as upstream:
            model = OpenAI(upstream.url, "m", dialect="vllm")
            with pytest.raises(ModelError, match="did not render the chat") as raised:
                await model.generate(Request(continued(CHAT, "so"), 9))
            assert not raised.value.billed
            await model.aclose()

    asyncio.run(whole())


def test_an_unknown_dialect_is_named() -> None:
    with pytest.raises(UnknownName, match=r"llama\.cpp"):
        OpenAI("http://127.0.0.1:1/v1", "m", dialect="llamacpp")
