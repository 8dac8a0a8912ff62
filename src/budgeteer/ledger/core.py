"""The ledger's rules, once: commands become journal entries, entries change balances.

A command is checked against the state and, if it holds, becomes one entry; entries alone change the state
(:func:`apply`), so a journal read again gives the same balances. The memory ledger keeps one State; the SQLite ledger
loads what a transaction needs into one and writes back what changed; ``ledger.lua`` is the twin inside Redis, and a
stateful test holds all three to one model.

Rules:

- An account is a scope: ``acme``, ``acme/search``. A reservation at a path counts in every account of the path.
- ``spent + held + requested <= limit`` for every limit of every account of the path, else nothing is held. For a limit
  with a window, ``spent`` is what was settled in the window; what is held counts in every window until it is settled.
  A request of 0 units of a kind needs no room in its limits, which an overshoot may have left below 0.
- A window whose limit is taken away goes on counting, so that it is not empty when it gets a limit again. It is
  dropped, as limits of its kind change, once nothing in it counts any more.
- A calendar window that gets a limit begins with the most that an account's windows of its unit hold, in whatever time
  zone, so that nobody gets a second budget by another zone.
- A reservation names exactly the kinds that the path's accounts name: a kind left out would go unmetered, a kind too
  many is a typing error.
- An id is charged at most once. What is settled above the reservation is booked, and counted as overshoot. After
  expiry or release a settlement is still booked; overshoot is then what the limits no longer had room for.
- A reservation that nobody settles or renews in its time was abandoned: its call may have been billed, so it is charged
  in full, unless it was reserved to be released then. A settlement that comes later books what it says beyond that,
  and gives nothing back: others may have been refused or windows may have passed meanwhile.
- Booked time never runs backwards: a clock that does is read as standing still at the latest entry, until it catches up
  or an account is reset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from typing import Any, NamedTuple

from budgeteer.core.errors import (
    BudgetExceeded,
    IdConflict,
    InvalidInput,
    ReservationClosed,
    UnknownAccount,
    UnknownReservation,
    WrongKinds,
)
from budgeteer.ledger.limit import Amounts, Limit, check_path, decode_limits, encode_limits
from budgeteer.ledger.windows import Window, moment, unit_of

OPEN, SETTLED, RELEASED, EXPIRED = "open", "settled", "released", "expired"
ACCOUNT, RESET = "account", "reset"
ABANDONED = '{"estimated":"yes","outcome":"abandoned"}'
"""Tags of a charge that was booked because nobody settled in time."""
RELEASE = "release"
"""``detail`` of an open reservation that is released, not charged, when it is abandoned. If names of kinds follow, only
those kinds are released."""
SWEEP = 1000
"""At most this many reservations expire in one operation; the others stay held a little longer."""
UNLIMITED = 1 << 200


class Reservation(NamedTuple):
    """Units held, or what became of them.

    Attributes:
        id: the caller's name of the call; a ledger charges it once.
        path: whose units, ``org/team/key``.
        amounts: units per kind that are or were held.
        expires: milliseconds since 1970 (UTC) at which an open one counts as abandoned.
        status: "open", "settled", "released" or "expired".
        asked: the amounts of the first request, before any ``extend``.
        actual: units charged, once settled.
        overshoot: the part of ``actual`` that no reservation covered; kinds without any are left out.
        at: when it got this status, in milliseconds.
        detail: the tags it was settled with, as JSON; of an open one, what is released when it is abandoned.
    """

    id: str
    path: str
    amounts: Amounts
    expires: int
    status: str
    asked: Amounts
    actual: Amounts
    overshoot: Amounts
    at: int
    detail: str


Entry = tuple[str, str, Amounts, int, str, Amounts, Amounts, Amounts, int, str]
"""One entry of the journal: the fields of a :class:`Reservation` after a change, in that class's order.

