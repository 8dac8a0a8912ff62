"""Budgets for smolagents: ``agent = spending(ToolCallingAgent(...), budget)``, also for a CodeAgent.

Every call of the agent's model is one that the budget covers, its planning included; the last one is asked without
tools, and what it says becomes the final answer. Calls of its tools are counted and cut, in the code that a CodeAgent
runs as well; see :mod:`budgeteer.metering.agents`. Its managed agents come along; a part of the budget for one is under
its name. Answers come whole, not in pieces. In code that runs elsewhere than in this process, tools are not metered.
"""

from __future__ import annotations

import copy
from typing import Any

from budgeteer.adapters.wrapped import metered_function, spends_from, wrapped
from budgeteer.core.errors import MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.estimate import CAPS
from budgeteer.metering.results import text_of
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import answer_of, credible
from budgeteer.metering.turn import Turn

try:
    from smolagents import CodeAgent, MultiStepAgent
    from smolagents.models import (
        ChatMessage,
        ChatMessageToolCall,
        ChatMessageToolCallFunction,
        MessageRole,
        Model,
        TokenUsage,
    )
except ImportError as error:
    raise MissingExtra("smolagents", "smolagents") from error

_STEP = "Observation:"
"""Among the stop texts of a step, and of nothing else that an agent asks."""
_FINAL = "final_answer"


def spending(agent: MultiStepAgent, budget: AgentBudget) -> MultiStepAgent:
    """The same agent, from now on within a budget, and all that it manages.

    Args:
        agent: of any kind.
        budget: shared by all agents of a run.

    Raises:
        InvalidInput: its model or a tool spends from another budget.
    """
    tags = agent.code_block_tags if isinstance(agent, CodeAgent) else None
    agent.model = AgentModel(agent.model, budget, tags)
    agent.tools = {name: _metered(tool, budget) if name != _FINAL else tool for name, tool in agent.tools.items()}
    agent.managed_agents = {name: _managed(one, budget) for name, one in agent.managed_agents.items()}
    return agent


class AgentModel(Model):  # type: ignore[misc]
    """A model whose calls are what an agent's budget covers.

    Args:
        model: any model; one that calls through an OpenAI client is metered there, each attempt by itself.
        budget: of the run.
        tags: around code, if the agent answers by code.

    Raises:
        InvalidInput: the model spends from another budget.
    """

    asked: Any
    budget: AgentBudget

    def __init__(self, model: Any, budget: AgentBudget, tags: tuple[str, str] | None = None) -> None:
        if isinstance(model, AgentModel) and spends_from(model.budget, budget):
            model = model.asked
        self.asked, self.budget, self.tags = model, budget, tags
        self.wrapped = _below(model, budget)

    def __getattr__(self, name: str) -> Any:
        if name in ("generate_stream", "asked"):
            raise AttributeError(name)
        return getattr(self.asked, name)

    def generate(
        self,
        messages: list[Any],
        stop_sequences: list[str] | None = None,
        response_format: dict[str, str] | None = None,
        tools_to_call_from: list[Any] | None = None,
        **more: Any,
    ) -> ChatMessage:
        step = bool(tools_to_call_from) or _STEP in (stop_sequences or ())
        body = self.asked._prepare_completion_kwargs(
            messages=messages, tools_to_call_from=tools_to_call_from, custom_role_conversions=getattr(
                self.asked, "custom_role_conversions", None), convert_images_to_image_urls=True, **more
        )  # fmt: skip
        body = {name: body[name] for name in ("messages", "tools", *CAPS) if name in body}
        # in the fields that are set already, since of two caps a server may keep to the larger one
        caps = [name for name in CAPS if body.get(name)] or ["max_tokens"]

        def send(turn: Turn) -> ChatMessage:
            limit = dict.fromkeys(caps, turn.cap)
            limited, model = {**more, **limit}, _limited(self.wrapped, limit)
            said = (
                [*messages, ChatMessage(MessageRole.USER, [{"type": "text", "text": turn.note}])]
                if turn.note
                else messages
            )
            if turn.tools:
                return model.generate(said, stop_sequences, response_format, tools_to_call_from, **limited)
            answer = model.generate(said, stop_sequences, None, None, **limited)
            return self._ending(str(answer.content or turn.stopped), answer) if step else answer

        return self.budget.answer(
            body, send, lambda text: self._ending(text, None) if step else ChatMessage(MessageRole.ASSISTANT, text),
            tools=step, read=self._read if self.wrapped is self.asked else None, model=str(self.asked.model_id or ""),
        )  # fmt: skip

    def _ending(self, text: str, answer: ChatMessage | None) -> ChatMessage:
        """The message by which an agent of this kind gives its final answer."""
        usage = answer.token_usage if answer is not None else TokenUsage(0, 0)
        if self.tags is not None:
            code = text if f"{_FINAL}(" in text else f"{self.tags[0]}\n{_FINAL}({text!r})\n{self.tags[1]}"
            return ChatMessage(MessageRole.ASSISTANT, code, token_usage=usage)
        call = ChatMessageToolCall(ChatMessageToolCallFunction({"answer": text}, _FINAL), "budget", "function")
        return ChatMessage(MessageRole.ASSISTANT, text, tool_calls=[call], token_usage=usage)

    def _read(self, message: ChatMessage) -> Answer:
        calls = [f"{call.function.name}{text_of(call.function.arguments)}" for call in message.tool_calls or ()]
        text, told = "".join([text_of(message.content or ""), *calls]), message.token_usage
        usage = None if told is None else Usage(input=told.input_tokens, output=told.output_tokens)
        return answer_of(credible(usage, text), text, self.budget.metering.bounds, calls=bool(calls))


class _Managed:
    """A managed agent whose calls are those of a tool of its name."""

    def __init__(self, agent: Any, budget: AgentBudget) -> None:
        self._agent, self._budget = spending(agent, budget), budget

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._budget.use(self._agent.name, lambda: self._agent(*given, **named))


def _managed(agent: Any, budget: AgentBudget) -> _Managed:
    if isinstance(agent, _Managed) and spends_from(agent._budget, budget, f"the agent {agent.name}"):
        return agent
    return _Managed(agent, budget)


def _metered(tool: Any, budget: AgentBudget) -> Any:
    """A copy of a tool whose calls are counted, and whose results are cut."""
    copied = copy.copy(tool)
    copied.forward = metered_function(tool.forward, tool.name, budget)
    return copied


def _limited(model: Any, limit: dict[str, int]) -> Any:
    """A copy of a model whose own caps are lower, since they overrule those of a call; the model itself if it has
    none that is above."""
    own = getattr(model, "kwargs", None) or {}
    if all(name not in own or own[name] == cap for name, cap in limit.items()):
        return model
    copied = copy.copy(model)
    copied.kwargs = {**own, **limit}
    return copied


def _below(model: Any, budget: AgentBudget) -> Any:
    """A copy of a model with its OpenAI client wrapped; the model itself if it has none."""
    client = wrapped(getattr(model, "client", None), budget.metering)
    if client is None:
        return model
    copied = copy.copy(model)
    copied.client = client
    return copied
