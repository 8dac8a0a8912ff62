"""Budgets for agents of LlamaIndex: ``agent = spending(FunctionAgent(...), budget)``, also within an AgentWorkflow.

Every step of the agent is one that the budget covers, the last one without tools; its calls of tools are counted and
cut; see :mod:`budgeteer.metering.agents`. A model that calls through a client of openai 3 or newer is metered there,
each attempt by itself; another one must not retry by itself (``max_retries=0``).
"""

from __future__ import annotations

import copy
from typing import Any

from budgeteer.adapters.wrapped import counted, refuse_retries, spends_from, wrapped
from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.results import Fitting, text_of
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import answer_of, credible
from budgeteer.metering.turn import Turn

try:
    from llama_index.core.agent.workflow import AgentOutput
    from llama_index.core.agent.workflow.base_agent import BaseWorkflowAgent
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.tools import FunctionTool, ToolOutput
except ImportError as error:
    raise MissingExtra("llama_index", "llamaindex") from error

_ROLE = "user"


def spending(agent: BaseWorkflowAgent, budget: AgentBudget) -> BaseWorkflowAgent:
    """The same agent, from now on within a budget.

    Args:
        agent: a FunctionAgent, ReActAgent or CodeActAgent; of its model, clients of OpenAI are wrapped.
        budget: shared by all agents of a run.

    Raises:
        InvalidInput: its model retries where no attempt can be metered, or the agent spends from another budget.
    """
    if spends_from(getattr(agent.take_step, "budget", None), budget, f"the agent {agent.name}"):
        return agent
    llm, below = _below(agent.llm, budget)
    step = type(agent).take_step

    async def take_step(context: Any, llm_input: list[Any], tools: Any, memory: Any) -> AgentOutput:
        written = await context.store.get(getattr(agent, "scratchpad_key", "scratchpad"), default=[])
        cap = getattr(llm, "max_tokens", None) or budget.metering.bounds.max_output
        body = {"messages": [_shown(one) for one in (*llm_input, *written)], "max_tokens": cap}
        body["tools"] = [tool.metadata.to_openai_tool() for tool in tools]

        async def send(turn: Turn) -> AgentOutput:
            limited = llm.model_copy(update={"max_tokens": turn.cap})
            said = [*llm_input, ChatMessage(role=_ROLE, content=turn.note)] if turn.note else llm_input
            one = agent.model_copy(update={"llm": limited})
            output = await step(one, context, said, tools if turn.tools else [], memory)
            if not turn.tools and output.tool_calls:
                return _ending(output.response.content or turn.stopped, agent)
            return output

        return await budget.aanswer(
            body, send, lambda text: _ending(text, agent), tools=bool(tools), model=str(llm.metadata.model_name),
            read=None if below else lambda output: _read(output, budget),
        )  # fmt: skip

    take_step.budget = budget  # type: ignore[attr-defined]
    object.__setattr__(agent, "take_step", take_step)  # a field that pydantic does not know
    agent.tools = [_metered(tool, budget) for tool in agent.tools or ()]
    return agent


def _metered(tool: Any, budget: AgentBudget) -> Any:
    """A copy of a tool whose calls are counted, and whose results are cut."""
    tool = tool if hasattr(tool, "metadata") else FunctionTool.from_defaults(tool)
    copied, call, name = copy.copy(tool), tool.acall, tool.metadata.get_name()
    if counted(call, budget, name):
        return tool

    async def acall(*given: Any, **named: Any) -> ToolOutput:
        return await budget.ause(
            name, lambda: call(*given, **named), fit=_fit,
            refused=lambda text: ToolOutput(name, text, raw_input=named, raw_output=text, is_error=True),
        )  # fmt: skip

    acall.budget = budget  # type: ignore[attr-defined]
    copied.acall = acall
    return copied


def _fit(output: ToolOutput, room: Fitting) -> ToolOutput:
    for block in output.blocks:
        if isinstance(getattr(block, "text", None), str):
            block.text = room.cut(block.text)
    return output


def _below(llm: Any, budget: AgentBudget) -> tuple[Any, bool]:
    """A copy of a model with its OpenAI clients wrapped, and True; the model itself and False if it has none."""
    if hasattr(llm, "_get_client") and hasattr(llm, "_get_aclient"):
        client, waiting = (wrapped(one(), budget.metering) for one in (llm._get_client, llm._get_aclient))
        if client is not None and waiting is not None:
            copied = llm.model_copy(update={"reuse_client": True})
            copied._client, copied._aclient = client, waiting
            return copied, True
    refuse_retries(llm)
    return llm, False


def _shown(message: Any) -> dict[str, Any]:
    """A message as far as its cost goes."""
    fields = message.model_dump(mode="json", exclude_none=True)
    return {"role": fields["role"], "content": fields.get("blocks", []), "input": fields.get("additional_kwargs")}


def _ending(text: str, agent: Any) -> AgentOutput:
    message = ChatMessage(role="assistant", content=text)
    return AgentOutput(response=message, tool_calls=[], raw=None, current_agent_name=agent.name)


def _read(output: AgentOutput, budget: AgentBudget) -> Answer:
    """What is known of a step: the usage that the model's own answer reports, if any."""
    raw = output.raw if isinstance(output.raw, dict) else {}
    told = raw.get("usage") or {}
    try:
        usage = Usage.from_chat(told) if "prompt_tokens" in told else Usage.from_responses(told) if told else None
    except InvalidInput:
        usage = None
    calls = [f"{call.tool_name}{text_of(call.tool_kwargs)}" for call in output.tool_calls]
    text = "".join([output.response.content or "", *calls])
    return answer_of(credible(usage, text), text, budget.metering.bounds, calls=bool(calls))