An account has entries of status "account" (``detail``: its limits) and "reset". Entries are plain tuples, since the
garbage collector leaves those of plain values alone, however long the journal grows.
"""


class Book:
    """The balance of one kind in one account.

    Attributes:
        limit: the limit without a window, for the account's whole life; ``UNLIMITED`` if there is none.
        spent: units settled.
        free: ``limit - spent - held``; kept instead of ``held``, because every reservation asks for it.
        over: overshoot in ``spent``.
        windows: the limits with a window.
        counted: the windows that count, those of ``windows`` first; the others have no limit at present.
    """

    __slots__ = ("counted", "free", "limit", "over", "spent", "windows")

    def __init__(self, spent: int = 0, held: int = 0, over: int = 0) -> None:
        self.spent, self.over, self.limit = spent, over, UNLIMITED
        self.free = UNLIMITED - spent - held
        self.windows: tuple[Window, ...] = ()
        self.counted: tuple[Window, ...] = ()

    def copy(self) -> Book:
        """An independent copy."""
        copied = Book(self.spent, self.held, self.over)
        copied.set_limit(self.limit)
        copied.counted = tuple([window.copy() for window in self.counted])
        copied.windows = copied.counted[: len(self.windows)]
        return copied

    @property
    def held(self) -> int:
        """Units in open reservations."""
        return self.limit - self.spent - self.free

    def set_limit(self, limit: int) -> None:
        """Change the limit without a window; the balance stays."""
        self.free += limit - self.limit
        self.limit = limit

    def set_windows(self, limits: Iterable[tuple[str | int, int]], now: int) -> None:
        """Change the limits with a window; what the windows have counted stays.

        A calendar window that had no limit before holds at least what another one of its unit holds.
        """
        kept, limited = {window.name: window for window in self.counted}, {window.name for window in self.windows}
        windows = []
        for name, limit in limits:
            window = kept.pop(name, None) or Window(limit, name)
            window.limit = limit
            unit = None if name in limited else unit_of(name)
            others = [other.used(now) for other in self.counted if unit and unit_of(other.name) == unit]
            missing = max(others) - window.used(now) if others else 0
            if missing > 0:
                window.add(now, missing)
            windows.append(window)
        self.windows = tuple(windows)
        self.counted = (*windows, *(window for window in kept.values() if window.used(now)))

    def restore(self, counted: Mapping[str, Mapping[int, int]]) -> None:
        """Put back the counts of the windows as a store kept them: name of the window -> bucket -> units."""
        left = dict(counted)
        for window in self.windows:
            window.buckets = dict(left.pop(str(window.name), {}))
        unlimited = []
        for name, buckets in left.items():
            window = Window(0, int(name) if name.isdigit() else name)
            window.buckets = dict(buckets)
            unlimited.append(window)
        self.counted = (*self.windows, *unlimited)

    def room(self, now: int) -> int:
        """Units that can still be held under all limits; below 0 after an overshoot."""
        return min([self.free, *(window.limit - window.used(now) - self.held for window in self.windows)])


class Account:
    """Limits and balances of one scope."""

    __slots__ = ("books", "limits", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.limits: tuple[Limit, ...] = ()
        self.books: dict[str, Book] = {}

    def copy(self) -> Account:
        """An independent copy."""
        copied = Account(self.path)
        copied.limits, copied.books = self.limits, {kind: book.copy() for kind, book in self.books.items()}
        return copied

    def book(self, kind: str) -> Book:
        """The balance of a kind; a new one if nothing of the kind was booked yet."""
        book = self.books.get(kind)
        if book is None:
            book = self.books[kind] = Book()
        return book

    def set_limits(self, limits: tuple[Limit, ...], now: int) -> None:
        """Change the limits; balances stay, and a window that never had a limit starts empty."""
        kinds = {limit.kind for limit in (*self.limits, *limits)}
        self.limits = limits
        for kind in kinds:
            book = self.book(kind)
            given = {limit.window: limit.amount for limit in limits if limit.kind == kind and limit.amount is not None}
            book.set_limit(given.get(None, UNLIMITED))
            book.set_windows([(window, amount) for window, amount in given.items() if window is not None], now)


class State:
    """Accounts, reservations, and the entries written since the state was made.

    Attributes:
        now: the time of the latest entry, in milliseconds.
        due: millisecond -> ids that expire then; ids closed in the meantime stay in it until that millisecond.
        times: heap of the milliseconds of ``due``.
        closed: (at, id) of closed reservations in order of time; old ids are forgotten from its front.
        chains: path -> what :meth:`chain` returns for it.
    """

    __slots__ = ("accounts", "chains", "closed", "due", "journal", "now", "reservations", "times")

    def __init__(self) -> None:
        self.now = 0
        self.accounts: dict[str, Account] = {}
        self.reservations: dict[str, Entry] = {}
        self.journal: list[Entry] = []
        self.due: dict[int, list[str]] = {}
        self.times: list[int] = []
        self.closed: deque[tuple[int, str]] = deque()
        self.chains: dict[str, dict[str, tuple[Book, ...]]] = {}

    def chain(self, path: str) -> dict[str, tuple[Book, ...]]:
        """Kind -> balances along the path, outermost first, for the kinds that its accounts limit or count."""
        chain = self.chains.get(path)
        if chain is None:
            accounts = self.along(path)
            kinds = sorted({limit.kind for account in accounts for limit in account.limits})
            chain = {kind: tuple([account.book(kind) for account in accounts]) for kind in kinds}
            self.chains[path] = chain
        return chain

    def along(self, path: str) -> list[Account]:
        """The accounts of a path, outermost first.

        Raises:
            UnknownAccount: an account of the path is not open.
        """
        accounts = []
        for scope in check_path(path):
            account = self.accounts.get(scope)
            if account is None:
                raise UnknownAccount(no_account(scope, path))
            accounts.append(account)
        return accounts

    def books(self, path: str, kind: str) -> tuple[Book, ...]:
        """Balances of a kind along the path, even if no limit names the kind any more."""
        return self.chain(path).get(kind) or tuple([account.book(kind) for account in self.along(path)])


def run(state: State, clock: int, remember: int, command: tuple[Any, ...]) -> Any:
    """Carry out one command at the time ``clock``.

    A refused command raises an error and changes nothing, except that reservations whose time is over expire.

    Args:
        state: changed in place; new entries are appended to its journal.
        clock: milliseconds since 1970 (UTC).
        remember: milliseconds for which closed reservations are known.
        command: operation and its checked arguments, as :mod:`budgeteer.ledger.protocol` makes them.

    Returns:
        The :data:`Entry` of the reservation; for "remaining" units per kind; for "open" and "reset" None.
    """
    op = command[0]
    if op == "reset":
        return _reset(state, clock, command[1])
    now = clock if clock > state.now else state.now
    times, closed = state.times, state.closed
    if times and times[0] <= now:
        _sweep(state, now)
    if closed and closed[0][0] <= now - remember:
        _forget(state, now - remember)
    return _RUN[op](state, now, command)


def _reserve(state: State, now: int, command: tuple[str, str, str, Amounts, int, str]) -> Entry:
    """Hold the amounts in all accounts of the path, or in none."""
    _, name, path, amounts, ttl, detail = command
    known = state.reservations.get(name)
    if known is not None:
        if known[1] != path or known[5] != amounts:
            raise IdConflict(id_reused(name, known[5], known[1], amounts, path))
        if known[4] in (OPEN, SETTLED):
            return known
    try:
        chain = state.chains[path]
    except KeyError:
        chain = state.chain(path)
    if len(chain) != len(amounts):
        raise wrong_kinds(path, chain, amounts)
    for kind, units in amounts:
        books = chain.get(kind)
        if books is None:
            raise wrong_kinds(path, chain, amounts)
        if not units:  # needs no room, even where an overshoot has left less than none: a free model is served
            continue
        for book in books:
            if units > book.free or (book.windows and units > book.room(now)):
                raise _refusal(state, now, path, amounts)
    entry = (name, path, amounts, now + ttl, OPEN, amounts, (), (), now, detail)
    state.now = now
    state.journal.append(entry)
    _hold(state, chain, entry)
    return entry


def _settle(state: State, now: int, command: tuple[str, str, Amounts | None, str]) -> Entry:
    """Charge what was used, None = all that was reserved, and give back the rest."""
    _, name, actual, tags = command
    known = state.reservations.get(name)
    if known is None:
        raise UnknownReservation(unknown(name))
    _, path, held, expires, status, asked, before, _, _, detail = known
    if actual is None:
        actual = held
    if len(actual) != len(held):
        raise InvalidInput(other_kinds(name, held, actual))
    if status == SETTLED and actual == before:
        return known
    if detail == ABANDONED and status == SETTLED and [kind for kind, _ in actual] == [kind for kind, _ in held]:
        return _settle_late(state, now, known, actual, tags)
    over: Amounts = ()
    i = 0
    for kind, units in actual:
        held_kind, had = held[i]
        i += 1  # noqa: SIM113 (enumerate is slower, and this is timed)
        if kind != held_kind:
            raise InvalidInput(other_kinds(name, held, actual))
        if status != OPEN:
            had = max(0, min([book.room(now) for book in state.books(path, kind)]))
        if units > had:
            over += ((kind, units - had),)
    if status == SETTLED:
        raise IdConflict(settled_otherwise(name, before, actual))
    entry = (name, path, held, expires, SETTLED, asked, actual, over, now, tags)
    state.now = now
    state.journal.append(entry)
    _charge(state, entry, status == OPEN)
    return entry


def _settle_late(state: State, now: int, known: Entry, actual: Amounts, tags: str) -> Entry:
    """Book what a call used beyond the charge that was booked when it was abandoned."""
    name, path, held, expires, _, asked, before, _, _, _ = known
    grown = tuple([(kind, max(units, charged)) for (kind, units), (_, charged) in zip(actual, before, strict=True)])
    if grown == before:
        return known
    over: Amounts = ()
    for (kind, units), (_, charged) in zip(grown, before, strict=True):
        room = max(0, min([book.room(now) for book in state.books(path, kind)]))
        if units - charged > room:
            over += ((kind, units - charged - room),)
    return _commit(state, (name, path, held, expires, SETTLED, asked, grown, over, now, tags))


def _extend(state: State, now: int, command: tuple[str, str, Amounts, int]) -> Entry:
    """Raise an open reservation to the given totals, and renew it; totals below those held change nothing."""
    _, name, amounts, ttl = command
    known = _known(state, name)
    _, path, held, expires, status, asked, _, _, _, detail = known
    if status != OPEN:
        raise ReservationClosed(not_open(name, status))
    if [kind for kind, _ in held] != [kind for kind, _ in amounts]:
        raise InvalidInput(other_kinds(name, held, amounts))
    more = tuple([(kind, max(0, new - old)) for (kind, new), (_, old) in zip(amounts, held, strict=True)])
    for kind, units in more:
        if units and min([book.room(now) for book in state.books(path, kind)]) < units:
            raise _refusal(state, now, path, more)
    totals = tuple([(kind, old + new) for (kind, old), (_, new) in zip(held, more, strict=True)])
    return _commit(state, (name, path, totals, max(expires, now + ttl), OPEN, asked, (), (), now, detail))


def _release(state: State, now: int, command: tuple[str, str]) -> Entry:
    """Give back an open reservation; nothing is charged."""
    known = _known(state, command[1])
    name, path, held, expires, status, asked, actual, *_ = known
    if status == SETTLED:
        raise ReservationClosed(not_releasable(name, actual))
    if status != OPEN:
        return known
    return _commit(state, (name, path, held, expires, RELEASED, asked, (), (), now, ""))


def _remaining(state: State, now: int, command: tuple[str, str]) -> dict[str, int | None]:
    """Per kind, what a reservation at the path could hold; None = unlimited, below 0 after an overshoot."""
    room = {kind: min([book.room(now) for book in books]) for kind, books in state.chain(command[1]).items()}
    return {kind: None if units > UNLIMITED // 2 else units for kind, units in room.items()}


def _open(state: State, now: int, command: tuple[str, str, tuple[Limit, ...] | None]) -> None:
    """Open an account or change its limits; None leaves an open one as it is."""
    _, path, limits = command
    parent = path.rpartition("/")[0]
    if parent:
        state.along(parent)
    account = state.accounts.get(path)
    if account is None or (limits is not None and account.limits != limits):
        _commit(state, ("", path, (), 0, ACCOUNT, (), (), (), now, encode_limits(limits or ())))


def _reset(state: State, clock: int, path: str) -> None:
    """Start an account's spending at 0 again, and take the clock as it is, even if it went back."""
    state.along(path)
    _commit(state, ("", path, (), 0, RESET, (), (), (), clock, ""))


