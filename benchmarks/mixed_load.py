"""Half an hour of what a team and its strangers send, with upstreams that fail: are the books right, the memory flat?

    python benchmarks/mixed_load.py               # writes benchmarks/results/mixed_load.json
    python benchmarks/mixed_load.py --minutes 1   # smoke test; writes nothing without --out

`budgeteer serve` in a process of its own (ledger and store in SQLite), two endpoints in another one
(benchmarks/mixed_load_upstream.py: 13 of 100 attempts have a fault, and now and then an endpoint fails for a while),
and clients in this one: chats, responses, messages (streamed or not), embeddings, tools, counted tokens; clients that
leave, that send bodies which cannot be, half a body, or no valid key; keys that run out, that are rotated, made and
revoked; an admin who reads pages and API; and a configuration that changes (SIGHUP). Requests come at random times
(Poisson), whether or not others are answered.

Looked at: resident memory, open descriptors and threads every few seconds; every status and the end of every stream;
when all is over the ledger against what the endpoints say they billed, request by request: equal unless the gateway has
marked it as estimated, which it may do only where the usage was not told, the client left or its time-outs ended the
call; never below. A table of checks is printed; the exit status is 1 if one fails.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from budgeteer.gateway.store import SqliteStore
from budgeteer.lab.results import machine
from budgeteer.lab.stats import t_quantile
from budgeteer.ledger import SqliteLedger
from gateway import answers, free_port, processor_seconds, resident_bytes

OUT = Path(__file__).parent / "results" / "mixed_load.json"
UPSTREAM = Path(__file__).parent / "mixed_load_upstream.py"
SOURCE = Path(__file__).parents[1] / "src"
ADMIN = "sk-admin-0123456789abcdef"
LOOKS, SETTLE = 360, 12.0
"""Looks at the process during the load, and seconds that it is left alone before and after."""
MOST = 400
"""Requests under way; more are not begun, and counted."""
KINDS = {"chat": 24, "chat, streamed": 24, "responses": 8, "responses, streamed": 8, "messages": 8,
         "messages, streamed": 8, "embeddings": 8, "tools": 3, "tools, streamed": 3, "tokens counted": 2}  # fmt: skip
WAYS = {"usual": 84, "leaves": 6, "impossible body": 4, "half a body": 1, "no key": 2, "again": 3}
"""How often requests are of a kind, and how their clients behave."""
KEYS = {"search": 55, "agents": 20, "poor": 9, "narrow": 8, "passing": 8}
ENDS = {"chat/completions": (b"data: [DONE]",), "responses": (b"response.completed", b"response.failed"),
        "messages": (b"message_stop",)}  # fmt: skip
"""What a whole stream ends with; one that was cut ends with an error."""
ALLOWED = {
    "usual": {200, 402, 429, 502, 503, 504}, "again": {200, 402, 429, 502, 503, 504}, "no key": {401},
    "impossible body": {400, 403, 404, 413, 429, 402, 503},
}  # fmt: skip
"""Statuses that a client may see; 401 as well where its key was revoked."""
ANSWERED = ("field twice", "cap too large")
"""Impossible bodies with an answer: such a field is sent once, and the policy `tighten` lowers such a cap."""


def configuration(folder: Path, ports: Sequence[int], number: int) -> str:
    """The gateway's file; every second one has another limit, another policy and another upstream."""
    odd = number % 2
    lines = [
        "[server]", "body_bytes = 1_000_000", "receive_seconds = 10", "drain_seconds = 20",
        "[ledger]", f'url = "{folder / "ledger.db"}"', 'kinds = ["all"]', "records = 10_000_000",
        "[prices]", "shipped = false", "[logging]", "json = false",
        "[scopes.team]", f'limits = ["{10**12 + odd}"]',
        "[policies.cache]", "[policies.loop]", f"times = {1000 + odd}", "[policies.tighten]",
    ]  # fmt: skip
    for name, port in zip(("one", "two"), ports, strict=True):
        lines += ["[[upstreams]]", f'name = "{name}"', f'base_url = "http://127.0.0.1:{port}/v1"', 'dialect = "both"',
                  "first_byte_seconds = 10", "idle_seconds = 10", f"breaker = {3 + odd}"]  # fmt: skip
        lines += ["cancels = true"] if name == "two" else []
        for model in ("echo-1", "echo-2"):
            lines += ["[[upstreams.models]]", f'name = "{model}"', "max_output = 200", "overhead = 20"]
    return "\n".join(lines) + "\n"


