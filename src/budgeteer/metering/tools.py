"""Tools: which of them the caller runs, what their descriptions add to a prompt, and which uses a provider bills.

A use is counted under the name of its fee, in ``Usage.counts``: ``web_search``, ``file_search``, ``code_session`` and
``image``. Prices hold the dollars of each (:class:`budgeteer.prices.Price`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from budgeteer.core.usage import MOST

UNLIMITED = MOST
"""The count of uses that a request does not limit; a price that has a fee for them refuses the request."""
_SCHEMALESS = {
    "bash": 500,
    "text_editor": 1_500,
    "memory": 1_500,
    "computer": 2_000,
    "browser": 4_000,
    "shell": 1_500,
    "local_shell": 1_500,
    "apply_patch": 1_500,
    "computer_use": 2_000,
}
"""Tools that clients run whose description the provider holds -> its tokens at most. Published: bash 245, text editor
700, computer 735 and 499 more in the prompt; the others are not published, and rounded up generously."""
_PREAMBLE = 1_000
"""Tokens of the prompt that Claude gets beside tools of any kind; published for its models: 159 to 804."""
_VERSION = re.compile(r"(_toolset|_preview|_(\d{8}|\d{4}_\d{2}_\d{2}))+$")
_DATED = re.compile(r"_\d{8}$")
_FEES = {
    "web_search": "web_search",
    "file_search": "file_search",
    "code_interpreter": "code_session",
    "code_execution": "code_session",
    "image_generation": "image",
}
"""Tools that a provider runs and bills by the use, by their types without version."""
_SWITCHES = (
    "web_search_options",
    "search_parameters",
    "enable_search",
    "enable_web_search",
    "search_options",
    "web_search",
)
"""Fields that switch on a search."""
_SEARCHES = re.compile(r"\bgpt-[\w.]+(?:-\w+)*-search-(?:preview|api)\b")
_CALLS = {"web_search_call": "web_search", "file_search_call": "file_search", "image_generation_call": "image"}
"""Items of an answer that are a billed use."""
_FREE_ACTIONS = ("open_page", "find_in_page", "find")
"""What a web_search_call does besides searching; OpenAI bills only searches."""


def plain(kind: str) -> str:
    """A tool's type without the date or ``_preview`` at its end.

    >>> plain("web_search_20250305"), plain("computer_use_preview_2025_03_11"), plain("bash")
    ('web_search', 'computer_use', 'bash')
    """
    return _VERSION.sub("", kind[:80])


def local_shell(tool: Mapping[str, Any]) -> bool:
    """Whether a ``shell`` tool is run by the caller: only if it says so, since a provider's container is the other."""
    environment = tool.get("environment")
    return isinstance(environment, Mapping) and environment.get("type") == "local"


def client_tokens(tools: Any) -> int | None:
    """The most tokens that a provider adds to the descriptions of tools; None if it runs one of the tools itself."""
    if tools is None:
        return 0
    if not isinstance(tools, list | tuple):
        return None  # how servers read it is not known
    added = [_added(tool) for tool in tools]
    known = [tokens for tokens in added if tokens is not None]
    if len(known) < len(added):
        return None
    return sum(known) + (_PREAMBLE if any(_claudes(tool) for tool in tools) else 0)


def _claudes(tool: Mapping[str, Any]) -> bool:
    """Whether a tool is described as Claude takes it."""
    kind = tool.get("type")
    return "input_schema" in tool or (isinstance(kind, str) and _DATED.search(kind) is not None)


def _added(tool: Any) -> int | None:
    """Tokens that a tool adds; None if the caller does not run it."""
    if not isinstance(tool, Mapping):
        return None
    kind = tool.get("type")
    if kind is None:
        named = "name" in tool or "function" in tool
        return 0 if named and not any(str(name).casefold() == "type" for name in tool if name != "type") else None
    if not isinstance(kind, str) or kind in ("function", "custom"):
        return 0 if isinstance(kind, str) else None
    name = plain(kind)
    return None if name == "shell" and not local_shell(tool) else _SCHEMALESS.get(name)


