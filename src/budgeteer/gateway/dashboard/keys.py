"""The pages of keys, and the forms that make a key, change it, raise its limit, rotate its secret and revoke it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from budgeteer.core.amounts import noun
from budgeteer.core.errors import InvalidInput
from budgeteer.gateway.dashboard import charts, key_form
from budgeteer.gateway.dashboard.common import Shared, asked, listed, problem_of
from budgeteer.gateway.dashboard.html import Html, link, options, page, pages, table, tag
from budgeteer.gateway.dashboard.key_form import caps, limits
from budgeteer.gateway.dashboard.key_state import KeyState, states
from budgeteer.gateway.dashboard.times import span_of, when
from budgeteer.gateway.filters import number
from budgeteer.gateway.keys import Key, version
from budgeteer.gateway.roles import NOTHING, Reach
from budgeteer.ledger.protocol import wall_clock

_ROWS = 50
"""Keys on a page."""
_STATES = (("", "any"), ("valid", "valid"), ("expired", "expired"), ("revoked", "revoked"))


class Keys(Shared):
    """The pages of keys.

    Each method takes the request, the token for the page's forms and, if it carries out a form, the form's fields.
    """

    @property
    def _changes(self) -> Reach:
        """Where the reader may make and change keys."""
        return self.admin.changes if self.admin else NOTHING

    async def keys(self, request: Request, token: str) -> Response:
        """The list of keys."""
        return await self._key_list(token, request.query_params, {}, "")

    async def _key_list(
        self, token: str, query: Mapping[str, str], form: dict[str, str], problem: str, status: int = 200
    ) -> Response:
        now, search, wanted = wall_clock(), query.get("search", ""), query.get("state", "")
        matching = await self.queries.find_keys(search, wanted)
        every = await self.queries.find_keys()
        first = (number(query, "page", 1, least=1, most=10**6) - 1) * _ROWS
        listed_keys = matching[first : first + _ROWS]
        known = await states(self.queries, listed_keys, now)
        rows = [
            (
                link(key.name or key.id, f"/keys/{key.id}"),
                key.path,
                known[key.id].html(),
                limits(key.all_limits) or "none",
                ", ".join(key.models),
                when(key.created),
            )
            for key in listed_keys
        ]
        heads = ("key", "path", "state", "limits", "models", "made")
        new, reach = Html(""), self._changes
        if reach.paths:
            new = page(
                "new_key",
                token=token,
                opened=Html(" open" if problem or not every else ""),
                path=form.get("path", reach.paths[0]),
                fields=key_form.fields(form),
            )
        body = page(
            "keys",
            problem=problem_of(problem),
            new=new,
            rows=table(heads, rows, "No such key." if every else "No keys yet."),
            search=search,
            states=options(_STATES, wanted),
            count=f"{len(matching):,} of {len(every):,} keys, the newest first.",
            pages=pages("/keys", len(matching), first, _ROWS, search=search, state=wanted),
        )
        return self.framed(token, "Keys", body, "/keys", status)

    async def make_key(self, request: Request, token: str, form: dict[str, str]) -> Response:
        """Make a key, and show its secret this once."""
        try:
            about = {**key_form.about(form), "path": form.get("path", "").strip()}
            key, secret = await self.queries.make_key(about)
        except InvalidInput as error:
            return await self._key_list(token, {}, form, str(error), 400)
        return self._made(token, key, secret, "New key", "was made.", 201)

    def _made(self, token: str, key: Key, secret: str, heading: str, what: str, status: int) -> Response:
        text = tag("The key <b>$name</b> $what", name=key.name or key.id, what=what)
        body = page("made", heading=heading, text=text, secret=secret, id=key.id)
        return self.framed(token, heading, body, "/keys", status)

    async def key(self, request: Request, token: str) -> Response:
        """One key: its state, limits, spending and latest requests."""
        return await self._key_page(token, request.path_params["id"], request.query_params, "")

    async def _key_page(
        self,
        token: str,
        name: str,
        query: Mapping[str, str],
        problem: str,
        status: int = 200,
        form: dict[str, str] | None = None,
    ) -> Response:
        now = wall_clock()
        span = span_of(query, now, "1h")
        times, kind = span.times(now), self.kind
        key = await self.queries.key(name)
        balances, spent, recent, known, refused = await asyncio.gather(
            self._balances(key),
            self.queries.spend(["time", "stage"], kind, span.step, asked(key=name, **span.filters), span.offset),
            self.queries.requests(asked(key=name), limit=10),
            states(self.queries, [key], now),
            self.queries.refused_since(name),
        )
        names = {name: key.name or name}
        limited = [row for row in balances if row["limit"] is not None]
        actions = Html("")
        if not key.revoked and self._changes.covers(key.path):
            actions = page(
                "key_actions",
                token=token,
                id=key.id,
                example=next(map(str, key.limits), "$5"),
                opened=Html(" open" if form is not None else ""),
                seen=version(key) if form is None else form.get("seen", ""),
                fields=key_form.fields(key_form.shown(key) if form is None else form),
            )
        body = page(
            "key",
            title=names[name],
            problem=problem_of(problem),
            state=banner(known[name], refused),
            facts=listed(_facts(key, known[name])),
            chart=charts.spending(spent, "stage", times, span.step, kind),
            kind=noun(kind),
            said=span.said,
            **span.fields(),
            balances=self.balances(limited, names),
            recent=self.records(recent.requests, names, "No requests yet."),
            all=link("all its requests", "/requests", key=name),
            changes=link("its changes", "/changes", key=name),
            actions=actions,
        )
        return self.framed(token, names[name], body, "/keys", status)

    async def _balances(self, key: Key) -> list[dict[str, Any]]:
        """The limits of a key's account, and of those below it if it has any: only then all accounts are looked at."""
        if key.per_user or key.per_session or key.per_tag:
            return await self.queries.balances(key.scope)
        return await self.queries.balances_of([key.scope])

    async def change(self, request: Request, token: str, form: dict[str, str]) -> Response:
        """Set the fields of a key that the form changes."""
        name = request.path_params["id"]
        key = await self.queries.key(name)
        try:
            await self.queries.change_key(name, key_form.about(form, key), form.get("seen", ""))
        except InvalidInput as error:
            return await self._key_page(token, name, {}, str(error), 400, form)
        return RedirectResponse(f"/keys/{quote(name)}", 303)

    async def rotate(self, request: Request, token: str, form: dict[str, str]) -> Response:
        """Give a key a new secret, and show it this once."""
        name = request.path_params["id"]
        try:
            key, secret = await self.queries.rotate_key(name, form.get("overlap", ""))
        except InvalidInput as error:
            return await self._key_page(token, name, {}, str(error), 400)
        what = "has a new secret." + (
            f" Its earlier one works until {when(max(until for _, until in key.earlier))}." if key.earlier else ""
        )
        return self._made(token, key, secret, "New secret", what, 200)

    async def top_up(self, request: Request, token: str, form: dict[str, str]) -> Response:
        """Raise a limit of a key by the amount in the form."""
        name, amount = request.path_params["id"], form.get("amount", "").strip()
        return await self._change(token, name, self.queries.top_up_key(name, amount))

    async def revoke(self, request: Request, token: str, form: dict[str, str]) -> Response:
        """Revoke a key, if the form confirms it."""
        name = request.path_params["id"]
        if form.get("sure") != "yes":
            return await self._key_page(token, name, {}, "Nothing was revoked: tick the box to confirm.", 400)
        return await self._change(token, name, self.queries.revoke_key(name))

    async def _change(self, token: str, name: str, change: Awaitable[Key]) -> Response:
        try:
            await change
        except InvalidInput as error:
            return await self._key_page(token, name, {}, str(error), 400)
        return RedirectResponse(f"/keys/{quote(name)}", 303)


def banner(state: KeyState, refused: int) -> Html:
    """What stands above a key that refuses its requests; nothing above the others."""
    if not state.refuses:
        return Html("")
    row = f"; the latest {refused:,} requests were refused" if refused > 1 else ""
    return problem_of(f"This key {state.word if state.word != 'spent' else 'is spent'}: {state.why}{row}.")


def _facts(key: Key, state: KeyState) -> list[tuple[str, Any]]:
    """The fields of a key as names and values."""
    per_model = "; ".join(f"{name}: {limits(of)}" for name, of in key.per_model)
    return [
        ("id", key.id),
        ("path", key.path),
        ("state", state.html()),
        ("made", when(key.created)),
        ("limits", limits(key.limits) or "none"),
        ("of models", per_model),
        ("each user", limits(key.per_user)),
        ("each session", limits(key.per_session)),
        ("each tag", limits(key.per_tag)),
        ("models", ", ".join(key.models)),
        *caps(key),
    ]
