"""Errors inside answers: the status that an error event, or an error under status 200, would have by itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NAMED = {
    400: ("invalid_request_error", "bad_request", "badrequesterror", "context_length_exceeded", "invalid_prompt"),
    401: ("authentication_error", "invalid_api_key"),
    402: (
        "billing_error",
        "insufficient_quota",
        "insufficient_balance",
        "insufficient_balance_error",
        "insufficient_credits",
        "exceeded_current_quota_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "payment_required",
    ),
    403: ("permission_error", "permission_denied"),
    404: ("not_found_error", "model_not_found"),
    413: ("request_too_large",),
    429: (
        "rate_limit_error",
        "rate_limit_exceeded",
        "rate_limit_reached_error",
        "too_many_requests",
        "engine_overloaded_error",
    ),
    503: ("service_unavailable", "service_unavailable_error"),
    504: ("timeout_error",),
    529: ("overloaded_error", "overloaded"),
}
_STATUS = {name: status for status, names in _NAMED.items() for name in names}
"""Type or code of an error -> the status that its provider gives it elsewhere."""
_ACCOUNT = re.compile(
    r"credit balance|insufficient[ _](account )?(balance|funds?|credits?|quota)|exceeded your current quota"
    r"|plan and billing|plans & billing|billing (hard )?limit|account (is )?(suspended|deactivated|in arrears|overdue)"
    r"|payment required|out of credits|recharge|top up",
    re.IGNORECASE,
)
"""What providers write when the account that pays them has no money left."""


def error_in(body: Any) -> Any:
    """The error that a body or an event is, or that one of its choices is; None if it is none.

    >>> error_in({"error": None, "output": []}), error_in({"type": "error", "error": {"type": "overloaded_error"}})
    (None, {'type': 'overloaded_error'})
    >>> error_in({"choices": [{"error": {"code": 502}, "finish_reason": "error"}]})
    {'code': 502}
    """
    if not isinstance(body, Mapping):
        return None
    if body.get("error"):
        return body["error"]
    if body.get("type") == "error":  # of the Responses API: code and message stand beside the type
        return body
    if body.get("type") == "response.failed" and isinstance(body.get("response"), Mapping):
        return body["response"].get("error") or {"code": "server_error"}
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, Mapping) and choice.get("error"):
            return choice["error"]
    return None


def status_of(error: Any) -> int:
    """The HTTP status that an error would have: by its number, or by its name; 500 if neither is known.

    >>> status_of({"code": 429}), status_of({"code": "503"}), status_of({"type": "overloaded_error"}), status_of("no")
    (429, 503, 529, 500)
    """
    if not isinstance(error, Mapping):
        return 500
    for name in ("code", "status", "status_code"):
        value = str(error.get(name))
        if value.isdecimal() and 400 <= int(value) <= 599:
            return int(value)
    for name in ("code", "type"):
        status = _STATUS.get(str(error.get(name)).casefold())
        if status is not None:
            return status
    return 500


def about_account(error: Any) -> bool:
    """Whether an error is about the account that pays the provider, whose state is no business of a client.

    >>> about_account({"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."})
    True
    >>> about_account({"code": "invalid_value", "message": "n must be 1"})
    False
    """
    if not isinstance(error, Mapping):
        return bool(_ACCOUNT.search(str(error)[:2000]))
    names = (str(error.get(name)).casefold() for name in ("code", "type"))
    return any(_STATUS.get(name) == 402 for name in names) or bool(_ACCOUNT.search(str(error.get("message"))[:2000]))
