"""Rows of tables for a ledger's state: a transaction loads rows into a State, commands change it, changes become rows.

The SQLite and the PostgreSQL ledger share it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from budgeteer.core.errors import BudgeteerError, UnknownZone
from budgeteer.ledger import core, journal
from budgeteer.ledger.limit import LAST, check_path, decode_limits, encode_limits
from budgeteer.ledger.protocol import Command
from budgeteer.ledger.windows import no_zone

_KEPT = 10_000
"""Most accounts that a process remembers, to save decoding them."""
_TYPES = (str, str, str, int, str, str, str, str, int, str)
_WRONG = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
"""Errors that decoding a damaged row raises."""
_HAS_ID = ("reserve", "extend", "settle", "release")

AccountRow = tuple[Any, Any]
"""Limits and books, as texts."""


class DamagedError(Exception):
    """A row that no ledger has written."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes that a transaction has to write.

    Attributes:
        accounts: path, limits and books of those that changed.
        reservations: the rows of those that changed.
        journal: number, line and hash of the new entries.
        seq: the number of entries in the journal afterwards.
        head: hash of the last entry.
        now: time of the last entry, in milliseconds.
        known: all accounts of the transaction, with their rows.
    """

    accounts: list[tuple[str, str, str]]
    reservations: list[tuple[Any, ...]]
    journal: list[tuple[int, str, str]]
    seq: int
    head: str
    now: int
    known: dict[str, tuple[AccountRow, core.Account]]


class Accounts:
    """Accounts that a process has read or written; one whose row did not change since is not decoded again."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[AccountRow, core.Account]] = {}

    def take(self, path: str, row: AccountRow) -> core.Account:
        """The account of a row. It is forgotten here, since the transaction may change it and then fail."""
        if len(self._kept) > _KEPT:
            self._kept.clear()
        kept = self._kept.pop(path, None)
        return kept[1] if kept is not None and kept[0] == row else account_of(path, *row)

    def keep(self, written: Changes) -> None:
        """Remember the accounts of a committed transaction."""
        self._kept.update(written.known)


def ids(commands: Iterable[Command]) -> list[str]:
    """The reservations that commands name."""
    return [command[1] for command in commands if command[0] in _HAS_ID]


def scopes(commands: Iterable[Command], of: Iterable[str]) -> set[str]:
    """The accounts that commands touch, and those of the paths of the reservations that they name."""
    paths = set(of)
    for command in commands:
        paths.add(command[2] if command[0] == "reserve" else command[1] if command[0] not in _HAS_ID else "")
    return {scope for path in paths - {""} for scope in check_path(path)}


def state_of(now: int, due: Iterable[core.Entry], loaded: Mapping[str, core.Entry]) -> core.State:
    """The state of a transaction, without its accounts.

    Args:
        now: time of the latest entry.
        due: open reservations that have expired, sorted by time and id.
        loaded: all reservations that the transaction needs, by id.
    """
    state = core.State()
    state.now, state.reservations = now, dict(loaded)
    for entry in due:
        if entry[3] not in state.due:
            state.times.append(entry[3])  # sorted, hence a heap
        state.due.setdefault(entry[3], []).append(entry[0])
    return state


def outcomes(state: core.State, clock: int, remember: int, commands: Iterable[Command]) -> list[Any]:
    """Results of commands, or the errors that refuse them."""
    results: list[Any] = []
    for command in commands:
        try:
            results.append(core.run(state, clock, remember, command))
        except BudgeteerError as refused:
            results.append(refused)
    return results


def changes(
    state: core.State, loaded: Mapping[str, core.Entry], before: Mapping[str, Any], seq: int, head: str, algorithm: str
) -> Changes:
    """The rows to write after commands.

    Args:
        state: after the commands.
        loaded: its reservations before them.
        before: the rows of its accounts before them; those that were not there may be left out, or be None.
        seq: journal entries before them.
        head: hash of the last one.
        algorithm: of hashes.
    """
    known = {path: (_account_row(account), account) for path, account in state.accounts.items()}
    lines = [journal.encode(seq + i, entry) for i, entry in enumerate(state.journal)]
    hashes = list(journal.chain(lines, algorithm, head))
    return Changes(
        [(path, *row) for path, (row, _) in known.items() if row != before.get(path)],
        [row_of(entry) for name, entry in state.reservations.items() if entry is not loaded.get(name)],
        [(seq + i, *pair) for i, pair in enumerate(zip(lines, hashes, strict=True))],
        seq + len(lines),
        [head, *hashes][-1],
        state.now,
        known,
    )


def check_meta(row: Sequence[Any] | None) -> tuple[int, str, int]:
    """Number of journal entries, hash of the last one, time of the last change.

    Raises:
        DamagedError: no ledger has written this row.
    """
    if row is None or tuple(map(type, row)) != (int, str, int) or not (row[0] >= 0 and 0 <= row[2] <= LAST):
        raise DamagedError(f"its state is {row!r}")
    return row[0], row[1], row[2]


def entry_of(row: Sequence[Any]) -> core.Entry:
    """A reservation from its row."""
    name, path, amounts, expires, status, asked, actual, over, at, detail = row
    read = journal.decode_amounts
    try:
        if tuple(map(type, row)) != _TYPES:
            raise TypeError("a field has another type")
        return (name, path, read(amounts), expires, status, read(asked), read(actual), read(over), at, detail)
    except _WRONG as error:
        raise DamagedError(f"reservation {name!r} cannot be read: {error}") from error


def row_of(entry: core.Entry) -> tuple[Any, ...]:
    """The inverse of :func:`entry_of`."""
    name, path, amounts, expires, status, asked, actual, over, at, detail = entry
    text = journal.encode_amounts
    return (name, path, text(amounts), expires, status, text(asked), text(actual), text(over), at, detail)


def account_of(path: str, limits: str, books: str) -> core.Account:
    """An account from its row."""
    try:
        if not (type(path) is type(limits) is type(books) is str):
            raise TypeError("a field is no text")
        return _read_account(path, limits, books)
    except UnknownZone as error:
        raise no_zone(f"account {path!r}", error) from error
    except _WRONG as error:
        raise DamagedError(f"account {path!r} cannot be read: {error}") from error


def _read_account(path: str, limits: str, books: str) -> core.Account:
    account = core.Account(path)
    stored = json.loads(books)
    for kind, (spent, held, over, _) in stored.items():
        if not (type(spent) is type(held) is type(over) is int):
            raise TypeError(f"a balance of {kind} is no whole number")
        account.books[kind] = core.Book(spent, held, over)
    account.set_limits(decode_limits(limits), 0)
    for kind, (_, _, _, windows) in stored.items():
        account.books[kind].restore(
            {name: {int(index): units for index, units in buckets.items()} for name, buckets in windows.items()}
        )
    return account


def _account_row(account: core.Account) -> tuple[str, str]:
    """Limits, and balances as JSON text, whose integers have no bound: kind -> [spent, held, over, {window: {bucket:
    units}}]."""
    return encode_limits(account.limits), json.dumps(
        {
            kind: [book.spent, book.held, book.over, {window.name: window.buckets for window in book.counted}]
            for kind, book in account.books.items()
        },
        separators=(",", ":"),
    )