_RUN: dict[str, Any] = {
    "open": _open,
    "reserve": _reserve,
    "extend": _extend,
    "settle": _settle,
    "release": _release,
    "remaining": _remaining,
}


def _sweep(state: State, now: int) -> None:
    """Charge what was abandoned, or release it if it was reserved so; earliest first."""
    left = SWEEP
    while state.times and state.times[0] <= now:
        expires = state.times[0]
        for name in sorted(state.due[expires]):
            known = state.reservations.get(name)
            if known is not None and known[4] == OPEN and known[3] == expires:
                if not left:
                    return
                left -= 1
                _, path, held, _, _, asked, _, _, _, detail = known
                if detail == RELEASE:
                    _commit(state, (name, path, held, expires, EXPIRED, asked, (), (), now, ""))
                    continue
                released = detail.split(" ")[1:]
                actual = tuple([(kind, 0 if kind in released else units) for kind, units in held])
                _commit(state, (name, path, held, expires, SETTLED, asked, actual, (), now, ABANDONED))
        heappop(state.times)
        del state.due[expires]


def _forget(state: State, before: int) -> None:
    """Drop reservations that were closed before a time."""
    closed = state.closed
    while closed and closed[0][0] <= before:
        at, name = closed.popleft()
        known = state.reservations.get(name)
        if known is not None and known[4] != OPEN and known[8] == at:
            del state.reservations[name]


