"""The state of a request that is running, and the record that is made of it at its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import orjson

from budgeteer.core.amounts import base
from budgeteer.core.usage import Usage
from budgeteer.gateway.config import PARALLEL, REQUESTS
from budgeteer.gateway.left import header
from budgeteer.gateway.record import AttemptRecord, Record
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.reading import Reading, text_of

_COUNTS = (REQUESTS, PARALLEL)
"""Kinds that say no more about an answer than that it is one."""


class Live:
    """The state of one request, from its first byte to its record. Attributes that are not listed become fields of
    :class:`budgeteer.gateway.record.Record`, which explains them.

    Attributes:
        id: the request's id; the reservations of its attempts are ``id.0``, ``id.1``, ...
        at: when it came, in milliseconds since 1970 (UTC).
        started: the same on the monotonic clock, in seconds.
        outcome, reason: how it ended, and why.
        open: how many reservations are not booked yet.
        closed: whether the request has ended; its record is taken once nothing is open.
        deadline, guard: when (monotonic clock, seconds) and by which time-out the current wait is interrupted; ``why``
            gives the reason.
        left: whether the client has left.
        sending: whether the current wait is for the client, not for the upstream.
        finished: whether the answer is booked, so that nothing is left to interrupt.
        reading: reads the answer of the current attempt.
        counted: whether a settlement has counted the request.
        calls: what each attempt used at which upstream.
        said: the prompt and the answer for the log; None if the log does not get them.
        saved: units by kind that an answer from the cache saved.
        bounds: bound, choices, cap and cap_asked of the record, once they are known.
        cost, held, room: units by kind for the headers of the answer: what is charged (None = not known yet), what was
            reserved for the last attempt, and what is left of the limits (None = not limited).
        refused: the fields of the record that say which limit refused it.
        answering: whether bytes of the answer went to the client.
        inside: whether an error about the upstream's account was kept from the client.
        whole: whether the last event of a stream went to the client, so that it no longer matters who disconnects.
    """

    __slots__ = (
        "answered", "answering", "at", "attempts", "bounds", "calls", "closed", "conversation", "cost", "counted",
        "deadline", "estimated", "finished", "first_ms", "guard", "held", "id", "inside", "key", "left", "model", "ms",
        "open", "operation", "outcome", "overshoot", "path", "policy", "reading", "reason", "refused", "reserved",
        "room", "said", "saved", "scope", "sending", "session", "stage", "started", "status", "stream", "tag", "units",
        "upstream", "usage", "user", "wasted", "whole", "why",
    )  # fmt: skip

    def __init__(self, id: str, operation: str) -> None:
        self.id, self.operation, self.at, self.started = id, operation, time.time_ns() // 1_000_000, time.monotonic()
        self.key = self.path = self.user = self.session = self.tag = self.stage = ""
        self.model = self.upstream = self.answered = self.reason = self.scope = self.policy = self.why = ""
        self.outcome, self.status, self.attempts = Outcome.FAILED, 0, 0
        self.stream = self.estimated = self.left = self.counted = self.closed = self.answering = False
        self.sending = self.finished = self.whole = self.inside = False
        self.reading: Reading | None = None
        self.usage: dict[str, Any] = {"input": 0, "output": 0, "cached": 0, "reasoning": 0}
        self.units: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self.overshoot: dict[str, int] = {}
        self.saved: Mapping[str, int] = {}
        self.calls: list[AttemptRecord] = []
        self.said: dict[str, Any] | None = None
        self.wasted = self.open = self.ms = 0
        self.first_ms: int | None = None
        self.bounds: dict[str, Any] = {}
        self.refused: dict[str, Any] = {}
        self.conversation = ""
        self.cost: Mapping[str, int] | None = {}
        self.held: Mapping[str, int] = {}
        self.room: Mapping[str, int | None] = {}
        self.deadline = float("inf")
        self.guard: asyncio.Timeout | None = None

    def interrupt(self, why: str) -> None:
        """Interrupt the current wait for a reason, unless it is being interrupted already."""
        if self.guard is not None and not self.why:
            self.why = why
            self.guard.reschedule(asyncio.get_running_loop().time())

    def called(self, outcome: Outcome, usage: Usage, units: Mapping[str, int], estimated: bool, wasted: int) -> None:
        """Note what an attempt used that has ended.

        Args:
            outcome: how it ended.
            usage: its tokens.
            units: what it is charged, by kind.
            estimated: whether its usage is an estimate.
            wasted: tokens that are charged and did not reach a client in a whole answer.
        """
        tokens = {name: getattr(usage, name) or 0 for name in self.usage}
        for name, n in tokens.items():
            self.usage[name] += n
        self.wasted += wasted
        call = AttemptRecord(
            upstream=self.upstream, outcome=outcome, **tokens, units=units, wasted=wasted, estimated=int(estimated)
        )
        self.calls.append(call)

    def charge(self, amounts: Mapping[str, int], reserved: Mapping[str, int], estimated: bool) -> None:
        """Add the settlement of an attempt: units charged and reserved, by kind."""
        for kind, units in amounts.items():
            self.units[kind] = self.units.get(kind, 0) + units
            self.reserved[kind] = self.reserved.get(kind, 0) + reserved[kind]
        self.estimated |= estimated

    def log_answer(self, content: bytes) -> None:
        """Keep the text of each choice of an answer, if the log gets it; that of a stream is taken from its reading."""
        if self.said is None:
            return
        try:
            body = orjson.loads(content or b"null")
        except ValueError:
            return
        if isinstance(body, dict):
            choices = body.get("choices") or body.get("output") or body.get("content")
            self.said["answer"] = [text_of(choice) for choice in choices] if isinstance(choices, list) else []
        elif self.reading is not None:
            self.said["answer"] = ["".join(pieces) for pieces in self.reading.text.values()]

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the answer that tell about the request."""
        headers = [(b"x-request-id", self.id.encode())]
        if self.upstream:
            headers.append((b"x-budgeteer-upstream", self.upstream.encode()))
        if self.policy:
            headers.append((b"x-budgeteer-policy", self.policy.encode()))
        if self.cost is not None:
            headers += header("cost", self.cost, [kind for kind in self.cost if kind not in _COUNTS])
        headers += header("reserved", self.held, [kind for kind in self.held if kind not in _COUNTS])
        headers += header("left", self.room, [kind for kind in self.room if base(kind) != PARALLEL])
        return headers

    def record(self) -> Record:
        """The request's record, as far as it is known by now."""
        return Record(
            id=self.id,
            at=self.at,
            key=self.key,
            path=self.path,
            user=self.user,
            session=self.session,
            tag=self.tag,
            stage=self.stage,
            operation=self.operation,
            model=self.model,
            upstream=self.upstream,
            answered=self.answered,
            stream=int(self.stream),
            status=self.status,
            outcome=self.outcome,
            reason=self.reason,
            scope=self.scope,
            **self.refused,
            conversation=self.conversation,
            policy=self.policy,
            **self.usage,
            wasted=self.wasted,
            estimated=int(self.estimated),
            attempts=self.attempts,
            units=self.units,
            reserved=self.reserved,
            overshoot=self.overshoot,
            saved=self.saved,
            calls=tuple(self.calls),
            ms=self.ms,
            first_ms=self.first_ms,
            **self.bounds,
        )
