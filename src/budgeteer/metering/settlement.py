"""A call before it is made, what is known of it afterwards, and what it was charged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from budgeteer.core.usage import MOST, Usage
from budgeteer.metering.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one attempt at a call ended, and what it was charged.

    Attributes:
        provider, operation, model: such as ``"openai"``, ``"chat"``, ``"gpt-4o"`` (as requested).
        response_model: the model as the answer names it, or ``""``.
        usage: the tokens that it used; partly estimated if ``estimated``.
        reserved, amounts: units per kind that were reserved and that are charged.
        estimated: the provider did not report what was used, or reported what cannot be true.
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
    """A call before it is made.

    Attributes:
        provider, operation, model, attempt, cap, choices, stage: as in :class:`Settlement`.
        service: the class of service that is asked for, such as ``"flex"``, or ``""``.
        worst: the most tokens that it can use.
        reserve: the tokens that are reserved, at most ``worst`` unless calls went beyond their bound before.
        amounts: what is reserved, in units per kind.
        group: calls of a model with the same group are learnt together, such as those with like caps; "" = all.
        free: whether nothing is charged for it, whatever its answer says.
        hint: what to do if it is refused, beside what the refusal says by itself; "" = nothing.
    """

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
    group: str = ""
    free: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a call after it: the usage that the provider reported, and the text that was seen.

    Attributes:
        usage: None = not reported, or not credible.
        seen: tokens of output that were seen, counted or bounded; None = no output was seen.
        shown: the most tokens that what was seen can have, bytes if nothing counts them; 0 = not known.
        hides: whether more may have been generated than was seen, since thinking was asked for or the model is known to
            think; None = not known.
        least: the fewest tokens of output that there can have been, if the usage does not say. If they are more than
            the bound, the server ignored the cap.
        model, service: as the answer names them.
        outcome: how the attempt ended.
        cost: what the provider says that it bills, in pico-dollars; None = it is not said, or not credible.
        error: the HTTP status that an error in place of the answer, or in the middle of it, means; 0 = no error.
    """

    usage: Usage | None = None
    seen: int | None = None
    model: str = ""
    service: str = ""
    outcome: Outcome = Outcome.OK
    shown: int = 0
    hides: bool | None = None
    least: int = 0
    cost: int | None = None
    error: int = 0


def tags(settlement: Settlement) -> dict[str, str]:
    """The tags with which the ledger's journal records a settlement, beside its amounts."""
    return {
        "model": (settlement.response_model or settlement.model)[:256],
        "operation": settlement.operation,
        "outcome": settlement.outcome,
        "estimated": "yes" if settlement.estimated else "no",
        "attempt": str(settlement.attempt),
        **({"stage": settlement.stage} if settlement.stage else {}),
    }


def with_uses(usage: Usage, worst: Usage) -> Usage:
    """The usage, and of what the answer did not count as many uses as were planned for; the same one if it told all.

    A limit that a price without fees let pass counts nothing.
    """
    counted = dict(usage.counts)
    untold = {name: uses for name, uses in worst.counts if name not in counted and 0 < uses < MOST}
    return replace(usage, counts=tuple({**counted, **untold}.items())) if untold else usage


def as_planned(usage: Usage, worst: Usage) -> Usage:
    """These totals with the parts and uses that were planned for, so that both can be compared."""
    read, made = usage.input or 0, usage.output or 0
    return replace(
        worst,
        input=read,
        output=made,
        audio_input=worst.audio_input and min(read, worst.audio_input),
        audio_output=worst.audio_output and min(made, worst.audio_output),
    )
