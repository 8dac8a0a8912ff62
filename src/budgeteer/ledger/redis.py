"""A ledger in Redis or Valkey: shared by replicas on many machines."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from budgeteer.core.errors import (
    IdConflict,
    InvalidInput,
    LedgerUnavailable,
    MissingExtra,
    ReservationClosed,
    UnknownAccount,
    UnknownReservation,
    UnknownZone,
)
from budgeteer.core.urls import without_password
from budgeteer.ledger import core, journal
from budgeteer.ledger.group import GroupLedger
from budgeteer.ledger.limit import check_name, decode_limits, encode_limits
from budgeteer.ledger.protocol import REMEMBER, Clock, Command, check_seconds, damaged
from budgeteer.ledger.windows import Window, no_zone, zoned

if TYPE_CHECKING:
    import redis

_KEYS = ("meta", "accounts", "books", "reservations", "due", "closed", "journal")
_PAGE = 10_000
_DAMAGE = ("WRONGTYPE", "user_script")
"""What Redis says where a key is not of the ledger's type, or holds what the script cannot read."""
_ZONES = 64
"""Most windows in time zones that a process goes on telling with each command, because commands have needed them."""
_TRIES = 5
"""Most times that a command is sent again: each time the server's clock may have come to other windows meanwhile."""
_AGAIN = object()
"""The outcome of a command that is to be sent again, with more windows."""


