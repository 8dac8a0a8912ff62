"""Budgets for the OpenAI Agents SDK: ``Runner.run(agent, run_config=RunConfig(model_provider=provider))``.

``BudgetedProvider(allowance)`` gives every agent of a run, handoffs and agents used as tools included, models that
spend from one allowance; ``BudgetedModel(model, allowance)`` does so for one model. A call that does not fit raises
:class:`budgeteer.core.errors.BudgetExceeded` out of the run. The SDK's usage hooks come after the call and cannot
refuse it.

A model that calls through an OpenAI client gets that client wrapped by :mod:`budgeteer.adapters.openai`, which meters
every attempt, the client's retries included. A model of LiteLLM or any-llm retries inside its library, so it is
refused unless it is told not to.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from budgeteer.adapters.openai import wrap
from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.call import Call, Metering, metering_of
from budgeteer.metering.clients import refuse_unbounded, refuse_unmetered
from budgeteer.metering.deltas import TEXT_DELTAS
from budgeteer.metering.estimate import least_tokens, worst_case
from budgeteer.metering.outcome import Outcome, outcome_of_status
from budgeteer.metering.protocol import Allowance
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import answer_of, holds_calls

try:
    import openai
    from agents import FunctionTool, Handoff, Model, ModelProvider, ModelSettings, MultiProvider
    from agents.exceptions import UserError
    from agents.items import ModelResponse, TResponseStreamEvent
    from agents.models.openai_responses import OpenAIResponsesWSModel
    from agents.usage import Usage as AgentsUsage
except ImportError as error:
    raise MissingExtra("agents", "openai-agents") from error


_ADDING = ("extra_body", "extra_args", "extra_query", "context_management")
"""Settings that add fields to a request which are not bounded here."""
_PIECE = 16
"""Most characters of a delta that counts as one token."""


class BudgetedModel(Model):
    """A model of the Agents SDK whose calls spend from an allowance.

    Args:
        wrapped: the model.
        allowance: where calls are reserved, or a Metering, to share it or to read its state later.
        name: of the model, for prices and records; None: ``wrapped.model``.
        options: of :class:`budgeteer.metering.call.Metering`: kinds, prices, bounds, estimator, state, on_settle.
    """

    def __init__(
        self,
        wrapped: Model,
        allowance: Allowance | Metering,
        *,
        name: str | None = None,
        **options: Any,
    ) -> None:
        self.wrapped = wrapped
        self.name = name or str(getattr(wrapped, "model", ""))
        self.metering = metering_of(allowance, options)
        self._below = _metered_below(wrapped, self.metering)

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
        *,
        previous_response_id: str | None,
        conversation_id: str | None,
        prompt: Any,
    ) -> ModelResponse:
        stored = {
            "previous_response_id": previous_response_id,
            "conversation_id": conversation_id,
            "prompt": prompt,
        }
        if self._below is not None:
            return await self._below.get_response(
                system_instructions, input, model_settings, tools, output_schema, handoffs, tracing, **stored
            )
        call, settings = self._call(system_instructions, input, model_settings, tools, output_schema, handoffs, stored)
        await call.astart()
        try:
            response = await self.wrapped.get_response(
                system_instructions, input, settings, tools, output_schema, handoffs, tracing, **stored
            )
        except BaseException as error:
            await call.afinish(_failure(error))
            raise
        text = "".join(_text(item) for item in response.output)
        usage, calls = read_usage(response.usage, text, _asked(input)), any(map(_calls, response.output))
        await call.afinish(self._answer(usage, text, Outcome.OK, calls))
        return response

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,
        model_settings: ModelSettings,
        tools: list[Any],
        output_schema: Any,
        handoffs: list[Any],
        tracing: Any,
        *,
        previous_response_id: str | None,
        conversation_id: str | None,
        prompt: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        stored = {
            "previous_response_id": previous_response_id,
            "conversation_id": conversation_id,
            "prompt": prompt,
        }
        if self._below is not None:
            below: Any = self._below.stream_response(
                system_instructions, input, model_settings, tools, output_schema, handoffs, tracing, **stored
            )
            async with aclosing(below) as events:
                async for event in events:
                    yield event
            return
        call, settings = self._call(system_instructions, input, model_settings, tools, output_schema, handoffs, stored)
        await call.astart()
        least, calls = 0, False
        text, usage, answer = "", None, Answer(outcome=Outcome.UNKNOWN)
        try:
            async for event in self.wrapped.stream_response(
                system_instructions, input, settings, tools, output_schema, handoffs, tracing, **stored
            ):
                delta = getattr(event, "delta", None)
                if isinstance(delta, str) and delta:
                    text, calls = text + delta, calls or not event.type.endswith(TEXT_DELTAS)
                    least += 1 if len(delta) <= _PIECE else least_tokens(delta)
                    if call.needs_more(least, least):
                        await call.aextend(least)
                answer = self._answer(usage, text, Outcome.CUT, calls)
                if event.type in ("response.completed", "response.incomplete", "response.failed"):
                    usage = read_usage(event.response.usage, text, _asked(input))
                    answer = self._answer(usage, text, Outcome.OK, calls)
                yield event
        except Exception as error:
            if not text and answer.outcome != Outcome.OK:
                answer = _failure(error)
            raise
        finally:
            await call.afinish(answer)

    def _call(
        self,
        instructions: str | None,
        input: Any,
        settings: ModelSettings,
        tools: Any,
        schema: Any,
        handoffs: Any,
        stored: Mapping[str, Any],
    ) -> tuple[Call, ModelSettings]:
        bounds = self.metering.bounds
        if settings.max_tokens is None and bounds.max_output is not None:
            settings = replace(settings, max_tokens=bounds.max_output)
        _check_retries(self.wrapped, settings)
        refuse_unbounded({name: getattr(settings, name) for name in _ADDING}, "")
        request = shown(instructions, input, settings.max_tokens, tools, schema, handoffs, stored)
        planned = self.metering.plan(
            "openai", "chat", self.name, worst_case(request, bounds, model=self.name), cap=settings.max_tokens
        )
        return Call(self.metering, planned), settings

    def _answer(self, usage: Usage | None, text: str, outcome: Outcome, calls: bool) -> Answer:
        return answer_of(usage, text, self.metering.bounds, calls=calls, outcome=outcome)


class BudgetedProvider(ModelProvider):
    """A provider whose models all spend from one allowance.

    Args:
        allowance: where calls are reserved, or a Metering, to share it or to read its state later.
        wrapped: the provider of the models themselves; None: the SDK's MultiProvider.
        options: of :class:`budgeteer.metering.call.Metering`: kinds, prices, bounds, estimator, state, on_settle.
    """

    def __init__(self, allowance: Allowance | Metering, wrapped: ModelProvider | None = None, **options: Any) -> None:
        self.wrapped = wrapped or MultiProvider()
        self.metering = metering_of(allowance, options)

    def get_model(self, model_name: str | None) -> Model:
        model = self.wrapped.get_model(model_name)
        return BudgetedModel(model, self.metering, name=model_name)

    async def aclose(self) -> None:
        await self.wrapped.aclose()


def _metered_below(model: Model, metering: Metering) -> Model | None:
    """A copy of the model with its OpenAI client wrapped; None if it has no such client, and is metered here.

    Raises:
        InvalidInput: the model retries, or opens a WebSocket, where nothing is metered.
    """
    if isinstance(model, OpenAIResponsesWSModel):
        raise InvalidInput("a WebSocket is not metered; give the provider use_responses_websocket=False")
    client = getattr(model, "_client", None)
    if isinstance(client, openai.AsyncOpenAI):
        copied: Any = copy.copy(model)
        copied._client = wrap(client, metering)
        return cast(Model, copied)
    refuse_unmetered(client)
    return None


def shown(
    instructions: str | None,
    input: Any,
    cap: int | None,
    tools: Any,
    schema: Any,
    handoffs: Any,
    stored: Mapping[str, Any],
) -> dict[str, Any]:
    """A request as far as its cost goes, as :func:`budgeteer.metering.estimate.worst_case` reads it."""
    return {
        "instructions": instructions,
        "input": json.loads(json.dumps(input, default=_plain)),
        "tools": [_tool(tool) for tool in tools],
        "handoffs": [_tool(handoff) for handoff in handoffs],
        "schema": None if schema is None or schema.is_plain_text() else schema.json_schema(),
        "max_output_tokens": cap,
        "prompt_id": stored["prompt"],
        "previous_response_id": stored["previous_response_id"],
        "conversation": stored["conversation_id"],
    }


def _check_retries(model: Model, settings: ModelSettings) -> None:
    """Refuse libraries that retry by themselves unless the settings say not to."""
    name = type(model).__module__
    given = settings.extra_args or {}
    if ("litellm" in name or "any_llm" in name) and (given.get("max_retries"), given.get("num_retries")) != (0, 0):
        raise InvalidInput(
            f"{type(model).__name__} retries where no attempt can be metered; give "
            "ModelSettings(extra_args={'max_retries': 0, 'num_retries': 0})"
        )


def _asked(input: Any) -> str:
    """The text of the input, by which a reported usage is judged."""
    return input if isinstance(input, str) else ""


def read_usage(usage: AgentsUsage | Any, text: str = "", asked: str = "") -> Usage | None:
    """The usage that a call of the SDK reports.

    Args:
        usage: as the SDK has it. It has zeros if the provider reported none.
        text: of the answer.
        asked: text of the input.

    Returns:
        None if the provider reported no usage, or one that is smaller than the two texts need.
    """
    if usage is None:
        return None
    try:
        reported = Usage.from_responses(usage)
    except InvalidInput:
        return None
    enough = (reported.input or 0) >= max(1, least_tokens(asked)) and (reported.output or 0) >= least_tokens(text)
    return reported if enough else None


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else str(value)


def _tool(tool: Any) -> dict[str, Any]:
    """The parts of a tool or handoff that go into the prompt; for a tool that the provider runs, its type."""
    if not isinstance(tool, FunctionTool | Handoff):
        return {"type": str(getattr(tool, "name", type(tool).__name__))}
    names = ("name", "tool_name", "description", "tool_description", "params_json_schema", "input_json_schema")
    return {name: getattr(tool, name, None) for name in names}


def _text(item: Any) -> str:
    fields = item.model_dump() if hasattr(item, "model_dump") else item
    if not isinstance(fields, dict):
        return ""
    parts = [part.get("text") or part.get("refusal") or "" for part in fields.get("content") or ()]
    return "".join(parts) + str(fields.get("arguments") or "")


def _calls(item: Any) -> bool:
    return holds_calls(item.model_dump() if hasattr(item, "model_dump") else item)


def _failure(error: BaseException) -> Answer:
    if isinstance(error, openai.APIStatusError):
        return Answer(outcome=outcome_of_status(error.status_code))
    return Answer(outcome=Outcome.REJECTED if isinstance(error, UserError) else Outcome.UNKNOWN)
