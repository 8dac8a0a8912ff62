"""What each route of admins needs, and whether who asks may use it: the one place where roles are looked at."""

from __future__ import annotations

from collections.abc import Mapping

from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.roles import CHANGE, READ, READ_ALL, Admin, Reach

RULES: Mapping[tuple[str, str], str] = {
    ("GET", "/metrics"): READ_ALL,
    ("GET", "/admin/api/keys"): READ,
    ("POST", "/admin/api/keys"): CHANGE,
    ("GET", "/admin/api/keys/{id}"): READ,
    ("PATCH", "/admin/api/keys/{id}"): CHANGE,
    ("POST", "/admin/api/keys/{id}/revoke"): CHANGE,
    ("POST", "/admin/api/keys/{id}/top-up"): CHANGE,
    ("POST", "/admin/api/keys/{id}/rotate"): CHANGE,
    ("GET", "/admin/api/balances"): READ,
    ("GET", "/admin/api/spend"): READ,
    ("GET", "/admin/api/requests"): READ,
    ("GET", "/admin/api/requests.csv"): READ,
    ("GET", "/admin/api/requests/{id}"): READ,
    ("GET", "/admin/api/live"): READ,
    ("GET", "/admin/api/summary"): READ,
    ("GET", "/admin/api/changes"): READ,
    ("GET", "/admin/api/upstreams"): READ_ALL,
    ("GET", "/"): READ,
    ("GET", "/budgets"): READ,
    ("GET", "/agents"): READ,
    ("GET", "/budget"): READ,
    ("GET", "/requests"): READ,
    ("GET", "/requests.csv"): READ,
    ("GET", "/requests/{id}"): READ,
    ("GET", "/conversation"): READ,
    ("GET", "/changes"): READ,
    ("GET", "/keys"): READ,
    ("POST", "/keys"): CHANGE,
    ("GET", "/keys/{id}"): READ,
    ("POST", "/keys/{id}/top-up"): CHANGE,
    ("POST", "/keys/{id}/rotate"): CHANGE,
    ("POST", "/keys/{id}/change"): CHANGE,
    ("POST", "/keys/{id}/revoke"): CHANGE,
    ("POST", "/logout"): READ,
}
"""(method, path of the route) -> what it needs. A route of admins that is not here is not served."""


def check(admin: Admin, method: str, path: str) -> None:
    """Check that an admin may use a route.

    Args:
        admin: who asks.
        method, path: of the route, as in RULES.

    Raises:
        Refused: 403, no role of the admin allows it.
    """
    need = RULES[method, path]
    if not admin.may(need):
        what = {CHANGE: "may not change anything", READ_ALL: "may not see what is of the whole gateway"}.get(need, need)
        raise Refused(403, "not_allowed", f"{admin} {what}; ask an admin of this gateway")


def inside(reach: Reach, path: str, what: str) -> None:
    """Check that a path is within reach.

    Raises:
        Refused: 403, it is not.
    """
    if not reach.covers(path):
        where = f"at and below {reach}" if reach.paths else "nowhere"
        raise Refused(403, "not_allowed", f"you may not do this to {what}; your role holds {where}")
