"""Budgets for LangChain and LangGraph: ``create_agent(model, tools, middleware=[BudgetMiddleware(budget)])``.

The middleware makes every call of the agent's model one that the budget covers, the last one an answer without tools,
and counts and cuts its calls of tools; see :mod:`budgeteer.metering.agents`. Give it as the last of the list: what
retries, falls back or summarises stands before it, so that each attempt is metered by itself.

A sub-agent, called from a tool of the agent, gets a middleware with the same budget. Models that are called elsewhere,
by a summarising middleware or in a node of a graph, are wrapped: ``budgeted(model, budget)``. A graph of LangGraph
without ``create_agent`` asks ``asking(model, tools, budget)`` in its node, which ends with a last answer without tools,
and meters its tools by ``ToolNode(tools, wrap_tool_call=middleware.wrap_tool_call)``, ``awrap_tool_call`` likewise.

A model that calls through an OpenAI client gets that client wrapped, which meters its retries one by one. Another model
must not retry by itself (``max_retries=0``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

from budgeteer.adapters.wrapped import refuse_retries, spends_from, wrapped
from budgeteer.core.errors import MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.call import Call, Metering
from budgeteer.metering.calling import ametered, metered, outcome_of
from budgeteer.metering.estimate import least_tokens, worst_case
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.results import Fitting, fitted, text_of
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import answer_of, credible
from budgeteer.metering.turn import Turn

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, convert_to_openai_messages
    from langchain_core.outputs import ChatGenerationChunk, ChatResult
    from langchain_core.runnables import RunnableLambda
    from langchain_core.utils.function_calling import convert_to_openai_tool
except ImportError as error:
    raise MissingExtra("langchain", "langchain") from error

_CAPS = ("max_output_tokens", "max_tokens")
"""Fields of models that cap the output."""


class BudgetMiddleware(AgentMiddleware):  # type: ignore[misc]
    """An agent's model and tools on a budget.

    Args:
        budget: shared by all agents of a run.
    """

    def __init__(self, budget: AgentBudget) -> None:
        super().__init__()
        self.budget = budget

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> Any:
        model, about = self._about(request)
        return self.budget.answer(send=lambda turn: _final(handler(_asked(request, model, turn)), turn), **about)

    async def awrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], Awaitable[ModelResponse]]
    ) -> Any:
        model, about = self._about(request)

        async def send(turn: Turn) -> Any:
            return _final(await handler(_asked(request, model, turn)), turn)

        return await self.budget.aanswer(send=send, **about)

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Also for ``ToolNode(tools, wrap_tool_call=...)``."""
        call = request.tool_call
        return self.budget.use(call["name"], lambda: handler(request), fit=_fit, refused=_refused(call))

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Also for ``ToolNode(tools, awrap_tool_call=...)``."""
        call = request.tool_call
        return await self.budget.ause(call["name"], lambda: handler(request), fit=_fit, refused=_refused(call))

    def _about(self, request: ModelRequest) -> tuple[Any, dict[str, Any]]:
        """The model that meters itself, and what its budget has to know of the call."""
        messages = [*([request.system_message] if request.system_message else []), *request.messages]
        body = _body(request.model, messages, request.tools, request.model_settings)
        about = {"request": body, "tools": bool(request.tools), "model": _name(request.model), "stop": _stopped}
        return budgeted(request.model, self.budget), about


def asking(model: BaseChatModel, tools: Sequence[Any], budget: AgentBudget) -> RunnableLambda[Any, AIMessage]:
    """The model of a graph's node: messages -> its next message, with tools as long as the budget covers them.

    ``graph.add_node("model", lambda state: {"messages": [asked.invoke(state["messages"])]})``, and ``ainvoke``.

    Args:
        model: any chat model.
        tools: that it may call; its last answer is asked without them.
        budget: shared by all agents of a run.
    """
    own = BudgetMiddleware(budget)

    def request(messages: Any) -> ModelRequest:
        return ModelRequest(model=model, messages=list(messages), tools=list(tools), model_settings={})

    def bound(asked: ModelRequest) -> Any:
        settings = asked.model_settings
        return asked.model.bind_tools(asked.tools, **settings) if asked.tools else asked.model.bind(**settings)

    def call(messages: Any) -> Any:
        return own.wrap_model_call(
            request(messages), lambda asked: ModelResponse(result=[bound(asked).invoke(asked.messages)])
        ).result[0]

    async def acall(messages: Any) -> Any:
        async def handler(asked: ModelRequest) -> ModelResponse:
            return ModelResponse(result=[await bound(asked).ainvoke(asked.messages)])

        return (await own.awrap_model_call(request(messages), handler)).result[0]

    return RunnableLambda(call, afunc=acall)


def budgeted(model: BaseChatModel, budget: AgentBudget | Metering) -> BaseChatModel:
    """A copy of a chat model whose calls spend from a budget; a call that does not fit raises BudgetExceeded.

    Args:
        model: any chat model; one that spends from this budget already is returned as it is.
        budget: or a Metering of an allowance.

    Raises:
        InvalidInput: it retries where no attempt can be metered, or spends from another budget.
    """
    if isinstance(model, BudgetedChatModel) and spends_from(model.metering, budget):
        return model
    metering = budget.metering if isinstance(budget, AgentBudget) else budget
    client, waiting = (wrapped(getattr(model, name, None), metering) for name in ("root_client", "root_async_client"))
    if client is not None and waiting is not None:
        new = {"root_client": client, "root_async_client": waiting}
        return model.model_copy(
            update={**new, "client": client.chat.completions, "async_client": waiting.chat.completions}
        )
    refuse_retries(model)
    return BudgetedChatModel(wrapped=model, metering=metering)


class BudgetedChatModel(BaseChatModel):  # type: ignore[misc]
    """A chat model whose calls spend from a budget.

    Attributes:
        wrapped: the model.
        metering: how calls are bounded, reserved and charged.
    """

    wrapped: Any
    metering: Any

    @property
    def _llm_type(self) -> str:
        return f"budgeted-{self.wrapped._llm_type}"

    def bind_tools(self, tools: Sequence[Any], **more: Any) -> Any:
        return self.bind(**self.wrapped.bind_tools(tools, **more).kwargs)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any) -> ChatResult:
        more, planned = self._planned(messages, more)
        found = metered(
            self.metering, planned, lambda: self.wrapped._generate(messages, stop, run_manager, **more), self._read
        )
        return found

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any) -> ChatResult:
        more, planned = self._planned(messages, more)
        return await ametered(
            self.metering, planned, lambda: self.wrapped._agenerate(messages, stop, run_manager, **more), self._read
        )

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any
    ) -> Iterator[ChatGenerationChunk]:
        more, planned = self._planned(messages, more)
        call, seen = Call(self.metering, planned).start(), _Seen(self.metering)
        try:
            for chunk in self.wrapped._stream(messages, stop, run_manager, **more):
                if call.needs_more(least := seen.add(chunk.message), least):
                    call.extend(least)
                yield chunk
            seen.whole = True
        except Exception as error:
            seen.failed = error
            raise
        finally:
            call.finish(seen.answer())

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        more, planned = self._planned(messages, more)
        call, seen = await Call(self.metering, planned).astart(), _Seen(self.metering)
        try:
            async for chunk in self.wrapped._astream(messages, stop, run_manager, **more):
                if call.needs_more(least := seen.add(chunk.message), least):
                    await call.aextend(least)
                yield chunk
            seen.whole = True
        except Exception as error:
            seen.failed = error
            raise
        finally:
            await call.afinish(seen.answer())

    def _should_stream(self, **more: Any) -> bool:
        return bool(self.wrapped._should_stream(**more))

    def _planned(self, messages: Any, more: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """The settings with a cap, and the call."""
        name = next((name for name in _CAPS if name in type(self.wrapped).model_fields), "max_tokens")
        if _cap(self.wrapped, more) is None and self.metering.bounds.max_output is not None:
            more = {**more, name: self.metering.bounds.max_output}
        body = _body(self.wrapped, messages, more.get("tools") or (), more)
        body |= {"others": {key: value for key, value in more.items() if key not in ("tools", *_CAPS)}}
        worst = worst_case(body, self.metering.bounds, model=_name(self.wrapped))
        return more, self.metering.plan(
            str(self.wrapped._llm_type), "chat", _name(self.wrapped), worst, cap=worst.output
        )

    def _read(self, found: ChatResult) -> Answer:
        return _read(found.generations[0].message, self.metering, Outcome.OK)


class _Seen:
    """What has come of a stream so far."""

    def __init__(self, metering: Metering) -> None:
        self.metering, self.message, self.least = metering, None, 0
        self.whole, self.failed = False, None  # type: tuple[bool, Exception | None]

    def add(self, chunk: Any) -> int:
        """The fewest tokens of output so far, one more chunk included."""
        self.message = chunk if self.message is None else self.message + chunk
        self.least += least_tokens(_text(chunk))
        return self.least

    def answer(self) -> Answer:
        if self.message is None:
            return Answer(outcome=Outcome.UNKNOWN if self.failed is None else outcome_of(self.failed))
        return _read(self.message, self.metering, Outcome.OK if self.whole else Outcome.CUT)


def _asked(request: ModelRequest, model: BaseChatModel, turn: Turn) -> ModelRequest:
    """The request as the turn allows it."""
    name = next((name for name in _CAPS if name in type(request.model).model_fields), "max_tokens")
    more: dict[str, Any] = {"model": model, "model_settings": {**request.model_settings, name: turn.cap}}
    if turn.note:
        more["messages"] = [*request.messages, HumanMessage(turn.note)]
    if not turn.tools:
        more |= {"tools": [], "tool_choice": None}
    return request.override(**more)


def _final(response: ModelResponse, turn: Turn) -> ModelResponse:
    """The response; a last answer without calls of the tools that it was not given."""
    if turn.tools or getattr(response, "structured_response", None) is not None:
        return response
    for message in response.result:
        if isinstance(message, AIMessage) and message.tool_calls:
            message.tool_calls = []
            message.content = message.text or turn.stopped
    return response


def _stopped(text: str) -> ModelResponse:
    return ModelResponse(result=[AIMessage(text)])


def _refused(call: Any) -> Callable[[str], ToolMessage]:
    return lambda text: ToolMessage(text, tool_call_id=call["id"], name=call["name"], status="error")


def _fit(result: Any, room: Fitting) -> Any:
    """A message of a tool, or a command of the graph, whose texts fit."""
    if isinstance(result, ToolMessage):
        result.content = (
            room.cut(result.content)
            if isinstance(result.content, str)
            else [fitted(part, room) if isinstance(part, str) else _fit_part(part, room) for part in result.content]
        )
        return result
    update = getattr(result, "update", None)
    for message in (update or {}).get("messages", ()) if isinstance(update, dict) else ():
        _fit(message, room)
    return result


def _fit_part(part: dict[str, Any], room: Fitting) -> dict[str, Any]:
    """A part whose text is cut; what is no text, such as a picture, comes whole or not at all."""
    if isinstance(part.get("text"), str):
        return {**part, "text": room.cut(part["text"])}
    if room.whole(text_of(part)):
        return part
    return {"type": "text", "text": room.cut(f"[{part.get('type', 'a part')} was left out: there is no room for it]")}


def _body(model: Any, messages: Sequence[Any], tools: Sequence[Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The request as far as its cost goes."""
    cap = _cap(model, settings)
    return {
        "messages": convert_to_openai_messages(messages),
        "tools": [convert_to_openai_tool(tool) for tool in tools],
        **({} if cap is None else {"max_tokens": cap}),
    }


