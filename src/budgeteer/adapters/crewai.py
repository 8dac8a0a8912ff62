"""Budgets for CrewAI 1.x: ``agent = spending(Agent(...), budget)``, also for a Crew with all of its agents.

Every call of an agent's model is one that the budget covers; the last one is asked without tools, and what it says is
the agent's answer. Calls of its tools are counted and cut; see :mod:`budgeteer.metering.agents`. The model must not
retry by itself: ``LLM(..., max_retries=0)``; CrewAI's own retries, after a refusal for too many requests, are free.
Answers come whole, not in pieces. Of a crew its tasks' tools and guardrails, its planner and its memory are within the
budget, too. Not counted are tools that CrewAI adds by itself (delegation, memory, apps, MCP servers), and embeddings.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from budgeteer.adapters.wrapped import metered_function, refuse_retries, spends_from
from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import answer_of, credible
from budgeteer.metering.turn import Turn

try:
    from crewai import Agent, Crew, Task
    from crewai.llms.base_llm import BaseLLM
    from crewai.tasks.llm_guardrail import LLMGuardrail
    from crewai.tools.base_tool import Tool
    from crewai.utilities.llm_utils import create_llm
except ImportError as error:
    raise MissingExtra("crewai", "crewai") from error

_OBSERVATION = "Observation:"
"""Among the stop texts of a step of an agent whose model has no calls of tools of its own."""
_FINAL = "Thought: I now can give a great answer\nFinal Answer: "
_CAPS = ("max_completion_tokens", "max_tokens")
_USED = ("prompt_tokens", "completion_tokens", "cached_prompt_tokens", "reasoning_tokens")


def spending(agent: Any, budget: AgentBudget) -> Any:
    """The same agent or crew, from now on within a budget.

    Args:
        agent: an Agent, or a Crew: all of its agents, its manager included; no other crew may use them.
        budget: shared by all agents of a run.

    Raises:
        InvalidInput: its model retries where no attempt can be metered, or spends from another budget, or it is no
            agent.
    """
    if isinstance(agent, Crew):
        _crew(agent, budget)
        return agent
    if not isinstance(agent, Agent):
        raise InvalidInput(f"{type(agent).__name__} is neither an Agent nor a Crew of CrewAI")
    agent.llm = budgeted(agent.llm, budget)
    if isinstance(agent.function_calling_llm, BaseLLM):
        agent.function_calling_llm = budgeted(agent.function_calling_llm, budget)
    if agent.planning_config is not None and agent.planning_config.llm is not None:
        agent.planning_config.llm = budgeted(create_llm(agent.planning_config.llm), budget)
    agent.tools = _all_metered(agent.tools, budget)
    _remembering(agent.memory, budget)
    return agent


def _crew(crew: Crew, budget: AgentBudget) -> None:
    if crew.manager_llm is not None:
        raise InvalidInput("a crew makes its manager of manager_llm later; give manager_agent=Agent(...) instead")
    if crew.planning and crew.planning_llm is None:
        raise InvalidInput("a crew that plans asks a model of CrewAI's choice; give it planning_llm=LLM(...)")
    for task in crew.tasks:
        if task.agent is not None and task.agent not in crew.agents:
            spending(task.agent, budget)
        _task(task, budget)
    for agent in [*crew.agents, *([crew.manager_agent] if crew.manager_agent else [])]:
        spending(agent, budget)
    for name in ("planning_llm", "function_calling_llm"):
        if getattr(crew, name) is not None:
            setattr(crew, name, budgeted(create_llm(getattr(crew, name)), budget))
    _remembering(crew._memory, budget)


def _task(task: Task, budget: AgentBudget) -> None:
    """A task has its agent's tools from the moment that it was made, and the model of its guardrails, too."""
    task.tools = _all_metered(task.tools, budget)
    for guard in (task._guardrail, *task._guardrails):
        if isinstance(guard, LLMGuardrail):
            guard.llm = budgeted(guard.llm, budget)


def _remembering(memory: Any, budget: AgentBudget) -> None:
    """What a memory asks its model is within the budget; a view shares the model of its memory."""
    memory = getattr(memory, "_memory", None) or memory
    if hasattr(memory, "_llm_instance"):
        memory._llm_instance = budgeted(memory._llm, budget)


def budgeted(llm: BaseLLM, budget: AgentBudget) -> AgentLLM:
    """A model whose calls spend from a budget; one that does already is returned as it is.

    Raises:
        InvalidInput: it retries where no attempt can be metered, or spends from another budget.
    """
    if isinstance(llm, AgentLLM) and spends_from(llm.budget, budget):
        return llm
    refuse_retries(llm)
    return AgentLLM(model=llm.model, provider=llm.provider, stop=list(llm.stop), asked=llm, budget=budget)


def _all_metered(tools: Sequence[Any] | None, budget: AgentBudget) -> list[Any]:
    return [_metered(tool, budget) for tool in tools or ()]


def _metered(tool: Any, budget: AgentBudget) -> Any:
    """A copy of a tool whose calls are counted, and whose results are cut."""
    copied = copy.copy(tool)
    if isinstance(tool, Tool):  # of a function, which it calls in more than one way
        copied.func = metered_function(tool.func, tool.name, budget)
    else:
        for name in ("_run", "_arun"):
            object.__setattr__(copied, name, metered_function(getattr(tool, name), tool.name, budget))
    return copied


