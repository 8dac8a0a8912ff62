"""Budgets for agents of inspect_ai: ``react(model=spending(model, budget), tools=metered(tools, budget))``.

Every call of the model is one that the budget covers, the last one without tools; where the agent ends by a tool
``submit``, its last answer is submitted. Calls of tools are counted and cut; see :mod:`budgeteer.metering.agents`. A
model that calls through a client of openai 3 or newer is metered there, each attempt by itself; another one must not
retry by itself (``max_retries=0``). inspect's own limits stay as they are: they look after a call, this before it.

A whole eval, whose models inspect makes itself, graders included, is covered by a hook: ``with covering(budget):
eval(task, model="openai/gpt-4o-mini")``. There is no last answer, then: a call that does not fit ends its sample, as
inspect's own limits do.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

from budgeteer.adapters.wrapped import metered_coroutine, refuse_retries, spends_from, wrapped
from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.call import Call
from budgeteer.metering.estimate import worst_case
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import answer_of, credible
from budgeteer.metering.turn import Turn

try:
    from inspect_ai.hooks import BeforeModelGenerate, Hooks, ModelCacheUsageData, ModelUsageData, hooks
    from inspect_ai.model import ChatMessageUser, GenerateConfig, Model, ModelOutput, ModelUsage, get_model
    from inspect_ai.tool import Tool, ToolDef
    from inspect_ai.util import LimitExceededError
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


@contextmanager
def covering(budget: AgentBudget) -> Iterator[AgentBudget]:
    """While it is open, every call of every model in an eval of this process is reserved before and settled after.

    A request without a cap gets that of the budget's bounds. A call that cannot be reserved, such as one without a cap
    where the bounds have none either, ends its sample like one that does not fit. A call that failed is charged what it
    reserved, at the next call or the end. Models of :func:`spending` meter themselves, and are not charged twice. Calls
    that no eval makes through inspect's models, and calls of tools, are not seen.

    Raises:
        InvalidInput: another budget covers the evals of this process, or this is none.
    """
    if not isinstance(budget, AgentBudget):
        raise InvalidInput(f"{budget!r:.60} is no budget; give AgentBudget.parse('50k')")
    if _Covering.budget is not None:
        raise InvalidInput("another budget covers the evals of this process already; end that one first")
    _Covering.budget = budget
    try:
        yield budget
    finally:
        _Covering.budget = None
        while _Covering.open:
            _Covering.open.pop().finish(Answer(outcome=Outcome.UNKNOWN))


@hooks("budgeteer", "reserves before each call of a model what it can cost, and settles after it")
class _Covering(Hooks):  # type: ignore[misc]
    """The one subscriber of this process, which is asleep without a budget."""

    budget: ClassVar[AgentBudget | None] = None
    open: ClassVar[set[Call]] = set()
    """Calls that are under way, or failed."""

    def enabled(self) -> bool:
        return _Covering.budget is not None

    async def on_before_model_generate(self, data: BeforeModelGenerate) -> None:
        budget = _Covering.budget
        if budget is None:
            return
        await _settled(Answer(outcome=Outcome.UNKNOWN))  # an attempt before this one, which failed
        metering, config = budget.metering, data.config
        try:
            worst = worst_case(_request(data.input, data.tools, config, budget), metering.bounds, model=data.model_name)
            call = Call(metering, metering.plan("", "chat", data.model_name, worst, cap=worst.output))
            await call.astart()
        except Exception as error:  # not refusals alone: inspect logs what else a hook raises, and asks the model
            left = min(budget.allowance.remaining.values())
            raise LimitExceededError("custom", value=left, limit=left, message=f"budgeteer: {error}") from error
        config.max_tokens = worst.output
        _Covering.open.add(call)
        _CALL.set(call)

    async def on_model_usage(self, data: ModelUsageData) -> None:
        await _settled(Answer(usage=_of(data.usage)))

    async def on_model_cache_usage(self, data: ModelCacheUsageData) -> None:
        await _settled(Answer(outcome=Outcome.REJECTED))  # the model was not asked


_CALL: ContextVar[Call | None] = ContextVar("budgeteer_inspect_call", default=None)


async def _settled(answer: Answer) -> None:
    """Settle the call that the hook reserved here, if it is open."""
    call = _CALL.get()
    _CALL.set(None)
    if call is not None and call in _Covering.open:
        _Covering.open.discard(call)
        await call.afinish(answer)


def _counted(definition: ToolDef, budget: AgentBudget) -> Tool:
    call = metered_coroutine(definition.tool, definition.name, budget)
    if call is definition.tool:
        return definition.as_tool()
    own = ToolDef(
        call, definition.name, definition.description, definition.parameters, definition.parallel, definition.viewer,
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
        await _settled(Answer(outcome=Outcome.REJECTED))  # what a hook reserved for this call
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

        return await budget.aanswer(
            _request(input, tools, config, budget), send, lambda text: _ended(api.model_name, text, submits),
            tools=steps, read=read if seen else None, model=str(api.model_name),
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
    return None if output.usage is None else _of(output.usage)


def _of(used: ModelUsage) -> Usage:
    """What the provider counted; inspect has the cached tokens beside the input."""
    cached, written = used.input_tokens_cache_read or 0, used.input_tokens_cache_write or 0
    return Usage(
        input=used.input_tokens + cached + written, output=used.output_tokens, cached=cached, written=written,
        reasoning=min(used.reasoning_tokens or 0, used.output_tokens),
    )  # fmt: skip


def _request(input: Sequence[Any], tools: Sequence[Any], config: GenerateConfig, budget: AgentBudget) -> dict[str, Any]:
    """A request as far as its cost goes."""
    return {
        "messages": [_message(message) for message in input],
        "tools": [{"type": "function", "function": tool.model_dump(exclude_none=True)} for tool in tools],
        "max_tokens": config.max_tokens or budget.metering.bounds.max_output,
    }


def _message(message: Any) -> dict[str, Any]:
    """A message as far as its cost goes."""
    parts = [{"type": "text", "text": message.content}] if isinstance(message.content, str) else [
        {"type": "text", "text": getattr(part, "text", None) or getattr(part, "reasoning", "")}
        if part.type in ("text", "reasoning") else {"type": part.type}
        for part in message.content
    ]  # fmt: skip
    calls = [[call.id, call.function, call.arguments] for call in getattr(message, "tool_calls", None) or ()]
    return {"role": message.role, "content": parts, "name": f"{calls or ''}{getattr(message, 'tool_call_id', '')}"}
