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
"""Overloaded or limited: refused before the model ran."""
MAY_HAVE_RUN = frozenset({408})


def outcome_of_status(status: int) -> Outcome:
    """Whether a call answered with an error may have been run, and billed.

    A request refused for what it says, for who sends it or for load was not run: 4xx but 408, 429, 503 and 529. After
    a time-out (408, 504) or a failure inside (500, 502) nobody outside can tell, so it counts as run.
    """
    if status < 400:
        return Outcome.OK
    return Outcome.UNKNOWN if (status >= 500 and status not in NOT_RUN) or status in MAY_HAVE_RUN else Outcome.REJECTED
