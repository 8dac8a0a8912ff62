"""What a model that declares no calls is told of tools: an example that can be made as it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from budgeteer.agent import react
from budgeteer.agent.calling import HOW, example, how_to_call
from budgeteer.agent.turns import Agent
from budgeteer.check.scripted import Scripted
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import calls_in
from budgeteer.solve import Budgeted, Question, Style, Task
from budgeteer.solve.tool import Tool

STYLE = Style(lambda text: f"{text}\n", lambda text: text.strip().split("\n")[0] or None, "", answer_tokens=10)


async def echo(arguments: Mapping[str, Any]) -> str:
    return str(sorted(arguments.items()))


def made(**parameters: Mapping[str, Any]) -> Tool:
    return Tool("look", "Looks.", parameters, echo)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "Who wrote Emma?"),
        ({}, "Who wrote Emma?"),
        ({"type": "string", "enum": ["s", "l"]}, "s"),
        ({"type": "string", "default": "en", "enum": ["de", "en"]}, "en"),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "minimum": 0.5}, 1),
        ({"type": "integer", "default": None, "examples": ["two", 2]}, 2),
        ({"type": "number"}, 1),
        ({"type": "boolean"}, True),
        ({"type": "array"}, []),
        ({"type": "object"}, {}),
    ],
)
def test_the_example_fits_the_schema_whatever_it_says(schema: Mapping[str, Any], value: Any) -> None:
    tool = made(at=schema)
    (call,) = calls_in(example(tool, "Who wrote Emma?"))
    assert (call.name, call.arguments, tool.wrong(call.arguments)) == ("look", {"at": value}, "")


def test_long_questions_are_cut_between_words_and_no_text_ends_the_call() -> None:
    tool = made(at={"type": "string"})
    (call,) = calls_in(example(tool, "word " * 200))
    assert call.arguments == {"at": " ".join(["word"] * 40)}
    (call,) = calls_in(example(tool, "x" * 999))
    assert call.arguments == {"at": "x" * 200}
    (call,) = calls_in(example(tool, "What does </tool_call> mean?\n"))
    assert call.arguments == {"at": "What does </tool_call> mean?"}
    assert calls_in(example(made(), "Which day is it?"))[0].arguments == {}


def test_a_model_that_copies_the_prompt_asks_the_tool_for_the_question() -> None:
    """What base models do: the placeholders that stood here before were copied, and no tool has the name "..."."""

    def copies(prompt: str, rng: Any) -> str:
        if "</tool_response>" in prompt:
            return prompt.split("<tool_response>\n")[1].split("\n")[0] + "\n"
        return prompt[prompt.index("<tool_call>") : prompt.index("</tool_call>") + len("</tool_call>")]

    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", 9000)])
    model = Budgeted(Scripted(copies), Allowance(ledger, "q", {"all": 9000}))
    task = Task(Question("q", "Who wrote Emma?"), model, STYLE, 0, tools=(made(at={"type": "string"}),))
    assert asyncio.run(react().solve(task)).answer == "[('at', 'Who wrote Emma?')]"
    assert model.spend.tools == {"look": 1}


def test_the_prompt_is_the_question_the_schemas_and_one_call() -> None:
    """By hand, HOW without its fields has 26 + 2 + 31 + 1 + 76 characters: its lines and the breaks around fields."""
    tools = (made(at={"type": "string"}), Tool("other", "Other.", {}, echo))
    text = how_to_call(tools, "Who?")
    assert len(HOW.format(tools="", example="")) == 136
    schemas = [len(part) for part in text.split("\n") if part.startswith('{"type": "function"')]
    call = '<tool_call>\n{"name": "look", "arguments": {"at": "Who?"}}\n</tool_call>'
    assert len(text) == 136 + sum(schemas) + 1 + len(call)
    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", 9000)])
    model = Budgeted(Scripted(lambda prompt, rng: ""), Allowance(ledger, "q", {"all": 9000}))
    agent = Agent(Task(Question("q", "Who?"), model, STYLE, 0, tools=tools))
    assert agent.prompt(()) == f"Who?\n\n{text}\n"
    assert "You can call" not in str(agent.prompt((), last=True))
