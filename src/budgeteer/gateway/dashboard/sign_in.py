"""Sign-in of admins with an OpenID provider: the way there, the way back, and the way out."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from budgeteer.core.errors import BudgeteerError
from budgeteer.gateway import session
from budgeteer.gateway.access import Access, value_of
from budgeteer.gateway.admins import Admins, Oidc
from budgeteer.gateway.asgi import show_key
from budgeteer.gateway.dashboard.html import Html, narrow, tag
from budgeteer.gateway.dashboard.seal import set_cookie
from budgeteer.gateway.oidc.provider import Provider
from budgeteer.gateway.refusal import Refused

COOKIE = "budgeteer-oidc"
_LASTS = 600
"""Seconds in which a sign-in has to be finished."""
_SHOWN = 200
_TO_OVERVIEW = Html('<meta http-equiv="refresh" content="0; url=/">\n')


class SignIn:
    """The sign-in of one gateway.

    Args:
        admins, oidc: those of the configuration.
        access: begins the sessions.
    """

    def __init__(self, admins: Admins, oidc: Oidc, access: Access) -> None:
        self._oidc, self._secret, self._access = oidc, admins.secret, access
        self._tls = oidc.url.startswith("https://")
        self._claims = tuple(dict.fromkeys(name for entry in admins.entries for name, _ in entry.claims))
        emails = ("email", "email_verified") if any(entry.email for entry in admins.entries) else ()
        self._provider = Provider(oidc, frozenset((*self._claims, *emails)))

    def link(self) -> Html:
        """The link that begins a sign-in."""
        return tag('<p class="card"><a href="/oidc/login">Sign in with $host</a></p>', host=self._oidc.host)

    def _sign(self, purpose: str, text: str) -> str:
        return session.sign(self._secret, f"oidc {purpose}", text)

    async def begin(self, request: Request) -> Response:
        """Send a browser to the provider.

        What the way back needs is signed into a cookie or follows from the secret, so any replica can finish it.
        """
        state = f"{int(time.time()) + _LASTS}.{secrets.token_urlsafe(32)}"
        address = await self._provider.address(state, self._sign("nonce", state), self._sign("verifier", state))
        answer = RedirectResponse(address, 303)
        cookie = f"{state}.{self._sign('state', state)}"
        set_cookie(request, answer, COOKIE, cookie, lasts=_LASTS, path="/oidc", tls=self._tls, lax=True)
        return answer

    async def finish(self, request: Request) -> Response:
        """Let in who comes back from the provider, if that is an admin.

        Raises:
            Refused: the sign-in was not begun in this browser, or the provider does not say who it is; 403 if it is no
                admin.
        """
        state, _, mac = request.cookies.get(COOKIE, "").rpartition(".")
        given = request.query_params.get("state", "")
        ours = hmac.compare_digest(mac.encode(), self._sign("state", state).encode())
        if not ours or not hmac.compare_digest(given.encode(), state.encode()):
            text = "This sign-in was not begun in this browser, or not as the last one; go back and sign in again."
            raise Refused(403, "sign_in_failed", text)
        if int(state.partition(".")[0]) < time.time():
            raise Refused(403, "sign_in_failed", "This sign-in took longer than ten minutes; sign in again.")
        nonce, verifier = self._sign("nonce", state), self._sign("verifier", state)
        claims = await self._provider.claims(request.query_params, nonce, verifier)
        verified = claims.get("email_verified") in (True, "true")
        cookie = self._access.begin_as(claims if verified else {**claims, "email": ""})
        if cookie is None:
            raise Refused(403, "not_an_admin", self._unknown(claims, verified))
        show_key(request.scope)
        # A page, not a redirect: browsers withhold a strict cookie as long as another site has led them here.
        answer = HTMLResponse(narrow("signed_in", "Signed in", head=_TO_OVERVIEW))
        set_cookie(request, answer, session.COOKIE, cookie, lasts=session.LASTS, path="/", tls=self._tls)
        answer.delete_cookie(COOKIE, path="/oidc", httponly=True, samesite="lax")
        return answer

    def _unknown(self, claims: Mapping[str, Any], verified: bool) -> str:
        """What to tell somebody who is no admin: what was seen, so that the file can name it."""
        email = claims.get("email")
        seen = [f"email {str(email)[:_SHOWN]}" if email else "no email"]
        if email and not verified:
            said = str(claims["email_verified"]).lower()[:_SHOWN] if "email_verified" in claims else "missing"
            seen.append(f"which does not count, since email_verified is {said}")
        for name in self._claims:
            value = value_of(claims, name)
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            seen.append(f"no {name}" if value is None else f"{name} {shown[:_SHOWN]}")
        return (
            f"You have signed in with {self._oidc.host}, but are no admin of this gateway. It says of you: "
            f"{', '.join(seen)} (sub {str(claims.get('sub'))[:_SHOWN]}). No [[admins]] of the gateway's file is of "
            "that; ask an admin to name one of them there."
        )

    async def left(self) -> Response | None:
        """The page after a log-out, from where one can sign out of the provider, too; None where that is not known."""
        try:
            address = await self._provider.left()
        except BudgeteerError:
            return None
        return (
            HTMLResponse(narrow("signed_out", "Logged out", address=address, host=self._oidc.host)) if address else None
        )
