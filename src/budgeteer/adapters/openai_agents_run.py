"""Budgets for agents of the OpenAI Agents SDK: ``agent = spending(Agent(...), budget)``, and run it as before.

Every call of the agent's model is one that the budget covers, the last one without tools and handoffs; its calls of
function tools are counted and cut; see :mod:`budgeteer.metering.agents`. Agents that it hands over to come along. An
agent that is used as a tool is made one by ``spending`` first. A model in ``RunConfig(model=...)`` takes the place of
the agents' own, and spends what nobody counts unless it is an ``AgentModel(model, budget)``. Tools that the provider
runs are refused, unless the bounds say what they may read; tools of MCP servers are metered by
:mod:`budgeteer.adapters.mcp`.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

from budgeteer.adapters.openai_agents import BudgetedModel, shown
from budgeteer.adapters.wrapped import metered_coroutine, spends_from
from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.metering.agents import REFUSALS, AgentBudget
from budgeteer.metering.turn import Turn

try:
    from agents import Agent, FunctionTool, Handoff, Model, ModelProvider, ModelSettings, MultiProvider, Tool
    from agents.items import ModelResponse, TResponseStreamEvent
    from agents.usage import Usage
    from openai.types.responses import (
        Response,
        ResponseCompletedEvent,
        ResponseFunctionToolCall,
        ResponseOutputMessage,
        ResponseOutputText,
    )
except ImportError as error:
    raise MissingExtra("agents", "openai-agents") from error


def spending(agent: Agent[Any], budget: AgentBudget, provider: ModelProvider | None = None) -> Agent[Any]:
    """The agent, and all that it hands over to, on a budget.

    Args:
        agent: it stays as it is.
        budget: shared by all agents of a run.
        provider: of its model, if it has only the name of one; None: the SDK's MultiProvider.

    Raises:
        InvalidInput: a model or a tool spends from another budget, or cannot be metered.
    """
    own: Agent[Any] = _spending(agent, budget, provider or MultiProvider(), {})
    return own


def _spending(agent: Any, budget: AgentBudget, provider: ModelProvider, done: dict[int, tuple[Any, Any]]) -> Any:
    """The agent, or the handoff to one, on the budget; ``done`` has those that are, with what they were."""
    if isinstance(agent, Handoff):
        return _handed(agent, budget, provider, done)
    if id(agent) in done:
        return done[id(agent)][1]
    model = agent.model if isinstance(agent.model, Model) else provider.get_model(agent.model)
    known = isinstance(model, AgentModel) and spends_from(model.budget, budget)
    own = agent.clone(
        model=model if known else AgentModel(model, budget),
        tools=[metered_tool(tool, budget) for tool in agent.tools],
    )
    done[id(agent)] = agent, own
    own.handoffs = [_spending(other, budget, provider, done) for other in agent.handoffs]
    return own


def _handed(
    handoff: Handoff[Any, Any], budget: AgentBudget, provider: ModelProvider, done: dict[int, tuple[Any, Any]]
) -> Handoff[Any, Any]:
    """A copy of a handoff that hands over to its agent on the budget."""
    invoke = handoff.on_invoke_handoff

    async def handed(context: Any, given: str) -> Any:
        return _spending(await invoke(context, given), budget, provider, done)

    copied = copy.copy(handoff)
    copied.on_invoke_handoff = handed
    target = None if handoff._agent_ref is None else handoff._agent_ref()
    if target is not None:  # by which a saved run finds its agents again
        copied._agent_ref = weakref.ref(_spending(target, budget, provider, done))
    return copied


def metered_tool(tool: Tool, budget: AgentBudget) -> Tool:
    """A copy of a function tool whose calls are counted, and whose results are cut; other tools as they are.

    Raises:
        InvalidInput: another budget counts it, or it is an agent that does not spend from this budget. One that this
            budget counts already is returned as it is.
    """
    if not isinstance(tool, FunctionTool):
        return tool
    agent = getattr(tool, "_agent_instance", None)
    if agent is not None and not (isinstance(agent.model, AgentModel) and spends_from(agent.model.budget, budget)):
        raise InvalidInput(
            f"the tool {tool.name} is the agent {agent.name}, which is not on the budget; make it one by "
            "spending(agent, budget).as_tool(...)"
        )
    call = metered_coroutine(tool.on_invoke_tool, tool.name, budget)
    if call is tool.on_invoke_tool:
        return tool
    copied = copy.copy(tool)
    copied.on_invoke_tool = call
    return copied


class AgentModel(Model):
    """A model whose calls are what an agent's budget covers.

    Args:
        model: of the SDK.
        budget: of the run.
    """

    def __init__(self, model: Model, budget: AgentBudget) -> None:
        if isinstance(model, BudgetedModel) and spends_from(model.metering, budget):
            self.wrapped = model
        else:
            self.wrapped = BudgetedModel(model, budget.metering)
        self.budget = budget

    async def close(self) -> None:
        await self.wrapped.close()

    def get_retry_advice(self, request: Any) -> Any:
        return self.wrapped.get_retry_advice(request)

    async def get_response(
        self,
        system_instructions: str | None,
        input: Any,
        model_settings: ModelSettings,
        tools: list[Any],
        output_schema: Any,
        handoffs: list[Any],
        tracing: Any,
        **stored: Any,
    ) -> ModelResponse:
        async def send(turn: Turn) -> ModelResponse:
            asked = _asked(input, model_settings, tools, handoffs, turn)
            response = await self.wrapped.get_response(
                system_instructions, asked[0], asked[1], asked[2], output_schema, asked[3], tracing, **stored
            )
            if not turn.tools:
                response.output = _final(response.output, turn)
            return response

        return await self.budget.aanswer(
            send=send,
            stop=None if _object(output_schema) else _stopped,
            **self._about(system_instructions, input, model_settings, tools, output_schema, handoffs, stored),
        )

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,
        model_settings: ModelSettings,
        tools: list[Any],
        output_schema: Any,
        handoffs: list[Any],
        tracing: Any,
        **stored: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        about = self._about(system_instructions, input, model_settings, tools, output_schema, handoffs, stored)
        refusal: BaseException | None = None
        for turn in self.budget.turns(**about):
            if turn.planned is None:
                yield turn.after(refusal).ended(None if _object(output_schema) else _completed)
                return
            begun = False
            asked = _asked(input, model_settings, tools, handoffs, turn)
            try:
                async for event in self.wrapped.stream_response(
                    system_instructions, asked[0], asked[1], asked[2], output_schema, asked[3], tracing, **stored
                ):
                    begun = True
                    if isinstance(event, ResponseCompletedEvent) and not turn.tools:
                        event.response.output = _final(event.response.output, turn)
                    yield event
                return
            except REFUSALS as error:
                if begun:
                    raise
                refusal = error

    def _about(
        self,
        instructions: Any,
        input: Any,
        settings: ModelSettings,
        tools: Any,
        schema: Any,
        handoffs: Any,
        stored: Any,
    ) -> dict[str, Any]:
        """What the budget has to know of the call."""
        bounds = self.budget.metering.bounds
        cap = bounds.max_output if settings.max_tokens is None else settings.max_tokens
        body = shown(instructions, input, cap, tools, schema, handoffs, stored)
        body["tools"] += body.pop("handoffs")
        return {"request": body, "tools": bool(tools or handoffs), "model": self.wrapped.name, "provider": "openai"}


def _asked(
    input: Any, settings: ModelSettings, tools: list[Any], handoffs: list[Any], turn: Turn
) -> tuple[Any, ModelSettings, list[Any], list[Any]]:
    """Input, settings, tools and handoffs as the turn allows them."""
    settings = replace(settings, max_tokens=turn.cap)
    if turn.note:
        said = {"role": "user", "content": turn.note}
        input = [{"role": "user", "content": input}, said] if isinstance(input, str) else [*input, said]
    if turn.tools:
        return input, settings, tools, handoffs
    return input, replace(settings, tool_choice=None, parallel_tool_calls=None), [], []


def _final(output: list[Any], turn: Turn) -> list[Any]:
    """The items of a last answer without calls of tools that it was not given."""
    kept = [item for item in output if not isinstance(item, ResponseFunctionToolCall)]
    return output if len(kept) == len(output) else [*kept, _message(turn.stopped)]


def _object(schema: Any) -> bool:
    """Whether the answer has to be an object, so that no text can end the agent."""
    return schema is not None and not schema.is_plain_text()


def _stopped(text: str) -> ModelResponse:
    return ModelResponse(output=[_message(text)], usage=Usage(), response_id=None)


def _message(text: str) -> ResponseOutputMessage:
    """The text that an agent ends with in place of an answer."""
    part = ResponseOutputText(text=text, type="output_text", annotations=[])
    return ResponseOutputMessage(id="budget", content=[part], role="assistant", status="completed", type="message")


def _completed(text: str) -> TResponseStreamEvent:
    response = Response(
        id="budget", created_at=0, model="none", object="response", output=[_message(text)], parallel_tool_calls=False,
        tool_choice="none", tools=[],
    )  # fmt: skip
    return cast(TResponseStreamEvent, ResponseCompletedEvent(
        response=response, sequence_number=0, type="response.completed"
    ))  # fmt: skip
