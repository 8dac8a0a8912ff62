"""Budgets for AG2 1.x: ``agent = spending(Agent("assistant", config=OpenAIConfig(...)), budget)``.

Every call of the agent's model is one that the budget covers, the last one without tools; its calls of tools are
counted and cut; see :mod:`budgeteer.metering.agents`. What its knowledge asks a model to sum up is within the budget,
too. A configuration of another agent or place, such as ``ask(config=...)``, is wrapped by ``BudgetedConfig(config,
budget)``. A model that calls through a client of openai 3 or newer is metered there, each
attempt by itself; another one must not retry by itself (``max_retries=0``).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from budgeteer.adapters.wrapped import refuse_retries, spends_from, wrapped
from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.results import Fitting, fitted
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import answer_of, credible
from budgeteer.metering.turn import Turn

try:
    from ag2 import Agent
    from ag2.config.openai.mappers import convert_messages, tool_to_api
    from ag2.events import DataInput, ModelMessage, ModelRequest, ModelResponse, TextInput, ToolResultEvent
    from ag2.middleware import BaseMiddleware
except ImportError as error:
    raise MissingExtra("ag2", "ag2") from error

_CAPS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
"""Fields of configurations that cap an answer."""


def spending(agent: Agent, budget: AgentBudget) -> Agent:
    """The same agent, from now on within a budget.

    Args:
        agent: its configuration is replaced, and a middleware added.
        budget: shared by all agents of a run.

    Raises:
        InvalidInput: it has no configuration of a model, or one that retries where no attempt can be metered, or it
            makes agents for sub-tasks, whose calls of tools nobody could count, or spends from another budget.
    """
    if agent.config is None:
        raise InvalidInput(f"the agent {agent.name} has no config; give Agent(..., config=OpenAIConfig(...))")
    if agent._task_config is not None:
        raise InvalidInput(
            f"the agent {agent.name} makes agents for sub-tasks whose tools cannot be counted; give tasks=False, and "
            "sub-agents as tools, spending(Agent(...), budget).as_tool(...)"
        )
    knowledge = getattr(agent._knowledge_context, "config", None)
    strategies: list[Any] = [getattr(knowledge, name, None) for name in ("compact", "aggregate")]
    for strategy in strategies:
        inner = getattr(strategy, "_config", None)
        if inner is not None and not _spends(inner, budget, "what sums up knowledge"):
            strategy._config = BudgetedConfig(inner, budget)
    if not _spends(agent.config, budget, f"the agent {agent.name}"):
        agent.config = BudgetedConfig(agent.config, budget)
    counting = [one.middleware for one in agent.middleware if getattr(one.middleware, "func", None) is _Tools]
    if not any(spends_from(one.keywords["budget"], budget, f"the agent {agent.name}") for one in counting):
        agent.add_middleware(partial(_Tools, budget=budget))
    return agent


def _spends(config: Any, budget: AgentBudget, what: str) -> bool:
    return isinstance(config, BudgetedConfig) and spends_from(config.budget, budget, what)


class BudgetedConfig:
    """A configuration whose models are called within a budget; what is not here is that of the configuration.

    Args:
        config: of any provider, with a field that caps an answer.
        budget: of the run.

    Raises:
        InvalidInput: no field caps an answer, or it retries where no attempt can be metered, or spends from another
            budget.
    """

    def __init__(self, config: Any, budget: AgentBudget) -> None:
        if _spends(config, budget, "the configuration"):
            config = config.asked
        self.asked, self.budget = config, budget
        known = [name for name in _CAPS if hasattr(config, name)]
        if not known:
            raise InvalidInput(f"{type(config).__name__} has none of the fields {', '.join(_CAPS)} to cap an answer")
        set_ = [name for name in known if isinstance(getattr(config, name), int)]
        self.caps = set_ or [known[-1]]  # the fields that are set, since of two caps a server may keep to the larger
        self.client = config.create()
        self.inner = wrapped(getattr(self.client, "_client", None), budget.metering)
        if self.inner is None:
            refuse_retries(config)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.asked, name)

    def copy(self, **changes: Any) -> BudgetedConfig:
        return BudgetedConfig(self.asked.copy(**changes), self.budget)

    def create(self) -> _Client:
        return _Client(self)

    def limited(self, cap: int) -> Any:
        """A client whose answers have at most so many tokens."""
        client = self.asked.copy(**dict.fromkeys(self.caps, cap)).create()
        if self.inner is not None:
            client._client = self.inner
        return client


class _Client:
    """Makes calls of a model within a budget."""

    def __init__(self, config: BudgetedConfig) -> None:
        self._config = config

    async def __call__(
        self, messages: Sequence[Any], context: Any, *, tools: Iterable[Any], response_schema: Any, serializer: Any
    ) -> ModelResponse:
        config, budget, given = self._config, self._config.budget, list(tools)
        cap = max((getattr(config.asked, name) for name in config.caps if self._capped(name)), default=0)
        body = {
            "messages": convert_messages(context.prompt, messages, serializer),
            "tools": [tool_to_api(tool) for tool in given],
            "response_format": "".join(
                str(getattr(response_schema, part, None) or "") for part in ("json_schema", "system_prompt")
            ),
            "max_tokens": cap or budget.metering.bounds.max_output,
        }

        async def send(turn: Turn) -> ModelResponse:
            said = [*messages, ModelRequest([TextInput(turn.note)])] if turn.note else messages
            response = await config.limited(turn.cap)(
                said, context, tools=given if turn.tools else [], response_schema=response_schema, serializer=serializer
            )
            if not turn.tools and response.tool_calls:
                return ModelResponse(
                    response.message or ModelMessage(turn.stopped), usage=response.usage, model=response.model,
                    provider=response.provider, finish_reason="stop", response_id=response.response_id,
                )  # fmt: skip
            return response

        return await budget.aanswer(
            body, send, lambda text: ModelResponse(ModelMessage(text)), tools=bool(given),
            read=None if config.inner is not None else self._read, model=str(config.asked.model),
        )  # fmt: skip

    def _capped(self, name: str) -> bool:
        return isinstance(getattr(self._config.asked, name), int)

    def _read(self, response: ModelResponse) -> Answer:
        used, calls = response.usage, response.tool_calls.calls
        text = (response.content or "") + "".join(f"{call.name}{call.arguments}" for call in calls)
        told = None
        if used.prompt_tokens is not None and used.completion_tokens is not None:
            told = Usage(input=int(used.prompt_tokens), output=int(used.completion_tokens))
        return answer_of(credible(told, text), text, self._config.budget.metering.bounds, calls=bool(calls))


class _Tools(BaseMiddleware):  # type: ignore[misc]
    """Counts calls of tools, and cuts their results."""

    def __init__(self, event: Any, context: Any, budget: AgentBudget) -> None:
        super().__init__(event, context)
        self._budget = budget

    async def on_tool_execution(self, call_next: Any, event: Any, context: Any) -> Any:
        return await self._budget.ause(
            event.name, lambda: call_next(event, context), fit=_fit,
            refused=lambda text: ToolResultEvent.from_call(event, text),
        )  # fmt: skip


def _fit(event: Any, room: Fitting) -> Any:
    """Texts and data of a result are cut; what is neither comes whole or not at all."""
    parts = []
    for part in event.result.parts:
        if isinstance(part, TextInput):
            part = TextInput(room.cut(part.content))
        elif isinstance(part, DataInput):
            kept = fitted(part.data, room)
            part = TextInput(kept) if isinstance(kept, str) else DataInput(kept)
        elif not room.whole(_sent(part)):
            part = TextInput("[a part of the result was left out: there is no room for it]")
        parts.append(part)
    event.result.parts = parts
    return event


def _sent(part: Any) -> str:
    """What is sent of a part. Its own text shortens long data."""
    data = getattr(part, "data", None)
    return base64.b64encode(data).decode() if isinstance(data, bytes) else str(part)