IMPOSSIBLE: list[tuple[str, Callable[[dict[str, Any]], bytes]]] = [
    ("no JSON", lambda body: json.dumps(body).encode()[:-7]),
    ("unknown field", lambda body: json.dumps({**body, "frobnicate": {"a": [1]}}).encode()),
    ("unknown model", lambda body: json.dumps({**body, "model": "nobody-has-this"}).encode()),
    ("cap too large", lambda body: json.dumps({**body, "max_tokens": 10**9}).encode()),
    ("cap is no number", lambda body: json.dumps({**body, "max_tokens": [{}]}).encode()),
    ("field twice", lambda body: json.dumps(body).encode()[:-1] + b', "model": "echo-2"}'),
    ("deep", lambda body: json.dumps({**body, "metadata": 0}).encode()[:-2] + b"[" * 5000 + b"]" * 5000 + b"}"),
    ("a list", lambda body: json.dumps([body]).encode()),
    ("lone surrogate", lambda body: json.dumps(body).encode()[:-1] + b', "user": "\\ud800"}'),
    ("a million bytes", lambda body: json.dumps({**body, "user": "x" * 1_100_000}).encode()),
    ("not UTF-8", lambda body: json.dumps(body).encode()[:-1] + b', "user": "\xff"}'),
    ("inner address", lambda body: json.dumps({**body, "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x"}}]}]}).encode()),
]  # fmt: skip


@dataclass
class Key:
    """A key, and the secret that still works beside the newest."""

    id: str
    secret: str
    older: str = ""


