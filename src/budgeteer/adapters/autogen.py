"""Budgets for agents of AutoGen (agentchat): ``agent = spending(AssistantAgent(...), budget)``.

Every call of the agent's model is one that the budget covers, the last one without tools; its calls of tools, those of
its workbenches included, are counted and cut; see :mod:`budgeteer.metering.agents`. What an agent or a team that is
used as a tool streams comes when it has ended. Models that are called elsewhere, by a selector or a summary, are
wrapped: ``AgentModel(client, budget)``. A model that calls through a client of openai 3 or newer is metered there, each
attempt by itself; another one must not retry by itself (``max_retries=0``).
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from budgeteer.adapters.wrapped import refuse_retries, spends_from, wrapped
from budgeteer.core.errors import MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.agents import REFUSALS, AgentBudget
from budgeteer.metering.call import Call
from budgeteer.metering.calling import outcome_of
from budgeteer.metering.estimate import CAPS
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.results import Fitting
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import answer_of, credible
from budgeteer.metering.turn import Turn

try:
    from autogen_agentchat.agents import AssistantAgent
    from autogen_core.models import ChatCompletionClient, CreateResult, RequestUsage, UserMessage
    from autogen_core.tools import StaticStreamWorkbench, TextResultContent, ToolResult
except ImportError as error:
    raise MissingExtra("autogen_agentchat", "autogen") from error


def spending(agent: AssistantAgent, budget: AgentBudget) -> AssistantAgent:
    """The same agent, from now on within a budget.

    Args:
        agent: its model is replaced, and its workbenches, those that it makes of its tools included.
        budget: shared by all agents of a run.

    Raises:
        InvalidInput: its model retries where no attempt can be metered, or spends from another budget.
    """
    agent._model_client = AgentModel(agent._model_client, budget)
    agent._workbench = [_counted(one, budget) for one in agent._workbench]
    return agent


def _counted(workbench: Any, budget: AgentBudget) -> Any:
    """A workbench like this one, whose calls of tools are counted, and whose results are cut."""
    if spends_from(getattr(workbench, "budget", None), budget, "a workbench"):
        return workbench
    if not isinstance(workbench, StaticStreamWorkbench):
        return _Workbench(workbench, budget)
    copied: Any = copy.copy(workbench)  # agents call one of this class in another way
    copied.budget, copied.call_tool_stream = budget, partial(_stream, workbench.call_tool_stream, budget)
    return copied


class _Workbench:
    """A workbench whose calls are counted; what is not here is its own."""

    def __init__(self, workbench: Any, budget: AgentBudget) -> None:
        self._workbench, self.budget = workbench, budget

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workbench, name)

    async def call_tool(self, name: str, *given: Any, **named: Any) -> ToolResult:
        found: ToolResult = await self.budget.ause(
            name, lambda: self._workbench.call_tool(name, *given, **named), fit=_fit, refused=partial(_refused, name)
        )
        return found


async def _stream(call: Any, budget: AgentBudget, name: str, **named: Any) -> AsyncIterator[Any]:
    """What a workbench's tool streams, once all of it is there: its result comes last, and is what counts."""
    events: list[Any] = []

    async def whole() -> Any:
        events.extend([event async for event in call(name=name, **named)])
        return events.pop()

    result = await budget.ause(name, whole, fit=_fit, refused=partial(_refused, name))
    for event in events:
        yield event
    yield result


def _refused(name: str, text: str) -> ToolResult:
    return ToolResult(name=name, result=[TextResultContent(content=text)], is_error=True)


def _fit(result: ToolResult, room: Fitting) -> ToolResult:
    """The result with as much of its content as there is room for; what is no text is sent as base64, or left out."""
    kept: list[Any] = []
    for part in result.result:
        if isinstance(part, TextResultContent):
            kept.append(TextResultContent(content=room.cut(part.content)))
        else:
            whole = room.whole(part.content.to_base64())
            kept.append(part if whole else TextResultContent(content=room.cut("[an image was left out]")))
    return result.model_copy(update={"result": kept})


