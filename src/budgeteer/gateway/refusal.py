"""The error for a client whose request is refused: status, headers and body, so that its library retries if it helps.

The OpenAI and Anthropic libraries retry 408, 409, 429 and 5xx by themselves unless ``x-should-retry`` is "false". So
the gateway answers 429 only if waiting a moment helps; a spent budget is 402, with ``Retry-After`` if its window makes
room again and ``x-should-retry: false`` in any case.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from budgeteer.core.amounts import base, limit, noun
from budgeteer.core.errors import BudgeteerError, BudgetExceeded
from budgeteer.gateway.config import PARALLEL, REQUESTS

PATIENCE = 60
"""The longest wait in seconds after which a client's library may retry by itself; else the caller has to decide."""
_LONGEST = 2000
"""The most characters of a message, since it may contain what a client sent."""
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_OPENAI = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


def shown(value: Any) -> str:
    """A value that a client sent, short enough for a message."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:77] + "...")
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    return "an object" if isinstance(value, dict) else "a list"


class Refused(BudgeteerError):
    """The error of a request that the gateway refuses.

    Attributes:
        status: the HTTP status.
        code: the error's code for programs; also ``reason`` of the record.
        wait: seconds after which a retry may succeed; None = it does not help. Libraries may retry by themselves after
            PATIENCE seconds at most, and never after 402.
        budget: the limit that refused the request, if one did: scope, kind, used, held, requested, limit, window, left,
            resets_at.
        details: what Anthropic's libraries read to ask again in another way; None = nothing.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        wait: int | None = None,
        budget: dict[str, Any] | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message if len(message) <= _LONGEST else f"{message[:_LONGEST]}...")
        self.status, self.code, self.wait, self.budget, self.details = status, code, wait, budget, details

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that tell the client's library whether and when to retry."""
        if self.wait is None:
            closing = [(b"connection", b"close")] if self.status == 401 else []  # strangers keep no connection
            return [*closing, (b"x-should-retry", b"false")]
        soon = b"true" if self.wait <= PATIENCE and self.status != 402 else b"false"
        return [(b"retry-after", str(self.wait).encode()), (b"x-should-retry", soon)]

    def body(self, dialect: str) -> bytes:
        """The body of the error, as JSON, in the form of OpenAI's or Anthropic's errors (``dialect``)."""
        more = {} if self.budget is None else {"budget": self.budget}
        if dialect == "anthropic":
            kind = _ANTHROPIC.get(self.status, "api_error")
            if self.details is not None:
                more["details"] = self.details
            content: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": str(self), **more}}
        else:
            kind = _OPENAI.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
            error = {"message": str(self), "type": kind, "param": None, "code": self.code, **more}
            content = {"error": error}
        return json.dumps(content).encode()

    def event(self, operation: str) -> bytes:
        """The error as the last server-sent event of a stream, in the form of the operation's errors."""
        if operation == "messages":
            return b"event: error\ndata: " + self.body("anthropic") + b"\n\n"
        if operation == "responses":
            text = json.dumps({"type": "error", "code": self.code, "message": str(self), "param": None})
            return b"event: error\ndata: " + text.encode() + b"\n\n"
        return b"data: " + self.body("openai") + b"\n\n"


def of_budget(error: BudgetExceeded, now: int) -> Refused:
    """The error for a request that a limit does not cover: 429 if waiting helps, else 402.

    Args:
        error: the ledger's error.
        now: milliseconds since 1970 (UTC).
    """
    wait = None if error.resets_at is None else max(1, -(-(error.resets_at - now) // 1000))
    budget = {
        "scope": error.scope,
        "kind": error.kind,
        "used": error.used,
        "held": error.held,
        "requested": error.requested,
        "limit": error.limit,
        "window": "" if error.window is None else str(error.window),
        "left": error.limit - error.used,
        "resets_at": None if error.resets_at is None else _utc(error.resets_at),
    }
    kind, fits = base(error.kind), error.requested <= error.limit
    if kind == PARALLEL:
        text = f"{error.scope} has {error.limit:,} {noun(error.kind)}, as many as its limit allows"
        return Refused(429, "too_many_parallel", text, 1, budget)
    if error.held and error.used - error.held + error.requested <= error.limit:
        text = f"{error}; requests under way have reserved what this one needs: try again when they have ended"
        return Refused(429, "budget_reserved", text, 2, budget)
    if wait is not None and (wait <= PATIENCE or kind == REQUESTS) and fits:
        return Refused(429, "rate_limited", str(error), wait, budget)
    return Refused(402, "budget_exceeded", str(error), wait if fits else None, budget)


def limit_of(error: BudgetExceeded) -> dict[str, Any]:
    """The fields of a record that say which limit refused the request."""
    return {
        "refused_kind": error.kind,
        "refused_limit": limit(error.kind, error.limit, error.window),
        "requested": error.requested,
        "available": max(0, error.limit - error.used),
    }


def _utc(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
