"""A ledger in this process's memory: fast, gone with the process."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

from budgeteer.ledger import core, journal
from budgeteer.ledger.protocol import REMEMBER, Clock, Command, Ledger, check_seconds, wall_clock


class MemoryLedger(Ledger):
    """For one process, its threads and its event loop.

    Nothing survives the process. The journal is kept, about half a kilobyte a reservation, so it fits runs and tests
    of up to some millions of calls. Hashes are computed when the journal is read, so the chain protects from then on.

    Args:
        clock: milliseconds since 1970 (UTC).
        remember: seconds for which the ids of closed reservations are known.
    """

    waits = outlives = False

    def __init__(self, *, clock: Clock = wall_clock, remember: int = REMEMBER) -> None:
        self._clock, self._remember = clock, check_seconds(remember, "remember") * 1000
        self._state = core.State()
        self._lock = threading.Lock()
        self._hashes: list[str] = []

    def execute(self, command: Command) -> Any:
        """Carry out one command."""
        with self._lock:
            return core.run(self._state, self._clock(), self._remember, command)

    async def submit(self, command: Command) -> Any:
        """Carry out one command, at once."""
        return self.execute(command)

    def lines(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[str, str]]:
        """(line, hash) of the journal; hashes not known yet are computed."""
        with self._lock:
            entries = self._state.journal[:stop]
            done = len(self._hashes)
            before = self._hashes[-1] if done else journal.GENESIS
            fresh = (journal.encode(done + i, entry) for i, entry in enumerate(islice(entries, done, None)))
            self._hashes.extend(journal.chain(fresh, self.algorithm, before))
            hashes = self._hashes[first:stop]
        for seq, digest in enumerate(hashes, first):
            yield journal.encode(seq, entries[seq]), digest

    def snapshot(self) -> tuple[int, core.State]:
        """The number of journal entries, and a copy of the accounts and open reservations."""
        with self._lock:
            state = core.State()
            state.now = self._state.now
            state.accounts = {path: account.copy() for path, account in self._state.accounts.items()}
            state.reservations = {k: r for k, r in self._state.reservations.items() if r[4] == core.OPEN}
            return len(self._state.journal), state

    def accounts(self, paths: Collection[str]) -> core.State:
        """A copy of some accounts."""
        state, known = core.State(), self._state.accounts
        with self._lock:
            state.now = self._state.now
            state.accounts = {path: known[path].copy() for path in paths if path in known}
        return state

    def close(self) -> None:
        """Does nothing: there is no file and no connection."""
