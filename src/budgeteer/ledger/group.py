"""Group commit: concurrent callers share one transaction, fsync or round trip."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from budgeteer.core.errors import BudgeteerError, LedgerUnavailable
from budgeteer.ledger import upkeep
from budgeteer.ledger.protocol import Command, Ledger

BATCH = 512
"""Most commands that share a commit, so that nobody waits long for many others."""


class _Slot:
    """A command that waits for its outcome."""

    __slots__ = ("command", "done", "future", "outcome")

    def __init__(self, command: Command, future: asyncio.Future[Any] | None) -> None:
        self.command, self.future = command, future
        self.outcome: Any = None
        self.done = False


class GroupLedger(Ledger):
    """A ledger whose store blocks: whoever gets to the store first carries out all commands that wait.

    Threads do this themselves, since a hand-over to another thread would cost more than a round trip; the commands of
    coroutines are carried out by one thread of the ledger, so the event loop never waits. A forked child starts with
    its own connection.
    """

    def __init__(self) -> None:
        self._fresh()

    def _fresh(self) -> None:
        self._pid = os.getpid()
        self._leader = threading.Lock()
        self._queue: deque[_Slot] = deque()
        self._thread: ThreadPoolExecutor | None = None
        self._called = False

    @abstractmethod
    def run_batch(self, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands in their order; outcomes are results or errors. Called by one thread at a time.

        Raises:
            LedgerUnavailable: none of them is known to have been carried out.
        """

    def execute(self, command: Command) -> Any:
        """Carry out one command, with those of other threads."""
        if os.getpid() != self._pid:
            self._fresh()
        slot = _Slot(command, None)
        self._queue.append(slot)
        with self._leader:
            while not slot.done:
                self._lead()
        if isinstance(slot.outcome, BaseException):
            raise slot.outcome
        return slot.outcome

    def submit(self, command: Command) -> asyncio.Future[Any]:
        """Carry out one command on the ledger's thread, with those of other coroutines."""
        if os.getpid() != self._pid:
            self._fresh()
        future = asyncio.get_running_loop().create_future()
        self._queue.append(_Slot(command, future))
        if not self._called:
            self._called = True
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="budgeteer-ledger")
            self._thread.submit(self._lead_all)
        return future

    def _lead_all(self) -> None:
        self._called = False  # before the queue is read: whoever comes later calls again
        with self._leader:
            while self._queue:
                self._lead()

    def _lead(self) -> None:
        slots: list[_Slot] = []
        while self._queue and len(slots) < BATCH:
            slots.append(self._queue.popleft())
        if not slots:
            return
        try:
            outcomes = self.run_batch([slot.command for slot in slots])
        except BudgeteerError as error:
            outcomes = [type(error)(*error.args) for _ in slots]  # one each: a raised error carries its own traceback
        except BaseException as error:
            outcomes = [LedgerUnavailable(f"the ledger's operation was broken off: {error!r}") for _ in slots]
            if not isinstance(error, Exception):
                raise
        finally:
            waiting: dict[asyncio.AbstractEventLoop, list[_Slot]] = {}
            for slot, outcome in zip(slots, outcomes, strict=True):
                slot.outcome, slot.done = outcome, True
                if slot.future is not None:
                    waiting.setdefault(slot.future.get_loop(), []).append(slot)
            for loop, its_slots in waiting.items():
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(_deliver, its_slots)

    def close(self) -> None:
        """Try once more to book what this ledger did not answer, and stop its thread."""
        upkeep.here().pay(self)
        if self._thread is not None and os.getpid() == self._pid:
            self._thread.shutdown()
            self._thread = None


def _deliver(slots: list[_Slot]) -> None:
    for slot in slots:
        assert slot.future is not None
        if slot.future.done():
            continue
        if isinstance(slot.outcome, BaseException):
            slot.future.set_exception(slot.outcome)
        else:
            slot.future.set_result(slot.outcome)
