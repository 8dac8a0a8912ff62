"""What a key does just now: whether its requests are refused, why, what they ask for and what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from budgeteer.core.amounts import OF, left_of
from budgeteer.gateway.config import PARALLEL
from budgeteer.gateway.dashboard.amounts import lasting
from budgeteer.gateway.dashboard.common import needs
from budgeteer.gateway.dashboard.html import Html, tag
from budgeteer.gateway.dashboard.times import when
from budgeteer.gateway.key_index import state_of
from budgeteer.gateway.keys import Key
from budgeteer.gateway.queries import Queries
from budgeteer.gateway.record import Record
from budgeteer.ledger.limit import check_path
from budgeteer.ledger.report import limit_window
from budgeteer.metering.outcome import Outcome

_PASSING = ("too_many_parallel", "budget_reserved", "rate_limited")
"""Reasons that go away by waiting a moment."""


@dataclass(frozen=True, slots=True)
class KeyState:
    """The state of a key.

    Attributes:
        css: the class of its colour: good, warn or bad.
        word: it in a word or two.
        why: the reason with what is requested and left; "" if there is nothing to say.
        refuses: whether the latest request would be refused again now.
    """

    css: str
    word: str
    why: str = ""
    refuses: bool = False

    def html(self) -> Html:
        """It as a cell of a table."""
        shown = tag('<span class="$css">$word</span>', css=self.css, word=self.word)
        return tag('$shown<div class="sub">$why</div>', shown=shown, why=self.why) if self.why else shown


async def states(queries: Queries, keys: Sequence[Key], now: int) -> dict[str, KeyState]:
    """The state of each of some keys, by id.

    Args:
        queries: the gateway's queries.
        keys: the keys.
        now: milliseconds since 1970 (UTC).
    """
    if not keys:
        return {}
    paths = {key.id: check_path(key.scope) for key in keys}
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in await queries.balances_of(list(dict.fromkeys(path for chain in paths.values() for path in chain))):
        if row["limit"] is not None and row["kind"].partition(OF)[0] != PARALLEL:
            rows.setdefault(row["path"], []).append(row)
    latest = await queries.latest([key.id for key in keys])
    return {
        key.id: _state(key, [row for path in paths[key.id] for row in rows.get(path, ())], latest.get(key.id), now)
        for key in keys
    }


def _state(key: Key, rows: Sequence[dict[str, Any]], last: Record | None, now: int) -> KeyState:
    plain = state_of(key, now)
    if plain == "revoked":
        return KeyState("bad", "revoked")
    if plain == "expired":
        return KeyState("bad", f"expired {when(key.expires or 0)}")
    spent = next((row for row in rows if row["left"] <= 0 and OF not in row["kind"]), None)
    if last is not None and last.outcome == Outcome.REFUSED and _again(last, rows):
        why = f"{last.reason}: {needs(last)}" if last.refused_kind else last.reason
        row = next((row for row in rows if _same(row, last)), None)
        return KeyState("bad", "refuses requests", f"{why}{_resets(row, now)}", True)
    if spent is not None:
        left = left_of(spent["kind"], spent["left"], spent["limit"], limit_window(spent))
        return KeyState("bad", "spent", f"{left}{_resets(spent, now)}", True)
    until = "valid" if key.expires is None else f"valid until {when(key.expires)}"
    if key.earlier and (ends := max(ends for _, ends in key.earlier)) > now:
        return KeyState("good", until, f"an earlier secret works until {when(ends)}")
    return KeyState("good", until)


def _again(last: Record, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a request that was refused would be refused now as well."""
    if not last.refused_kind:
        return last.reason not in _PASSING
    same = [row for row in rows if _same(row, last)]
    inside = not same and last.scope not in {row["path"] for row in rows}  # of a user, session or tag below the key
    return inside or any(row["left"] < (last.requested or 0) for row in same)


def _same(row: Mapping[str, Any], last: Record) -> bool:
    return bool(row["path"] == last.scope and row["kind"] == last.refused_kind)


def _resets(row: Mapping[str, Any] | None, now: int) -> str:
    return f"; resets in {lasting(row['resets'] - now)}" if row and row["resets"] else ""
