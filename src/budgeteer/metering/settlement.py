"""A call before it is made, what is known of it after it, and what it was charged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from budgeteer.core.usage import Usage
from budgeteer.metering.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of one attempt at one call.

    Attributes:
        provider, operation, model: such as ``"openai"``, ``"chat"``, ``"gpt-4o"`` (as requested).
        response_model: as answered, or ``""``.
        usage: what it used; estimated where ``estimated``.
        reserved, amounts: units per kind.
        estimated: the provider did not say what was used, or said what cannot be.
        outcome: how it ended.
        attempt: 0, then one more with each retry of the client.
        cap, choices: the output cap of a choice, and how many choices.
        started, ended: nanoseconds since 1970 (UTC), for records.
        stage: what the call is for, such as ``"judge"``, or ``""``.
    """

    provider: str
    operation: str
    model: str
    response_model: str
    usage: Usage
    reserved: Mapping[str, int]
    amounts: Mapping[str, int]
    estimated: bool
    outcome: Outcome
    attempt: int = 0
    cap: int | None = None
    choices: int = 1
    started: int = 0
    ended: int = 0
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """A call before it is made: its bound, the part of it that is reserved, and that in units."""

    provider: str
    operation: str
    model: str
    service: str
    worst: Usage
    reserve: Usage
    amounts: Mapping[str, int]
    attempt: int = 0
    cap: int | None = None
    choices: int = 1
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a call after it: the provider's usage, and the text that was seen.

    Attributes:
        usage: None = not reported, or not to be believed.
        seen: tokens of output that were seen, by count or bound; None = nothing was.
        shown: bytes of output that were seen.
        hides: whether more may have been generated than is seen: thinking was asked for, the model is known for it.
            None: nothing is known of that.
        least: tokens of output that there were at the least, where the usage does not say; more than the bound shows
            that the server ignored the cap.
        model, service: as answered.
        outcome: see :class:`Settlement`.
    """

    usage: Usage | None = None
    seen: int | None = None
    model: str = ""
    service: str = ""
    outcome: Outcome = Outcome.OK
    shown: int = 0
    hides: bool | None = None
    least: int = 0


def tags(settlement: Settlement) -> dict[str, str]:
    """What the ledger's journal records beside the amounts."""
    return {
        "model": (settlement.response_model or settlement.model)[:256],
        "operation": settlement.operation,
        "outcome": settlement.outcome,
        "estimated": "yes" if settlement.estimated else "no",
        "attempt": str(settlement.attempt),
        **({"stage": settlement.stage} if settlement.stage else {}),
    }
