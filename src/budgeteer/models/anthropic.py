"""Claude, and what else speaks Anthropic's Messages API, as a Model: chats only.

Requests are streamed, so that closing the connection stops the sampling. A message has one choice; several are asked
for one after the other (``choices`` is 1). Thinking is written into the trace between the tags that the chat names. The
API's temperatures end at 1, which is its default, and with thinking on it takes none. A model that takes none at all
says so, and is asked again without one: it draws at its own, so that no decoding of it is greedy.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator
from typing import Any

from budgeteer.core.errors import EndpointDown, InvalidInput, MissingExtra, ModelError
from budgeteer.core.urls import check_http, without_password
from budgeteer.core.usage import Usage
from budgeteer.metering.estimate import Bounds, count_text, input_bound
from budgeteer.metering.outcome import NOT_RUN, Outcome, outcome_of_status
from budgeteer.models.chat import Chat, Message, Prompt, traced
from budgeteer.models.dialects import refuses_temperature
from budgeteer.models.model import PREFILL, Choice, Chunk, Finish, Request, Response, last

try:
    import anthropic
    import httpx2
except ImportError as error:
    raise MissingExtra("anthropic", "anthropic") from error

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
"""Seconds before a retry: the first, doubled each time, where the API names none; and the longest."""
LEAST, LEAST_OF_TASK = 1024, 20_000
"""Fewest tokens of a thinking budget, and of a budget of the task, that the API takes."""
TASK_BUDGETS = "task-budgets-2026-03-13"
"""Beta of the API in which a model is told the budget of its task."""


class Anthropic:
    """A model behind the Messages API.

    A thinking budget is ``thinking.budget_tokens``; an effort and a budget of the task, of which the model sees what is
    left (advice, no limit), are in ``output_config``.

    Args:
        model: its name, such as ``"claude-sonnet-5-5"``.
        base_url: None = Anthropic's own.
        api_key: None = the environment variable ANTHROPIC_API_KEY.
        prefill: whether the model goes on with an answer that it is given, as Claude did until 4.5, without thinking.
        bounds: how the input tokens of a prompt are bounded.
        retries: most retries of a call that was refused before it ran, with the waits that the API asks for.
        timeout: seconds of one call.
        name: for reports and prices; None = ``model``.

    Raises:
        InvalidInput: the address is none.
    """

    choices = 1

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        prefill: bool = False,
        bounds: Bounds | None = None,
        retries: int = 5,
        timeout: float = 600.0,
        name: str | None = None,
    ) -> None:
        if retries < 0 or not timeout > 0:
            raise InvalidInput(f"retries={retries}, timeout={timeout}; at least 0, and above 0")
        self.name, self.capabilities, self._model = name or model, frozenset({PREFILL} if prefill else ()), model
        self._bounds, self._retries, self.hides = bounds or Bounds(), retries, False
        self._heats = True  # until the API says that the model takes no temperature
        self._client = anthropic.AsyncAnthropic(
            base_url=None if base_url is None else check_http(base_url, f"model {model!r}"),
            api_key=api_key or os.environ.get("ANTHROPIC_API_KEY") or "none",
            max_retries=0,
            timeout=timeout,
        )

    def count(self, prompt: Prompt) -> int:
        """Input tokens of a prompt, bounded so that no byte-level tokenizer exceeds it.

        Raises:
            InvalidInput: a budget of the thinking or of the task that is too small.
        """
        if isinstance(prompt, str):
            return count_text(prompt, self._bounds.tokens) + 1
        tokens = prompt.thinking.tokens
        if tokens is not None and tokens < LEAST:
            raise InvalidInput(
                f"a thinking budget of {tokens} tokens; {self.name} takes {LEAST} or more; on=false is none"
            )
        task = prompt.thinking.task
        if task is not None and task < LEAST_OF_TASK:
            raise InvalidInput(f"a budget of the task of {task} tokens; {self.name} takes {LEAST_OF_TASK:,} or more")
        system, messages = _split(prompt)
        return input_bound(
            {"messages": [{"role": "system", "content": system}] * bool(system) + messages}, self._bounds
        )

    async def generate(self, request: Request) -> Response:
        """The choice of a request; raises what ``stream`` raises."""
        return await last(self.stream(request))

    async def stream(self, request: Request) -> AsyncGenerator[Chunk | Response, None]:
        """Chunks as they come, then the Response.

        Raises:
            InvalidInput: raw text, several choices, log-probabilities, a steer, or a thinking budget that does not fit.
            ModelError: no answer came; it says whether the call may be billed.
            EndpointDown: nothing listens there.
        """
        chat = self._checked(request)
        self.count(chat)  # what cannot be asked has no length
        body = self._body(request, chat)
        text, thought, trace, ended, bound = "", "", "", None, 0
        usages: list[Any] = []
        events = await self._opened(body)
        try:
            async with events:
                async for event in events:
                    if event.type == "message_start":
                        usages.append(event.message.usage)
                    elif event.type == "content_block_delta":
                        text += event.delta.text if event.delta.type == "text_delta" else ""
                        thought += event.delta.thinking if event.delta.type == "thinking_delta" else ""
                    elif event.type == "message_delta":
                        usages.append(event.usage)
                        ended = event.delta.stop_reason
                    whole = traced(chat, thought, text, stopped=False)
                    now = min(request.max_tokens, count_text(text + thought, self._bounds.tokens))
                    if now > bound or whole != trace:
                        yield Chunk(0, whole[len(trace) :], now - bound)
                    trace, bound = whole, now
        except (anthropic.APIError, httpx2.HTTPError, ValueError, TypeError) as error:
            if not text and not thought:
                raise ModelError(f"{self.name}: {type(error).__name__}: {error}", billed=True, again=True) from error
        usage = Usage.from_anthropic(*usages) if usages else Usage()
        self.hides |= bool(chat.thinking.tokens or chat.thinking.on)
        finish = Finish.CUT if ended is None else Finish.LENGTH if ended == "max_tokens" else Finish.STOP
        if finish == Finish.CUT:  # the count of the output comes with the end
            usage = Usage(input=usage.input, cached=usage.cached, written=usage.written)
        tokens = usage.output if usage.output is not None else None if self.hides else bound
        yield Response((Choice(traced(chat, thought, text, stopped=finish == Finish.STOP), tokens, finish),), usage)

    def _checked(self, request: Request) -> Chat:
        if isinstance(request.prompt, str):
            raise InvalidInput(f"{self.name} does not continue raw text; give a chat, with the style chat or think")
        if request.logprobs:
            raise InvalidInput(f"{self.name} does not report log-probabilities; choose a strategy without them")
        if request.steer is not None:
            raise InvalidInput(f"{self.name} is a black box; choose a strategy that needs no internals")
        if request.n > 1:
            raise InvalidInput(f"{self.name} has one choice a call, and n={request.n}; ask for them one by one")
        if request.prompt.begun and PREFILL not in self.capabilities:
            raise InvalidInput(
                f"{self.name} does not go on with an answer that it is given; give prefill=True if it does, or a "
                "strategy that continues no trace"
            )
        return request.prompt

    def _body(self, request: Request, chat: Chat) -> dict[str, Any]:
        system, messages = _split(chat)
        body: dict[str, Any] = {"model": self._model, "messages": messages, "max_tokens": request.max_tokens}
        thinking = chat.thinking
        if system:
            body["system"] = system
        if request.stop:
            body["stop_sequences"] = list(request.stop)
        if thinking.tokens is not None and thinking.tokens >= request.max_tokens:
            raise InvalidInput(
                f"a thinking budget of {thinking.tokens} of {request.max_tokens} tokens in all leaves none for the "
                "answer; raise the cap or lower the thinking budget"
            )
        if thinking.tokens is not None:
            body["thinking"] = {"type": "enabled", "budget_tokens": thinking.tokens}
        elif thinking.on is not None:
            body["thinking"] = {"type": "adaptive" if thinking.on else "disabled"}
        # by extra_body: versions of the client differ in which of these they know
        more: dict[str, Any] = {}
        if self._heats and "thinking" not in body and request.temperature < 1:
            more["temperature"] = request.temperature
        told: dict[str, Any] = {"effort": thinking.effort} if thinking.effort else {}
        if thinking.task is not None:
            told["task_budget"] = {"type": "tokens", "total": thinking.task}
            body["extra_headers"] = {"anthropic-beta": TASK_BUDGETS}
        if told:
            more["output_config"] = told
        return {**body, "extra_body": more} if more else body

    async def _opened(self, body: dict[str, Any]) -> Any:
        """The stream of a call; one that was refused before it ran is tried again, after the time that is asked for."""
        for attempt in range(self._retries + 1):
            try:
                return await self._client.messages.create(**body, stream=True)
            except anthropic.APIError as error:
                status = getattr(error, "status_code", 0)
                if "temperature" in body.get("extra_body", {}) and refuses_temperature(status, str(error)):
                    self._heats = False
                    return await self._opened(_without_temperature(body))
                if status in NOT_RUN and attempt < self._retries:
                    asked = error.response.headers.get("retry-after", "") if hasattr(error, "response") else ""
                    wait = float(asked) if asked.replace(".", "", 1).isdigit() else _FIRST_WAIT * 2.0**attempt
                    await asyncio.sleep(min(wait, _LONGEST_WAIT) * random.uniform(0.8, 1.0))
                    continue
                raise self._failure(error, status) from error
        raise AssertionError("the last attempt returns or raises")

    def _failure(self, error: anthropic.APIError, status: int) -> ModelError:
        said = f"{self.name}: {type(error).__name__}: {error}"
        if status:
            may_have_run = outcome_of_status(status) != Outcome.REJECTED
            return ModelError(said, billed=may_have_run, again=may_have_run)
        if type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout"):  # no connection was made
            address = without_password(str(self._client.base_url))
            return EndpointDown(f"the endpoint {address} does not answer ({said}); start it, or give its right address")
        return ModelError(said, billed=True, again=True)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()


def _without_temperature(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "extra_body": {k: v for k, v in body["extra_body"].items() if k != "temperature"}}


def _split(chat: Chat) -> tuple[str, list[dict[str, str]]]:
    """The system text, and the messages as the API has them, with what is begun as the last one."""
    system = "\n\n".join(message.content for message in chat.messages if message.role == "system")
    rest = [message for message in chat.messages if message.role != "system"]
    if chat.begun:
        rest.append(Message("assistant", chat.begun.rstrip()))  # the API refuses blanks at the end
    return system, [message._asdict() for message in rest]
