"""Budgets for agents of pydantic-ai: ``Agent(model, tools=tools, capabilities=[Spending(budget)])``.

Every request of the agent is one that the budget covers, the last one without its tools; its calls of tools are counted
and cut; see :mod:`budgeteer.metering.agents`. A sub-agent, called from a tool, gets the capability with the same
budget. Where the output has to be an object, an agent whose model cannot be asked any more raises BudgetExceeded: there
is no object to end with.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from budgeteer.adapters.pydantic_ai import BudgetedModel, shown
from budgeteer.adapters.wrapped import spends_from
from budgeteer.core.errors import MissingExtra
from budgeteer.metering.agents import REFUSALS, AgentBudget
from budgeteer.metering.results import Fitting, fitted
from budgeteer.metering.turn import Turn

try:
    from pydantic_ai import RunContext
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.messages import (
        ModelMessage,
        ModelRequest,
        ModelResponse,
        TextPart,
        ToolCallPart,
        ToolReturn,
        UserPromptPart,
    )
    from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
    from pydantic_ai.models.wrapper import WrapperModel
    from pydantic_ai.settings import ModelSettings
except ImportError as error:
    raise MissingExtra("pydantic_ai", "pydantic-ai") from error


class Spending(AbstractCapability[Any]):
    """An agent's model and tools on a budget. One that is given for a run takes the place of the agent's own.

    Args:
        budget: shared by all agents of a run.
    """

    id: str | None = "budgeteer"
    """By which pydantic-ai knows that two of them are one."""

    @classmethod
    def combine(cls, capabilities: Sequence[AbstractCapability[Any]]) -> AbstractCapability[Any]:
        """One of those that an agent was given, which must share their budget.

        Raises:
            InvalidInput: they do not.
        """
        first, *others = (one for one in capabilities if isinstance(one, Spending))
        for other in others:
            spends_from(other.budget, first.budget, "the agent")
        return first

    def __init__(self, budget: AgentBudget) -> None:
        self.budget = budget
        self._models: dict[int, AgentModel] = {}

    def get_wrapper_model(self, model: Model) -> Model:
        if isinstance(model, AgentModel) and spends_from(model.budget, self.budget):
            return model
        known = self._models.get(id(model))
        if known is None or known.asked is not model:
            known = self._models[id(model)] = AgentModel(model, self.budget)
        return known

    async def wrap_tool_execute(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: Any, args: Any, handler: Any
    ) -> Any:
        return await self.budget.ause(call.tool_name, lambda: handler(args), fit=_fit)


class AgentModel(WrapperModel):
    """A model whose requests are what an agent's budget covers.

    Args:
        asked: the model.
        budget: of the run.

    Raises:
        InvalidInput: the model spends from another budget, or cannot be metered.
    """

    def __init__(self, asked: Model, budget: AgentBudget) -> None:
        known = isinstance(asked, BudgetedModel) and spends_from(asked.metering, budget)
        super().__init__(asked if known else BudgetedModel(asked, budget.metering))
        self.asked, self.budget = asked, budget

    async def request(
        self, messages: list[ModelMessage], model_settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> ModelResponse:
        async def send(turn: Turn) -> ModelResponse:
            response = await self.wrapped.request(*_asked(messages, model_settings, parameters, turn))
            return response if turn.tools else _final(response, parameters, turn)

        return await self.budget.aanswer(send=send, stop=_stop(parameters), **self._about(
            messages, model_settings, parameters
        ))  # fmt: skip

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        refusal: BaseException | None = None
        for turn in self.budget.turns(**self._about(messages, model_settings, parameters)):
            if turn.planned is None:
                stopped = turn.after(refusal).ended(_stop(parameters))
                yield CompletedStreamedResponse(stopped, model_request_parameters=parameters, replay_events=True)
                return
            begun = False
            try:
                asked = _asked(messages, model_settings, parameters, turn)
                async with self.wrapped.request_stream(*asked, run_context) as stream:
                    begun = True
                    yield stream
                return
            except REFUSALS as error:
                if begun:
                    raise
                refusal = error

    def _about(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> dict[str, Any]:
        """What the budget has to know of the request."""
        limited: ModelSettings = {**(self.wrapped.settings or {}), **(settings or {})}
        cap = limited.get("max_tokens", self.budget.metering.bounds.max_output)
        body = shown(messages, replace(parameters, output_tools=[]), cap)
        body["output_tools"] = [(tool.name, tool.parameters_json_schema) for tool in parameters.output_tools]
        return {
            "request": body, "tools": bool(parameters.function_tools or parameters.native_tools),
            "model": self.model_name, "provider": self.system,
        }  # fmt: skip


def _asked(
    messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters, turn: Turn
) -> tuple[list[ModelMessage], ModelSettings, ModelRequestParameters]:
    """The request as the turn allows it."""
    limited: ModelSettings = {**(settings or {}), "max_tokens": turn.cap}
    if turn.note:
        messages = [*messages, ModelRequest([UserPromptPart(turn.note)])]
    if not turn.tools:
        limited.pop("tool_choice", None)
        parameters = replace(parameters, function_tools=[], native_tools=[])
    return messages, limited, parameters


def _final(response: ModelResponse, parameters: ModelRequestParameters, turn: Turn) -> ModelResponse:
    """A last answer without calls of the tools that it was not given."""
    names = {tool.name for tool in parameters.function_tools}
    parts = [part for part in response.parts if not (isinstance(part, ToolCallPart) and part.tool_name in names)]
    if len(parts) == len(response.parts):
        return response
    return replace(response, parts=parts or [TextPart(turn.stopped)])


def _stop(parameters: ModelRequestParameters) -> Callable[[str], ModelResponse] | None:
    """What makes an answer of a text; None where it has to be an object, be it one that is written as a text."""
    if parameters.allow_text_output and parameters.output_object is None:
        return lambda text: ModelResponse([TextPart(text)])
    return None


def _fit(result: Any, room: Fitting) -> Any:
    if isinstance(result, ToolReturn):
        return replace(result, return_value=fitted(result.return_value, room))
    return fitted(result, room)
