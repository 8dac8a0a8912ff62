"""Background work for calls, on one daemon thread per process.

Reservations of calls under way are renewed, so that they are not taken for abandoned; what a ledger could not book when
a call ended is booked when it answers again. What the end of the process leaves open is abandoned, and charged in full.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any, Protocol

from budgeteer.core.errors import BudgeteerError, LedgerUnavailable, ReservationClosed, UnknownReservation
from budgeteer.ledger.protocol import Command, Ledger, extend_command

_LOG = logging.getLogger(__name__)
RENEWALS = 3
"""Renewals in the life of a reservation, so that two of them may fail."""
AGAIN = (0.05, 0.2, 1.0, 5.0)
"""Seconds between attempts to book; the last one is repeated."""


class Kept(Protocol):
    """A reservation that is renewed."""

    @property
    def ledger(self) -> Ledger:
        """Where it is held."""

    @property
    def amounts(self) -> Mapping[str, int]:
        """Units per kind that are held."""


class Upkeep:
    """Calls to renew and commands to repeat.

    A call is renewed as long as somebody holds it: one that is forgotten is abandoned.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._next = float("inf")
        self._calls: dict[int, dict[str, tuple[weakref.ref[Kept], float]]] = {}  # by ttl, each in order of time
        self._owed: list[tuple[float, int, Ledger, Command]] = []  # (due, attempts so far, ledger, command)
        self._thread: threading.Thread | None = None

    def keep(self, call: Kept, name: str, ttl: int) -> None:
        """Renew a call's reservation, which lives for ``ttl`` seconds, until it is dropped."""
        due = time.monotonic() + ttl / RENEWALS
        with self._lock:
            self._calls.setdefault(ttl, {})[name] = (weakref.ref(call), due)
            if due < self._next:
                self._look_at(due)

    def drop(self, name: str, ttl: int) -> None:
        """Stop renewing a call's reservation."""
        with self._lock:
            self._calls[ttl].pop(name, None)

    def owe(self, ledger: Ledger, command: Command, error: BaseException) -> None:
        """Carry out later a command that a ledger did not answer; ``error`` is how it failed."""
        _LOG.error("%s is not booked yet: %s", command[1], error)
        with self._lock:
            due = time.monotonic() + AGAIN[0]
            self._owed.append((due, 0, ledger, command))
            if due < self._next:
                self._look_at(due)

    def pay(self, ledger: Ledger | None = None) -> None:
        """Try once more the commands owed to a ledger that is being closed, or to all (None) as the process ends."""
        with self._lock:
            owed = [debt for debt in self._owed if ledger in (None, debt[2])]
            self._owed = [debt for debt in self._owed if ledger not in (None, debt[2])]
        silent: list[Ledger] = []
        for _, _, to, command in owed:
            if to in silent or not _booked(to, command):
                silent.append(to)
                _LOG.error("%s was not booked; it will be charged in full when its time is over", command[1])

    def _look_at(self, due: float) -> None:
        """Let the thread look not later than this; the lock is held."""
        self._next = due
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="budgeteer-upkeep", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                first = [next(iter(calls.values()))[1] for calls in self._calls.values() if calls]
                self._next = min([*first, *(debt[0] for debt in self._owed)], default=float("inf"))
                self._wake.clear()
            self._wake.wait(None if self._next == float("inf") else max(0.0, self._next - time.monotonic()))
            try:
                self._book(time.monotonic())
                self._renew(time.monotonic())
            except Exception:
                _LOG.exception("the upkeep of the ledger's reservations failed; it goes on")

    def _book(self, now: float) -> None:
        with self._lock:
            owed = [debt for debt in self._owed if debt[0] <= now]
            self._owed = [debt for debt in self._owed if debt[0] > now]
        for _, attempt, ledger, command in owed:
            if not _booked(ledger, command):
                due = time.monotonic() + AGAIN[min(attempt + 1, len(AGAIN) - 1)]
                with self._lock:
                    self._owed.append((due, attempt + 1, ledger, command))

    def _renew(self, now: float) -> None:
        due = []
        with self._lock:
            for ttl, calls in self._calls.items():
                while calls:
                    name, (reference, at) = next(iter(calls.items()))
                    if at > now:
                        break
                    del calls[name]
                    if (call := reference()) is not None:
                        calls[name] = (reference, now + ttl / RENEWALS)
                        due.append((name, ttl, call))
        for name, ttl, call in due:
            try:
                call.ledger.execute(extend_command(name, call.amounts, ttl))
            except ReservationClosed:  # settled meanwhile, or abandoned while this process stood still
                self.drop(name, ttl)
            except BudgeteerError as error:  # the next third of its time tries again
                _LOG.warning("%s was not renewed: %s", name, error)


def _booked(ledger: Ledger, command: Command) -> bool:
    """Whether the ledger answered."""
    try:
        ledger.execute(command)
    except (LedgerUnavailable, OSError):
        return False
    except (ReservationClosed, UnknownReservation) as error:  # of a release: it was never made, or is charged already
        if command[0] != "release":
            _LOG.error("%s could not be booked: %s", command[1], error)
    except Exception:
        _LOG.exception("%s could not be booked", command)
    return True


_here = Upkeep()


def here() -> Upkeep:
    """The upkeep of this process."""
    return _here


def _fresh(*_: Any) -> None:
    """A forked child has no thread, and the calls are its parent's."""
    global _here
    _here = Upkeep()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh)
atexit.register(lambda: _here.pay())
