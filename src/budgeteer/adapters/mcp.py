"""Budgets for tools of MCP servers: ``session = spending(session, budget)``, and call its tools as before.

Calls count under ``tool:NAME`` and ``tool``, and the sizes of what they return under ``bytes`` and ``bytes:NAME``, as
far as the budget has these kinds; what is returned is cut to what an agent can still read. Resources that are read and
prompts that are fetched count the same way, under the names ``read_resource`` and ``get_prompt``. A refused call
returns a result that is an error and says why; of a resource its text says so, of a prompt a message of it. See
:mod:`budgeteer.metering.agents`.
"""

from __future__ import annotations

from typing import Any

from budgeteer.adapters.wrapped import spends_from
from budgeteer.core.errors import MissingExtra
from budgeteer.metering.agents import AgentBudget
from budgeteer.metering.results import Fitting, text_of

try:
    from mcp.types import CallToolResult, GetPromptResult, ReadResourceResult, TextContent, TextResourceContents
except ImportError as error:
    raise MissingExtra("mcp", "mcp") from error


class spending:
    """A client of a server, or a session, whose calls, resources and prompts are counted, and whose results are cut.

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

    async def read_resource(self, uri: Any, *given: Any, **named: Any) -> Any:
        """As that of the client; counted as a tool of this name."""
        return await self._budget.ause(
            "read_resource",
            lambda: self._client.read_resource(uri, *given, **named),
            fit=_fit_resource,
            refused=lambda text: ReadResourceResult(contents=[_said(uri, text)]),
        )

    async def get_prompt(self, name: str, *given: Any, **named: Any) -> Any:
        """As that of the client; counted as a tool of this name."""
        return await self._budget.ause(
            "get_prompt",
            lambda: self._client.get_prompt(name, *given, **named),
            fit=_fit_prompt,
            refused=lambda text: GetPromptResult.model_validate(
                {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}
            ),
        )


def _error(text: str) -> CallToolResult:
    return CallToolResult.model_validate({"content": [{"type": "text", "text": text}], "isError": True})


def _fit(result: Any, room: Fitting) -> Any:
    """The result with as much of its content as there is room for; what is no text comes whole or not at all."""
    content = getattr(result, "content", None)
    if not isinstance(content, list):
        return result
    kept = [_block(block, room) for block in content]
    changed: dict[str, Any] = {"content": kept}
    for name in ("structured_content", "structuredContent"):
        value = getattr(result, name, None)
        if value is not None and name in type(result).model_fields and not room.whole(text_of(value)):
            changed[name] = None
    return result.model_copy(update=changed)


def _block(block: Any, room: Fitting) -> Any:
    """A text cut to the room, anything else whole or a text that says what was left out."""
    if isinstance(block, TextContent):
        return block.model_copy(update={"text": room.cut(block.text)})
    text = block.model_dump_json(by_alias=True)
    if room.whole(text):
        return block
    return TextContent(type="text", text=room.cut(f"[{block.type} of {len(text):,} characters left out]"))


def _fit_resource(result: Any, room: Fitting) -> Any:
    """The same of the contents of a resource."""
    contents = getattr(result, "contents", None)
    if not isinstance(contents, list):
        return result
    kept: list[Any] = []
    for part in contents:
        if isinstance(part, TextResourceContents):
            kept.append(part.model_copy(update={"text": room.cut(part.text)}))
        elif room.whole(part.blob):
            kept.append(part)
        else:
            kept.append(_said(part.uri, room.cut(f"[{len(part.blob):,} characters of {part.mime_type} left out]")))
    return result.model_copy(update={"contents": kept})


def _fit_prompt(result: Any, room: Fitting) -> Any:
    """The same of the messages of a prompt."""
    messages = getattr(result, "messages", None)
    if not isinstance(messages, list):
        return result
    kept = [each.model_copy(update={"content": _block(each.content, room)}) for each in messages]
    return result.model_copy(update={"messages": kept})


def _said(uri: Any, text: str) -> TextResourceContents:
    return TextResourceContents.model_validate({"uri": str(uri), "text": text})
