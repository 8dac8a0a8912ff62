"""The dashboard: pages that the server renders from the same queries as the admin API."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from budgeteer.core.errors import BudgeteerError, LedgerUnavailable
from budgeteer.gateway import session
from budgeteer.gateway.access import SIGN_IN, Access
from budgeteer.gateway.asgi import show_key
from budgeteer.gateway.config import Config
from budgeteer.gateway.dashboard import mine
from budgeteer.gateway.dashboard.html import Html, asset
from budgeteer.gateway.dashboard.pages import Pages, login, trouble
from budgeteer.gateway.dashboard.seal import foreign, sealed, set_cookie
from budgeteer.gateway.dashboard.times import ZONE, zone_of
from budgeteer.gateway.keyring import KeyRing
from budgeteer.gateway.keys import Key
from budgeteer.gateway.queries import Queries
from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.roles import Admin
from budgeteer.gateway.rules import check
from budgeteer.ledger.protocol import wall_clock

_FORM = 65_536
"""The largest form that is read, in bytes."""
_NO_ADMIN = "No admin key is set: set the environment variable that admin_key_env names and restart the gateway."
_BAD_FORM = "This form was not sent from a page of this dashboard, or is too large."
_ASSETS = {"dashboard.css": "text/css", "dashboard.js": "text/javascript", "icon.svg": "image/svg+xml"}
Form = dict[str, str]
Show = Callable[[Pages, Request, str], Awaitable[Response]]
"""Makes a page of a request and the token for its forms."""
Act = Callable[[Pages, Request, str, Form], Awaitable[Response]]
"""Carries out the form of a request."""
Held = Callable[[Pages, Key, Request, str], Awaitable[Response]]
"""Makes a page for the holder of a key."""


def routes(queries: Queries, config: Config, ring: KeyRing, access: Access) -> list[BaseRoute]:
    """The routes of one gateway's dashboard; ``ring`` finds the keys of holders who log in, ``access`` the admins."""
    dashboard = _Dashboard(queries, config, ring, access)
    shown: list[tuple[str, Show]] = [
        ("/", Pages.overview),
        ("/budgets", Pages.budgets),
        ("/budget", Pages.budget),
        ("/agents", Pages.agents),
        ("/requests", Pages.requests),
        ("/requests.csv", Pages.csv),
        ("/requests/{id}", Pages.request),
        ("/conversation", Pages.conversation),
        ("/changes", Pages.changes),
        ("/keys", Pages.keys),
        ("/keys/{id}", Pages.key),
    ]
    posted: list[tuple[str, Act]] = [
        ("/keys", Pages.make_key),
        ("/keys/{id}/top-up", Pages.top_up),
        ("/keys/{id}/rotate", Pages.rotate),
        ("/keys/{id}/change", Pages.change),
        ("/keys/{id}/revoke", Pages.revoke),
        ("/logout", dashboard.logout),
    ]
    sign_in = dashboard.sign_in
    oidc = [] if sign_in is None else [("/oidc/login", sign_in.begin), ("/oidc/callback", sign_in.finish)]
    return [
        *(Route(path, dashboard.opened(answer)) for path, answer in oidc),
        Route("/login", dashboard.login, methods=["GET", "POST"]),
        Route("/mine", dashboard.held(Pages.mine)),
        Route("/mine/requests/{id}", dashboard.held(Pages.my_request)),
        Route("/mine/conversation", dashboard.held(Pages.my_conversation)),
        Route("/mine/logout", dashboard.leave, methods=["POST"]),
        *(Route(path, dashboard.guarded(path, show)) for path, show in shown),
        *(Route(path, dashboard.formed(path, act), methods=["POST"]) for path, act in posted),
        Route("/static/{name}", dashboard.static),
    ]