@dataclass
class Clients:
    """All clients of a run.

    Attributes:
        root: where the gateway is.
        rng: draws kinds, ways and keys.
        keys: name -> key.
        statuses: way -> status -> how often.
        wrong: what no client may see, with how it came about.
    """

    session: aiohttp.ClientSession
    root: str
    rng: random.Random
    keys: dict[str, Key]
    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    number: int = 0
    held_back: int = 0

    def _body(self, kind: str, job: int) -> tuple[str, dict[str, Any]]:
        """Route and body of a request."""
        text = f"job {job} " + "and what else is to be said of it " * self.rng.choice((1, 2, 5, 40))
        model, cap = self.rng.choice(("echo-1", "echo-2")), self.rng.randint(5, 80)
        messages = [{"role": "user", "content": text}]
        body: dict[str, Any] = {"model": model, "stream": kind.endswith("streamed")}
        match kind.split(",")[0]:
            case "chat":
                return "chat/completions", {**body, "messages": messages, "max_tokens": cap}
            case "responses":
                return "responses", {**body, "input": text, "max_output_tokens": cap}
            case "messages":
                return "messages", {**body, "messages": messages, "max_tokens": cap}
            case "embeddings":
                return "embeddings", {"model": model, "input": text}
            case "tokens counted":
                return "messages/count_tokens", {"model": model, "messages": messages}
        function = {"name": "weather", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}
        tools = [{"type": "function", "function": function}]
        return "chat/completions", {**body, "messages": messages, "max_tokens": cap, "tools": tools}

    def _count(self, way: str, status: object) -> None:
        self.statuses.setdefault(way, Counter())[str(status)] += 1

    async def one(self) -> None:
        """One request of somebody."""
        rng = self.rng
        kind, way = (rng.choices([*table], [*table.values()])[0] for table in (KINDS, WAYS))
        name = rng.choices([*KEYS], [*KEYS.values()])[0]
        self.number += 1
        route, body = self._body("chat" if way in ("again", "impossible body") else kind, self.number)
        if way == "again":  # one of ten requests, which the cache answers
            said = [{"role": "user", "content": f"job 0 again {rng.randrange(10)}"}]
            body |= {"messages": said, "model": "echo-1", "temperature": 0, "max_tokens": 20}
        about, content = way, json.dumps(body).encode()
        if way == "impossible body":
            about, make = rng.choice(IMPOSSIBLE)
            content = make(body)
        self.sent[kind if way in ("usual", "leaves") else way] += 1
        key = self.keys[name]
        secret = key.older if key.older and rng.random() < 0.2 else key.secret
        headers = {"content-type": "application/json", "x-budgeteer-tag": "0" if way == "again" else str(self.number)}
        if way != "no key":
            headers["authorization"] = f"Bearer {secret}"
        elif rng.random() < 0.5:
            headers["authorization"] = "Bearer bk-nobody-0123456789"
        if name == "agents":
            headers["x-budgeteer-user"] = f"user{rng.randrange(20)}"
        try:
            await self._send(way, about, route, body, headers, content)
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self._count(way, type(error).__name__)
            # a body of a stranger, or one that is too large, is not read to its end before the answer
            if way not in ("leaves", "half a body", "no key") and about != "a million bytes":
                self.wrong.append(
                    f"{about}, {route}, job {headers['x-budgeteer-tag']}: {type(error).__name__}: {error}"
                )

    async def _send(
        self, way: str, about: str, route: str, body: dict[str, Any], headers: dict[str, str], content: bytes
    ) -> None:
        url, wait = f"{self.root}/v1/{route}", self.rng.uniform(0, 0.4) ** 2
        if way == "half a body":
            return await self._half(url, headers, content)
        if way == "leaves":  # before the answer, or with a part of it
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    async with self.session.post(url, data=content, headers=headers) as response:
                        async for _ in response.content.iter_any():
                            await asyncio.sleep(wait / 3)
                        self._count(way, "answered before")
                        return
            return self._count(way, "left")
        async with self.session.post(url, data=content, headers=headers) as response:
            said, status = await response.read(), response.status
        self._count(way, status)
        revoked = status == 401 and headers.get("authorization") not in {
            f"Bearer {k.secret}" for k in self.keys.values()
        }
        allowed = ALLOWED["usual"] | ALLOWED[way] if about in ANSWERED else ALLOWED[way]
        if (status not in allowed and not revoked) or b"Internal Server Error" in said:
            self.wrong.append(f"{about}, {route}, job {headers['x-budgeteer-tag']}: {status} {said[:300]!r}")
        if status == 200 and body.get("stream") and way == "usual":
            ends, last = ENDS[route], said[-20_000:]
            cut = b'"error"' in last
            self._count("streams", "cut with an error" if cut else "whole")
            if not cut and not any(end in last for end in ends):
                self.wrong.append(
                    f"a stream without an end, {route}, job {headers['x-budgeteer-tag']}: {last[-300:]!r}"
                )

    async def _half(self, url: str, headers: dict[str, str], content: bytes) -> None:
        """Half a body, and then nothing or the end of the connection."""
        port = int(url.split(":")[2].split("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = [f"POST /{url.split('/', 3)[3]} HTTP/1.1", "host: x", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + content[: len(content) // 2])
        if self.rng.random() < 0.5:
            said = await asyncio.wait_for(reader.read(), 60)
            self._count("half a body", said[9:12].decode() or "closed")
            if b" 408 " not in said[:20] and b" 40" not in said[:20]:
                self.wrong.append(f"half a body: {said[:200]!r}")
        else:
            self._count("half a body", "left")
        writer.close()

    async def run(self, rate: float, seconds: float) -> None:
        """Begin requests at random times, and wait for all of them."""
        begun, due, running = time.monotonic(), 0.0, set[asyncio.Task[None]]()
        while (due := due + self.rng.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, begun + due - time.monotonic()))
            if len(running) >= MOST:
                self.held_back += 1
                continue
            task = asyncio.create_task(self.one())
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            await asyncio.wait(set(running), timeout=60)
        self.wrong += [f"no answer within 60 s of the end: {task}" for task in running]
        for task in running:
            task.cancel()


@dataclass
class Owner:
    """Who administers the gateway while the clients call it."""

    session: aiohttp.ClientSession
    root: str
    pid: int
    file: Path
    ports: Sequence[int]
    keys: dict[str, Key] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def api(self, path: str, body: Any = None) -> Any:
        """A call of the admin API that succeeds."""
        method, headers = "GET" if body is None else "POST", {"authorization": f"Bearer {ADMIN}"}
        async with self.session.request(method, f"{self.root}/admin/api/{path}", json=body, headers=headers) as got:
            found = await got.json()
            assert got.status < 300, (path, got.status, found)
            return found

    async def key(self, name: str, *limits: str, **about: Any) -> None:
        """Make a key of this name."""
        made = await self.api("keys", {"path": "team", "name": name, "limits": limits, **about})
        self.keys[name] = Key(made["key"]["id"], made["secret"])

    async def begin(self) -> None:
        """Make the keys, and log in."""
        await self.key("search", "1000000m/day")
        await self.key("agents", "1000000m", per_user=["100000m/day"])
        await self.key("poor", "5000/60s")
        await self.key("narrow", "parallel:3", "requests:100/60s", "1000000m")
        await self.key("passing", "1000000m")
        async with self.session.post(f"{self.root}/login", data={"key": ADMIN}) as got:
            assert got.status == 200, await got.text()

    async def reload(self) -> None:
        """Change the file, and say so."""
        self.done["reloads"] += 1
        other = self.file.with_suffix(".new")
        other.write_text(configuration(self.file.parent, self.ports, self.done["reloads"]))
        other.replace(self.file)
        os.kill(self.pid, signal.SIGHUP)

    async def rotate(self) -> None:
        """A new secret for a key; the older works on for a while."""
        self.done["rotations"] += 1
        key = self.keys[("search", "agents", "narrow")[self.done["rotations"] % 3]]
        older, key.older = key.secret, ""
        key.secret = (await self.api(f"keys/{key.id}/rotate", {"overlap": "1m"}))["secret"]
        key.older = older

    async def replace(self) -> None:
        """A key that is made, and one that is revoked."""
        self.done["keys replaced"] += 1
        old = self.keys["passing"].id
        await self.key("passing", "1000000m")
        await asyncio.sleep(1)
        await self.api(f"keys/{old}/revoke", {})

    async def look(self) -> None:
        """Read the API, the metrics and the pages."""
        self.done["looks"] += 1
        for path in ("summary", "requests?limit=50", "keys", "balances?path=team", "live"):
            await self.api(path)
        admin = {"authorization": f"Bearer {ADMIN}"}
        own = {"authorization": f"Bearer {self.keys['search'].secret}"}
        places = (("metrics", admin), ("v1/budget", own), ("keys", {}), ("requests", {}), ("budgets", {}), ("", {}))
        for path, headers in places:
            async with self.session.get(f"{self.root}/{path}", headers=headers) as got:
                await got.read()
                assert got.status == 200, (path, got.status)

    async def every(self, seconds: float, do: Callable[[], Any]) -> None:
        """Do something again and again until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await do()
            except (AssertionError, aiohttp.ClientError, OSError) as error:
                self.wrong.append(f"{do.__name__}: {type(error).__name__}: {error}"[:400])


def look_at(pid: int, begun: float) -> dict[str, float]:
    """A sample of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    threads = re.search(r"Threads:\s+(\d+)", status)
    assert threads
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return {"at": round(time.monotonic() - begun, 1), "resident_mb": round(resident_bytes([pid]) / 2**20, 2),
            "descriptors": descriptors, "threads": int(threads[1])}  # fmt: skip


async def watch(pid: int, begun: float, each: float, samples: list[dict[str, float]]) -> None:
    """Sample a process every so many seconds until cancelled."""
    while True:
        samples.append(look_at(pid, begun))
        await asyncio.sleep(each)


def trend(at: Sequence[float], values: Sequence[float], blocks: int = 12) -> dict[str, float]:
    """Growth an hour: least squares through the means of blocks of samples, since neighbouring samples are alike.

    Args:
        at: seconds, in order.
        values: of the samples.
        blocks: that the samples are cut into.

    Returns:
        The slope an hour, and the ends of its 95 % interval (Student's t of blocks - 2 degrees of freedom).
    """
    x, y = (np.array([part.mean() for part in np.array_split(np.asarray(v, float), blocks)]) for v in (at, values))
    x = (x - x.mean()) / 3600
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    half = t_quantile(0.975, blocks - 2) * float(np.sqrt(rest @ rest / (blocks - 2) / (x @ x)))
    return {"an_hour": slope, "low": slope - half, "high": slope + half}


def compare(books: dict[str, list[int]], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What was charged beside what was billed, job by job.

    Args:
        books: job -> [billed, whether every attempt told its usage, attempts].
        rows: of the records: tag (the job), units and calls (JSON), outcome, reason, estimated.
    """
    charged, calls = Counter[str](), Counter[str]()
    left, estimated, unheard, answered = set[str](), set[str](), set[str](), set[str]()
    for row in rows:
        job, made = row["tag"], json.loads(row["calls"])
        charged[job] += json.loads(row["units"]).get("all", 0)
        calls[job] += len(made)
        for group, holds in (
            (left, row["outcome"] == "left"),
            (estimated, row["estimated"]),
            (unheard, row["reason"] == "timed out" or any(call["outcome"] == "unknown" for call in made)),
            (answered, row["outcome"] == "ok"),
        ):
            if holds:
                group.add(job)
    exact = books.keys() & charged.keys() - estimated
    others = books.keys() - exact
    told = {job for job, (_, told, _) in books.items() if told}

    def named(jobs: Iterable[str]) -> list[str]:
        return sorted(jobs, key=int)

    return {
        "jobs": len(books), "attempts": sum(entry[2] for entry in books.values()), "calls": calls.total(),
        "exact": len(exact), "billed_exact": sum(books[job][0] for job in exact),
        "charged_exact": sum(charged[job] for job in exact),
        "estimated": len(others), "billed_estimated": sum(books[job][0] for job in others),
        "charged_estimated": sum(charged[job] for job in others), "charged": charged.total(),
        "told_but_left_or_timed_out": len(told & estimated & (left | unheard)),
        "exact_and_not_equal": named(job for job in exact if charged[job] != books[job][0]),
        "below": named(job for job, entry in books.items() if charged[job] < entry[0]),
        "told_and_estimated": named(told & estimated - left - unheard),
        # a client that leaves can break a call off before the endpoint has read it, which the gateway cannot know
        "answered_without_a_call": named(job for job in answered if charged[job] and job not in books),
    }  # fmt: skip


@contextlib.contextmanager
def gateway(folder: Path, port: int, nice: int) -> Iterator[subprocess.Popen[bytes]]:
    """`budgeteer serve`, ended by SIGTERM."""
    command = [
        sys.executable,
        "-m",
        "budgeteer",
        "serve",
        "--config",
        str(folder / "gateway.toml"),
        "--port",
        str(port),
    ]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "BUDGETEER_ADMIN_KEY": ADMIN}
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(["nice", "-n", str(nice), *command], stdout=out, stderr=out, env=environment)
        try:
            answers(process, f"http://127.0.0.1:{port}/healthz", log)  # type: ignore[arg-type]
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def load(
    pid: int, port: int, folder: Path, ports: Sequence[int], seconds: float, rate: float, seed: int
) -> dict[str, Any]:
    """The whole load; what the clients and the owner saw, and the samples."""
    samples: list[dict[str, float]] = []
    root, timeout = f"http://127.0.0.1:{port}", aiohttp.ClientTimeout(total=90)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        owner = Owner(session, root, pid, folder / "gateway.toml", ports)
        await owner.begin()
        await asyncio.sleep(min(SETTLE, seconds / 4))
        before, begun = look_at(pid, time.monotonic()), time.monotonic()
        clients = Clients(session, root, random.Random(seed), owner.keys)
        regular = [(20.0, owner.reload), (30.0, owner.rotate), (40.0, owner.replace), (15.0, owner.look)]
        around = [asyncio.create_task(owner.every(each * min(1, seconds / 300), do)) for each, do in regular]
        around.append(asyncio.create_task(watch(pid, begun, seconds / LOOKS, samples)))
        processor = processor_seconds([pid])
        await clients.run(rate, seconds)
        processor, took = processor_seconds([pid]) - processor, time.monotonic() - begun
        for task in around:
            task.cancel()
        left = await owner.api("live")
    await asyncio.sleep(SETTLE)
    return {
        "seconds": took, "requests": clients.number, "held_back": clients.held_back, "processor_seconds": processor,
        "sent": dict(clients.sent), "statuses": {way: dict(found) for way, found in sorted(clients.statuses.items())},
        "owner": dict(owner.done), "wrong": clients.wrong + owner.wrong, "live_at_the_end": len(left["live"]),
        "before": before, "after": look_at(pid, begun), "samples": samples,
    }  # fmt: skip


def books_of(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the ledger and the store have, once the gateway has ended."""
    ledger = SqliteLedger(folder / "ledger.db")
    verified = ledger.verify()
    _, state = ledger.snapshot()
    held = sum(book.held for account in state.accounts.values() for book in account.books.values())
    ledger.close()
    store = SqliteStore(folder / "ledger.db.gateway")
    rows = store.select("SELECT tag, units, calls, outcome, reason, estimated FROM records WHERE tag != ''")
    (count,) = store.select("SELECT COUNT(*) AS n FROM records")
    store.close()
    book = state.accounts["team"].books["all"]
    found = {"charged": book.spent, "open_reservations": len(state.reservations), "held": held,
             "accounts": len(state.accounts), "journal_entries": verified.entries,
             "charged_by_journal": sum(spent.get("all", 0) for spent in verified.spent.values()), "records": count["n"],
             "overshoot": book.over}  # fmt: skip
    return found, rows


def run(minutes: float, rate: float, seed: int, nice: int) -> dict[str, Any]:
    """One run."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as name:
        folder, port = Path(name), free_port()
        endpoints = subprocess.Popen(
            ["nice", "-n", str(nice), sys.executable, str(UPSTREAM), str(seed)], stdout=subprocess.PIPE
        )
        try:
            assert endpoints.stdout
            ports = json.loads(endpoints.stdout.readline())
            (folder / "gateway.toml").write_text(configuration(folder, ports, 0))
            with gateway(folder, port, nice) as process:
                found = asyncio.run(load(process.pid, port, folder, ports, 60 * minutes, rate, seed))
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/books", timeout=60) as response:
                told = json.load(response)
        finally:
            endpoints.terminate()
            endpoints.wait(20)
        found["exit_status"] = process.returncode
        log = (folder / "log").read_text(errors="replace").splitlines()
        found["log"] = dict(Counter(re.sub(r"\d+", "N", line)[:160] for line in log).most_common(40))
        found["faults"] = told["faults"]
        found["ledger"], rows = books_of(folder)
        found["jobs"] = compare(told["books"], rows)
    second = [one for one in found["samples"] if one["at"] > found["seconds"] / 2]
    found["growth_in_the_second_half"] = {
        what: trend([one["at"] for one in second], [one[what] for one in second])
        for what in ("resident_mb", "descriptors", "threads")
    }
    return found


def checks(found: dict[str, Any]) -> dict[str, bool]:
    """What has to hold; of growth only in ten minutes or more, since a process that has just begun grows."""
    jobs, ledger, growth = found["jobs"], found["ledger"], found["growth_in_the_second_half"]
    held = {
        "no client saw what it may not": not found["wrong"],
        "no exception in the log": not any("Traceback" in line for line in found["log"]),
        "what is not marked as estimated is charged as billed": not jobs["exact_and_not_equal"],
        "nothing is estimated whose usage was told": not jobs["told_and_estimated"],
        "never charged below the bill": not jobs["below"],
        "nothing charged for an answer without a call": not jobs["answered_without_a_call"],
        "ledger, its journal and the records agree": ledger["charged"]
        == ledger["charged_by_journal"]
        == jobs["charged"],
        "no reservation is open": not ledger["open_reservations"] and not ledger["held"],
        "ended by itself": found["exit_status"] in (0, -signal.SIGTERM) and not found["live_at_the_end"],
        "descriptors as before": found["after"]["descriptors"] <= found["before"]["descriptors"] + 4,
    }
    if found["seconds"] < 600:
        return held
    return {
        **held,
        "memory: growth not told from none, or below 1 % an hour": growth["resident_mb"]["low"] <= 0
        or growth["resident_mb"]["high"] < 0.01 * found["after"]["resident_mb"],
        "descriptors: growth not told from none": growth["descriptors"]["low"] <= 0,
    }


def table(found: dict[str, Any]) -> Iterator[str]:
    """What a run shows, in lines."""
    yield f"{found['requests']:,} requests in {found['seconds']:,.0f} s, {found['processor_seconds']:.0f} s of CPU"
    yield "sent: " + ", ".join(f"{kind} {n:,}" for kind, n in sorted(found["sent"].items()))
    for way, seen in found["statuses"].items():
        yield f"  {way:16} " + ", ".join(f"{status}: {n:,}" for status, n in sorted(seen.items()))
    yield "faults: " + ", ".join(f"{fault} {n:,}" for fault, n in sorted(found["faults"].items()))
    yield "owner: " + ", ".join(f"{what} {n:,}" for what, n in found["owner"].items())
    for what, one in found["growth_in_the_second_half"].items():
        before, after = found["before"][what], found["after"][what]
        seen = [sample[what] for sample in found["samples"]]
        yield (f"{what:12} before {before:g}, at most {max(seen):g}, after {after:g}; second half "
               f"{one['an_hour']:+.2f} an hour ({one['low']:+.2f} to {one['high']:+.2f})")  # fmt: skip
    jobs = found["jobs"]
    for what in ("exact", "estimated"):
        billed, charged = jobs[f"billed_{what}"], jobs[f"charged_{what}"]
        yield f"{what:10}{jobs[what]:8,} jobs: billed {billed:,}, charged {charged:,}"
    yield "ledger: " + ", ".join(f"{what} {n:,}" for what, n in found["ledger"].items())
    yield from (f"log: {n} x {line}" for line, n in found["log"].items())
    yield from (f"WRONG {line}" for line in found["wrong"][:20])
    for what in ("exact_and_not_equal", "below", "told_and_estimated", "answered_without_a_call"):
        if jobs[what]:
            yield f"{what}: {len(jobs[what])}, such as {jobs[what][:10]}"
    yield from (f"{'ok    ' if holds else 'FAILED'} {check}" for check, holds in found["checks"].items())


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of load (default 30)")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second (default 50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--nice", type=int, default=0, help="added to that of the gateway and the endpoints (default 0)"
    )
    parser.add_argument("--out", type=Path, help=f"default {OUT.name} in results for 30 minutes or more, else nothing")
    args = parser.parse_args()
    found = run(args.minutes, args.rate, args.seed, args.nice)
    about = {"machine": machine(), "minutes": args.minutes, "rate": args.rate, "seed": args.seed}
    found = {**about, "checks": checks(found), **found}
    print("\n".join(table(found)))
    out = args.out or (OUT if args.minutes >= 30 else None)
    if out is not None:
        samples = found.pop("samples")
        found["samples"] = {what: [one[what] for one in samples] for what in samples[0]}
        text = re.sub(
            r"\[\s+([^\[\]{}]*?)\s+\]", lambda row: "[" + re.sub(r"\s+", " ", row[1]) + "]", json.dumps(found, indent=1)
        )
        out.write_text(text + "\n")
    if not all(found["checks"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