def uses_asked(request: Mapping[str, Any], switched: bool) -> dict[str, int]:
    """Uses that a request allows its provider to bill, at most, by fee; ``UNLIMITED`` where it names no limit.

    Claude's searches are limited by ``max_uses`` of the tool, those of the Responses API by ``max_tool_calls``. A chat
    completion that is told to search does so once for each choice; xAI counts sources, by ``max_search_results``.

    Args:
        request: the body.
        switched: whether a field switches a search on, see :func:`switches_search`.

    >>> uses_asked({"tools": [{"type": "web_search_20250305", "max_uses": 3}]}, False)
    {'web_search': 3}
    >>> uses_asked({"input": "Hi", "tools": [{"type": "file_search"}], "max_tool_calls": 2}, False)
    {'file_search': 2}
    """
    most: dict[str, int] = {}
    calls = _limit(request.get("max_tool_calls")) if "input" in request else None
    tools = request.get("tools")
    for tool in _flat(tools) if isinstance(tools, list | tuple) else ():
        kind = tool.get("type")
        if not isinstance(kind, str) or (fee := _FEES.get(plain(kind))) is None:
            continue
        own = _limit(tool.get("max_uses")) if _DATED.search(kind) else None
        if fee == "code_session":
            own = 1  # a container for the request
        limits = [limit for limit in (own, calls) if limit is not None]
        most[fee] = min(UNLIMITED, most.get(fee, 0) + (min(limits) if limits else UNLIMITED))
    if calls is not None:
        most = {fee: min(uses, calls) for fee, uses in most.items()}
    if switched:
        choices = request.get("n")
        searches = choices if type(choices) is int and choices > 0 else 1
        sources = request.get("search_parameters")
        if isinstance(sources, Mapping):
            limit = _limit(sources.get("max_search_results"))
            searches = UNLIMITED if limit is None else searches * limit
        most["web_search"] = min(UNLIMITED, most.get("web_search", 0) + searches)
    return most


def switches_search(name: str) -> bool:
    """Whether a field of a body switches a search on."""
    return name in _SWITCHES


def searches_always(model: Any) -> bool:
    """Whether a model searches in every chat completion without being told to, by its name, as OpenAI's do.

    >>> searches_always("gpt-4o-search-preview"), searches_always("gpt-4o")
    (True, False)
    """
    return isinstance(model, str) and _SEARCHES.search(model.lower()) is not None


def uses_told(operation: str, body: Mapping[str, Any]) -> dict[str, int]:
    """Billed uses that a whole answer tells of, by fee; a fee that it cannot tell of is left out.

    Args:
        operation: chat, responses or messages.
        body: of the answer, with its ``usage``.
    """
    usage = body.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    told: dict[str, int] = {}
    server = usage.get("server_tool_use")
    if isinstance(server, Mapping):
        searches = _limit(server.get("web_search_requests"))
        if searches is not None:
            told["web_search"] = searches
    elif operation == "messages" and usage.get("output_tokens") is not None:
        told["web_search"] = 0  # as Anthropic says that there were none
    for name in ("num_sources_used", "num_search_queries"):
        if (counted := _limit(usage.get(name))) is not None:
            told["web_search"] = max(told.get("web_search", 0), counted)
    items = body.get("output")
    if operation == "responses" and isinstance(items, list) and usage:
        told |= dict.fromkeys((*_CALLS.values(), "code_session"), 0)
        sessions = set()
        for item in items:
            if not isinstance(item, Mapping):
                continue
            if item.get("type") == "code_interpreter_call":
                sessions.add(str(item.get("container_id")))
            elif (fee := _CALLS.get(str(item.get("type")))) is not None and not _free(item):
                told[fee] += 1
        told["code_session"] = len(sessions)
    return told


def _free(item: Mapping[str, Any]) -> bool:
    action = item.get("action")
    return isinstance(action, Mapping) and action.get("type") in _FREE_ACTIONS


def _flat(tools: Any) -> list[Mapping[str, Any]]:
    """Tools, and those within namespaces of any level."""
    flat, left = [], list(tools)
    while left:
        tool = left.pop()
        if isinstance(tool, Mapping):
            flat.append(tool)
            inner = tool.get("tools")
            left += inner if isinstance(inner, list | tuple) else []
    return flat


def _limit(value: Any) -> int | None:
    """A value of a body if it is a possible count, else None."""
    return value if type(value) is int and 0 <= value < UNLIMITED else None
