"""How calls and requests end: one vocabulary for settlements, records, metrics and pages."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How an attempt at a call ended, or a whole request of the gateway.

    An attempt is OK, CUT, UNKNOWN or REJECTED. A request, which may have made several attempts or none, is OK, CUT,
    LEFT, FAILED, REFUSED or CACHED.
    """

    OK = "ok"
    """The answer is whole."""
    CUT = "cut"
    """A stream ended before its last event."""
    UNKNOWN = "unknown"
    """No answer came, so that the call may have run and may be billed."""
    REJECTED = "rejected"
    """The call did not run; nothing is charged."""
    LEFT = "left"
    """The client went away before it had its answer."""
    FAILED = "failed"
    """No upstream answered."""
    REFUSED = "refused"
    """The gateway sent nothing to an upstream."""
    CACHED = "cached"
    """The gateway answered from its cache."""
