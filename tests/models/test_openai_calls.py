"""Calls of tools at an OpenAI-compatible endpoint: told and read in the API's own fields, within the budget."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("openai")

from budgeteer.agent import react
from budgeteer.core.errors import InvalidInput
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.metering.estimate import Bounds
from budgeteer.models.calls import Calls, api_messages
from budgeteer.models.chat import THINK, Chat, Message, ToolCall, call_of, calls_in
from budgeteer.models.model import CALLS, Finish, Request
from budgeteer.models.openai import OpenAI
from budgeteer.solve import Budgeted, Question, Style, Task
from budgeteer.solve.tool import Tool
from helpers.brain import Brain
from helpers.upstream import Upstream, answer, begin, end, event, usage

STYLE = Style(lambda text: Chat((Message("user", text),)), lambda text: text.strip() or None, "", answer_tokens=16)
LOOK = Tool("look", "Looks.", {"at": {"type": "string"}}, lambda arguments: _four(arguments))
ASK = Chat((Message("user", "How much?"),), tools=(json.dumps(LOOK.schema()),))


async def _four(arguments: Any) -> str:
    return f"{arguments['at']} is 4"


def says(*deltas: dict[str, Any], finish: str = "tool_calls", made: int | None = None) -> Any:
    """A stream of these deltas, with a usage of ``made`` tokens of output, or without one."""

    async def step(server: Upstream, writer: Any, path: str, body: Any) -> None:
        if path.endswith("/v1/completions"):
            return await answer(writer, 404, {"error": {"message": "chat only"}})
        base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        await begin(writer)
        for delta in deltas:
            await event(writer, {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        await event(writer, {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if made is not None:
            await event(writer, {**base, "choices": [], "usage": usage(30, made)})
        await event(writer, "[DONE]")
        return await end(writer)

    return step


def part(index: int | None, name: str = "", arguments: str = "", id: str | None = None) -> dict[str, Any]:
    function = {**({"name": name} if name else {}), "arguments": arguments}
    return {**({} if index is None else {"index": index}), **({"id": id} if id else {}), "function": function}


def serve(step: Any, body: Any, **options: Any) -> Any:
    async def whole() -> Any:
        async with Upstream(step) as upstream:
            model = OpenAI(upstream.url, "m", **{"capabilities": frozenset({CALLS}), **options})
            try:
                return await body(model, upstream)
            finally:
                await model.aclose()

    return asyncio.run(whole())


def asked(*deltas: dict[str, Any], prompt: Chat = ASK, **how: Any) -> Any:
    async def body(model: Any, upstream: Any) -> Any:
        pieces = [piece async for piece in model.stream(Request(prompt, 64, temperature=0.0))]
        return pieces[-1], "".join(piece.text for piece in pieces[:-1]), upstream.bodies[0]

    options = how.pop("options", {})
    return serve(says(*deltas, **how), body, **options)


def test_tools_are_told_in_their_field_and_calls_come_as_text() -> None:
    response, streamed, body = asked(
        {"content": "Let me see."},
        {"tool_calls": [part(0, "look", "", "a")]}, {"tool_calls": [part(0, "", '{"at": ')]},
        {"tool_calls": [part(0, "", '"x"}'), part(1, "look", '{"at": "y"}', "b")]}, made=21,
    )  # fmt: skip
    assert body["tools"] == [LOOK.schema()]
    assert body["messages"] == [{"role": "user", "content": "How much?"}]
    (choice,) = response.choices
    assert choice.text == streamed  # the pieces of a stream make up its text
    assert choice.text.startswith("Let me see.\n<tool_call>")
    assert calls_in(choice.text) == [ToolCall("look", {"at": "x"}), ToolCall("look", {"at": "y"})]
    assert (choice.finish, choice.tokens, response.usage.output) == (Finish.STOP, 21, 21)


@pytest.mark.parametrize(
    "pieces",
    [
        [[part(None, "look", '{"at": "x"}')], [part(None, "look", '{"at": "y"}')]],  # no index
        [[part(0, "look", '{"at": "x"}', "a")], [part(0, "look", '{"at": "y"}', "b")]],  # one index for all
        [[part(None, "look", '{"at"')], [part(None, "", ': "x"}')], [part(None, "look", '{"at": "y"}')]],
    ],
)
def test_calls_of_servers_that_number_them_otherwise_are_kept_apart(pieces: list[Any]) -> None:
    calls = Calls()
    for piece in pieces:
        calls.take(piece)
    calls.take("nothing")
    calls.take([7, {"function": None}])
    assert calls_in(calls.text) == [ToolCall("look", {"at": "x"}), ToolCall("look", {"at": "y"})]


def test_an_answer_that_is_not_streamed_has_calls_too() -> None:
    async def step(server: Any, writer: Any, path: str, body: Any) -> None:
        call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": {"at": "x"}}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
        await answer(writer, 200, {"id": "c", "created": 1, "model": "m", "choices": [choice], "usage": usage(30, 9)})

    async def body(model: Any, upstream: Any) -> Any:
        return await model.generate(Request(ASK, 64))

    response = serve(step, body)
    assert calls_in(response.choices[0].text) == [ToolCall("look", {"at": "x"})]
    assert response.usage.output == 9


def test_calls_that_nobody_counted_are_bounded_by_their_bytes() -> None:
    words = Bounds(tokens=lambda text: len(text.split()), overhead=0)
    response, *_ = asked({"tool_calls": [part(0, "look", '{"at": "x"}')]}, options={"bounds": words})
    assert response.usage.output is None
    assert response.choices[0].tokens == 64  # 58 bytes of the call and what ended it; its six words would be too few
    cut, *_ = asked({"tool_calls": [part(0, "look", '{"at": "')]}, finish="length", options={"bounds": words})
    assert cut.choices[0].finish == Finish.LENGTH
    assert calls_in(cut.choices[0].text) == [ToolCall("look", None)]  # the agent says what is wrong with it


def test_thinking_that_comes_apart_stands_before_the_calls() -> None:
    response, *_ = asked(
        {"reasoning_content": "so"}, {"tool_calls": [part(0, "look", '{"at": "x"}')]},
        prompt=Chat(ASK.messages, tags=THINK, tools=ASK.tools),
    )  # fmt: skip
    thought, _, rest = response.choices[0].text.partition(THINK.close)
    assert "so" in thought
    assert calls_in(rest) == [ToolCall("look", {"at": "x"})]


def test_a_conversation_goes_back_in_the_fields_that_it_came_in() -> None:
    first = f"Both.\n{call_of('look', json.dumps({'at': '</tool_call>'}))}\n{call_of('look', '{oops')}"
    thought = f"<think>\n{call_of('look', '{}')}\n</think>\n\n{call_of('look', '{}')}"  # the first is only thought of
    made = api_messages(
        [
            Message("user", "How much?"), Message("assistant", first), Message("tool", "1"), Message("tool", "2"),
            Message("assistant", thought), Message("tool", "3"), Message("user", "Now?"), Message("assistant", first),
        ]
    )  # fmt: skip
    roles = ["user", "assistant", "tool", "tool", "assistant", "tool", "user", "assistant"]
    assert [message["role"] for message in made] == roles
    assert made[1]["content"] == "Both."
    arguments = [json.loads(call["function"]["arguments"]) for call in made[1]["tool_calls"]]
    assert arguments == [{"at": "</tool_call>"}, {}]
    ids = [message["tool_call_id"] for message in made if message["role"] == "tool"]
    assert ids == [call["id"] for message in (made[1], made[4]) for call in message["tool_calls"]]
    assert len(set(ids)) == 3
    assert len(made[4]["tool_calls"]) == 1
    assert made[-1] == {"role": "assistant", "content": first}  # nothing answers it: it is text
    with pytest.raises(InvalidInput, match="1 results of tools follow a message with 0 calls"):
        api_messages([Message("assistant", "No."), Message("tool", "1")])


def test_an_agent_at_an_endpoint_calls_tools_and_answers_within_its_budget() -> None:
    brain = Brain()  # calls the tool for as long as it is offered

    async def body(model: Any, upstream: Any) -> Any:
        ledger = MemoryLedger()
        limits = {"all": 3000, "tool:look": 3}
        ledger.open("q", [Limit(kind, units) for kind, units in limits.items()])
        budgeted = Budgeted(model, Allowance(ledger, "q", limits))
        task = Task(Question("q", "do: look"), budgeted, STYLE, 0, tools=(LOOK,))
        found = await react(turns=4, step_tokens=32).solve(task)
        return found, budgeted.spend.units, upstream.billed, upstream.bodies

    found, units, billed, bodies = serve(brain, body)
    assert found.answer == "Done with 4 findings."
    assert units["tool:look"] == 3
    assert billed <= units["all"] <= 3000
    assert [("tools" in sent) for sent in bodies] == [True] * 4 + [False]
    results = [message["content"] for message in bodies[-1]["messages"] if message["role"] == "tool"]
    assert results == ["query 1 0 is 4", "query 2 0 is 4", "query 3 0 is 4",
                       "[look was not called: its budget is spent; go on without it]"]  # fmt: skip
    asked_for = [message["tool_calls"][0]["function"]["name"] for message in bodies[-1]["messages"] if
                 "tool_calls" in message]  # fmt: skip
    assert asked_for == ["look"] * 4


def test_a_probe_finds_that_an_endpoint_calls_tools() -> None:
    async def body(model: Any, upstream: Any) -> Any:
        await model.probe()
        return model.capabilities, [sent.get("tools") for sent in upstream.bodies]

    call = says({"tool_calls": [part(0, "clock", '{"zone": "UTC"}')]}, made=8)
    capabilities, tools = serve(call, body, capabilities=frozenset())
    assert CALLS in capabilities
    assert tools[-1][0]["function"]["name"] == "clock"
    assert CALLS not in serve(says({"content": "Noon."}, finish="stop", made=3), body, capabilities=frozenset())[0]


def test_tools_at_an_endpoint_that_declares_no_calls_are_refused_before_they_are_sent() -> None:
    with pytest.raises(InvalidInput, match="does not call tools, or declare 'calls' if it does"):
        asked({"content": "x"}, options={"capabilities": frozenset()})