class RedisLedger(GroupLedger):
    """A ledger for replicas on several machines.

    Each operation is one Lua script and one round trip, which concurrent operations share. Redis has no time zones, so
    the script is told the buckets of windows in time zones. An operation that needs one which it was not told takes a
    round trip more, at its first use and when a window ends, and comes after those that it was sent with.

    All keys carry the hash tag ``{name}``, so a cluster keeps a ledger on one node. Time is the server's, so replicas
    need no common clock. If the server does not answer, or answers from a state older than one seen before (a restart
    without its append-only file, a failover that lost writes), every operation raises LedgerUnavailable: fail closed.

    Durability is the server's: with ``appendonly yes`` and ``appendfsync everysec`` a crash of its machine, and of the
    server alone while its disk is busy, loses up to two seconds, balances and journal alike; ``appendfsync always``
    loses nothing.

    Args:
        url: such as redis://localhost:6379/0.
        name: of the ledger, for several on one server.
        create: make the ledger if the server has none of this name; False: an error.
        clock: milliseconds since 1970 (UTC); None: the server's time.
        remember: seconds for which the ids of closed reservations are known.
        timeout: seconds to wait for an answer.

    Raises:
        LedgerUnavailable: no server answers.
        MissingExtra: the package redis is not installed.
    """

    algorithm = "sha1"

    def __init__(
        self,
        url: str,
        *,
        name: str = "budgeteer",
        create: bool = True,
        clock: Clock | None = None,
        remember: int = REMEMBER,
        timeout: float = 5.0,
    ) -> None:
        self._url, self._clock, self._timeout = url, clock, timeout
        self._shown = without_password(url)
        self._remember = check_seconds(remember, "remember") * 1000
        self._name = check_name(name)
        self._keys = [f"budgeteer:{{{name}}}:{key}" for key in _KEYS]
        self._seen = 0
        super().__init__()
        fresh = {"seq": 0, "head": journal.GENESIS, "now": 0}

        def make(client: redis.Redis) -> bool:
            if create and not client.exists(self._keys[0]):
                # HSETNX, since another replica may be doing the same
                with client.pipeline(transaction=True) as pipe:
                    for field, value in fresh.items():
                        pipe.hsetnx(self._keys[0], field, value)  # type: ignore[arg-type]
                    pipe.execute()
            return bool(client.exists(self._keys[0]))

        if not self._ask(make):
            raise LedgerUnavailable(
                f"no ledger {name!r} at {self._shown}; make one with: budgeteer ledger init --ledger {self._shown}, or "
                "pass create=True"
            )

    def _fresh(self) -> None:
        super()._fresh()
        self._zones: dict[str, tuple[int, int, int]] = {}  # window -> its bucket, as windows.zoned() returns it
        self._client: redis.Redis | None = None
        self._script: Any = None

    def _ask(self, question: Callable[[redis.Redis], Any]) -> Any:
        try:
            import redis
        except ImportError as error:
            raise MissingExtra("redis", "redis") from error

        try:
            if self._client is None:
                from redis.backoff import NoBackoff
                from redis.retry import Retry

                # one retry, for a connection that died while idle: every operation may be sent twice
                self._client = redis.Redis.from_url(
                    self._url,
                    decode_responses=True,
                    socket_timeout=self._timeout,
                    socket_connect_timeout=self._timeout,
                    retry=Retry(NoBackoff(), 1),
                )
                lua = importlib.resources.files("budgeteer.ledger").joinpath("ledger.lua").read_text()
                self._script = self._client.register_script(lua)
            return question(self._client)
        except UnknownZone as error:
            raise self._no_zone(error) from error
        except (redis.RedisError, OSError, ValueError) as error:
            if any(part in str(error) for part in _DAMAGE):
                raise self._damaged(error) from error
            raise LedgerUnavailable(
                f"the ledger at {self._shown} did not answer ({without_password(str(error))}); do not spend"
            ) from error

    def run_batch(self, commands: Sequence[Command]) -> list[Any]:
        """Carry out commands in one round trip; those that have to tell more of windows in time zones, in another."""
        if len(self._zones) > _ZONES:
            self._zones.clear()
        outcomes = self._send(commands)
        for _ in range(_TRIES):
            waiting = [n for n, outcome in enumerate(outcomes) if outcome is _AGAIN]
            if not waiting:
                break
            try:
                later = self._send([commands[n] for n in waiting])
            except LedgerUnavailable as error:  # the others have been carried out
                later = [LedgerUnavailable(*error.args) for _ in waiting]
            for n, outcome in zip(waiting, later, strict=True):
                outcomes[n] = outcome
        return [self._late() if outcome is _AGAIN else outcome for outcome in outcomes]

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        """Outcomes of commands, or _AGAIN for one to send again, in one round trip."""
        clock = "" if self._clock is None else str(self._clock())
        zones = ",".join([f"{name} {index} {begins} {ends}" for name, (index, begins, ends) in self._zones.items()])
        before = [clock, str(self._remember), str(self._seen), zones]
        arguments = [[*before, *_arguments(command)] for command in commands]

        def send(client: redis.Redis) -> list[Any]:
            from redis.exceptions import NoScriptError, ResponseError

            if len(arguments) == 1:
                try:
                    return [self._script(keys=self._keys, args=arguments[0])]
                except ResponseError as error:
                    return [error]
            with client.pipeline(transaction=False) as pipe:
                for values in arguments:
                    pipe.evalsha(self._script.sha, len(self._keys), *self._keys, *values)
                replies = pipe.execute(raise_on_error=False)
            if any(isinstance(reply, NoScriptError) for reply in replies):  # the server was restarted; ids make it safe
                client.script_load(self._script.script)
                return send(client)
            return replies

        replies = self._ask(send)
        return [self._outcome(command, reply) for command, reply in zip(commands, replies, strict=True)]

    def _learn(self, now: int, windows: Iterable[str]) -> Any:
        """Look up the buckets that the script has to be told, at the ledger's time."""
        try:
            self._zones |= {window: zoned(window, now) for window in windows}
        except UnknownZone as error:
            return self._no_zone(error)
        return _AGAIN

    def _no_zone(self, error: UnknownZone) -> LedgerUnavailable:
        return no_zone(f"the ledger {self._name!r} at {self._shown}", error)

    def _late(self) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"the ledger at {self._shown} was asked {_TRIES + 1} times, and each time its clock had come to other "
            "windows; do not spend"
        )

    def _damaged(self, why: object) -> LedgerUnavailable:
        return damaged(f"the ledger {self._name!r} at {self._shown}", why)

    def _outcome(self, command: Command, reply: Any) -> Any:
        if isinstance(reply, Exception):
            if any(part in str(reply) for part in _DAMAGE):
                return self._damaged(reply)
            return LedgerUnavailable(f"the ledger at {self._shown} refused the operation ({reply}); do not spend")
        seq, status, *rest = reply.split("\t")
        if seq == "LOST":
            return LedgerUnavailable(
                f"the ledger {self._name!r} at {self._shown} has lost entries: {self._seen:,} were written, "
                f"{f'{int(status):,} are' if status else 'none are'} there. Restore it, or connect anew "
                "to go on with what is there"
            )
        self._seen = max(self._seen, int(seq))
        if status == "ZONES":
            return self._learn(int(rest[0]), rest[1:])
        if status == "OK":
            return _result(command[0], rest)
        return _error(status, command, rest)

    def lines(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[str, str]]:
        """(line, hash) of the journal, read in pages."""
        while stop is None or first < stop:
            last = first + _PAGE - 1 if stop is None else min(first + _PAGE, stop) - 1

            def page(client: redis.Redis, first: int = first, last: int = last) -> Any:
                return client.lrange(self._keys[6], first, last)

            rows = self._ask(page)
            for row in rows:
                yield row[40:], row[:40]
            if not rows:
                return
            first += len(rows)

    def snapshot(self) -> tuple[int, core.State]:
        """The number of journal entries, and the accounts and open reservations at that point."""

        def read(client: redis.Redis) -> Any:
            with client.pipeline(transaction=True) as pipe:
                pipe.hmget(self._keys[0], "seq", "now")
                for key in self._keys[1:4]:
                    pipe.hgetall(key)
                return pipe.execute()

        (seq, now), accounts, books, reservations = self._ask(read)
        if seq is None:
            raise LedgerUnavailable(f"there is no ledger {self._name!r} at {self._shown} any more")
        try:
            return int(seq), _state(int(now), accounts, books, reservations)
        except UnknownZone as error:
            raise self._no_zone(error) from error
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise self._damaged(repr(error)) from error

    def accounts(self, paths: Collection[str]) -> core.State:
        """A copy of some accounts, and of their balances of the kinds that they limit.

        Their limits are read first, since they say which balances there are; spending never waits for either.
        """
        wanted = list(paths)

        def read(client: redis.Redis) -> Any:
            now: Any = client.hget(self._keys[0], "now")
            texts: Any = client.hmget(self._keys[1], wanted) if wanted else []
            limits = {path: text for path, text in zip(wanted, texts, strict=True) if text is not None}
            kinds = [
                f"{path}\t{kind}"
                for path, text in limits.items()
                for kind in dict.fromkeys(limit.kind for limit in decode_limits(text))
            ]
            lines: Any = client.hmget(self._keys[2], kinds) if kinds else []
            return now, limits, {key: line for key, line in zip(kinds, lines, strict=True) if line is not None}

        now, limits, books = self._ask(read)
        if now is None:
            raise LedgerUnavailable(f"there is no ledger {self._name!r} at {self._shown} any more")
        try:
            return _state(int(now), limits, books, {})
        except UnknownZone as error:
            raise self._no_zone(error) from error
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise self._damaged(repr(error)) from error

    def close(self) -> None:
        """Close the connections."""
        super().close()
        if self._client is not None:
            self._client.close()
            self._client = None


