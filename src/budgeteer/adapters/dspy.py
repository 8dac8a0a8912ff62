"""Budgets for DSPy 3.4 and newer: ``agent = spending(dspy.ReAct(...), budget)``, also for any other module.

Every call of a language model is one that the budget covers. A step of ReAct is made as long as its answer stays
affordable after it; then ReAct ends its trajectory and answers with what it has. Calls of its tools are counted and
cut; see :mod:`budgeteer.metering.agents`. Retries are DSPy's own, and each attempt is metered; what comes from DSPy's
cache is free. A stream brings each answer in one piece. Models that a module or an adapter asks by itself (such as the
extraction model of TwoStepAdapter) are wrapped by ``budgeted(lm, budget)``.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from budgeteer.adapters.wrapped import metered_function, spends_from
from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import answer_of, credible
from budgeteer.metering.turn import Turn

try:
    import dspy
    from dspy._vendor.lm15.result import response_to_events
    from dspy.clients.backend_selection import CLIENT_KEYS
    from dspy.lm15 import Request, Response
    from dspy.utils.exceptions import LMError
except ImportError as error:
    raise MissingExtra("dspy", "dspy") from error

_FINISH = "finish"
"""The tool by which ReAct ends."""


class Spent(LMError, ValueError):  # type: ignore[misc]
    """The budget does not cover the call, which was not made. ReAct then ends its trajectory, and answers."""

    status_code = 429


def spending(module: dspy.Module, budget: AgentBudget) -> dspy.Module:
    """The same module, from now on within a budget.

    Args:
        module: its predictors and those of its parts get models of their own, and tools of ReAct and RLM are replaced;
            no other agent may use it.
        budget: shared by all agents of a run.

    Raises:
        InvalidInput: a predictor has no language model: none of its own, and none is configured. Or a model or a tool
            spends from another budget. Or a part of it cannot be metered: tools of CodeAct run in an interpreter,
            ReActV2 asks for its last answer as for a step, and Refine asks the configured model for advice, which has
            to be ``budgeted``, then.
    """
    made: dict[tuple[int, bool], dspy.LM] = {}
    parts = [part for _, part in module.named_sub_modules(dspy.Module)]
    for part in parts:
        if isinstance(part, dspy.CodeAct | dspy.ReActV2):
            raise InvalidInput(f"{type(part).__name__} cannot be metered as a whole; take dspy.ReAct or dspy.RLM")
        if isinstance(part, dspy.Refine) and not _wrapped(dspy.settings.lm):
            raise InvalidInput("Refine asks the configured model for advice; dspy.configure(lm=budgeted(lm, budget))")
    steps = {id(part.react) for part in parts if isinstance(part, dspy.ReAct)}
    for name, predictor in module.named_sub_modules(dspy.Predict):  # those of parts that were compiled, too
        lm, step = _model(predictor.lm, f"the predictor {name}"), id(predictor) in steps
        predictor.lm = made.setdefault((id(lm), step), budgeted(lm, budget, step=step))
    for part in parts:
        if isinstance(part, dspy.ReAct):
            part.tools = {
                name: tool if name == _FINISH else _metered(tool, budget) for name, tool in part.tools.items()
            }
        elif isinstance(part, dspy.RLM):
            part.sub_lm = budgeted(_model(part.sub_lm, "sub_lm of RLM"), budget)
            part._user_tools = {name: _metered(tool, budget) for name, tool in part._user_tools.items()}
    return module


def _wrapped(lm: Any) -> bool:
    return isinstance(getattr(lm, "engine", None), _Engine)


def _model(lm: Any, of: str) -> dspy.LM:
    """A language model, or the configured one."""
    lm = lm or dspy.settings.lm
    if not isinstance(lm, dspy.LM):
        raise InvalidInput(f"{of} has no dspy.LM; call dspy.configure(lm=dspy.LM(...)) before")
    return lm


def budgeted(lm: dspy.LM, budget: AgentBudget, *, step: bool = False) -> dspy.LM:
    """A copy of a language model whose calls spend from a budget; one that does not fit raises :class:`Spent`.

    Args:
        lm: any; one that spends from this budget already is not wrapped again.
        budget: of the run.
        step: whether the agent goes on after a call, so that an answer has to stay affordable.
    """
    if _wrapped(lm) and spends_from(lm.engine.budget, budget):
        if lm.engine.step == step:
            return lm
        inner = lm.engine.inner
    else:
        inner = lm.copy(cache=False, num_retries=0, callbacks=[])
    apart = dict.fromkeys(CLIENT_KEYS & lm.kwargs.keys())  # of the connection, which is the inner one's
    return lm.copy(engine=_Engine(inner, budget, step), async_engine=_AsyncEngine(inner, budget, step), **apart)


def _metered(tool: Any, budget: AgentBudget) -> Any:
    copied = copy.copy(tool)
    copied.func = metered_function(tool.func, tool.name, budget)
    return copied


class _Engine:
    """Makes calls by a language model of DSPy, within a budget."""

    def __init__(self, inner: dspy.LM, budget: AgentBudget, step: bool) -> None:
        self.inner, self.budget, self.step = inner, budget, step

    def complete(self, request: Request) -> Response:
        def send(turn: Turn) -> Response:
            limited = self._limited(request, turn)
            with _apart():
                return self.inner(limited)

        return self.budget.answer(send=send, **self._about(request))

    def stream(self, request: Request) -> Iterator[Any]:
        """The whole answer, as the events of a stream."""
        return iter(response_to_events(self.complete(request)))

    def _about(self, request: Request) -> dict[str, Any]:
        """What the budget has to know of the call."""
        body = _shown(request, self.budget, self.step)
        return {"request": body, "tools": self.step, "stop": _stop, "read": self._read, "model": request.model}

    def _limited(self, request: Request, turn: Turn) -> Request:
        """The request as the turn allows it.

        Raises:
            Spent: there is no further step, and a step is no last answer.
        """
        if self.step and not turn.tools:
            raise Spent(f"the budget does not cover another step; {turn.why}")
        note = (dspy.lm15.Message.user(turn.note),) if turn.note else ()
        config = replace(request.config, max_tokens=turn.cap)
        return replace(request, messages=(*request.messages, *note), config=config)

    def _read(self, response: Response) -> Answer:
        usage, text = response.usage, "".join(_text(part) for part in response.message.parts)
        known = usage.input_tokens is not None and usage.output_tokens is not None
        told = Usage(
            input=usage.input_tokens, cached=usage.cache_read_tokens, output=usage.output_tokens,
            reasoning=usage.reasoning_tokens,
        ) if known else None  # fmt: skip
        return answer_of(credible(told, text), text, self.budget.metering.bounds, model=response.model)


class _AsyncEngine(_Engine):
    """The same for calls that are awaited."""

    async def complete(self, request: Request) -> Response:
        async def send(turn: Turn) -> Response:
            limited = self._limited(request, turn)
            with _apart():
                return await self.inner.acall(limited)

        return await self.budget.aanswer(send=send, **self._about(request))

    async def stream(self, request: Request) -> AsyncIterator[Any]:  # type: ignore[override]
        for event in response_to_events(await self.complete(request)):
            yield event


def _stop(why: str) -> Response:
    raise Spent(why)


@contextmanager
def _apart() -> Iterator[None]:
    """The inner model neither counts nor records: the outer one does. Its errors say how the call ended."""
    with dspy.context(usage_tracker=None, disable_history=True, send_stream=None):
        try:
            yield
        except LMError as error:
            error.status_code = getattr(error, "status", None)
            raise


def _shown(request: Request, budget: AgentBudget, step: bool) -> dict[str, Any]:
    """A request as far as its cost goes. What is no step of an agent has its tools to the end."""
    system = request.system if isinstance(request.system, str) else [_part(part) for part in request.system or ()]
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": one.role, "content": [_part(part) for part in one.parts]} for one in request.messages]
    tools = [str(tool) for tool in request.tools]
    return {
        "messages": messages, "tools": tools if step else [],
        "response_format": str([request.config.response_format or "", *([] if step else tools)]),
        "max_tokens": request.config.max_tokens or budget.metering.bounds.max_output,
    }  # fmt: skip


def _part(part: Any) -> dict[str, Any]:
    kind = str(part.type)
    return {"type": "text", "text": _text(part)} if kind not in ("image", "audio", "video") else {"type": kind}


def _text(part: Any) -> str:
    """The text of a part, or all that it is made of."""
    text = getattr(part, "text", None)
    return text if isinstance(text, str) else str(part)


__all__ = ["Spent", "budgeted", "spending"]
