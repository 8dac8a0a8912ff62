"""Records on their way to the store, the log and the metrics: in batches, so that no request waits for them."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from typing import Any

import orjson

from budgeteer.core.errors import BudgeteerError
from budgeteer.gateway.keyring import run
from budgeteer.gateway.metrics import Metrics
from budgeteer.gateway.record import Record
from budgeteer.gateway.store import Store

EVERY = 0.5
"""Seconds between batches; what a killed process had not written yet is lost here, never in the ledger."""
_SLICE = 16
"""Records that are handed on together: requests wait while one process counts them, and while a thread binds them."""
_MOST = 100_000
"""Records that wait at most for a store that does not answer; older ones are dropped, and counted. Those that nobody
paid for wait in half of the room only."""
_LOG = logging.getLogger(__name__)


class Records:
    """Takes records, and hands them on twice a second."""

    def __init__(self, store: Store, metrics: Metrics, log: bool) -> None:
        self._store, self._metrics, self._log = store, metrics, log
        self._fresh: deque[tuple[Record, dict[str, Any] | None]] = deque()
        self._waiting: deque[Record] = deque()
        self.dropped = 0

    def take(self, record: Record, said: dict[str, Any] | None = None) -> None:
        """A request is over; ``said`` goes to the log beside the record, and nowhere else."""
        self._fresh.append((record, said))

    async def flush(self) -> None:
        """Hand on what waits; what the store does not take waits on."""
        while self._fresh:
            self._tell([self._fresh.popleft() for _ in range(min(_SLICE, len(self._fresh)))])
            await asyncio.sleep(0)
        for _ in range(0, len(self._waiting), _SLICE):
            batch = [self._waiting.popleft() for _ in range(min(_SLICE, len(self._waiting)))]
            try:
                await run(self._store.add, batch)
            except BudgeteerError as error:
                self._waiting.extendleft(reversed(batch))
                _LOG.error("%d records wait: %s", len(self._waiting), error)
                return

    def _tell(self, fresh: list[tuple[Record, dict[str, Any] | None]]) -> None:
        """Metrics and log, which wait for nobody; then the store's turn comes."""
        lines = []
        for record, said in fresh:
            self._metrics.count(record)
            if self._log:
                lines.append(orjson.dumps({"event": "request", **record.as_json(), **(said or {})}).decode() + "\n")
            if len(self._waiting) >= _MOST // 2 and not record.paid:
                self.dropped += 1
                continue
            if len(self._waiting) >= _MOST:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(record)
        if lines:
            sys.stderr.write("".join(lines))
            sys.stderr.flush()

    async def keep_flushing(self) -> None:
        """Flush for ever."""
        while True:
            await asyncio.sleep(EVERY)
            await self.flush()
