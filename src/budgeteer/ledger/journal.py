"""The journal: one line for each entry, each hashed together with the hash of the line before it.

The chain shows that a line was lost, changed, reordered or added anywhere but at the end, by accident or by somebody
who does not compute the hashes anew. Lines cut off at the end show, because the balances no longer match.
It does not protect against somebody who may write to the store and computes the whole chain and the balances anew.
Against that, keep the head (``budgeteer ledger verify`` prints it) or an export somewhere else, and verify with
``--head``. The memory ledger computes hashes only when they are read, so its chain protects from then on. Redis can
compute SHA-1 only; each hash covers the one before, so a collision would have to be found before the next entry is
written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from budgeteer.core.errors import BudgeteerError, JournalBroken, UnknownZone
from budgeteer.ledger import core
from budgeteer.ledger.limit import Amounts

GENESIS = "budgeteer ledger 1"
"""Stands for the hash before the first line."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What the verification of an intact journal found.

    Attributes:
        entries: lines read.
        head: hash of the last line; keep it elsewhere to find a journal that was written anew.
        spent: units settled per scope and kind over the journal's whole life, resets or not.
    """

    entries: int
    head: str
    spent: dict[str, dict[str, int]]


def encode_amounts(amounts: Amounts) -> str:
    """Amounts as one text, such as ``all 100 money 5``."""
    return " ".join([f"{kind} {units}" for kind, units in amounts])


def decode_amounts(text: str) -> Amounts:
    """The inverse of :func:`encode_amounts`."""
    parts = text.split(" ")
    if len(parts) == 2:
        return ((parts[0], int(parts[1])),)
    return tuple(zip(parts[::2], map(int, parts[1::2]), strict=True)) if text else ()


def encode(seq: int, entry: core.Entry) -> str:
    """An entry as a line of tab-separated fields.

    They are seq, at, status, id, path, amounts, expires, actual, over, detail.
    """
    name, path, amounts, expires, status, _, actual, over, at, detail = entry
    return (
        f"{seq}\t{at}\t{status}\t{name}\t{path}\t{encode_amounts(amounts)}\t{expires}\t"
        f"{encode_amounts(actual)}\t{encode_amounts(over) if over else ''}\t{detail}"
    )


def decode(line: str) -> tuple[int, core.Entry]:
    """The inverse of :func:`encode`: sequence number and entry.

    The line does not hold the amounts that were asked first, which only the live ledger needs: those held stand in.
    """
    seq, at, status, name, path, amounts, expires, actual, over, detail = line.split("\t")
    held = decode_amounts(amounts)
    charged, more = decode_amounts(actual), decode_amounts(over) if over else ()
    return int(seq), (name, path, held, int(expires), status, held, charged, more, int(at), detail)


def entries(lines: Iterable[tuple[str, str]]) -> Iterator[tuple[core.Entry, dict[str, Any]]]:
    """The entries of (line, hash) pairs from the first line, each with a settlement's tags; hashes are not checked.

    Raises:
        JournalBroken: a line cannot be read.
    """
    for number, (line, _) in enumerate(lines):
        try:
            entry = decode(line)[1]
            tags = json.loads(entry[9]) if entry[4] == core.SETTLED and entry[9] else {}
        except ValueError as error:
            raise JournalBroken(
                f"journal line {number:,} cannot be read ({error}); budgeteer ledger verify tells what still holds"
            ) from error
        yield entry, tags


def chain(lines: Iterable[str], algorithm: str = "sha256", before: str = GENESIS) -> Iterator[str]:
    """The hash of each line, computed from the hash before it and the line; ``before`` is the hash before the first."""
    make = getattr(hashlib, algorithm)
    for line in lines:
        before = make((before + line).encode()).hexdigest()
        yield before


def replay(lines: Iterable[tuple[str, str]], algorithm: str, head: str | None = None) -> tuple[Verified, core.State]:
    """Check the chain of (line, hash) pairs and rebuild the balances.

    Args:
        lines: the journal from its first line.
        algorithm: sha256 or sha1.
        head: a hash noted earlier, which has to be the hash of some line; None: no such check.

    Raises:
        JournalBroken: names the first line that does not hold.
        UnknownZone: a limit's window is in a time zone that this machine's database does not have.
    """
    make, before, count = getattr(hashlib, algorithm), GENESIS, 0
    state, met = core.State(), head is None
    spent: dict[str, dict[str, int]] = {}
    for line, stored in lines:
        if make((before + line).encode()).hexdigest() != stored:
            raise JournalBroken(
                f"journal line {count:,} does not have the hash of its text and of the line before: it, or its "
                "neighbour, was changed, lost or moved; restore the store from a copy"
            )
        try:
            seq, entry = decode(line)
            if seq != count:
                raise JournalBroken(f"journal line {count:,} says that it is line {seq:,}")
            known = state.reservations.get(entry[0])
            before_it = dict(known[6]) if known is not None else {}
            core.apply(state, entry)
        except (ValueError, BudgeteerError) as error:
            if isinstance(error, JournalBroken | UnknownZone):
                raise
            raise JournalBroken(f"journal line {count:,} cannot be booked: {error}") from error
        if entry[4] == core.SETTLED:
            sums = spent.setdefault(entry[1], {})
            for kind, units in entry[6]:
                sums[kind] = sums.get(kind, 0) + units - before_it.get(kind, 0)
            if entry[9] != core.ABANDONED:  # nothing follows a settlement, but where nobody settled in time
                del state.reservations[entry[0]]
        if not count % 4096:
            for of_time in (state.due, state.times, state.closed):  # nothing expires here but by an entry
                of_time.clear()
        count += 1
        before = stored
        met = met or stored == head
    if not met:
        raise JournalBroken(
            f"no line of the journal has the noted head {head}; the journal was written anew or cut off"
        )
    return Verified(count, before, spent), state


def compare(rebuilt: core.State, stored: core.State) -> None:
    """Check that the store's balances and open reservations are those of the journal.

    Raises:
        JournalBroken: names the first difference.
    """
    if rebuilt.accounts.keys() != stored.accounts.keys():
        unmatched = sorted(rebuilt.accounts.keys() ^ stored.accounts.keys())[0]
        raise JournalBroken(f"account {unmatched!r} is in the journal or in the store, but not in both")
    for path, account in rebuilt.accounts.items():
        kept = stored.accounts[path]
        if account.limits != kept.limits:
            raise JournalBroken(f"limits of {path!r}: journal {account.limits}, store {kept.limits}")
        for kind in sorted({*account.books, *kept.books}):
            books = account.book(kind), kept.book(kind)
            for name in ("spent", "held", "over"):
                a, b = (getattr(book, name) for book in books)
                if a != b:
                    raise JournalBroken(f"{path!r} {name} of {kind}: the journal gives {a:,}, the store has {b:,}")
            counts = [{window.name: window.buckets for window in book.counted} for book in books]
            for window in sorted({*counts[0], *counts[1]}, key=str):
                a_count, b_count = (count.get(window) for count in counts)
                if a_count != b_count:
                    hint = "; or it was booked with another time zone database" if "@" in str(window) else ""
                    raise JournalBroken(f"{path!r} window {window} of {kind}: journal {a_count}, store {b_count}{hint}")
    # (path, amounts, expires); the amounts first asked are not in the journal once a reservation was extended
    held = [{r[0]: r[1:4] for r in state.reservations.values() if r[4] == core.OPEN} for state in (rebuilt, stored)]
    for name in sorted(held[0].keys() | held[1].keys()):
        if held[0].get(name) != held[1].get(name):
            raise JournalBroken(f"open reservation {name!r}: the journal and the store differ")
