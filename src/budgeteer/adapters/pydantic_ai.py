"""Budgets for pydantic-ai: ``Agent(BudgetedModel("anthropic:claude-sonnet-4-5", allowance))``.

Every request of a run is reserved before it is sent, and settled by the usage that the provider reports, with any
provider that pydantic-ai knows. A request that does not fit into the budget raises
:class:`budgeteer.core.errors.BudgetExceeded` out of the run.

A model that calls through an OpenAI client gets that client wrapped by :mod:`budgeteer.adapters.openai`, which sees
the whole body and meters every attempt. The client of any other provider would retry unseen. So it is told not to
(``max_retries`` of the settings is 0), and the retries are made here, as many as the settings or the client ask for:
each attempt is metered by itself. For these models, settings that could raise a request above its bound are refused
(``extra_body`` with a cap, for example).
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn, cast

from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.call import Call, Metering, metering_of
from budgeteer.metering.clients import refuse_unbounded, refuse_unmetered
from budgeteer.metering.estimate import least_tokens, worst_case
from budgeteer.metering.outcome import Outcome, outcome_of_status
from budgeteer.metering.protocol import Allowance
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import answer_of

try:
    from pydantic_ai import RunContext
    from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError, UserError
    from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
    from pydantic_ai.models import KnownModelName, Model, ModelRequestParameters, StreamedResponse
    from pydantic_ai.models.fallback import FallbackModel
    from pydantic_ai.models.wrapper import WrapperModel
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.usage import RequestUsage
except ImportError as error:
    raise MissingExtra("pydantic_ai", "pydantic-ai") from error


_HIDDEN = {"google_cached_content": "cached_content", "xai_previous_response_id": "previous_response_id"}
"""Settings that stand for input which the request does not show -> the name of such a field in a request."""
_UNSENT = frozenset({"timestamp", "usage", "run_id", "conversation_id", "workspace_ref", "history_digest"})
"""Fields of messages and parts that no provider is sent."""
_PIECE = 16
"""Most characters of a delta that counts as one token."""


class BudgetedModel(WrapperModel):
    """A pydantic-ai model whose requests spend from an allowance.

    Args:
        wrapped: a model or its name.
        allowance: where requests are reserved, or a Metering, to share it or to read its state later.
        options: of :class:`budgeteer.metering.call.Metering`: kinds, prices, bounds, estimator, state, on_settle.
    """

    def __init__(self, wrapped: Model | KnownModelName | str, allowance: Allowance | Metering, **options: Any) -> None:
        super().__init__(wrapped)
        self.metering = metering_of(allowance, options)
        inner: Any = self.wrapped
        while isinstance(inner, WrapperModel):
            inner = inner.wrapped
        if isinstance(inner, FallbackModel):
            raise InvalidInput(
                "a FallbackModel calls several models in one request; budget each of them: "
                "FallbackModel(BudgetedModel(a, allowance), BudgetedModel(b, allowance))"
            )
        client = getattr(inner, "client", None)
        refuse_unmetered(client)
        _check_retries(client)
        self._inner = inner
        self._below = _is_openai(client)
        if self._below:
            self.wrapped = _metered_below(self.wrapped, self.metering)
        retries = getattr(client, "max_retries", 0)
        self._retries = retries if isinstance(retries, int) else 0

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        if self._below:
            return await self.wrapped.request(messages, model_settings, model_request_parameters)
        attempt = 0
        while True:
            call, settings, retries = self._call(messages, model_settings, model_request_parameters, attempt)
            await call.astart()
            try:
                response = await self.wrapped.request(messages, settings, model_request_parameters)
            except BaseException as error:
                await call.afinish(_failure(error))
                if attempt >= retries or not _transient(error):
                    raise
                await asyncio.sleep(_wait(error, attempt))
                attempt += 1
                continue
            await call.afinish(self._answer(response, Outcome.OK, messages))
            return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        if self._below:
            async with self.wrapped.request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as metered:
                yield metered
            return
        attempt, over = 0, False
        while not over:
            call, settings, retries = self._call(messages, model_settings, model_request_parameters, attempt)
            await call.astart()
            stream: StreamedResponse | None = None
            over = True
            try:
                async with self.wrapped.request_stream(
                    messages, settings, model_request_parameters, run_context
                ) as stream:
                    yield _watched(stream, call)
            except BaseException as error:
                if stream is None:
                    await call.afinish(_failure(error))
                    over = attempt >= retries or not _transient(error)
                if over:
                    raise
                await asyncio.sleep(_wait(error, attempt))
                attempt += 1
            finally:
                if stream is not None:
                    response = stream.get()
                    outcome = Outcome.OK if response.state == "complete" else Outcome.CUT
                    await call.afinish(self._answer(response, outcome, messages))

    async def batch_create(self, requests: Any) -> NoReturn:
        """Raises InvalidInput: what a batch will use cannot be reserved."""
        raise InvalidInput("a batch is not metered and could spend; make the model's requests one by one")

    async def compact_messages(self, *_: Any, **__: Any) -> NoReturn:
        """Raises InvalidInput: what the provider will use for it cannot be reserved."""
        raise InvalidInput("compact_messages is not metered and could spend; use the model without a budget for it")

    def _call(
        self,
        messages: list[ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
        attempt: int,
    ) -> tuple[Call, ModelSettings, int]:
        """The call of one attempt, its settings, and how many retries there may be."""
        merged: ModelSettings = {**(self.wrapped.settings or {}), **(settings or {})}
        retries = merged.get("max_retries")
        if "max_retries" not in self._inner.unsupported_settings:
            merged["max_retries"] = 0
        bounds = self.metering.bounds
        prefix = f"{self.wrapped.system.partition('.')[0].partition('-')[0]}_"
        hidden = {inner: merged[name] for name, inner in _HIDDEN.items() if merged.get(name)}  # type: ignore[literal-required]
        refuse_unbounded({name: value for name, value in merged.items() if name not in _HIDDEN}, prefix)
        cap = merged.get("max_tokens")
        if cap is None and bounds.max_output is not None:
            cap = merged["max_tokens"] = bounds.max_output
        request = {**shown(messages, parameters, cap), **hidden}
        worst = worst_case(request, bounds, model=self.wrapped.model_name)
        planned = self.metering.plan(
            self.wrapped.system,
            "chat",
            self.wrapped.model_name,
            worst,
            str(merged.get("service_tier") or ""),
            cap=cap,
            attempt=attempt,
        )
        return Call(self.metering, planned), merged, self._retries if retries is None else retries

    def _answer(self, response: ModelResponse, outcome: Outcome, messages: list[ModelMessage]) -> Answer:
        shown = [part for part in response.parts if part.part_kind in ("text", "thinking", "tool-call")]
        text = "".join(f"{getattr(part, 'content', '')}{getattr(part, 'args', '')}" for part in shown)
        contents = (getattr(part, "content", None) for message in messages for part in message.parts)
        asked = " ".join(content for content in contents if isinstance(content, str))
        usage = read_usage(response.usage, text, asked)
        if outcome == Outcome.CUT and usage is not None:
            usage = Usage(input=usage.input, cached=usage.cached, written=usage.written)
        calls = any(part.part_kind == "tool-call" for part in shown)
        return answer_of(
            usage, text, self.metering.bounds, calls=calls, outcome=outcome, model=response.model_name or ""
        )


def shown(messages: list[ModelMessage], parameters: ModelRequestParameters, cap: int | None) -> dict[str, Any]:
    """A request as far as its cost goes, as :func:`budgeteer.metering.estimate.worst_case` reads it."""
    files: list[dict[str, str]] = []
    return {
        "history": _shown(json.loads(ModelMessagesTypeAdapter.dump_json(messages)), files),
        "messages": files,
        "tools": [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters_json_schema}
            for tool in (*parameters.function_tools, *parameters.output_tools)
        ]
        + [{"type": tool.kind} for tool in parameters.native_tools],
        "output": str(parameters.output_object),
        "instructions": str(getattr(parameters, "instruction_parts", None)),
        "max_tokens": cap,
    }


def read_usage(usage: RequestUsage, text: str = "", asked: str = "") -> Usage | None:
    """The usage that a pydantic-ai request reports.

    Args:
        usage: as pydantic-ai has it.
        text: of the answer.
        asked: texts of the request.

    Returns:
        None if the provider reported no usage, or one that is smaller than the two texts need.
    """
    if getattr(usage, "unmeasured_requests", 0) or not usage.input_tokens or usage.input_tokens < least_tokens(asked):
        return None
    if usage.output_tokens < least_tokens(text):
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
    """Messages without their files. Each file is added to ``files`` as a part that
    :func:`budgeteer.metering.estimate.worst_case` knows: an image, or a file, which nothing bounds."""
    if isinstance(value, dict):
        kind, media = value.get("kind"), str(value.get("media_type", ""))
        if kind == "image-url" or (kind == "binary" and media.startswith("image/")):
            files.append({"type": "image"})
            return None
        if kind in ("audio-url", "video-url", "document-url", "binary", "uploaded-file"):
            files.append({"type": "file"})
            return None
        return {
            name: _shown(inner, files) for name, inner in value.items() if inner is not None and name not in _UNSENT
        }
    return [_shown(inner, files) for inner in value] if isinstance(value, list) else value


def _watched(stream: StreamedResponse, call: Call) -> StreamedResponse:
    """The same stream; it raises BudgetExceeded once it needs more than is reserved and than the budget can cover."""
    events = stream._get_event_iterator

    async def counted() -> AsyncIterator[Any]:
        least = 0
        async for event in events():
            delta = getattr(event, "delta", None) or getattr(event, "part", None)
            text = "".join(
                str(getattr(delta, name, None) or "") for name in ("content_delta", "args_delta", "content", "args")
            )
            least += 1 if 0 < len(text) <= _PIECE else least_tokens(text)
            if call.needs_more(least, least):
                await call.aextend(least)
            yield event

    stream._get_event_iterator = counted  # type: ignore[method-assign]
    return stream


def _is_openai(client: Any) -> bool:
    """Whether the openai adapter can wrap this client."""
    try:
        import openai
    except ImportError:
        return False
    return isinstance(client, openai.AsyncOpenAI)


def _metered_below(model: Any, metering: Metering) -> Model:
    """A copy of a model, and of the wrappers around it, whose OpenAI client is wrapped.

    Raises:
        InvalidInput: the model's client cannot be replaced.
    """
    from budgeteer.adapters.openai import wrap

    copied: Any = copy.copy(model)
    if isinstance(model, WrapperModel):
        copied.wrapped = _metered_below(model.wrapped, metering)
        return cast(Model, copied)
    client = wrap(model.client, metering)
    copied._provider = copy.copy(getattr(model, "_provider", None))
    copied._provider._client = client
    if copied.client is not client:
        raise InvalidInput(
            f"the client of {type(model).__name__} cannot be metered; wrap it yourself "
            "(budgeteer.adapters.openai.wrap) and give it to the model's provider"
        )
    return cast(Model, copied)


def _check_retries(client: Any) -> None:
    """Refuse a client of botocore that retries, since it cannot be told not to."""
    config = getattr(getattr(client, "meta", None), "config", None)
    retries = getattr(config, "retries", None)
    if config is not None and (retries or {}).get("total_max_attempts") != 1:
        raise InvalidInput(
            "this client retries where no attempt can be metered; make it with "
            "Config(retries={'total_max_attempts': 1})"
        )


def _transient(error: BaseException) -> bool:
    """Whether a provider's client would try again after this error."""
    if isinstance(error, ModelHTTPError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, ModelAPIError)


def _wait(error: BaseException, attempt: int) -> float:
    """Seconds before the next attempt: as the provider asks, else half a second, doubled each time, up to eight."""
    asked = getattr(error, "retry_after", None)
    return float(asked) if isinstance(asked, int | float) and 0 <= asked <= 60 else min(8.0, 0.5 * 2**attempt)


def _failure(error: BaseException) -> Answer:
    if isinstance(error, ModelHTTPError):
        return Answer(outcome=outcome_of_status(error.status_code))
    return Answer(outcome=Outcome.REJECTED if isinstance(error, UserError) else Outcome.UNKNOWN)
