"""The pages of a key's holder, who logs in with the key itself and sees nothing of other keys."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time

from starlette.requests import Request
from starlette.responses import Response

from budgeteer.core.amounts import noun
from budgeteer.gateway.dashboard import charts
from budgeteer.gateway.dashboard.amounts import amount
from budgeteer.gateway.dashboard.common import asked, listed
from budgeteer.gateway.dashboard.html import link, page, table
from budgeteer.gateway.dashboard.key_form import caps
from budgeteer.gateway.dashboard.key_state import states
from budgeteer.gateway.dashboard.keys import banner
from budgeteer.gateway.dashboard.requests import TURNS, Requests
from budgeteer.gateway.dashboard.times import span_of, when
from budgeteer.gateway.holder import Holder
from budgeteer.gateway.key_index import state_of
from budgeteer.gateway.keys import Key
from budgeteer.gateway.refusal import Refused
from budgeteer.ledger.protocol import wall_clock

COOKIE = "budgeteer-key"
LASTS = 12 * 3600
"""How long a session lasts, in seconds."""
_ROWS = 50


def _mac(digest: str, purpose: str, text: str) -> str:
    return hmac.new(digest.encode(), f"budgeteer holder {purpose} {text}".encode(), hashlib.sha256).hexdigest()


def begin(key: Key) -> str:
    """The cookie of a new session of a key's holder.

    It is signed with the digest of the key's secret, which only the store has: it is valid at every replica, for this
    key only, and ends when the key is revoked, expires or gets a new secret.
    """
    about = f"{key.id}.{int(time.time()) + LASTS}.{secrets.token_hex(16)}"
    return f"{about}.{_mac(key.digest, 'session', about)}"


def key_of(cookie: str) -> str:
    """The id of the key that a cookie says it is of; nothing is checked by this."""
    return cookie.partition(".")[0]


def valid(key: Key, cookie: str) -> bool:
    """Whether a cookie is that of a session of a key that is valid, and has not ended."""
    about, _, mac = cookie.rpartition(".")
    if not hmac.compare_digest(mac.encode(), _mac(key.digest, "session", about).encode()):
        return False
    return int(about.split(".")[1]) > time.time() and state_of(key, wall_clock()) == "valid"


def form_token(key: Key, cookie: str) -> str:
    """The token that every form of a session's pages contains."""
    return _mac(key.digest, "form", cookie)


class Mine(Requests):
    """The pages of key holders. Every query has the filter of the own key."""

    async def mine(self, key: Key, request: Request, token: str) -> Response:
        """The limits, spending and requests of the own key."""
        query, now, kind = request.query_params, wall_clock(), self.kind
        span = span_of(query, now, "24h")
        times, about = span.times(now), asked(key=key.id, **span.filters)
        before = asked(before=query.get("before", ""))
        spent, by_model, total, recent = await asyncio.gather(
            self.queries.spend(["time", "model"], kind, span.step, about, span.offset),
            self.queries.spend(["model"], kind, asked=about),
            self.queries.totals(about),
            self.queries.requests({**about, **before}, limit=_ROWS),
        )
        limits, known, refused = await asyncio.gather(
            Holder(self.queries).limits(key, {}),
            states(self.queries, [key], now),
            self.queries.refused_since(key.id),
        )
        names = {key.id: key.name or key.id}
        facts = [
            ("key", key.id),
            ("state", known[key.id].html()),
            ("models", ", ".join(key.models)),
            *caps(key),
            ("valid until", when(key.expires) if key.expires else ""),
            ("requests", f"{total['requests']:,}, {total['refused']:,} refused"),
            ("tokens", f"{total['input']:,} in, {total['output']:,} out"),
        ]
        models = [(row["model"], amount(kind, row["units"] or 0), f"{row['requests']:,}") for row in by_model[:20]]
        older = ""
        if len(recent.requests) == _ROWS:
            older = link("older", "/mine", **span.address, before=recent.next)
        body = page(
            "mine",
            title=names[key.id],
            state=banner(known[key.id], refused),
            limits=self.balances(limits, names, links=False),
            chart=charts.spending(spent, "model", times, span.step, kind),
            kind=noun(kind),
            said=span.said,
            **span.fields(),
            facts=listed(facts),
            models=table(("model", noun(kind), "requests"), models, "Nothing yet.", (noun(kind), "requests")),
            recent=self.records(recent.requests, names, "No requests.", own=True),
            older=older,
        )
        return self.framed(token, names[key.id], body, "/mine")

    async def my_request(self, key: Key, request: Request, token: str) -> Response:
        """One request of the own key.

        Raises:
            Refused: 404, there is no such request, or it is of another key.
        """
        record = await self.queries.request(request.path_params["id"])
        if record.key != key.id:
            raise Refused(404, "no_request", f"there is no record of {record.id!r}; old ones are dropped")
        body = self.all_fields(record, {key.id: key.name or key.id}, own=True)
        return self.framed(token, "Request", body, "/mine")

    async def my_conversation(self, key: Key, request: Request, token: str) -> Response:
        """The requests of a conversation of the own key, the oldest first."""
        name = request.query_params.get("name", "")
        filters = {"key": key.id, "conversation": name}
        listed, total = await asyncio.gather(self.queries.requests(filters, limit=TURNS), self.queries.totals(filters))
        if not name or not listed.requests:
            raise Refused(404, "no_conversation", "There is no such conversation.")
        names = {key.id: key.name or key.id}
        body = page("conversation", name=name, **self.turns(listed.requests, total, names, own=True))
        return self.framed(token, "Conversation", body, "/mine")
