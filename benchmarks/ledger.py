"""What a ledger costs: reserve-and-settle pairs a second and the time added to one call, beside the `limits` package
and pydantic-ai's check, in the same run.

    python benchmarks/ledger.py            # writes benchmarks/results/ledger.json
    python benchmarks/ledger.py --quick    # smoke test: small; writes nothing without --out

A pair is two durable, journalled operations over all scopes of a path. A `hit` of `limits` is one check-and-add of one
counter, with no reservation, no journal and no identity; pydantic-ai's `check_tokens` is a comparison after the fact.
Rounds of all variants take turns. A shared machine slows some rounds: the median and the best round are both given.
redis-server is started for the run, with an append-only file synced every second, and PostgreSQL as it is shipped: what
it answers is on the disk before, as with SQLite. Where it is not installed, its rows are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from budgeteer.lab.results import machine
from budgeteer.ledger import Ledger, Limit, MemoryLedger, SqliteLedger
from budgeteer.ledger.address import connect

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import postgres_server

OUT = Path(__file__).parent / "results" / "ledger.json"
PATHS = {1: "org", 4: "org/team/key/session"}
CAP = 10**15
TARGETS = {"memory": 200_000, "sqlite, 4 processes": 3_000}


def opened(ledger: Ledger) -> Ledger:
    """The ledger with the accounts of the paths."""
    parts = PATHS[4].split("/")
    for depth in range(len(parts)):
        ledger.open("/".join(parts[: depth + 1]), [Limit("all", CAP)])
    return ledger


def pairs(ledger: Ledger, scopes: int) -> Callable[[int], None]:
    """A function that makes n pairs, one after the other."""
    path = PATHS[scopes]

    def run(n: int) -> None:
        for _ in range(n):
            held = ledger.reserve(path, {"all": 100})
            ledger.settle(held.id, {"all": 50})

    return run


def hits(storage: Any) -> Callable[[int], None]:
    """A function that makes n hits of the limits package."""
    import limits

    limiter = limits.strategies.FixedWindowRateLimiter(storage)
    item = limits.RateLimitItemPerDay(CAP)

    def run(n: int) -> None:
        for _ in range(n):
            if not limiter.hit(item, "org", cost=100):
                raise SystemExit("limits refused a hit")

    return run


def checks() -> Callable[[int], None] | None:
    """A function that makes n checks of pydantic-ai, if it is installed."""
    try:
        from pydantic_ai.usage import RunUsage, UsageLimits
    except ImportError:
        return None
    bound, usage = UsageLimits(total_tokens_limit=CAP), RunUsage(input_tokens=100, output_tokens=50)

    def run(n: int) -> None:
        for _ in range(n):
            bound.check_before_request(usage)
            bound.check_tokens(usage)

    return run


def measure(variants: dict[str, tuple[Callable[[int], None], int]], rounds: int) -> dict[str, dict[str, float]]:
    """Rounds in turns. Per variant: operations a second (median, best round, and of this process's own processor time,
    which leaves out what other jobs of the machine took) and microseconds of one (median)."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    worked: dict[str, list[float]] = {name: [] for name in variants}
    for run, n in variants.values():
        run(n)  # warm up
    for i in range(rounds):
        for name in list(variants) if i % 2 == 0 else list(variants)[::-1]:
            run, n = variants[name]
            begin, working = time.perf_counter(), time.process_time()
            run(n)
            seconds[name].append((time.perf_counter() - begin) / n)
            worked[name].append((time.process_time() - working) / n)
    rows = {}
    for name, times in seconds.items():
        times.sort()
        middle = times[len(times) // 2]
        rows[name] = {
            "per_second": 1 / middle,
            "best_per_second": 1 / times[0],
            "per_processor_second": 1 / sorted(worked[name])[len(times) // 2],
            "microseconds": middle * 1e6,
        }
    return rows


WORKER = """
import asyncio, json, sys, time
sys.path.insert(0, sys.argv[1])
from ledger import worker
print(json.dumps(asyncio.run(worker(*sys.argv[2:4], *map(int, sys.argv[4:])))))
"""


async def worker(where: str, path: str, tasks: int, calls: int, start: int) -> dict[str, Any]:
    """Tasks that make pairs at once; returns when it began and ended, and each pair's time."""
    times: list[float] = []
    with connect(where, timeout=120) as ledger:

        async def work() -> None:
            for _ in range(calls // tasks):
                begin = time.perf_counter()
                held = await ledger.aio.reserve(path, {"all": 100})
                await ledger.aio.settle(held.id, {"all": 50})
                times.append(time.perf_counter() - begin)

        ledger.remaining(path)
        await asyncio.sleep(max(0.0, start / 1e3 - time.time()))
        begin = time.time()
        await asyncio.gather(*[work() for _ in range(tasks)])
        return {"begin": begin, "end": time.time(), "times": times}


def together(where: str, processes: int, tasks: int, calls: int) -> dict[str, float]:
    """Pairs a second of several processes on one ledger, and how long one pair took among them."""
    start = int(time.time() * 1e3) + 1500
    command = [
        sys.executable,
        "-c",
        WORKER,
        str(Path(__file__).parent),
        where,
        PATHS[1],
        str(tasks),
        str(calls),
        str(start),
    ]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    reports = [json.loads(worker.communicate()[0]) for worker in workers]
    times = sorted(t for report in reports for t in report["times"])
    seconds = max(report["end"] for report in reports) - min(report["begin"] for report in reports)
    return {
        "processes": processes,
        "tasks": tasks,
        "pairs": len(times),
        "per_second": len(times) / seconds,
        "milliseconds_p50": times[len(times) // 2] * 1e3,
        "milliseconds_p99": times[len(times) * 99 // 100] * 1e3,
    }


def verification(folder: Path, entries: int) -> dict[str, float]:
    """Seconds to verify a journal of so many entries: the chain, the rebuilt balances, and their comparison."""
    with SqliteLedger(folder / "verify.db") as ledger:
        opened(ledger)
        rng = random.Random(1)
        for first in range(0, entries // 2, 1000):
            commands: list[tuple[Any, ...]] = []
            for i in range(first, min(first + 1000, entries // 2)):
                commands.append(("reserve", f"call-{i}", PATHS[4], (("all", 100),), 600_000, ""))
                commands.append(("settle", f"call-{i}", (("all", rng.randint(0, 100)),), '{"stage":"review"}'))
            ledger.run_batch(commands)
        begin, working = time.perf_counter(), time.process_time()
        verified = ledger.verify()
        seconds, worked = time.perf_counter() - begin, time.process_time() - working
    return {"entries": verified.entries, "seconds": seconds, "processor_seconds": worked}


def fsync_milliseconds(folder: Path) -> float:
    """Median time of an fsync of 4 kB in the folder: what a durable commit costs at least."""
    times = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            begin = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begin)
    return sorted(times)[50] * 1e3


def redis_server(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server of its own, and its URL."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        raise SystemExit("install redis-server (or valkey-server) first")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir", str(folder)]
    process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    return process, f"redis://127.0.0.1:{port}/0"


def run(quick: bool) -> dict[str, Any]:
    """All measurements."""
    import limits

    rounds, scale = (3, 20) if quick else (15, 1)
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as name:  # on the disk, not in a tmpfs
        folder = Path(name)
        server, url = redis_server(folder)
        database = None
        if postgres_server.PROGRAMS is not None:  # as another user where this is root, so not in ``folder``
            database = postgres_server.PostgresServer(durable=True, folder=Path(__file__).parent)
        try:
            stores = {"sqlite": str(folder / "l.db"), "redis": url}
            if database is not None:
                stores["postgres"] = database.url
            ledgers = {store: opened(connect(where, timeout=60)) for store, where in stores.items()}
            file, shared = ledgers["sqlite"], ledgers["redis"]
            variants: dict[str, tuple[Callable[[int], None], int]] = {
                "memory, 1 scope": (pairs(opened(MemoryLedger()), 1), 2000 // scale),
                "memory, 4 scopes": (pairs(opened(MemoryLedger()), 4), 2000 // scale),
                "limits memory hit": (hits(limits.storage.MemoryStorage()), 2000 // scale),
                "redis, 1 scope": (pairs(shared, 1), 200 // scale),
                "redis, 4 scopes": (pairs(shared, 4), 200 // scale),
                "limits redis hit": (hits(limits.storage.RedisStorage(url.removesuffix("/0") + "/1")), 200 // scale),
                "sqlite, 1 scope": (pairs(file, 1), 20 // min(scale, 4)),
                "sqlite, 4 scopes": (pairs(file, 4), 20 // min(scale, 4)),
            }
            if database is not None:
                table = ledgers["postgres"]
                variants["postgres, 1 scope"] = (pairs(table, 1), 20 // min(scale, 4))
                variants["postgres, 4 scopes"] = (pairs(table, 4), 20 // min(scale, 4))
            compared = checks()
            if compared is not None:
                variants["pydantic-ai check"] = (compared, 2000 // scale)
            single = measure(variants, rounds)
            sizes = [(1, 64, 640)] if quick else [(1, 1, 200), (1, 64, 6_400), (4, 1, 200), (4, 64, 3_200)]
            many = {
                f"{store}, {p} processes x {t} tasks": together(where, p, t, calls)
                for p, t, calls in sizes
                for store, where in stores.items()
            }
            for ledger in ledgers.values():
                ledger.verify()
                ledger.close()
            checked = verification(folder, 2000 if quick else 1_000_000)
            disk = fsync_milliseconds(folder)
        finally:
            server.kill()
            server.wait()
            if database is not None:
                database.stop()
    ratio = {
        f"{a} / {b}": single[a]["per_second"] / single[b]["per_second"]
        for a, b in (
            ("memory, 1 scope", "limits memory hit"),
            ("memory, 4 scopes", "limits memory hit"),
            ("redis, 1 scope", "limits redis hit"),
            ("redis, 4 scopes", "limits redis hit"),
        )
    }
    return {
        "quick": quick,
        "unit": "per_second counts pairs (reserve and settle) of ours, single hits or checks of the others",
        "one_caller": single,
        "pairs_of_ours_per_hit_of_limits": ratio,
        "many_callers": many,
        "verify": checked,
        "targets": TARGETS,
        "fsync_milliseconds": disk,
        "machine": machine(),
        "versions": {
            "redis-server": subprocess.run(
                [shutil.which("redis-server") or "valkey-server", "--version"], capture_output=True, text=True
            ).stdout.split(" sha")[0],
            **({} if database is None else {"postgres": postgres_server.version()}),
            **{name: metadata.version(name) for name in ("limits", "redis", "psycopg")},
        },
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    results = run(args.quick)
    for name, row in results["one_caller"].items():
        speed, best = row["per_second"], row["best_per_second"]
        work = row["per_processor_second"]
        print(f"{name:22} {speed:12,.0f} /s  best {best:12,.0f} /s  per processor second {work:12,.0f}")
    for name, row in results["many_callers"].items():
        p50, p99 = row["milliseconds_p50"], row["milliseconds_p99"]
        print(f"{name:34} {row['per_second']:9,.0f} pairs/s  p50 {p50:7.2f} ms  p99 {p99:7.2f} ms")
    verify = results["verify"]
    print(
        f"verify {verify['entries']:,} entries: {verify['seconds']:.1f} s ({verify['processor_seconds']:.1f} s of work)"
    )
    for name, value in results["pairs_of_ours_per_hit_of_limits"].items():
        print(f"{name}: {value:.2f}")
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