class _Dashboard:
    def __init__(self, queries: Queries, config: Config, ring: KeyRing, access: Access) -> None:
        self._queries, self._config, self._server = queries, config, config.server
        self._ring, self._access = ring, access
        self.sign_in = None
        if config.admins.oidc is not None:
            from budgeteer.gateway.dashboard.sign_in import SignIn

            self.sign_in = SignIn(config.admins, config.admins.oidc, access)

    def opened(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint for everybody."""

        async def endpoint(request: Request) -> Response:
            return await self._shown(request, answer(request))

        return endpoint

    def _session(self, request: Request) -> tuple[Admin, str] | None:
        """The admin and the cookie of a valid session; None if there is none."""
        cookie = request.cookies.get(session.COOKIE, "")
        admin = self._access.admin(cookie)
        if admin is None:
            return None
        show_key(request.scope)
        return admin, cookie

    def _pages(self, admin: Admin) -> Pages:
        """The pages as an admin sees them."""
        return Pages(self._queries.of(admin), self._config, admin)

    def guarded(self, path: str, show: Show) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that shows a page to the admins whose role allows it, and redirects others to the login.

        Args:
            path: of the route.
            show: makes the page.
        """

        async def page(request: Request, admin: Admin, cookie: str) -> Response:
            check(admin, "GET", path)
            return await show(self._pages(admin), request, self._access.form_token(cookie))

        async def endpoint(request: Request) -> Response:
            signed_in = self._session(request)
            if signed_in is None:
                return sealed(RedirectResponse("/login", 303))
            return await self._shown(request, page(request, *signed_in))

        return endpoint

    async def _holder(self, request: Request) -> tuple[Key, str] | None:
        """The key and the cookie of a valid session of its holder; None if there is none."""
        cookie = request.cookies.get(mine.COOKIE, "")
        key = await self._ring.look(mine.key_of(cookie))
        if key is None or not mine.valid(key, cookie):
            return None
        show_key(request.scope)
        return key, cookie

    def held(self, show: Held) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that shows a page to the holder of a key, and redirects others to the login."""

        async def endpoint(request: Request) -> Response:
            return await self._shown(request, self._mine(show, request))

        return endpoint

    async def _mine(self, show: Held, request: Request) -> Response:
        held = await self._holder(request)
        if held is None:
            return RedirectResponse("/login", 303)
        return await show(Pages(self._queries, self._config), held[0], request, mine.form_token(*held))

    async def leave(self, request: Request) -> Response:
        """End the session of a key's holder by deleting its cookie."""

        async def left() -> Response:
            held, form = await self._holder(request), await self._form(request)
            if held is not None:
                given = (form or {}).get("token", "")
                if foreign(request) or not hmac.compare_digest(given.encode(), mine.form_token(*held).encode()):
                    return trouble(403, f"{_BAD_FORM} Go back and reload the page.")
            answer = RedirectResponse("/login", 303)
            answer.delete_cookie(mine.COOKIE, path="/mine", httponly=True, samesite="strict")
            return answer

        return await self._shown(request, left())

    def formed(self, path: str, act: Act) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that carries out a form, if an admin whose role allows it sent it from a page of this dashboard.

        Args:
            path: of the route.
            act: carries it out.
        """

        async def acted(request: Request, admin: Admin, cookie: str) -> Response:
            form = await self._form(request)
            if form is None or foreign(request) or not self._access.form_valid(cookie, form.pop("token", "")):
                return trouble(403, f"{_BAD_FORM} Go back and reload the page.")
            check(admin, "POST", path)
            return await act(self._pages(admin), request, self._access.form_token(cookie), form)

        async def endpoint(request: Request) -> Response:
            signed_in = self._session(request)
            if signed_in is None:
                return sealed(RedirectResponse("/login", 303))
            return await self._shown(request, acted(request, *signed_in))

        return endpoint

    async def _shown(self, request: Request, made: Awaitable[Response]) -> Response:
        ZONE.set(zone_of(request.cookies))
        try:
            return sealed(await made)
        except Refused as error:
            return sealed(trouble(error.status, str(error)))
        except LedgerUnavailable:
            return sealed(trouble(503, "The gateway's store does not answer just now."))
        except BudgeteerError as error:
            return sealed(trouble(400, str(error)))

    async def login(self, request: Request) -> Response:
        """Show the login form, or log in with the admin key, or the key of one's own, that it holds."""
        if request.method == "GET":
            return sealed(self._login(""))
        form = await self._form(request)
        if form is None or foreign(request):
            return sealed(self._login(_BAD_FORM, 403))
        given = form.get("key", "").strip()
        if given.startswith("bk-"):
            return await self._shown(request, self._begin(request, given))
        if not self._access.any_key:
            return sealed(self._login(_NO_ADMIN, 403))
        cookie = self._access.begin(given)
        if cookie is None:
            return sealed(self._login("That is neither the admin key nor a key of this gateway.", 401))
        answer = RedirectResponse("/", 303)
        set_cookie(request, answer, session.COOKIE, cookie, lasts=session.LASTS, path="/")
        return sealed(answer)

    async def _begin(self, request: Request, token: str) -> Response:
        """Log the holder of a key in."""
        try:
            key = await self._ring.find(token, wall_clock())
        except Refused as error:
            return self._login(f"{str(error)[:1].upper()}{str(error)[1:].partition(';')[0]}.", 401)
        show_key(request.scope)
        answer = RedirectResponse("/mine", 303)
        set_cookie(request, answer, mine.COOKIE, mine.begin(key), lasts=mine.LASTS, path="/mine")
        return answer

    def _login(self, problem: str, status: int = 200) -> Response:
        return login(problem, self.sign_in.link() if self.sign_in else Html(""), status)

    async def logout(self, pages: Pages, request: Request, token: str, form: Form) -> Response:
        """End the browser's session by deleting its cookie."""
        answer: Response | None = None
        if self.sign_in and pages.admin and pages.admin.by == SIGN_IN:
            answer = await self.sign_in.left()
        if answer is None:
            answer = RedirectResponse("/login", 303)
        answer.delete_cookie(session.COOKIE, httponly=True, samesite="strict")
        return answer

    async def _form(self, request: Request) -> Form | None:
        """The fields of a form; None if it is too large, arrives too slowly or is no form."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
            return None
        pieces, size = [], 0
        try:
            async with asyncio.timeout(self._server.receive_seconds):
                async for piece in request.stream():
                    pieces.append(piece)
                    size += len(piece)
                    if size > _FORM:
                        return None
            return dict(parse_qsl(b"".join(pieces).decode(), keep_blank_values=True, max_num_fields=100))
        except (TimeoutError, ValueError, ClientDisconnect):
            return None

    async def static(self, request: Request) -> Response:
        """A static file: the style sheet, the script or the icon."""
        name = request.path_params["name"]
        if name not in _ASSETS:
            return sealed(trouble(404, "There is no such file."))
        answer = sealed(Response(asset(f"static/{name}"), media_type=_ASSETS[name]))
        answer.headers["cache-control"] = "no-cache"
        return answer
