"""A request under way, and the record that it becomes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import orjson

from budgeteer.core.usage import Usage
from budgeteer.gateway.record import AttemptRecord, Record
from budgeteer.metering.outcome import Outcome
from budgeteer.metering.reading import Reading, text_of


class Live:
    """One request from its first byte to its record.

    Attributes:
        id: of the request; its attempts' reservations are ``id.0``, ``id.1``, ...
        at: milliseconds since 1970 (UTC) when it came.
        outcome, reason: how it ended, and why.
        open: reservations that are not booked yet.
        deadline, guard: when what is awaited is broken off, and how; ``why`` says for what.
        left: whether the client has gone.
        sending: whether a client is awaited, not the upstream.
        finished: whether the answer was booked, so that nothing is left to break off.
        reading: of the attempt under way.
        counted: whether a settlement counted the request.
        calls: what each attempt used, and where.
        said: what was asked and answered, for the log; None: it is not to have it.
        saved: units that an answer of the cache did not cost.
        answering: bytes went to the client.
        whole: the last event of a stream went to the client, so that its leaving, or the upstream's, ends nothing.
    """

    __slots__ = (
        "answered", "answering", "at", "attempts", "calls", "closed", "counted", "deadline", "estimated", "finished",
        "first_ms", "guard", "id", "key", "left", "model", "ms", "open", "operation", "outcome", "overshoot", "path",
        "policy", "reading", "reason", "reserved", "said", "saved", "scope", "sending", "session", "stage",
        "started", "status", "stream", "tag", "units", "upstream", "usage", "user", "wasted", "whole",
        "why",
    )  # fmt: skip

    def __init__(self, id: str, operation: str) -> None:
        self.id, self.operation, self.at, self.started = id, operation, time.time_ns() // 1_000_000, time.monotonic()
        self.key = self.path = self.user = self.session = self.tag = self.stage = ""
        self.model = self.upstream = self.answered = self.reason = self.scope = self.policy = self.why = ""
        self.outcome, self.status, self.attempts = Outcome.FAILED, 0, 0
        self.stream = self.estimated = self.left = self.counted = self.closed = self.answering = False
        self.sending = self.finished = self.whole = False
        self.reading: Reading | None = None
        self.usage = {"input": 0, "output": 0, "cached": 0, "reasoning": 0}
        self.units: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self.overshoot: dict[str, int] = {}
        self.saved: Mapping[str, int] = {}
        self.calls: list[AttemptRecord] = []
        self.said: dict[str, Any] | None = None
        self.wasted = self.open = self.ms = 0
        self.first_ms: int | None = None
        self.deadline = float("inf")
        self.guard: asyncio.Timeout | None = None

    def interrupt(self, why: str) -> None:
        """Break off what is awaited."""
        if self.guard is not None and not self.why:
            self.why = why
            self.guard.reschedule(asyncio.get_running_loop().time())

    def called(self, outcome: Outcome, usage: Usage, units: Mapping[str, int], estimated: bool, wasted: int) -> None:
        """An attempt has ended."""
        tokens = {name: getattr(usage, name) or 0 for name in self.usage}
        for name, n in tokens.items():
            self.usage[name] += n
        self.wasted += wasted
        call = AttemptRecord(
            upstream=self.upstream, outcome=outcome, **tokens, units=units, wasted=wasted, estimated=int(estimated)
        )
        self.calls.append(call)

    def charge(self, amounts: Mapping[str, int], reserved: Mapping[str, int], estimated: bool) -> None:
        """Add an attempt's settlement."""
        for kind, units in amounts.items():
            self.units[kind] = self.units.get(kind, 0) + units
            self.reserved[kind] = self.reserved.get(kind, 0) + reserved[kind]
        self.estimated |= estimated

    def log_answer(self, content: bytes) -> None:
        """Keep an answer's texts, of each choice, for the log if it is to have them; a stream's are in its reading."""
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
        """What the headers of its answer say of it."""
        headers = [(b"x-request-id", self.id.encode())]
        if self.upstream:
            headers.append((b"x-budgeteer-upstream", self.upstream.encode()))
        if self.policy:
            headers.append((b"x-budgeteer-policy", self.policy.encode()))
        return headers

    def record(self) -> Record:
        """As it is kept."""
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
        )