class AgentLLM(BaseLLM):  # type: ignore[misc]
    """A model whose calls are what an agent's budget covers.

    Attributes:
        asked: the model.
        budget: of the run.
    """

    asked: Any
    budget: Any

    def call(
        self,
        messages: str | list[Any],
        tools: list[Any] | None = None,
        callbacks: list[Any] | None = None,
        available_functions: dict[str, Any] | None = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,
    ) -> Any:
        more = {"callbacks": callbacks, "available_functions": available_functions, "from_task": from_task,
                "from_agent": from_agent, "response_model": response_model}  # fmt: skip
        model, textual = self._fresh(), self._textual(from_agent)

        def send(turn: Turn) -> Any:
            found = model.call(*self._limited(model, messages, tools, turn), **more)
            return self._ending(found, turn, textual)

        return self.budget.answer(send=send, **self._about(model, messages, tools, response_model, textual))

    async def acall(
        self,
        messages: str | list[Any],
        tools: list[Any] | None = None,
        callbacks: list[Any] | None = None,
        available_functions: dict[str, Any] | None = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: Any = None,
    ) -> Any:
        more = {"callbacks": callbacks, "available_functions": available_functions, "from_task": from_task,
                "from_agent": from_agent, "response_model": response_model}  # fmt: skip
        model, textual = self._fresh(), self._textual(from_agent)

        async def send(turn: Turn) -> Any:
            found = await model.acall(*self._limited(model, messages, tools, turn), **more)
            return self._ending(found, turn, textual)

        return await self.budget.aanswer(send=send, **self._about(model, messages, tools, response_model, textual))

    def _fresh(self) -> Any:
        """A copy of the model for one call, which counts that call alone."""
        model = self.asked.model_copy()
        model._token_usage = dict.fromkeys(self.asked._token_usage, 0)
        model.stop, model.stream = list(self.stop_sequences), False
        return model

    def _textual(self, agent: Any) -> bool:
        """Whether this is a step of an agent that writes its calls of tools as text."""
        told = any(_OBSERVATION in text for text in self.stop_sequences)
        return told and bool(getattr(agent, "tools", None)) and not self.supports_function_calling()

    def _about(
        self, model: Any, messages: Any, tools: Sequence[Any] | None, schema: Any, textual: bool
    ) -> dict[str, Any]:
        """What the budget has to know of the call."""
        cap = model._effective_max_tokens() or self.budget.metering.bounds.max_output
        body = {
            "messages": [_shown(message) for message in _listed(messages)], "tools": list(tools or ()),
            "response_format": "" if schema is None else str(schema.model_json_schema()), "max_tokens": cap,
        }  # fmt: skip

        def stop(text: str) -> str:
            return _FINAL + text if textual else text

        def read(found: Any) -> Answer:
            return self._read(model, found)

        return {"request": body, "tools": bool(tools) or textual, "stop": stop, "read": read,
                "model": str(model.model)}  # fmt: skip

    def _limited(self, model: Any, messages: Any, tools: Any, turn: Turn) -> tuple[list[Any], Any]:
        """Messages and tools as the turn allows them; the cap is put into the field that is set already."""
        caps = [name for name in _CAPS if getattr(model, name, None)] or ["max_tokens"]
        for name in caps:
            setattr(model, name, turn.cap)
        said = _listed(messages)
        if turn.note:
            said = [*said, {"role": "user", "content": turn.note}]
        return said, tools if turn.tools else None

    def _ending(self, found: Any, turn: Turn, textual: bool) -> Any:
        """The answer of an agent, if this is its last turn: a text in which no tool is called."""
        if turn.tools or not turn.note:
            return found
        text = turn.stopped if isinstance(found, list) or not found else found  # a list has calls of tools
        return text if not textual or "Final Answer:" in text else _FINAL + text

    def _read(self, model: Any, found: Any) -> Answer:
        """What is known of a call: the usage that its model counted."""
        read, made, cached, thought = (model._token_usage.get(name, 0) for name in _USED)
        for name, tokens in model._token_usage.items():
            self.asked._token_usage[name] = self.asked._token_usage.get(name, 0) + tokens
        told = Usage(input=read, output=made, cached=cached, reasoning=thought)
        text = found if isinstance(found, str) else ""  # calls come as objects, whose text was not billed as it is
        bounds = self.budget.metering.bounds
        return answer_of(credible(told, text), text or str(found), bounds, calls=not isinstance(found, str))

    def supports_function_calling(self) -> bool:
        known = getattr(self.asked, "supports_function_calling", None)
        return bool(known()) if callable(known) else False

    def supports_stop_words(self) -> bool:
        return bool(self.asked.supports_stop_words())

    def supports_multimodal(self) -> bool:
        return bool(self.asked.supports_multimodal())

    def get_context_window_size(self) -> int:
        return int(self.asked.get_context_window_size())

    def get_token_usage_summary(self) -> Any:
        return self.asked.get_token_usage_summary()


def _listed(messages: Any) -> list[Any]:
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)


def _shown(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as far as its cost goes."""
    fields = ("role", "content", "name", "tool_calls", "tool_call_id")
    return {name: message[name] for name in fields if message.get(name) is not None}