class AgentModel(ChatCompletionClient):  # type: ignore[misc]
    """A client whose calls are what an agent's budget covers; what is not overridden here is that of the client.

    Args:
        client: of any provider.
        budget: of the run.

    Raises:
        InvalidInput: it retries where no attempt can be metered, or spends from another budget.
    """

    asked: Any
    budget: AgentBudget

    def __init__(self, client: Any, budget: AgentBudget) -> None:
        if isinstance(client, AgentModel) and spends_from(client.budget, budget):
            client = client.asked
        self.asked, self.wrapped, self.budget = client, client, budget
        inner = wrapped(getattr(client, "_client", None), budget.metering)
        if inner is None:
            refuse_retries(getattr(client, "_client", None))
        else:
            self.wrapped = copy.copy(client)
            self.wrapped._client = inner

    async def create(self, messages: Sequence[Any], **more: Any) -> CreateResult:
        async def send(turn: Turn) -> CreateResult:
            said, limited = self._limited(messages, more, turn)
            result = await self.wrapped.create(said, **limited)
            if not turn.tools and not isinstance(result.content, str):
                return result.model_copy(update={"content": result.thought or turn.stopped, "finish_reason": "stop"})
            return result

        read = self._read if self.wrapped is self.asked else None
        return await self.budget.aanswer(send=send, stop=_stopped, read=read, **self._about(messages, more))

    async def create_stream(self, messages: Sequence[Any], **more: Any) -> AsyncIterator[str | CreateResult]:
        for turn in self.budget.turns(**self._about(messages, more)):
            if turn.planned is None:
                yield turn.stopped
                yield _stopped(turn.stopped)
                return
            said, limited = self._limited(messages, more, turn)
            call = None if self.wrapped is not self.asked else Call(self.budget.metering, turn.planned)
            answer, begun = Answer(outcome=Outcome.UNKNOWN), False
            try:
                if call is not None:
                    await call.astart()
                async for piece in self.wrapped.create_stream(said, **limited):
                    begun = True
                    if isinstance(piece, CreateResult):
                        answer = self._read(piece)
                    yield piece
                return
            except REFUSALS:
                if begun:
                    raise
            except Exception as error:
                answer = Answer(outcome=outcome_of(error))
                raise
            finally:
                if call is not None:
                    await call.afinish(answer)

    def _settings(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """What the client was made with, and over it what the call sets."""
        return {**getattr(self.asked, "_create_args", {}), **more.get("extra_create_args", {})}

    def _limited(self, messages: Sequence[Any], more: Mapping[str, Any], turn: Turn) -> tuple[Any, dict[str, Any]]:
        """Messages and settings as the turn allows them."""
        caps = dict.fromkeys(_caps(self._settings(more)), turn.cap)
        limited = {**more, "extra_create_args": {**more.get("extra_create_args", {}), **caps}}
        if turn.note:
            messages = [*messages, UserMessage(content=turn.note, source="budget")]
        return messages, limited if turn.tools else {**limited, "tools": [], "tool_choice": "auto"}

    def _about(self, messages: Sequence[Any], more: Mapping[str, Any]) -> dict[str, Any]:
        """What the budget has to know of the call."""
        tools = [getattr(tool, "schema", tool) for tool in more.get("tools", ())]
        settings = self._settings(more)
        caps = {name: settings[name] for name in _caps(settings) if name in settings}
        body = {
            "messages": [_shown(message) for message in messages],
            "tools": [{"type": "function", "function": dict(tool)} for tool in tools],
            "output": str(more.get("json_output") or ""),
            "n": settings.get("n"),
            **(caps or {"max_tokens": self.budget.metering.bounds.max_output}),
        }
        return {"request": body, "tools": bool(tools), "model": str(settings.get("model", ""))}

    def _read(self, result: CreateResult) -> Answer:
        if result.cached:
            return Answer(outcome=Outcome.REJECTED)  # the model was not asked
        calls = not isinstance(result.content, str)
        text = result.content if isinstance(result.content, str) else "".join(
            f"{call.name}{call.arguments}" for call in result.content
        )  # fmt: skip
        usage = Usage(input=result.usage.prompt_tokens, output=result.usage.completion_tokens)
        return answer_of(credible(usage, text), text, self.budget.metering.bounds, calls=calls)

    async def close(self) -> None:
        await self.wrapped.close()

    def actual_usage(self) -> RequestUsage:
        return self.wrapped.actual_usage()

    def total_usage(self) -> RequestUsage:
        return self.wrapped.total_usage()

    def count_tokens(self, messages: Sequence[Any], **more: Any) -> int:
        return int(self.wrapped.count_tokens(messages, **more))

    def remaining_tokens(self, messages: Sequence[Any], **more: Any) -> int:
        return int(self.wrapped.remaining_tokens(messages, **more))

    @property
    def capabilities(self) -> Any:
        return self.wrapped.capabilities

    @property
    def model_info(self) -> Any:
        return self.wrapped.model_info


def _caps(settings: Mapping[str, Any]) -> list[str]:
    """The fields that cap an answer: those that are set already, since a server refuses a second one beside it."""
    return [name for name in CAPS if settings.get(name)] or ["max_tokens"]


def _shown(message: Any) -> dict[str, Any]:
    """A message as far as its cost goes."""
    parts = message.content if isinstance(message.content, list) else [message.content]
    return {"role": message.type, "content": [_part(part) for part in parts], "name": getattr(message, "source", "")}


def _part(part: Any) -> Any:
    if isinstance(part, str):
        return part
    fields = part.model_dump() if hasattr(part, "model_dump") else getattr(part, "__dict__", {})
    texts = [value for value in fields.values() if isinstance(value, str)]
    return json.dumps(texts) if texts else {"type": "image"}


def _stopped(text: str) -> CreateResult:
    usage = RequestUsage(prompt_tokens=0, completion_tokens=0)
    return CreateResult(finish_reason="stop", content=text, usage=usage, cached=False)
