"""The Ledger: reserve before, settle after, in all scopes of a path or in none."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Literal, Self

from budgeteer.core.errors import InvalidInput, JournalBroken, LedgerUnavailable
from budgeteer.ledger import core, journal
from budgeteer.ledger.core import Reservation
from budgeteer.ledger.limit import Limit, check_amounts, check_id, check_limits, check_path, known_id

Clock = Callable[[], int]
"""Milliseconds since 1970 (UTC)."""
Command = tuple[Any, ...]
"""Name of an operation and its checked arguments."""
OnAbandon = Literal["charge", "release"] | Collection[str]
"""What becomes of an abandoned reservation: see :meth:`Ledger.reserve`."""
TTL = 600
"""Seconds for which a reservation lives unless it is told otherwise."""
REMEMBER = 86_400
"""Seconds for which the id of a closed reservation is known unless the ledger is told otherwise."""
MAX_SECONDS = 10 * 366 * 86_400
"""The longest of both, in seconds."""


_made = tuple.__new__
"""Makes a NamedTuple from a tuple in half the time of the NamedTuple's constructor."""


_under_way: set[asyncio.Future[Any]] = set()


def wall_clock() -> int:
    """The system's time, in milliseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000_000


def _renew_ids() -> None:
    global _prefix, _next
    _prefix, _next = os.urandom(8).hex(), itertools.count().__next__


_prefix: str
_next: Callable[[], int]
_renew_ids()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_ids)


def new_id() -> str:
    """A new id, which no other process, thread or forked child makes."""
    return f"{_prefix}-{_next()}"


class Ledger(ABC):
    """Accounts of token or money budgets, safe under concurrency, retries, streams and crashes.

    Units are integers of named kinds. An account is a scope of a path such as ``org/team/key``; a reservation counts
    in all of them or in none. A store that does not answer raises :class:`~budgeteer.core.errors.LedgerUnavailable`:
    do not spend then.

    Hard: what is admitted never exceeds a limit. Actuals can, by at most the sum of what single calls used above
    their reservation; that is booked as overshoot.

    A store implements ``execute``, ``submit``, ``lines`` and ``snapshot``, perhaps ``accounts``, and is tested with
    :func:`budgeteer.check.check_ledger`.

    >>> from budgeteer.ledger import Limit, MemoryLedger
    >>> ledger = MemoryLedger()
    >>> ledger.open("acme", [Limit("all", 1000)])
    >>> held = ledger.reserve("acme", {"all": 600})
    >>> ledger.settle(held.id, {"all": 250}, tags={"stage": "review"}).status
    'settled'
    >>> ledger.remaining("acme")
    {'all': 750}
    """

    algorithm = "sha256"
    waits = True
    """Whether a command may wait for a disk or another machine, and has to be kept off the event loop."""
    outlives = True
    """Whether reservations are still there when this process has died, so that they have to expire as abandoned."""

    # operations

    def open(self, path: str, limits: Iterable[Limit] | None = None) -> None:
        """Open the account of a path's last scope; its parents have to be open.

        Args:
            path: such as "org/team".
            limits: of this account. An open account keeps its balances and gets these limits. None: an open account
                stays as it is, and a new one has no limits of its own.

        Raises:
            UnknownAccount: a parent is not open.
        """
        self.execute(open_command(path, limits))

    def reserve(
        self,
        path: str,
        amounts: Mapping[str, int],
        *,
        id: str | None = None,
        ttl: int | None = None,
        on_abandon: OnAbandon = "charge",
    ) -> Reservation:
        """Hold units in all accounts of the path, or in none.

        Args:
            path: whose units.
            amounts: units per kind; exactly the kinds that the accounts of the path name.
            id: the call's name. If it is reserved again with the same path and amounts, the first reservation is
                returned and nothing is held twice; a released one is made anew. None: a new id.
            ttl: seconds after which a reservation that is neither settled nor extended counts as abandoned (600).
            on_abandon: what becomes of it then. ``"charge"``: it is charged in full, since its call may have been
                billed; a later settlement can only add to that. ``"release"``: it is given back, and a later
                settlement is booked all the same. Or names of kinds, which are released while the others are charged.

        Raises:
            BudgetExceeded: the outermost limit that does not cover it.
            IdConflict: the id was used with other contents.
            UnknownAccount: the path has none.
            InvalidInput: an amount or id that no ledger takes.
            LedgerUnavailable: the store does not answer.
        """
        return _made(Reservation, self.execute(reserve_command(path, amounts, id, ttl, on_abandon)))

    def extend(self, id: str, amounts: Mapping[str, int], *, ttl: int | None = None) -> Reservation:
        """Raise an open reservation to these totals and renew its time, as a stream grows.

        Args:
            id: of the reservation.
            amounts: totals, units per kind; lower ones than are held change nothing.
            ttl: seconds from now for which it lives (600).

        Raises:
            BudgetExceeded: there is no room; the reservation stays as it is.
            ReservationClosed: it is settled, released or was abandoned.
        """
        return _made(Reservation, self.execute(extend_command(id, amounts, ttl)))

    def settle(
        self, id: str, actual: Mapping[str, int] | None = None, *, tags: Mapping[str, str] | None = None
    ) -> Reservation:
        """Charge what a call used and give back the rest.

        Args:
            id: of the reservation. If it is settled again with the same actual, the first result is returned; if it was
                abandoned or released, the charge is booked all the same.
            actual: units per kind, of the same kinds; None = unknown, which charges all that was reserved.
            tags: for reports, such as model and stage.

        Raises:
            IdConflict: settled before with another actual.
            UnknownReservation: never reserved, or closed longer ago than the ledger remembers ids.
        """
        return _made(Reservation, self.execute(settle_command(id, actual, tags)))

    def release(self, id: str) -> Reservation:
        """Give back a reservation whose call was never sent; a second release does nothing.

        Raises:
            ReservationClosed: it is settled, or was abandoned and charged.
        """
        return _made(Reservation, self.execute(("release", known_id(id))))

    def remaining(self, path: str) -> dict[str, int | None]:
        """Units per kind that a reservation at the path could hold now; None = unlimited, below 0 after overshoot."""
        room: dict[str, int | None] = self.execute(("remaining", check_path(path)[-1]))
        return room

    def reset(self, path: str) -> None:
        """Let one account's spending start at 0; open reservations stay held, and the journal keeps everything.

        It also takes the clock as it is, even if it went back: use it after a clock ran ahead and was put right.
        """
        self.execute(("reset", check_path(path)[-1]))

    @property
    def aio(self) -> AsyncLedger:
        """The same operations as coroutines that do not block the event loop."""
        return AsyncLedger(self)

    def verify(self, head: str | None = None) -> journal.Verified:
        """Check the journal's hash chain, rebuild the balances from it and compare them with the store's.

        Args:
            head: the ``head`` of an earlier verification; the journal must still contain it.

        Raises:
            JournalBroken: naming the first line or balance that does not hold.
        """
        count, stored = self.snapshot()
        verified, rebuilt = journal.replay(self.lines(0, count), self.algorithm, head)
        if verified.entries != count:
            raise JournalBroken(f"the store counts {count:,} journal lines, {verified.entries:,} are there")
        journal.compare(rebuilt, stored)
        return verified

    # of a store

    @abstractmethod
    def execute(self, command: Command) -> Any:
        """Carry out one command; when this returns, it is as durable as the store promises."""

    @abstractmethod
    def submit(self, command: Command) -> Awaitable[Any]:
        """Carry out one command without blocking the event loop. A cancelled wait does not undo the command."""

    @abstractmethod
    def lines(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[str, str]]:
        """(line, hash) of the journal's entries from ``first`` to before ``stop``."""

    @abstractmethod
    def snapshot(self) -> tuple[int, core.State]:
        """The number of journal entries, and a copy of all accounts and open reservations at that point."""

    def accounts(self, paths: Collection[str]) -> core.State:
        """A copy of some accounts, without reservations, with at least their balances of the kinds that they limit; a
        path that is not open is left out.

        For whoever looks often: a store that can read a few accounts without reading all of them does so.
        """
        _, state = self.snapshot()
        state.accounts = {path: state.accounts[path] for path in paths if path in state.accounts}
        state.reservations = {}
        return state

    @abstractmethod
    def close(self) -> None:
        """Close files and connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncLedger:
    """A ledger's operations as coroutines; arguments and errors as in :class:`Ledger`."""

    def __init__(self, ledger: Ledger) -> None:
        self._submit, self._at_once = ledger.submit, None if ledger.waits else ledger.execute

    async def open(self, path: str, limits: Iterable[Limit] | None = None) -> None:
        """See :meth:`Ledger.open`."""
        await self._submit(open_command(path, limits))

    async def reserve(
        self,
        path: str,
        amounts: Mapping[str, int],
        *,
        id: str | None = None,
        ttl: int | None = None,
        on_abandon: OnAbandon = "charge",
    ) -> Reservation:
        """See :meth:`Ledger.reserve`. If it is cancelled while it waits, the reservation is released."""
        command = reserve_command(path, amounts, id, ttl, on_abandon)
        if self._at_once is not None:
            return _made(Reservation, self._at_once(command))
        made = asyncio.ensure_future(self._submit(command))
        try:
            return _made(Reservation, await asyncio.shield(made))
        except asyncio.CancelledError:
            made.add_done_callback(self._give_back)
            raise

    def _give_back(self, made: asyncio.Future[core.Entry]) -> None:
        if not made.cancelled() and made.exception() is None and made.result()[4] == core.OPEN:
            task = asyncio.ensure_future(self._submit(("release", made.result()[0])))
            _under_way.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(_under_way.discard)

    async def extend(self, id: str, amounts: Mapping[str, int], *, ttl: int | None = None) -> Reservation:
        """See :meth:`Ledger.extend`."""
        return await self._reservation(extend_command(id, amounts, ttl))

    async def settle(
        self, id: str, actual: Mapping[str, int] | None = None, *, tags: Mapping[str, str] | None = None
    ) -> Reservation:
        """See :meth:`Ledger.settle`."""
        return await self._reservation(settle_command(id, actual, tags))

    async def release(self, id: str) -> Reservation:
        """See :meth:`Ledger.release`."""
        return await self._reservation(("release", known_id(id)))

    async def remaining(self, path: str) -> dict[str, int | None]:
        """See :meth:`Ledger.remaining`."""
        room: dict[str, int | None] = await self._submit(("remaining", check_path(path)[-1]))
        return room

    async def reset(self, path: str) -> None:
        """See :meth:`Ledger.reset`."""
        await self._submit(("reset", check_path(path)[-1]))

    async def _reservation(self, command: Command) -> Reservation:
        """What a command makes of a reservation; it is carried out even if nobody waits any more."""
        if self._at_once is not None:  # no task, no turn of the loop: they cost more than the booking
            return _made(Reservation, self._at_once(command))
        return _made(Reservation, await asyncio.shield(asyncio.ensure_future(self._submit(command))))


