"""What a client is told that gets no answer: status, headers and body that make its library do the right thing.

The OpenAI and Anthropic libraries retry 408, 409, 429 and 5xx by themselves unless ``x-should-retry`` is "false". So
429 is said only where waiting a moment helps, with ``Retry-After``; a budget that is spent is 402.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from budgeteer.core.errors import BudgeteerError, BudgetExceeded
from budgeteer.gateway.config import PARALLEL, REQUESTS

PATIENCE = 60
"""Seconds that a client's library may be asked to wait; with longer waits the caller has to decide."""
_LONGEST = 2000
"""Characters of a message: what a client sent may be in it."""
_ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
    504: "timeout_error",
}  # fmt: skip
_OPENAI = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


def shown(value: Any) -> str:
    """What a client gave, short enough for a message."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:77] + "...")
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    return "an object" if isinstance(value, dict) else "a list"


class Refused(BudgeteerError):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        code: a word for programs, and the reason in records.
        wait: seconds after which to try again; None: do not, by yourself.
        budget: which one, if one is the reason.
    """

    def __init__(
        self, status: int, code: str, message: str, wait: int | None = None, budget: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message if len(message) <= _LONGEST else f"{message[:_LONGEST]}...")
        self.status, self.code, self.wait, self.budget = status, code, wait, budget

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Beside the content's type and length."""
        if self.wait is None:
            closing = [(b"connection", b"close")] if self.status == 401 else []  # a stranger's has nothing more to say
            return [*closing, (b"x-should-retry", b"false")]
        soon = b"true" if self.wait <= PATIENCE else b"false"
        return [(b"retry-after", str(self.wait).encode()), (b"x-should-retry", soon)]

    def body(self, dialect: str) -> bytes:
        """In the shape of OpenAI's or Anthropic's errors."""
        more = {} if self.budget is None else {"budget": self.budget}
        if dialect == "anthropic":
            kind = _ANTHROPIC.get(self.status, "api_error")
            content: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": str(self), **more}}
        else:
            kind = _OPENAI.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
            error = {"message": str(self), "type": kind, "param": None, "code": self.code, **more}
            content = {"error": error}
        return json.dumps(content).encode()

    def event(self, operation: str) -> bytes:
        """As the last event of a stream that cannot go on."""
        if operation == "messages":
            return b"event: error\ndata: " + self.body("anthropic") + b"\n\n"
        if operation == "responses":
            text = json.dumps({"type": "error", "code": self.code, "message": str(self), "param": None})
            return b"event: error\ndata: " + text.encode() + b"\n\n"
        return b"data: " + self.body("openai") + b"\n\n"


def of_budget(error: BudgetExceeded, now: int) -> Refused:
    """Of a limit that does not cover a request.

    Args:
        error: of the ledger.
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
        "resets_at": None if error.resets_at is None else _utc(error.resets_at),
    }
    if error.kind == PARALLEL:
        text = f"{error.scope} has {error.limit:,} requests under way, as many as it may"
        return Refused(429, "too_many_parallel", text, 1, budget)
    if error.held and error.used - error.held + error.requested <= error.limit:
        text = f"{error}; requests under way hold what this one needs: try again when they have ended"
        return Refused(429, "budget_reserved", text, 2, budget)
    if wait is not None and (wait <= PATIENCE or error.kind == REQUESTS) and error.requested <= error.limit:
        return Refused(429, "rate_limited", str(error), wait, budget)
    return Refused(402, "budget_exceeded", str(error), None, budget)


def _utc(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