def _commit(state: State, entry: Entry) -> Entry:
    state.now = entry[8]
    state.journal.append(entry)
    apply(state, entry)
    return entry


def apply(state: State, entry: Entry) -> None:
    """Change the balances by an entry, without a check of limits: it was checked before it was written."""
    name, path, amounts, expires, status, _, _, _, at, detail = entry
    known = state.reservations.get(name)
    is_open = known is not None and known[4] == OPEN
    if status == OPEN and not is_open:
        _hold(state, state.chain(path), entry)
    elif status == OPEN:
        assert known is not None
        for (kind, new), (_, old) in zip(amounts, known[2], strict=True):
            for book in state.books(path, kind):
                book.free -= new - old
        state.reservations[name] = entry
        _expires(state, expires, name)
    elif status == SETTLED:
        _charge(state, entry, is_open, known[6] if known is not None and known[4] == SETTLED else ())
    elif status in (RELEASED, EXPIRED):
        for kind, units in amounts:
            for book in state.books(path, kind):
                book.free += units
        state.reservations[name] = entry
        state.closed.append((at, name))
    elif status == ACCOUNT:
        if path in state.accounts:
            state.chains.clear()
        else:  # no chain can know it
            state.accounts[path] = Account(path)
        state.accounts[path].set_limits(decode_limits(detail), at)
    elif status == RESET:
        for book in state.along(path)[-1].books.values():
            book.free += book.spent
            book.spent = book.over = 0
            for window in book.counted:
                window.buckets.clear()
    else:
        raise InvalidInput(f"a journal entry has the unknown status {status!r}")


