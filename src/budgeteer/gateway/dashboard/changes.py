"""The page of changes: which admin has done what to which key."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from budgeteer.gateway.changes import MADE, Change
from budgeteer.gateway.dashboard.common import Shared, asked
from budgeteer.gateway.dashboard.html import Html, link, page, table
from budgeteer.gateway.dashboard.times import when

_ROWS = 100
_TIMES = ("expires", "rotated")


class Changes(Shared):
    """The page of changes."""

    async def changes(self, request: Request, token: str) -> Response:
        """The changes of keys, newest first."""
        query = request.query_params
        key = query.get("key", "")
        changes, more = await self.queries.changes(asked(key=key, before=query.get("before", "")), _ROWS)
        older = link("older", "/changes", key=key, before=more) if more else Html("")
        body = page("changes", rows=changes_table(changes), older=older, key=key)
        return self.framed(token, "Changes", body, "/changes")


def changes_table(changes: list[Change]) -> Html:
    """A table of changes."""
    rows = [
        (
            when(change.at),
            change.who,
            change.by,
            change.action,
            link(change.name or change.key, f"/keys/{quote(change.key)}"),
            change.path,
            "; ".join(_told(change, name) for name in change.fields),
        )
        for change in changes
    ]
    return table(("time", "who", "by", "did", "key", "account", "what"), rows, "Nothing was changed.")


def _told(change: Change, name: str) -> str:
    """What a field was and is; only the latter of a key that was made."""
    old, new = (_said(name, value) for value in change.fields[name])
    return f"{name}: {new}" if change.action == MADE else f"{name}: {old} \u2192 {new}"


def _said(name: str, value: Any) -> str:
    """The value of a field of a key for people."""
    if value in (None, [], {}, ""):
        return "none"
    if name in _TIMES:
        return when(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{of}: {', '.join(limits)}" for of, limits in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
