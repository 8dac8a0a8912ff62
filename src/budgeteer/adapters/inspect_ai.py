"""Budgets for agents of inspect_ai: ``react(model=spending(model, budget), tools=metered(tools, budget))``.

Every call of the model is one that the budget covers, the last one without tools; where the agent ends by a tool
``submit``, its last answer is submitted. Calls of tools are counted and cut; see :mod:`budgeteer.metering.agents`. A
model that calls through a client of openai 3 or newer is metered there, each attempt by itself; another one must not
retry by itself (``max_retries=0``). inspect's own limits stay as they are: they look after a call, this before it.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

from budgeteer.adapters.wrapped import counted, refuse_retries, spends_from, wrapped
from budgeteer.core.errors import MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import answer_of, credible
from budgeteer.metering.turn import Turn

try:
    from inspect_ai.model import ChatMessageUser, GenerateConfig, Model, ModelOutput, get_model
    from inspect_ai.tool import Tool, ToolDef
except ImportError as error:
    raise MissingExtra("inspect_ai", "inspect-ai") from error

_SUBMIT = "submit"
"""The tool by which agents of inspect end."""


def spending(model: str | Model, budget: AgentBudget) -> Model:
    """A model like this one whose calls the budget covers; the given one stays as it is.

    Args:
        model: or its name, as ``get_model`` takes it.
        budget: shared by all agents of a run.

    Raises:
        InvalidInput: it retries where no attempt can be metered, or spends from another budget.
    """
    found = get_model(model) if isinstance(model, str) else model
    if spends_from(getattr(found.api.generate, "budget", None), budget):
        return found
    own, api = copy.copy(found), copy.copy(found.api)
    inner = wrapped(getattr(api, "client", None), budget.metering)
    if inner is None:
        refuse_retries(getattr(api, "client", None))
    else:
        api.client = inner
    api.generate = _covered(api, budget, seen=inner is None)
    own.api = api
    return own


def metered(tools: Sequence[Tool | ToolDef | Callable[..., Any]], budget: AgentBudget) -> list[Tool]:
    """The same tools, whose calls the budget counts. A sub-agent's tool gets its part by its name.

    Raises:
        InvalidInput: another budget counts one of them. Those that this budget counts already stay as they are.
    """
    return [_counted(one if isinstance(one, ToolDef) else ToolDef(one), budget) for one in tools]


def _counted(definition: ToolDef, budget: AgentBudget) -> Tool:
    call, name = definition.tool, definition.name
    if counted(call, budget, name):
        return definition.as_tool()

    @functools.wraps(call)
    async def run(*given: Any, **named: Any) -> Any:
        return await budget.ause(name, lambda: call(*given, **named))

    run.budget = budget  # type: ignore[attr-defined]
    own = ToolDef(
        run, name, definition.description, definition.parameters, definition.parallel, definition.viewer,
        definition.model_input, definition.max_output, definition.options,
    )  # fmt: skip
    return own.as_tool()


def _covered(api: Any, budget: AgentBudget, *, seen: bool) -> Callable[..., Any]:
    """The API's ``generate`` within the budget.

    Args:
        api: that is called.
        budget: of the run.
        seen: whether calls are settled by what it returns, instead of by its wrapped client.
    """
    generate = api.generate

    @functools.wraps(generate)
    async def covered(input: list[Any], tools: list[Any], tool_choice: Any, config: GenerateConfig) -> Any:
        steps = bool(tools)
        submits = any(tool.name == _SUBMIT for tool in tools)

        async def send(turn: Turn) -> Any:
            said = [*input, ChatMessageUser(content=turn.note)] if turn.note else input
            limited = config.model_copy(update={"max_tokens": turn.cap})
            offered = (tools, tool_choice) if turn.tools else ([], "auto")
            result = await generate(said, *offered, limited)
            output = _output(result)
            if isinstance(output, Exception):
                raise output
            if steps and not turn.tools:
                ended = _ended(api.model_name, output.completion or turn.stopped, submits)
                ended.usage = output.usage
                return (ended, *result[1:]) if isinstance(result, tuple) else ended
            return result

        def read(result: Any) -> Answer:
            output = _output(result)
            calls = output.message.tool_calls or []
            text = output.completion + "".join(f"{call.function}{call.arguments}" for call in calls)
            return answer_of(credible(_usage(output), text), text, budget.metering.bounds, calls=bool(calls))

        request = {
            "messages": [_message(message) for message in input],
            "tools": [{"type": "function", "function": tool.model_dump(exclude_none=True)} for tool in tools],
            "max_tokens": config.max_tokens or budget.metering.bounds.max_output,
        }
        return await budget.aanswer(
            request, send, lambda text: _ended(api.model_name, text, submits), tools=steps,
            read=read if seen else None, model=str(api.model_name),
        )  # fmt: skip

    covered.budget = budget  # type: ignore[attr-defined]
    return covered


def _output(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


def _ended(model: str, text: str, submits: bool) -> ModelOutput:
    """The message by which an agent ends."""
    if submits:
        return ModelOutput.for_tool_call(model, _SUBMIT, {"answer": text})
    return ModelOutput.from_content(model, text)


def _usage(output: ModelOutput) -> Usage | None:
    """What the provider counted; inspect has the cached tokens beside the input."""
    used = output.usage
    if used is None:
        return None
    cached, written = used.input_tokens_cache_read or 0, used.input_tokens_cache_write or 0
    return Usage(
        input=used.input_tokens + cached + written, output=used.output_tokens, cached=cached, written=written,
        reasoning=min(used.reasoning_tokens or 0, used.output_tokens),
    )  # fmt: skip


def _message(message: Any) -> dict[str, Any]:
    """A message as far as its cost goes."""
    parts = [{"type": "text", "text": message.content}] if isinstance(message.content, str) else [
        {"type": "text", "text": getattr(part, "text", None) or getattr(part, "reasoning", "")}
        if part.type in ("text", "reasoning") else {"type": part.type}
        for part in message.content
    ]  # fmt: skip
    calls = [[call.id, call.function, call.arguments] for call in getattr(message, "tool_calls", None) or ()]
    return {"role": message.role, "content": parts, "name": f"{calls or ''}{getattr(message, 'tool_call_id', '')}"}
