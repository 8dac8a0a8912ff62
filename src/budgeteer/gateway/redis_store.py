"""The gateway's store in the Redis of its ledger."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from budgeteer.core.errors import MissingExtra
from budgeteer.core.urls import without_password
from budgeteer.gateway.damage import Asking
from budgeteer.gateway.record import Record
from budgeteer.gateway.store import (
    ANSWERS,
    ANSWERS_OF_KEY,
    CHANGES,
    FREE,
    READ,
    TRIM_AFTER,
    Entry,
    SqliteStore,
    Store,
    no_key,
)
from budgeteer.ledger.protocol import wall_clock


class RedisStore(Store):
    """A store in the ledger's Redis; records are in two streams, which are read into a table in memory for queries.

    Args:
        url: of Redis.
        keep: how many records of paid requests are kept.
        name: part of the keys in Redis, the same as the ledger's.
    """

    def __init__(self, url: str, keep: int = 100_000, name: str = "budgeteer") -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise MissingExtra("redis", "redis") from error
        self._url, self._keep, self._lock = url, keep, threading.Lock()
        self._client = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 1)
        )
        self._keys, self._changes, self._instances, self._marks, self._notes, self._paid, self._free = (
            f"budgeteer:{{{name}}}:gateway:{part}"
            for part in ("keys", "changes", "instances", "marks", "notes", "records", "records:free")
        )
        self._answers = f"budgeteer:{{{name}}}:gateway:answers"
        self._answered = 0
        self._mirror, self._last = SqliteStore(":memory:", keep), dict.fromkeys((self._paid, self._free), "0-0")

    def _asking(self) -> Asking:
        return Asking(self._lock, f"the gateway's store at {without_password(self._url)}")

    def get_key(self, name: str) -> str | None:
        with self._asking():
            text: Any = self._client.hget(self._keys, name)
        return None if text is None else str(text)

    def all_keys(self) -> list[str]:
        with self._asking():
            texts: Any = self._client.hgetall(self._keys)
        return [texts[name] for name in sorted(texts)]

    def add_key(self, name: str, data: str, entry: str = "") -> None:
        with self._asking(), self._client.pipeline() as pipe:
            pipe.hset(self._keys, name, data)
            self._keep_change(pipe, entry)
            pipe.execute()

    def _keep_change(self, pipe: Any, entry: str) -> None:
        if entry:
            pipe.xadd(self._changes, {"c": entry}, maxlen=CHANGES, approximate=True)

    def changes(self, before: str, count: int) -> list[tuple[str, str]]:
        with self._asking():
            entries: Any = self._client.xrevrange(self._changes, f"({before}" if before else "+", "-", count=count)
        return [(id, fields["c"]) for id, fields in entries]

    def change_key(self, name: str, change: Callable[[str], str], entry: Entry | None = None) -> str:
        def replace(pipe: Any) -> str:
            text = pipe.hget(self._keys, name)
            if text is None:
                raise no_key(name)
            data = change(text)
            pipe.multi()
            pipe.hset(self._keys, name, data)
            self._keep_change(pipe, entry(text, data) if entry else "")
            return data

        with self._asking():
            return str(self._client.transaction(replace, self._keys, value_from_callable=True))  # type: ignore[arg-type]

    def beat(self, name: str, at: int | None) -> dict[str, int]:
        with self._asking():
            if at is None:
                self._client.hdel(self._instances, name)
            else:
                self._client.hset(self._instances, name, str(at))
            beats: Any = self._client.hgetall(self._instances)
        return {replica: int(seen) for replica, seen in beats.items()}

    def claim(self, name: str, now: int, until: int) -> int | None:
        with self._asking():  # the server drops it in time, by its own clock
            if self._client.set(f"{self._marks}:{name}", "", nx=True, px=max(1, until - now)):
                return None
            left: Any = self._client.pttl(f"{self._marks}:{name}")
        return now + max(0, int(left))

    def mark(self, name: str, until: int | None) -> None:
        with self._asking():
            if until is None:
                self._client.delete(f"{self._marks}:{name}")
            else:
                self._client.set(f"{self._marks}:{name}", "", px=max(1, until - wall_clock()))

    def note(self, name: str) -> str | None:
        with self._asking():
            text: Any = self._client.hget(self._notes, name)
        return None if text is None else str(text)

    def change_note(self, name: str, change: Callable[[str | None], str]) -> None:
        def replace(pipe: Any) -> None:
            text = change(pipe.hget(self._notes, name))
            pipe.multi()
            pipe.hset(self._notes, name, text)

        with self._asking():
            self._client.transaction(replace, self._notes)

    def keep_answer(self, key: str, known: Mapping[str, str], now: int, until: int) -> None:
        everyone, mine = f"{self._answers}:all", f"{self._answers}:key:{key}"
        with self._asking():
            with self._client.pipeline(transaction=False) as pipe:
                for id, text in known.items():
                    pipe.hset(f"{self._answers}:id:{id}", key, text)
                    pipe.pexpireat(f"{self._answers}:id:{id}", until)
                for order in (everyone, mine):
                    pipe.zadd(order, {f"{key} {id}": until for id in known})
                    pipe.pexpireat(order, until)
                pipe.execute()
            self._answered += len(known)
            if self._answered >= TRIM_AFTER:
                self._answered = 0
                for order, most in ((mine, ANSWERS_OF_KEY), (everyone, ANSWERS)):
                    self._client.zremrangebyscore(order, "-inf", now)  # the server dropped what these point to
                    count: Any = self._client.zcard(order)
                    oldest: Any = self._client.zpopmin(order, count - most) if count > most else ()
                    self._drop([member for member, _ in oldest])

    def _drop(self, members: Iterable[str]) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            for member in members:
                key, _, id = member.partition(" ")
                pipe.hdel(f"{self._answers}:id:{id}", key)
                pipe.zrem(f"{self._answers}:all", member)
                pipe.zrem(f"{self._answers}:key:{key}", member)
            pipe.execute()

    def answers(self, ids: Sequence[str], now: int) -> dict[str, dict[str, str]]:
        with self._asking(), self._client.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hgetall(f"{self._answers}:id:{id}")
            hashes = pipe.execute()
        return {id: dict(by_key) for id, by_key in zip(ids, hashes, strict=True) if by_key}

    def forget_answer(self, key: str, id: str) -> None:
        with self._asking():
            self._drop([f"{key} {id}"])

    def add(self, records: Sequence[Record]) -> None:
        with self._asking(), self._client.pipeline(transaction=False) as pipe:
            for record in records:
                stream, keep = (self._paid, self._keep) if record.paid else (self._free, self._keep // FREE)
                pipe.xadd(stream, {"r": orjson.dumps(record.as_json())}, maxlen=keep, approximate=True)
            pipe.execute()

    def select(self, sql: str, values: Iterable[Any] = ()) -> list[dict[str, Any]]:
        while True:
            with self._asking():
                entries: list[tuple[tuple[int, ...], str, Any]] = []  # (order, stream, (id, record))
                frontier: tuple[int, ...] | None = None  # up to here both streams are read whole
                for stream, last in self._last.items():
                    batch: Any = self._client.xrange(stream, f"({last}", "+", count=READ)
                    entries += [(_order(id), stream, (id, fields["r"])) for id, fields in batch]
                    if len(batch) == READ:
                        ends = _order(batch[-1][0])
                        frontier = ends if frontier is None else min(frontier, ends)
                entries = sorted(entry for entry in entries if frontier is None or entry[0] <= frontier)
                self._last |= {stream: id for _, stream, (id, _) in entries}
                if entries:
                    self._mirror.add([Record.of_json(json.loads(text)) for _, _, (_, text) in entries])
            if frontier is None:
                return self._mirror.select(sql, values)

    def close(self) -> None:
        self._client.close()
        self._mirror.close()


def _order(id: str) -> tuple[int, ...]:
    """The id of a stream's entry in a form that sorts by time."""
    return tuple(map(int, id.split("-")))