def _hold(state: State, chain: dict[str, tuple[Book, ...]], entry: Entry) -> None:
    name, path, amounts, expires, *_ = entry
    for kind, units in amounts:
        for book in chain.get(kind) or state.books(path, kind):
            book.free -= units
    state.reservations[name] = entry
    names = state.due.get(expires)
    if names is None:
        _expires(state, expires, name)
    else:
        names.append(name)


def _expires(state: State, at: int, name: str) -> None:
    names = state.due.setdefault(at, [])
    if not names:
        heappush(state.times, at)
    names.append(name)


def _charge(state: State, entry: Entry, was_open: bool, charged: Amounts = ()) -> None:
    """Book a settlement, less what was ``charged`` for it before."""
    name, path, held, _, _, _, actual, over, at, _ = entry
    if charged:
        actual = tuple([(kind, units - before) for (kind, units), (_, before) in zip(actual, charged, strict=True)])
    try:
        chain = state.chains[path]
    except KeyError:
        chain = state.chain(path)
    i = 0
    for kind, units in actual:
        back = held[i][1] - units if was_open else -units
        i += 1  # noqa: SIM113
        for book in chain.get(kind) or state.books(path, kind):
            book.spent += units
            book.free += back
            if book.counted:
                for window in book.counted:
                    window.add(at, units)
    for kind, units in over:
        for book in state.books(path, kind):
            book.over += units
    state.reservations[name] = entry
    state.closed.append((at, name))


