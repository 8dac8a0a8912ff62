"""What every answer of the dashboard has, and what every form must have."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


def sealed(answer: Response) -> Response:
    """An answer with the headers that keep other sites and caches out."""
    answer.headers.update(_HEADERS)
    return answer


def set_cookie(
    request: Request,
    answer: Response,
    name: str,
    cookie: str,
    *,
    lasts: int,
    path: str,
    tls: bool = False,
    lax: bool = False,
) -> None:
    """Set a cookie that only this site gets and no script can read.

    Args:
        request: that is answered; if it came by TLS, the cookie is for TLS only.
        answer: gets the cookie.
        name, cookie: the cookie's name and value.
        lasts: seconds.
        path: of the pages that get it.
        tls: the cookie is for TLS only in any case.
        lax: it comes with a browser that another site leads here, too.
    """
    # What a proxy says of TLS is believed here only, where a lie costs no more than the liar's own session.
    secure = tls or "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    same = "lax" if lax else "strict"
    answer.set_cookie(name, cookie, max_age=lasts, path=path, httponly=True, samesite=same, secure=secure)  # type: ignore[arg-type]


def foreign(request: Request) -> bool:
    """Whether the browser says that another site sent the request."""
    return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
