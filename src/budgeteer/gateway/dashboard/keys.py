"""The pages of keys, and the forms that make a key, raise its limit and revoke it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from budgeteer.core.amounts import noun
from budgeteer.core.errors import InvalidInput
from budgeteer.gateway.dashboard import charts
from budgeteer.gateway.dashboard.amounts import short, when
from budgeteer.gateway.dashboard.common import (
    RANGES,
    Shared,
    asked,
    listed,
    problem_of,
    times_of,
)
from budgeteer.gateway.dashboard.html import Html, link, page, table, tag
from budgeteer.gateway.keys import Key
from budgeteer.ledger.limit import Limit
from budgeteer.ledger.protocol import wall_clock

_LIMIT_FIELDS = ("limits", "per_user", "per_session", "per_tag")
_CAPS = ("max_input", "max_output", "max_reasoning")
_BETWEEN_LIMITS = "(?<![0-9]),|,(?![0-9])"
"""A comma between digits belongs to the limit, which says whether it may be there."""


class Keys(Shared):
    """The pages of keys.

    Each method takes the request, the token for the page's forms and, if it carries out a form, the form's fields.
    """

    async def keys(self, request: Request, token: str) -> Response:
        """The list of keys."""
        return await self._key_list(token, {}, "")

    async def _key_list(self, token: str, form: dict[str, str], problem: str, status: int = 200) -> Response:
        known = await self.queries.keys()
        rows = [
            (
                link(key.name or key.id, f"/keys/{key.id}"),
                key.path,
                _limits(key.limits) or "none",
                ", ".join(key.models),
                _state(key),
                when(key.created),
            )
            for key in reversed(known)
        ]
        values = {name: form.get(name, "") for name in ("name", "path", "models", "expires", *_LIMIT_FIELDS, *_CAPS)}
        opened = Html(" open" if problem or not known else "")
        heads = ("key", "path", "limits", "models", "state", "made (UTC)")
        body = page(
            "keys",
            token=token,
            problem=problem_of(problem),
            rows=table(heads, rows, "No keys yet."),
            opened=opened,
            **values,
        )
        return self.framed(token, "Keys", body, "/keys", status)

    async def make_key(self, request: Request, token: str, form: dict[str, str]) -> Response:
        """Make a key, and show its secret this once."""
        about: dict[str, Any] = {"path": form.get("path", "").strip(), "name": form.get("name", "").strip()}
        for name in (*_LIMIT_FIELDS, "models"):
            if form.get(name, "").strip():
                about[name] = _words(form[name], _BETWEEN_LIMITS if name in _LIMIT_FIELDS else ",")
        try:
            for name in _CAPS:
                if form.get(name, "").strip():
                    about[name] = _whole(form[name])
            if form.get("expires", "").strip():
                about["expires"] = _moment(form["expires"])
            key, secret = await self.queries.make_key(about)
        except InvalidInput as error:
            return await self._key_list(token, form, str(error), 400)
        body = page("made", secret=secret, name=key.name or key.id, id=key.id)
        return self.framed(token, "New key", body, "/keys", 201)

    async def key(self, request: Request, token: str) -> Response:
        """One key: its limits, spending and latest requests."""
        return await self._key_page(token, request.path_params["id"], "")

    async def _key_page(self, token: str, name: str, problem: str, status: int = 200) -> Response:
        now = wall_clock()
        _, seconds, step = RANGES["1h"]
        times = times_of(now, seconds, step)
        key = await self.queries.key(name)
        balances, spent, recent = await asyncio.gather(
            self.queries.balances(key.scope),
            self.queries.spend(["time", "stage"], self.kind, step, asked(key=name, since=times[0])),
            self.queries.requests(asked(key=name), limit=10),
        )
        names = {name: key.name or name}
        limited = [row for row in balances if row["limit"] is not None]
        kind = self.kind
        drawn = charts.bars(
            charts.stacks(spent, "stage", times),
            times,
            step * 1000,
            lambda units: short(kind, units),
            f"{noun(kind)} by stage",
        )
        facts = [
            ("id", key.id),
            ("path", key.path),
            ("state", _state(key)),
            ("made (UTC)", when(key.created)),
            ("limits", _limits(key.limits) or "none"),
            ("each user", _limits(key.per_user)),
            ("each session", _limits(key.per_session)),
            ("each tag", _limits(key.per_tag)),
            ("models", ", ".join(key.models)),
            *(
                (f"most {part} a request", f"{cap:,} tokens")
                for part in ("input", "output", "reasoning")
                if (cap := getattr(key, f"max_{part}")) is not None
            ),
        ]
        actions = Html("")
        if not key.revoked:
            actions = page("key_actions", token=token, id=key.id, example=next(map(str, key.limits), "$5"))
        body = page(
            "key",
            title=names[name],
            problem=problem_of(problem),
            facts=listed(facts),
            chart=drawn,
            kind=noun(kind),
            balances=self.balances(limited, names),
            recent=self.records(recent.requests, names, "No requests yet."),
            all=link("all its requests", "/requests", key=name),
            actions=actions,
        )
        return self.framed(token, names[name], body, "/keys", status)

    async def top_up(self, request: Request, token: str, form: dict[str, str]) -> Response:
        """Raise a limit of a key by the amount in the form."""
        name, amount = request.path_params["id"], form.get("amount", "").strip()
        return await self._change(token, name, self.queries.top_up_key(name, amount))

    async def revoke(self, request: Request, token: str, form: dict[str, str]) -> Response:
        """Revoke a key, if the form confirms it."""
        name = request.path_params["id"]
        if form.get("sure") != "yes":
            return await self._key_page(token, name, "Nothing was revoked: tick the box to confirm.", 400)
        return await self._change(token, name, self.queries.revoke_key(name))

    async def _change(self, token: str, name: str, change: Awaitable[Key]) -> Response:
        try:
            await change
        except InvalidInput as error:
            return await self._key_page(token, name, str(error), 400)
        return RedirectResponse(f"/keys/{quote(name)}", 303)


def _limits(limits: Sequence[Limit]) -> str:
    return ", ".join(map(str, limits))


def _state(key: Key) -> Html:
    if key.revoked:
        return tag('<span class="bad">$x</span>', x="revoked")
    if key.expires is None:
        return tag('<span class="good">$x</span>', x="valid")
    gone = key.expires <= wall_clock()
    return tag(
        '<span class="$css">$x</span>',
        css="bad" if gone else "good",
        x=f"{'expired' if gone else 'valid until'} {when(key.expires)}",
    )


def _words(text: str, between: str) -> list[str]:
    return [word.strip() for word in re.split(rf"\n|{between}", text) if word.strip()]


def _whole(text: str) -> int:
    clean = text.strip()
    if not re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3}){1,5}|[0-9][0-9_]{0,17}", clean):
        raise InvalidInput(f"{text!r} is not a whole number; write 1500 or 1,500.")
    return int(clean.replace(",", "").replace("_", ""))


def _moment(text: str) -> int:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidInput(f"{text!r} is not a date; write 2027-01-31.") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
