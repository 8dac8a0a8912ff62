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


NOT_RUN = frozenset({429, 503, 529})
"""Status codes of an overloaded or limited server, which refused the call before the model ran."""
NOT_DONE = frozenset({501})
"""Status codes of a server that does not do at all what is asked."""
MAY_HAVE_RUN = frozenset({408})
"""Status codes below 500 after which the model may have run all the same."""


def outcome_of_status(status: int) -> Outcome:
    """How a call ended that was answered with this HTTP status: whether it may have been run, and billed.

    A request that was refused for its content, its sender or for load, or that the server does not do at all, was not
    run (REJECTED): 4xx except 408, and 429, 501, 503 and 529. After a time-out (408, 504) or an internal failure (500,
    502) the client cannot tell: UNKNOWN, which counts as run.
    """
    if status < 400:
        return Outcome.OK
    return (
        Outcome.UNKNOWN
        if (status >= 500 and status not in NOT_RUN | NOT_DONE) or status in MAY_HAVE_RUN
        else Outcome.REJECTED
    )
