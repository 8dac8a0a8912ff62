"""Budgets for pydantic-ai: ``Agent(BudgetedModel("anthropic:claude-sonnet-4-5", allowance))``.

Every request of a run reserves before it is sent and settles what the provider reported, of any provider that
pydantic-ai knows. A request that does not fit raises :class:`budgeteer.errors.BudgetExceeded` out of the run. What a
provider's own client retries is not seen from here; for OpenAI models give pydantic-ai a client wrapped by
:mod:`budgeteer.adapters.openai` instead, which meters every attempt.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from budgeteer.adapters.metering import (
    CUT,
    OK,
    REJECTED,
    UNKNOWN,
    Allowance,
    Answer,
    Call,
    Metering,
    metering_of,
    outcome_of_status,
)
from budgeteer.errors import InvalidInput, MissingExtra
from budgeteer.ledger.estimate import count_text, worst_case
from budgeteer.usage import Usage

try:
    from pydantic_ai import RunContext
    from pydantic_ai.exceptions import ModelHTTPError, UserError
    from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
    from pydantic_ai.models import KnownModelName, Model, ModelRequestParameters, StreamedResponse
    from pydantic_ai.models.wrapper import WrapperModel
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.usage import RequestUsage
except ImportError as error:
    raise MissingExtra("pydantic_ai", "pydantic-ai") from error


class BudgetedModel(WrapperModel):
    """A pydantic-ai model whose requests spend from an allowance.

    Args:
        wrapped: a model or its name.
        allowance: what to draw on, or a Metering to share or to keep hold of.
        options: of :class:`budgeteer.adapters.metering.Metering`: kinds, prices, bounds, estimator, state, on_settle.
    """

    def __init__(self, wrapped: Model | KnownModelName | str, allowance: Allowance | Metering, **options: Any) -> None:
        super().__init__(wrapped)
        self.metering = metering_of(allowance, options)

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        call, model_settings = self._call(messages, model_settings, model_request_parameters)
        await call.astart()
        try:
            response = await self.wrapped.request(messages, model_settings, model_request_parameters)
        except BaseException as error:
            await call.afinish(_failure(error))
            raise
        await call.afinish(self._answer(response, OK))
        return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        call, model_settings = self._call(messages, model_settings, model_request_parameters)
        await call.astart()
        stream: StreamedResponse | None = None
        try:
            async with self.wrapped.request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as stream:
                yield stream
        except BaseException as error:
            if stream is None:
                await call.afinish(_failure(error))
            raise
        finally:
            if stream is not None:
                response = stream.get()
                await call.afinish(self._answer(response, OK if response.state == "complete" else CUT))

    def _call(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> tuple[Call, ModelSettings]:
        merged: ModelSettings = {**(self.wrapped.settings or {}), **(settings or {})}
        bounds = self.metering.bounds
        cap = merged.get("max_tokens")
        if cap is None and bounds.max_output is not None:
            cap = merged["max_tokens"] = bounds.max_output
        files: list[dict[str, str]] = []
        request = {
            "history": _shown(json.loads(ModelMessagesTypeAdapter.dump_json(messages)), files),
            "messages": files,
            "tools": [
                {"name": tool.name, "description": tool.description, "parameters": tool.parameters_json_schema}
                for tool in (*parameters.function_tools, *parameters.output_tools)
            ],
            "output": str(parameters.output_object),
            "instructions": str(getattr(parameters, "instruction_parts", None)),
            "max_tokens": cap,
        }
        worst = worst_case(request, bounds)
        planned = self.metering.plan(self.wrapped.system, "chat", self.wrapped.model_name, worst, cap=cap)
        return Call(self.metering, planned), merged

    def _answer(self, response: ModelResponse, outcome: str) -> Answer:
        shown = [part for part in response.parts if part.part_kind in ("text", "thinking", "tool-call")]
        text = "".join(f"{getattr(part, 'content', '')}{getattr(part, 'args', '')}" for part in shown)
        usage = read_usage(response.usage, text)
        if outcome == CUT and usage is not None:
            usage = Usage(input=usage.input, cached=usage.cached, written=usage.written)
        seen = count_text(text, self.metering.bounds.tokens) if text else None
        return Answer(usage, seen, response.model_name or "", "", outcome, count_text(text))


def read_usage(usage: RequestUsage, text: str = "") -> Usage | None:
    """Of a pydantic-ai request, inclusive as ours; None where the provider reported none, or a nought that is wrong."""
    if getattr(usage, "unmeasured_requests", 0) or not usage.input_tokens or (text and not usage.output_tokens):
        return None
    reasoning = usage.output_reasoning_tokens or usage.details.get("reasoning_tokens", 0)
    try:
        return Usage(
            input=usage.input_tokens,
            output=usage.output_tokens + max(0, reasoning - usage.output_tokens),
            cached=usage.cache_read_tokens,
            written=usage.cache_write_tokens,
            written_long=min(usage.cache_write_1h_tokens, usage.cache_write_tokens),
            reasoning=reasoning,
            audio_input=usage.input_audio_tokens,
            audio_output=usage.output_audio_tokens,
        )
    except InvalidInput:
        return None


def _shown(value: Any, files: list[dict[str, str]]) -> Any:
    """Messages without their files, which are named apart as the bounds know them: images, or what nothing bounds."""
    if isinstance(value, dict):
        kind, media = value.get("kind"), str(value.get("media_type", ""))
        if kind == "image-url" or (kind == "binary" and media.startswith("image/")):
            files.append({"type": "image"})
            return None
        if kind in ("audio-url", "video-url", "document-url", "binary", "uploaded-file"):
            files.append({"type": "file"})
            return None
        return {name: _shown(inner, files) for name, inner in value.items()}
    return [_shown(inner, files) for inner in value] if isinstance(value, list) else value


def _failure(error: BaseException) -> Answer:
    if isinstance(error, ModelHTTPError):
        return Answer(outcome=outcome_of_status(error.status_code))
    return Answer(outcome=REJECTED if isinstance(error, UserError) else UNKNOWN)
