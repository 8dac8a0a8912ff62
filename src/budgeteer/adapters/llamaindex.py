"""Budgets for agents of LlamaIndex: ``agent = spending(FunctionAgent(...), budget)``, also within an AgentWorkflow.

Every step of the agent is one that the budget covers, the last one without tools; its calls of tools are counted and
cut; see :mod:`budgeteer.metering.agents`. A model that calls through a client of openai 3 or newer is metered there,
each attempt by itself; another one must not retry by itself (``max_retries=0``). What the agent asks its model beside
its steps is metered, too, and raises BudgetExceeded where it does not fit: an object of its answer (``output_cls``), a
last answer (``early_stopping_method="generate"``).
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Sequence
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
    from llama_index.core.base.llms.types import ChatMessage, ChatResponse, TextBlock
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
            read=None if below else lambda output: _read(
                output.raw, output.response.content, [(one.tool_name, one.tool_kwargs) for one in output.tool_calls],
                budget,
            ),
        )  # fmt: skip

    take_step.budget = budget  # type: ignore[attr-defined]
    object.__setattr__(agent, "take_step", take_step)  # a field that pydantic does not know
    agent.llm = llm if below else _beside(llm, budget)
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
    """Texts of a result are cut; what is no text, such as a picture, comes whole or not at all."""
    for place, block in enumerate(output.blocks):
        if isinstance(getattr(block, "text", None), str):
            block.text = room.cut(block.text)
        elif not room.whole(block.model_dump_json()):
            output.blocks[place] = TextBlock(
                text=room.cut(f"[{block.block_type} was left out: there is no room for it]")
            )
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
    blocks = [_picture(one) if one.get("block_type") == "image" else one for one in fields.get("blocks", [])]
    return {"role": fields["role"], "content": blocks, "input": fields.get("additional_kwargs")}


def _picture(block: dict[str, Any]) -> dict[str, Any]:
    """A picture as OpenAI's requests have it, by which its tokens are bounded."""
    data = block.get("image")
    return {"type": "image_url", "image_url": {"url": f"data:;base64,{data}" if data else block.get("url")}}


def _ending(text: str, agent: Any) -> AgentOutput:
    message = ChatMessage(role="assistant", content=text)
    return AgentOutput(response=message, tool_calls=[], raw=None, current_agent_name=agent.name)


def _beside(llm: Any, budget: AgentBudget) -> Any:
    """A copy of a model for what an agent asks it beside its steps, each call metered; streams come in one piece."""
    copied = llm.model_copy()

    async def achat(messages: Any, **more: Any) -> ChatResponse:
        cap = getattr(llm, "max_tokens", None) or budget.metering.bounds.max_output
        body = {**more, "messages": [_shown(one) for one in messages], "max_tokens": cap}

        async def send(turn: Turn) -> ChatResponse:
            return await llm.model_copy(update={"max_tokens": turn.cap}).achat(messages, **more)

        def read(response: ChatResponse) -> Answer:
            calls = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) if more.get("tools") else []
            called = [(one.tool_name, one.tool_kwargs) for one in calls]
            return _read(response.raw, response.message.content, called, budget)

        return await budget.aanswer(body, send, None, tools=False, model=str(llm.metadata.model_name), read=read)

    async def astream_chat(messages: Any, **more: Any) -> AsyncIterator[ChatResponse]:
        response = await achat(messages, **more)

        async def pieces() -> AsyncIterator[ChatResponse]:
            yield response

        return pieces()

    for call in (achat, astream_chat):
        object.__setattr__(copied, call.__name__, call)
    return copied


def _read(raw: Any, content: str | None, called: Sequence[tuple[str, Any]], budget: AgentBudget) -> Answer:
    """What is known of a call: the usage that the model's own answer reports, if any.

    Args:
        raw: the answer as the model's provider gave it.
        content: its text.
        called: names and arguments of the tools in it.
        budget: of the run.
    """
    raw = raw.model_dump() if hasattr(raw, "model_dump") else raw
    told = (raw.get("usage") if isinstance(raw, dict) else None) or {}
    try:
        usage = Usage.from_chat(told) if "prompt_tokens" in told else Usage.from_responses(told) if told else None
    except InvalidInput:
        usage = None
    text = "".join([content or "", *(f"{name}{text_of(given)}" for name, given in called)])
    return answer_of(credible(usage, text), text, budget.metering.bounds, calls=bool(called))
