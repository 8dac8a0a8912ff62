"""Budgets for tools of MCP servers: ``session = spending(session, budget)``, and call its tools as before.

Calls count under ``tool:NAME`` and ``tool``, and the sizes of what they return under ``bytes`` and ``bytes:NAME``, as
far as the budget has these kinds; what is returned is cut to what an agent can still read. A refused call returns a
result that is an error and says why. See :mod:`budgeteer.metering.agents`.
"""

from __future__ import annotations

from typing import Any

from budgeteer.adapters.wrapped import spends_from
from budgeteer.core.errors import MissingExtra
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.results import Fitting, text_of

try:
    from mcp.types import CallToolResult, TextContent
except ImportError as error:
    raise MissingExtra("mcp", "mcp") from error


class spending:
    """A client of a server, or a session, whose calls of tools are counted, and whose results are cut.

    Args:
        client: an ``mcp.Client`` or ``mcp.ClientSession``; all that is not overridden here is its own.
        budget: shared by all agents of a run.

    Raises:
        InvalidInput: another budget counts its calls.
    """

    _client: Any
    _budget: AgentBudget

    def __init__(self, client: Any, budget: AgentBudget) -> None:
        if isinstance(client, spending) and spends_from(client._budget, budget, "the session"):
            client = client._client
        self._client, self._budget = client, budget

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def call_tool(self, name: str, *given: Any, **named: Any) -> Any:
        """As that of the client."""
        return await self._budget.ause(
            name, lambda: self._client.call_tool(name, *given, **named), fit=_fit, refused=_error
        )


def _error(text: str) -> CallToolResult:
    return CallToolResult.model_validate({"content": [{"type": "text", "text": text}], "isError": True})


def _fit(result: Any, room: Fitting) -> Any:
    """The result with as much of its content as there is room for; what is no text comes whole or not at all."""
    content = getattr(result, "content", None)
    if not isinstance(content, list):
        return result
    kept: list[Any] = []
    for block in content:
        if isinstance(block, TextContent):
            kept.append(block.model_copy(update={"text": room.cut(block.text)}))
            continue
        text = block.model_dump_json(by_alias=True)
        if room.whole(text):
            kept.append(block)
        else:
            kept.append(TextContent(type="text", text=room.cut(f"[{block.type} of {len(text):,} characters left out]")))
    changed: dict[str, Any] = {"content": kept}
    for name in ("structured_content", "structuredContent"):
        value = getattr(result, name, None)
        if value is not None and name in type(result).model_fields and not room.whole(text_of(value)):
            changed[name] = None
    return result.model_copy(update=changed)