def _known(state: State, name: str) -> Entry:
    entry = state.reservations.get(name)
    if entry is None:
        raise UnknownReservation(unknown(name))
    return entry


def _show(amounts: Amounts) -> str:
    return ", ".join(f"{units:,} {kind}" for kind, units in amounts)


# What refusals say; the Redis ledger says the same.


def no_account(scope: str, path: str) -> str:
    return f"no account {scope!r} (of path {path!r}); open it first, with its limits"


def unknown(name: str) -> str:
    return f"no reservation {name!r}: never made here, or closed too long ago; reserve first"


def id_reused(name: str, asked: Amounts, at: str, amounts: Amounts, path: str) -> str:
    return (
        f"id {name!r} was reserved for {_show(asked)} at {at!r}, now for {_show(amounts)} at {path!r}; use another id "
        "for another call"
    )


def settled_otherwise(name: str, before: Amounts, actual: Amounts | None) -> str:
    return (
        f"id {name!r} is settled with {_show(before)} and cannot be settled with "
        f"{'all it held' if actual is None else _show(actual)}; a call is charged once"
    )


def not_open(name: str, status: str) -> str:
    return f"reservation {name!r} is {status}; only an open one can be extended"


def not_releasable(name: str, actual: Amounts) -> str:
    return f"reservation {name!r} is settled with {_show(actual)}; it cannot be released"


def other_kinds(name: str, held: Amounts, amounts: Amounts) -> str:
    return (
        f"reservation {name!r} holds {', '.join(dict(held))}, but {', '.join(dict(amounts))} was given; name the same "
        "kinds"
    )


def wrong_kinds(path: str, chain: Iterable[str], amounts: Amounts) -> InvalidInput:
    needed, given = sorted(chain), sorted(map(str, dict(amounts)))
    if not needed:
        return InvalidInput(f"no account of {path!r} names a kind; open one with limits, if need be 'all:unlimited'")
    missing, unknown = sorted({*needed} - {*given}), sorted({*given} - {*needed})
    faults = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
    return WrongKinds(f"the reservation at {path!r} {' and '.join(faults)}; name exactly {', '.join(needed)}", needed)


def _refusal(state: State, now: int, path: str, amounts: Amounts) -> BudgetExceeded:
    """The outermost limit that does not hold: an inner one would have the caller try again in vain."""
    for account in state.along(path):
        for kind, units in amounts:
            if not units:
                continue
            book = account.book(kind)
            if units > book.free:
                return exceeded(account.path, kind, units, book.limit, book.spent, book.held)
            for window in book.windows:
                used = window.used(now)
                short = used + book.held + units - window.limit
                if short > 0:
                    at = window.resets_at(now, short)
                    return exceeded(account.path, kind, units, window.limit, used, book.held, window.name, at)
    raise AssertionError("refused, but every limit holds")


def exceeded(
    scope: str,
    kind: str,
    units: int,
    limit: int,
    spent: int,
    held: int,
    window: str | int | None = None,
    resets_at: int | None = None,
) -> BudgetExceeded:
    """The error of a request that one limit refuses; its hint says what helps, and when there is room."""
    if units > limit:
        hint = "that is more than the whole limit: ask for less, or raise the limit"
    elif window is None:
        hint = "ask for less, or raise the limit"
    else:
        when = f" at {moment(resets_at, window)}" if resets_at else " later"
        hint = f"there is room again{when}"
    return BudgetExceeded(
        kind=kind,
        scope=scope,
        used=spent + held,
        requested=units,
        limit=limit,
        held=held,
        hint=hint,
        window=window,
        resets_at=resets_at,
    )