def open_command(path: str, limits: Iterable[Limit] | None) -> Command:
    """Checked arguments of ``open``."""
    return ("open", check_path(path)[-1], None if limits is None else check_limits(limits))


def reserve_command(
    path: str, amounts: Mapping[str, int], name: str | None, ttl: int | None, on_abandon: OnAbandon = "charge"
) -> Command:
    """Checked arguments of ``reserve``."""
    return (
        "reserve",
        new_id() if name is None else check_id(name),
        check_path(path)[-1],
        check_amounts(amounts),
        TTL * 1000 if ttl is None else check_seconds(ttl, "ttl") * 1000,
        "" if on_abandon == "charge" else _released(on_abandon),
    )


def _released(on_abandon: OnAbandon) -> str:
    """What is released of an abandoned reservation, as its detail says it."""
    if on_abandon == "release":
        return core.RELEASE
    if isinstance(on_abandon, str) or not isinstance(on_abandon, Collection) or not on_abandon:
        raise InvalidInput(f"on_abandon is {on_abandon!r}; give 'charge', 'release', or names of kinds to release")
    return " ".join([core.RELEASE, *sorted(dict(check_amounts(dict.fromkeys(on_abandon, 0))))])


def extend_command(name: str, amounts: Mapping[str, int], ttl: int | None) -> Command:
    """Checked arguments of ``extend``."""
    seconds = TTL if ttl is None else check_seconds(ttl, "ttl")
    return ("extend", known_id(name), check_amounts(amounts), seconds * 1000)