def _state(
    now: int, accounts: Mapping[str, str], books: Mapping[str, str], reservations: Mapping[str, str]
) -> core.State:
    state = core.State()
    state.now = now
    windows: list[tuple[core.Book, str]] = []
    for path in accounts:
        state.accounts[path] = core.Account(path)
    for key, line in books.items():
        path, kind = key.split("\t")
        balance, _, rest = line.partition("|")
        book = state.accounts[path].books[kind] = core.Book(*map(int, balance.split(" ")))
        windows.append((book, rest))
    for path, limits in accounts.items():
        state.accounts[path].set_limits(decode_limits(limits), 0)
    for book, rest in windows:
        stored = {name: buckets for name, *buckets in (part.split(" ") for part in rest.split("|") if part)}
        pairs = {name: (text.split(":") for text in buckets) for name, buckets in stored.items()}
        book.restore({name: {int(index): int(units) for index, units in of} for name, of in pairs.items()})
    for name, line in reservations.items():
        entry = _entry([name, *line.split("\t")])
        if entry[4] == core.OPEN:
            state.reservations[name] = entry
    return state


def _arguments(command: Command) -> list[str]:
    text = journal.encode_amounts
    match command:
        case ("open", path, limits):
            return ["open", path, "*" if limits is None else encode_limits(limits)]
        case ("reserve", name, path, amounts, ttl, detail):
            return ["reserve", name, path, text(amounts), str(ttl), detail]
        case ("extend", name, amounts, ttl):
            return ["extend", name, text(amounts), str(ttl)]
        case ("settle", name, actual, tags):
            return ["settle", name, "*" if actual is None else text(actual), tags]
    return list(command)


def _entry(fields: Sequence[str]) -> core.Entry:
    name, path, amounts, expires, status, asked, actual, over, at, detail = fields
    read = journal.decode_amounts
    return (name, path, read(amounts), int(expires), status, read(asked), read(actual), read(over), int(at), detail)


def _result(operation: str, rest: list[str]) -> Any:
    if operation == "remaining":
        return {kind: int(units) if units else None for kind, units in zip(rest[::2], rest[1::2], strict=True)}
    return _entry(rest) if rest else None


def _error(status: str, command: Command, rest: list[str]) -> Exception:
    read = journal.decode_amounts
    if status == "EXCEEDED":
        scope, kind, units, limit, spent, held, name, *more = rest
        short = int(spent) + int(held) + int(units) - int(limit)
        if not name:
            return core.exceeded(scope, kind, int(units), int(limit), int(spent), int(held))
        window = Window(int(limit), int(name) if name.isdigit() else name)
        window.buckets = {int(index): int(n) for index, n in (pair.split(":") for pair in more[1:])}
        at = window.resets_at(int(more[0]), short)
        return core.exceeded(scope, kind, int(units), int(limit), int(spent), int(held), window.name, at)
    if status == "NOACCOUNT":
        return UnknownAccount(core.no_account(rest[0], rest[1]))
    if status == "KINDS":
        return core.wrong_kinds(command[2], rest, command[3])
    if status == "CONFLICT":
        return IdConflict(core.id_reused(command[1], read(rest[0]), rest[1], command[3], command[2]))
    if status == "UNKNOWN":
        return UnknownReservation(core.unknown(command[1]))
    if status == "OTHERKINDS":
        return InvalidInput(core.other_kinds(command[1], read(rest[0]), command[2]))
    if status == "NOTOPEN":
        return ReservationClosed(core.not_open(command[1], rest[0]))
    if command[0] == "release":
        return ReservationClosed(core.not_releasable(command[1], read(rest[0])))
    return IdConflict(core.settled_otherwise(command[1], read(rest[0]), command[2]))
