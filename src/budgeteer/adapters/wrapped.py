"""The OpenAI client inside a framework's model, wrapped where that can be done."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.call import Metering


def wrapped(client: Any, metering: Metering) -> Any:
    """A wrapped client, whose every attempt is metered; None if this is no client of openai 3 or newer.

    Args:
        client: that a framework's model calls through, or anything else.
        metering: how its calls are reserved and charged.
    """
    try:
        import openai

        from budgeteer.adapters.openai import wrap
    except (ImportError, MissingExtra):
        return None
    if not isinstance(client, openai.OpenAI | openai.AsyncOpenAI):
        return None
    if getattr(getattr(client, "_client", None), "metering", None) is metering:
        return client
    return wrap(client, metering)


def spends_from(known: AgentBudget | Metering | None, budget: AgentBudget | Metering, what: str = "the model") -> bool:
    """Whether something spends from this budget already.

    Args:
        known: the budget that it was wrapped for; None: it is not wrapped.
        budget: that it is to spend from.
        what: it is, for the error.

    Raises:
        InvalidInput: it spends from another one, which would be charged for calls that are not its own.
    """
    if known is None:
        return False
    if getattr(known, "metering", known) is not getattr(budget, "metering", budget):
        raise InvalidInput(f"{what} spends from another budget already; give one that is not wrapped")
    return True


def counted(call: Any, budget: AgentBudget, tool: str) -> bool:
    """Whether this budget counts the calls of a tool already, since an adapter marked its function.

    Args:
        call: the function that the framework calls.
        budget: that is to count it.
        tool: its name, for the error.

    Raises:
        InvalidInput: another budget counts it.
    """
    return spends_from(getattr(call, "budget", None), budget, f"the tool {tool}")


def refuse_retries(model: Any) -> None:
    """Refuse a model that retries where no attempt can be metered.

    Raises:
        InvalidInput: its ``max_retries`` is not 0.
    """
    if getattr(model, "max_retries", 0) != 0:
        raise InvalidInput(
            f"{type(model).__name__} retries where no attempt can be metered; give it max_retries=0, or a model that "
            "calls through a client of openai 3 or newer"
        )


def metered_function(function: Callable[..., Any], name: str, budget: AgentBudget) -> Callable[..., Any]:
    """A tool's function whose calls are counted, and whose results are cut; a coroutine function stays one.

    Raises:
        InvalidInput: another budget counts it. One that this budget counts already is returned as it is.
    """
    if inspect.iscoroutinefunction(function):
        return metered_coroutine(function, name, budget)
    if counted(function, budget, name):
        return function

    @functools.wraps(function)
    def metered(*given: Any, **named: Any) -> Any:
        return budget.use(name, lambda: function(*given, **named))

    metered.budget = budget  # type: ignore[attr-defined]
    return metered


def metered_coroutine(call: Callable[..., Awaitable[Any]], name: str, budget: AgentBudget) -> Callable[..., Any]:
    """As :func:`metered_function`, of anything that is awaited when it is called, such as an object.

    Raises:
        InvalidInput: another budget counts it. One that this budget counts already is returned as it is.
    """
    if counted(call, budget, name):
        return call

    @functools.wraps(call)
    async def waiting(*given: Any, **named: Any) -> Any:
        return await budget.ause(name, lambda: call(*given, **named))

    waiting.budget = budget  # type: ignore[attr-defined]
    return waiting
