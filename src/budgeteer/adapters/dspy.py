"""Budgets for DSPy 3.4 and newer: ``agent = spending(dspy.ReAct(...), budget)``, also for any other module.

Every call of a language model is one that the budget covers. A step of ReAct is made as long as its answer stays
affordable after it; then ReAct ends its trajectory and answers with what it has. Calls of its tools are counted and
cut; see :mod:`budgeteer.metering.agents`. Retries are DSPy's own, and each attempt is metered; what comes from DSPy's
cache is free.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from budgeteer.adapters.wrapped import metered_function
from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.settlement import Answer
from budgeteer.metering.shown import answer_of, credible
from budgeteer.metering.turn import Turn

try:
    import dspy
    from dspy.clients.backend_selection import CLIENT_KEYS
    from dspy.lm15 import Request, Response
    from dspy.utils.exceptions import LMError
except ImportError as error:
    raise MissingExtra("dspy", "dspy") from error

_FINISH = "finish"
"""The tool by which ReAct ends."""
_STEP = "react"
"""The predictor of ReAct that chooses the next tool."""


class Spent(LMError, ValueError):  # type: ignore[misc]
    """The budget does not cover the call, which was not made. ReAct then ends its trajectory, and answers."""

    status_code = 429


def spending(module: dspy.Module, budget: AgentBudget) -> dspy.Module:
    """The same module, from now on within a budget.

    Args:
        module: its predictors get models of their own, and its tools, if it has any, are replaced; no other agent may
            use it.
        budget: shared by all agents of a run.

    Raises:
        InvalidInput: a predictor has no language model: none of its own, and none is configured.
    """
    tools = getattr(module, "tools", None)
    for name, predictor in module.named_predictors():
        lm = predictor.lm or dspy.settings.lm
        if not isinstance(lm, dspy.LM):
            raise InvalidInput(f"the predictor {name} has no dspy.LM; call dspy.configure(lm=dspy.LM(...)) before")
        predictor.lm = budgeted(lm, budget, step=bool(tools) and name.rpartition(".")[2] == _STEP)
    if isinstance(tools, dict):
        module.tools = {name: tool if name == _FINISH else _metered(tool, budget) for name, tool in tools.items()}
    return module


def budgeted(lm: dspy.LM, budget: AgentBudget, *, step: bool = False) -> dspy.LM:
    """A copy of a language model whose calls spend from a budget; one that does not fit raises :class:`Spent`.

    Args:
        lm: any; one that is wrapped already is returned as it is.
        budget: of the run.
        step: whether the agent goes on after a call, so that an answer has to stay affordable.
    """
    if isinstance(lm._engine_spec, _Engine):
        return lm
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
        self._inner, self._budget, self._step = inner, budget, step

    def complete(self, request: Request) -> Response:
        def send(turn: Turn) -> Response:
            limited = self._limited(request, turn)
            with _apart():
                return self._inner(limited)

        return self._budget.answer(send=send, **self._about(request))

    def _about(self, request: Request) -> dict[str, Any]:
        """What the budget has to know of the call."""
        body = _shown(request, self._budget)
        return {"request": body, "tools": self._step, "stop": _stop, "read": self._read, "model": request.model}

    def _limited(self, request: Request, turn: Turn) -> Request:
        """The request as the turn allows it.

        Raises:
            Spent: there is no further step, and a step is no last answer.
        """
        if self._step and not turn.tools:
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
        return answer_of(credible(told, text), text, self._budget.metering.bounds, model=response.model)


class _AsyncEngine(_Engine):
    """The same for calls that are awaited."""

    async def complete(self, request: Request) -> Response:
        async def send(turn: Turn) -> Response:
            limited = self._limited(request, turn)
            with _apart():
                return await self._inner.acall(limited)

        return await self._budget.aanswer(send=send, **self._about(request))


def _stop(why: str) -> Response:
    raise Spent(why)


@contextmanager
def _apart() -> Iterator[None]:
    """The inner model neither counts nor records: the outer one does. Its errors say how the call ended."""
    with dspy.context(usage_tracker=None, disable_history=True):
        try:
            yield
        except LMError as error:
            error.status_code = getattr(error, "status", None)
            raise


def _shown(request: Request, budget: AgentBudget) -> dict[str, Any]:
    """A request as far as its cost goes."""
    system = request.system if isinstance(request.system, str) else [_part(part) for part in request.system or ()]
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": one.role, "content": [_part(part) for part in one.parts]} for one in request.messages]
    return {
        "messages": messages, "tools": [str(tool) for tool in request.tools],
        "response_format": str(request.config.response_format or ""),
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
