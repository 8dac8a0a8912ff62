"""The queries and changes behind the admin API and the dashboard: keys, balances, spending, requests.

Filters are strings, as in the query of a URL. A value that cannot be used raises InvalidInput, a missing key or request
raises Refused with status 404, and a store that does not answer raises LedgerUnavailable.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Self

from budgeteer.core.amounts import OF
from budgeteer.core.errors import InvalidInput
from budgeteer.gateway import changes, keys
from budgeteer.gateway.changes import Author, Change
from budgeteer.gateway.config import Config
from budgeteer.gateway.filters import Query, where
from budgeteer.gateway.key_index import KeyIndex
from budgeteer.gateway.keyring import KeyRing, run
from budgeteer.gateway.keys import Key
from budgeteer.gateway.metrics import Metrics
from budgeteer.gateway.proxy import Proxy
from budgeteer.gateway.record import COLUMNS, MAPS, NAMES, Record
from budgeteer.gateway.records import Records
from budgeteer.gateway.refusal import Refused
from budgeteer.gateway.roles import EVERYTHING, NOTHING, Admin
from budgeteer.gateway.rules import inside
from budgeteer.gateway.store import Store
from budgeteer.gateway.trees import Trees
from budgeteer.ledger import Ledger
from budgeteer.ledger.protocol import wall_clock
from budgeteer.ledger.report import balances
from budgeteer.metering.outcome import Outcome

BY = ("scope", *(column.name for column in COLUMNS if column.groups), "time")
"""What spending can be grouped by; "scope" is the account, which is the field ``path`` of records."""
_TOKENS = tuple(column.name for column in COLUMNS if column.unit == "tokens")
_SUMS = (*_TOKENS, "estimated")
LARGEST = 1_000_000
"""The most records in a CSV file."""
PAGE = 1000
"""The most records in one answer of the API."""
_ALL: Query = {}


@dataclass(frozen=True, slots=True)
class Listed:
    """Requests, newest first; ``next`` is the value of ``before`` for those that follow, None where there are none."""

    requests: tuple[Record, ...]
    next: int | None


class Queries:
    """The queries of one gateway.

    Args:
        config, ledger, store, ring, proxy, metrics, records: its parts.

    Attributes:
        accounts: the accounts of its ledger.
        reads: the accounts that are shown: all, unless they are those of an admin.
        trees: what agents were given and spent, of all accounts.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        store: Store,
        ring: KeyRing,
        proxy: Proxy,
        metrics: Metrics,
        records: Records,
    ) -> None:
        self._config, self._ledger, self._store, self._ring = config, ledger, store, ring
        self._proxy, self._metrics, self._records = proxy, metrics, records
        self.accounts, self._index = proxy.accounts, KeyIndex(store)
        self.reads, self.changes_at, self._author = EVERYTHING, NOTHING, Author("", "")
        self.trees = Trees(ledger)
        self._few = asyncio.Semaphore(2)  # leaves threads of the pool free for looking up keys

    def of(self, admin: Admin) -> Self:
        """The queries of an admin: what is outside of the own paths is not shown or counted, and cannot be changed."""
        own = copy(self)
        own.reads, own.changes_at, own._author = admin.reads, admin.changes, Author(admin.name, admin.by)
        return own

    async def _select(self, sql: str, values: Iterable[Any]) -> list[dict[str, Any]]:
        async with self._few:
            return await run(self._store.select, sql, values)

    # keys

    async def keys(self) -> list[Key]:
        """All keys, oldest first."""
        return (await self.find_keys())[::-1]

    async def find_keys(self, text: str = "", state: str = "") -> list[Key]:
        """The keys whose name, id or path has each word of a text, newest first; ``state`` as for KeyIndex.find."""
        matching = await self._index.find(text, state, wall_clock())
        return matching if self.reads.everything else [key for key in matching if self.reads.covers(key.path)]

    async def names(self) -> Mapping[str, str]:
        """Id of each key -> its name for people; the id if it has none."""
        if self.reads.everything:
            return await self._index.names()
        return {key.id: key.name or key.id for key in await self.find_keys()}

    async def key(self, name: str) -> Key:
        """The key with this id.

        Raises:
            Refused: 404, there is no such key; 403, it is not below the own paths.
        """
        text = await run(self._store.get_key, name)
        if text is None:
            raise Refused(404, "no_key", f"there is no key {name!r}")
        key = keys.decode(text)
        inside(self.reads, key.path, f"key {name}")
        return key

    async def make_key(self, about: Mapping[str, Any]) -> tuple[Key, str]:
        """Make a key and store it.

        Args:
            about: fields of the key, as for :func:`budgeteer.gateway.keys.make`.

        Returns:
            The key, and its token, which is kept nowhere.

        Raises:
            Refused: 403, its path is not below the own ones.
        """
        now = wall_clock()
        key, token = keys.make(about, self._config.defaults, self._config.counted, now, self._config.groups)
        inside(self.changes_at, key.path, f"path {key.path!r}")
        self._tell(await run(changes.add, self._store, key, self._author, now))
        return key, token

    def _tell(self, change: Change) -> None:
        """Log a change, and have the lists of keys read again."""
        self._index.forget()
        if self._config.log:
            change.log()

    async def changes(self, asked: Query = _ALL, limit: int = 100) -> tuple[list[Change], str | None]:
        """Changes of keys, the newest first, and the value of ``before`` for those that follow; None at the end.

        Args:
            asked: filters: ``key`` (an id), and ``before``, from an earlier answer.
            limit: the most that are returned.

        Raises:
            InvalidInput: ``before`` is of no earlier answer.
        """
        return await run(changes.listed, self._store, asked, self.reads, limit)

    async def change_key(self, name: str, about: Mapping[str, Any], seen: str | None = None) -> Key:
        """Set fields of a key; the changed key.

        Args:
            name: the key's id.
            about: the new values by field.
            seen: the key's version, as ``keys.version`` says it, that the changes were made for; None = any.

        Raises:
            InvalidInput: a value cannot be used, or somebody has changed the key since it was seen.
        """

        def change(key: Key) -> Key:
            if seen is not None and seen != keys.version(key):
                raise InvalidInput("somebody has changed this key meanwhile; look at it again, then change it")
            return keys.changed(key, about, self._config.counted, self._config.groups)

        return await self._changed(name, changes.CHANGED, change)

    async def revoke_key(self, name: str) -> Key:
        """Revoke a key, which cannot be undone; the changed key."""
        return await self._changed(name, changes.REVOKED, lambda key: keys.changed(key, {"revoked": True}, ()))

    async def rotate_key(self, name: str, overlap: object = "") -> tuple[Key, str]:
        """Give a key a new secret; its account stays.

        Args:
            name: the key's id.
            overlap: for how long the present secret stays valid, such as "24h"; "" for 24 hours, "0" for not at all.

        Returns:
            The changed key, and its new token, which is kept nowhere.
        """
        if not isinstance(overlap, str):
            raise InvalidInput(f"overlap is {overlap!r}; give a text such as '24h', or '0'")
        spare, made = keys.overlap_of(overlap), ""

        def rotate(key: Key) -> Key:
            nonlocal made
            key, made = keys.rotated(key, spare, wall_clock())
            return key

        return await self._changed(name, changes.ROTATED, rotate), made

    async def top_up_key(self, name: str, amount: object) -> Key:
        """Raise a limit of a key by an amount such as "$5" or "500k/day": the one of its kind and window.

        Raises:
            InvalidInput: the amount is no string, or the key has no such limit.
        """
        if not isinstance(amount, str):
            raise InvalidInput(f"amount is {amount!r}; give a text such as '$5' or '500k'")
        return await self._changed(name, changes.TOPPED_UP, lambda key: keys.topped_up(key, amount))

    async def _changed(self, name: str, action: str, change: Callable[[Key], Key]) -> Key:
        inside(self.changes_at, (await self.key(name)).path, f"key {name}")
        key, made = await run(changes.alter, self._store, name, self._author, action, change, wall_clock())
        self._ring.forget(name)
        self._tell(made)
        accounts = self.accounts
        if not (key.per_user or key.per_session or key.per_tag):
            await accounts.open(accounts.chain(key))  # so that balances show the new limits before the next request
        return key

    # money

    async def balances(self, path: str = "") -> list[dict[str, Any]]:
        """What is settled, reserved and left of each limit at a path and below it; of all accounts for ""."""
        _, state = await run(self._ledger.snapshot)
        if path and path not in state.accounts:
            return []
        return [row for row in balances(state, path, wall_clock()) if self.reads.covers(row["path"])]

    async def balances_of(self, paths: Collection[str]) -> list[dict[str, Any]]:
        """The same for some accounts, without those below them; accounts that are not open are left out.

        Nothing is hidden: these are the accounts that a key which is shown is charged to, those above it included.
        """
        state = await run(self._ledger.accounts, paths)
        return list(balances(state, "", wall_clock()))

    async def spend(
        self, by: Sequence[str], kind: str = "all", step: int = 3600, asked: Query = _ALL, offset: int = 0
    ) -> list[dict[str, Any]]:
        """Spending in groups.

        Args:
            by: what to group by, from BY.
            kind: a field of tokens (input, output, ...), or a kind of units that the gateway counts.
            step: length of the groups of "time", in seconds.
            asked: filters, from FILTERS.
            offset: by how much their beginnings are before full steps of UTC, in milliseconds: that of a time zone.

        Returns:
            A row for each group: the values of ``by``, and units, requests, refused, estimated (requests) and wasted
            (tokens); ordered by time if grouped by it, else the most units first.

        Raises:
            InvalidInput: an unknown group, kind or value of a filter.
        """
        if not by or not set(by) <= set(BY):
            raise InvalidInput(f"by={','.join(by)}; choose of {', '.join(BY)}")
        wide = step * 1000
        special = {"scope": "path", "time": f"(at + {offset}) / {wide} * {wide} - {offset}"}
        names = ", ".join(f'{special.get(name, name)} AS "{name}"' for name in by)
        values: list[Any] = []
        plain, of, part = kind.partition(OF)  # a limit of a model or group is the plain kind, of requests of its models
        models = self._config.groups.members(part) if of else None
        if kind in _TOKENS:
            units = kind
        elif plain in self._config.counted and (models is not None) == bool(of):
            units = "COALESCE(json_extract(units, ?), 0)"
            values.append(f'$."{plain}"')
        else:
            raise InvalidInput(f"kind={kind}; choose of {', '.join((*_TOKENS, *self._config.counted))}")
        clause, more = where(asked, self.reads)
        if models is not None:
            clause += f"{' AND' if clause else ' WHERE'} model IN ({', '.join('?' * len(models))})"
            more.extend(models)
        order = '"time"' if "time" in by else "units DESC"
        sql = (
            f"SELECT {names}, SUM({units}) AS units, COUNT(*) AS requests, "
            f"SUM(outcome = '{Outcome.REFUSED}') AS refused, SUM(estimated) AS estimated, SUM(wasted) AS wasted "
            f"FROM records{clause} GROUP BY {', '.join(str(n + 1) for n in range(len(by)))} ORDER BY {order}"
        )
        return await self._select(sql, [*values, *more])

    async def summary(self, asked: Query = _ALL) -> dict[str, Any]:
        """Sums over the records that the filters select, and the state of this replica: running requests, upstreams,
        and what was turned away without a record."""
        sums = await self.totals(asked)
        clause, values = where(asked, self.reads)
        totals = {}
        for name in ("overshoot", "saved"):
            charged = f"SELECT {name} AS units FROM records{clause}{' AND' if clause else ' WHERE'} {name} != '{{}}'"
            sql = f"SELECT k.key, SUM(k.value) AS units FROM ({charged}) AS r, json_each(r.units) AS k GROUP BY k.key"
            totals[name] = {row["key"]: row["units"] for row in await self._select(sql, values)}
        return {
            **sums,
            **totals,
            "live": len(self.live()),
            **(self._gateway() if self.reads.everything else {}),
        }

    def _gateway(self) -> dict[str, Any]:
        """What is of this replica as a whole."""
        return {
            "upstreams": self.upstreams(),
            "turned_away": dict(self._metrics.away),
            "records_dropped": self._records.dropped,
        }

    async def totals(self, asked: Query = _ALL) -> dict[str, Any]:
        """Sums over the records that the filters select."""
        clause, values = where(asked, self.reads)
        sql = (
            f"SELECT COUNT(*) AS requests, COALESCE(SUM(outcome = '{Outcome.REFUSED}'), 0) AS refused, "
            f"COALESCE(SUM(outcome IN ('{Outcome.FAILED}', '{Outcome.CUT}')), 0) AS failed, "
            "COALESCE(SUM(json_extract(units, '$.money')), 0) AS money, "
            f"{', '.join(f'COALESCE(SUM({name}), 0) AS {name}' for name in _SUMS)} FROM records{clause}"
        )
        (sums,) = await self._select(sql, values)
        return sums

    def upstreams(self) -> list[dict[str, Any]]:
        """The state of each upstream, as this replica sees it."""
        return [backend.status() for backend in self._proxy.upstreams.backends]

    # requests

    async def requests(self, asked: Query = _ALL, limit: int = 100) -> Listed:
        """The newest requests that the filters select; the filter ``before`` takes ``next`` of an earlier answer."""
        clause, values = where(asked, self.reads)
        sql = f"SELECT n, {', '.join(NAMES)} FROM records{clause} ORDER BY n DESC LIMIT {limit}"
        rows = await self._select(sql, values)
        return Listed(tuple(Record.of_row(row) for row in rows), rows[-1]["n"] if rows else None)

    async def request(self, name: str) -> Record:
        """The record of the request with this id, which may still be running in this replica.

        Raises:
            Refused: 404, there is no such record; 403, it is not of an account below the own paths.
        """
        rows = await self._select(f"SELECT {', '.join(NAMES)} FROM records WHERE id = ?", (name,))
        live = self._proxy.live.get(name)
        if not rows and live is None:
            raise Refused(404, "no_request", f"there is no record of {name!r}; old ones are dropped")
        record = Record.of_row(rows[0]) if rows or live is None else live.record()
        inside(self.reads, record.path, f"request {name}")
        return record

    async def latest(self, ids: Sequence[str]) -> dict[str, Record]:
        """The latest record of each of these keys that has one."""
        marks = ", ".join("?" * len(ids))
        newest = f"SELECT MAX(n) FROM records WHERE key IN ({marks}) GROUP BY key"
        rows = await self._select(f"SELECT {', '.join(NAMES)} FROM records WHERE n IN ({newest})", ids)
        return {row["key"]: Record.of_row(row) for row in rows}

    async def refused_since(self, key: str) -> int:
        """How many requests of a key in a row were refused up to now."""
        last = f"SELECT MAX(n) FROM records WHERE key = ? AND outcome != '{Outcome.REFUSED}'"
        sql = f"SELECT COUNT(*) AS refused FROM records WHERE key = ? AND n > COALESCE(({last}), 0)"
        return int((await self._select(sql, (key, key)))[0]["refused"])

    def live(self) -> list[Record]:
        """The records, as far as they are known, of the requests that run in this replica."""
        now = wall_clock()
        records = (replace(live.record(), ms=now - live.at) for live in self._proxy.live.values())
        return [record for record in records if self.reads.covers(record.path)]

    async def table(self, asked: Query = _ALL, limit: int = LARGEST) -> str:
        """Requests as CSV: a column for each field; fields of units by kind have one for each kind."""
        kinds = self._config.counted
        listed = await self.requests(asked, limit)
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow([head for column in COLUMNS for head in _heads(column.name, kinds)])
        rows.writerows(
            [cell for column in COLUMNS for cell in _cells(column.name, record, kinds)] for record in listed.requests
        )
        return out.getvalue()


def _heads(name: str, kinds: Sequence[str]) -> Iterator[str]:
    """The headings of a field in CSV; none for the attempts, which are a list."""
    if name in MAPS:
        yield from (f"{name}_{kind}" for kind in kinds)
    elif name != "calls":
        yield name


def _cells(name: str, record: Record, kinds: Sequence[str]) -> Iterator[Any]:
    value = getattr(record, name)
    if name in MAPS:
        yield from (value.get(kind, 0) for kind in kinds)
    elif name != "calls":  # a text that no spreadsheet takes for a formula
        yield f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