def _cap(model: Any, settings: dict[str, Any]) -> int | None:
    given = (place for name in _CAPS for place in (settings.get(name), getattr(model, name, None)))
    return next((cap for cap in given if cap is not None), None)


def _name(model: Any) -> str:
    model = getattr(model, "wrapped", model)
    return str(getattr(model, "model_name", None) or getattr(model, "model", None) or model._llm_type)


def _text(message: Any) -> str:
    calls = getattr(message, "tool_call_chunks", None) or getattr(message, "tool_calls", None) or ()
    return str(message.text) + "".join(f"{call.get('name') or ''}{call.get('args') or ''}" for call in calls)


def _read(message: Any, metering: Metering, outcome: Outcome) -> Answer:
    """What is known of a call by the message that it returned."""
    text, told = _text(message), getattr(message, "usage_metadata", None)
    usage = None
    if told and outcome == Outcome.OK:
        read, made = told.get("input_token_details") or {}, told.get("output_token_details") or {}
        usage = credible(
            Usage(
                input=told["input_tokens"],
                output=told["output_tokens"],
                cached=read.get("cache_read"),
                written=read.get("cache_creation"),
                reasoning=made.get("reasoning"),
            ),
            text,
        )
    name = str(message.response_metadata.get("model_name") or "")
    return answer_of(usage, text, metering.bounds, calls=bool(message.tool_calls), outcome=outcome, model=name)
