"""Write records to the store, the log and the metrics in batches, so that no request waits for them."""

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
"""Seconds between batches. If the process is killed, records of this time are lost, but nothing in the ledger."""
_SLICE = 16
"""Records that are written in one step: requests wait while a step is counted, or converted for the database."""
_MOST = 100_000
"""The most records that wait for a store which does not answer; then the oldest are dropped, and counted. Records of
requests without a charge may fill half of this only."""
_LOG = logging.getLogger(__name__)


class Records:
    """Collects records, and writes them twice a second.

    Args:
        store: where they are kept.
        metrics: counts them.
        log: whether each is written to standard error as a JSON line.

    Attributes:
        log: as given; a new configuration changes it.
        dropped: how many were lost because the store did not answer.
    """

    def __init__(self, store: Store, metrics: Metrics, log: bool) -> None:
        self._store, self._metrics, self.log = store, metrics, log
        self._fresh: deque[tuple[Record, dict[str, Any] | None]] = deque()
        self._waiting: deque[Record] = deque()
        self.dropped = 0

    def take(self, record: Record, said: dict[str, Any] | None = None) -> None:
        """Take the record of a request that has ended.

        Args:
            record: the record.
            said: its prompt and answer, which go to the log only; None = they are not logged.
        """
        self._fresh.append((record, said))

    async def flush(self) -> None:
        """Write all waiting records; those that the store does not accept wait for the next time."""
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
        """Count and log new records, and queue them for the store."""
        lines = []
        for record, said in fresh:
            self._metrics.count(record)
            if self.log:
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
        """Write waiting records every half second; runs until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.flush()
