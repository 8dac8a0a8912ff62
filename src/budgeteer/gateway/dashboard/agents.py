"""The page of agents: which of them was given, spent, holds and gave back what, as a picture and a table."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response

from budgeteer.core.amounts import noun
from budgeteer.draw.tree import Branch, tree_chart
from budgeteer.gateway.dashboard.amounts import amount
from budgeteer.gateway.dashboard.common import Shared, path_of
from budgeteer.gateway.dashboard.html import Html, link, page, table
from budgeteer.gateway.keyring import run
from budgeteer.ledger.tree import Node

_ROWS = 100
"""Accounts on the page."""
_SHOWN = 20
"""Characters of a name in the picture."""
_LONGEST = 100
"""Characters of a kind, at most."""


class Agents(Shared):
    """The page of agents."""

    async def agents(self, request: Request, token: str) -> Response:
        """The tree of allowances at an account and below it."""
        query = request.query_params
        path, kind = query.get("path", "").strip("/"), query.get("kind", "")[:_LONGEST] or self.kind
        every, names = await asyncio.gather(run(self.queries.trees.at, kind, path), self.names())
        found = [(node, depth) for node, depth in every if self.queries.reads.covers(node.path)]
        shown = found[:_ROWS]
        more = f"{len(found):,} accounts" + (
            f", the first {_ROWS} of them; name one to see those below it." * (len(found) > _ROWS)
        )
        body = page(
            "agents",
            path=path,
            kind=kind,
            more=more,
            chart=_chart(shown, kind, path_of(path, names) if path else "all accounts", names),
            rows=_table(shown, kind, names),
        )
        return self.framed(token, "Agents", body, "/agents")


def _chart(found: Sequence[tuple[Node, int]], kind: str, title: str, names: Mapping[str, str]) -> Html:
    def short(name: str) -> str:
        return name if len(name) <= _SHOWN else name[: _SHOWN - 1] + "\u2026"

    branches = [
        Branch(
            short(path_of(node.path.rpartition("/")[2], names)),
            depth,
            (node.spent, node.held, node.back or 0),
            amount(kind, node.spent) + (f" of {amount(kind, node.given)}" if node.given is not None else ""),
        )
        for node, depth in found
    ]
    return Html(tree_chart(branches, f"{title}: {noun(kind)}", alone=False)) if branches else Html("")


def _table(found: Sequence[tuple[Node, int]], kind: str, names: Mapping[str, str]) -> Html:
    def said(units: int | None) -> str:
        return "" if units is None else amount(kind, units)

    rows = [
        (
            link(path_of(node.path, names), "/agents", path=node.path, kind=kind),
            f"{node.parts:,}" if node.parts else "", said(node.given), said(node.spent), said(node.held),
            said(node.back), f"{node.calls:,}",
        )
        for node, _ in found
    ]  # fmt: skip
    heads = ("account", "times given", "given", "spent", "held", "back or left", "calls")
    return table(heads, rows, f"Nothing of the kind {kind!r} was reserved here.", heads[1:])