def settle_command(name: str, actual: Mapping[str, int] | None, tags: Mapping[str, str] | None) -> Command:
    """Checked arguments of ``settle``."""
    return (
        "settle",
        known_id(name),
        None if actual is None else check_amounts(actual),
        encode_tags(tags) if tags else "",
    )


def encode_tags(tags: Mapping[str, str]) -> str:
    """Tags as JSON in ASCII, which holds no tab and no line end."""
    try:
        return _encoded(tuple(tags.items()))
    except TypeError:  # what cannot be hashed
        raise InvalidInput(f"the tags {tags!r} are no pairs of strings") from None


@lru_cache(1024)  # calls of a run differ in little else than their amounts
def _encoded(tags: tuple[tuple[str, str], ...]) -> str:
    for name, value in tags:
        if not isinstance(name, str) or not isinstance(value, str) or len(name) > 64 or len(value) > 256:
            raise InvalidInput(f"tag {name!r}: {value!r} is no pair of strings of up to 64 and 256 characters")
    if len(tags) > 16:
        raise InvalidInput(f"{len(tags)} tags; at most 16")
    return "{" + ",".join([f"{_quoted(name)}:{_quoted(value)}" for name, value in sorted(tags)]) + "}"


def damaged(store: str, fault: object) -> LedgerUnavailable:
    """The error of a store whose content cannot be what a ledger wrote.

    Args:
        store: such as ``the ledger 'l.db'``.
        fault: the damage that was seen.
    """
    return LedgerUnavailable(
        f"{store} is damaged ({fault}): do not spend. Stop what uses it, keep a copy, and restore it from a backup; "
        "budgeteer ledger export shows what of its journal can still be read"
    )


def check_seconds(seconds: object, subject: str) -> int:
    """Return whole seconds from 1 to ten years; InvalidInput, which begins with ``subject``, if they are not."""
    if type(seconds) is not int or not 1 <= seconds <= MAX_SECONDS:
        raise InvalidInput(f"{subject} is {seconds!r}; give whole seconds from 1 to {MAX_SECONDS:,}")
    return seconds
