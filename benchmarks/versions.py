"""Is this version slower than another one? Both in one run, in turns: importing, the command line, a wrapped client,
the ledgers, the exact knapsack, the sampler, the gateway.

    python benchmarks/versions.py --before SRC    # the src folder of the other version's checkout;
                                                  # writes benchmarks/results/versions.json
    python benchmarks/versions.py --before SRC --quick     # smoke test: small; writes nothing without --out

A case runs in a process of each version that stays; a round is one block of calls in each, in an order that turns every
round. What is compared is processor time, which leaves out what other jobs of the machine took, though not what they do
to caches and clocks; the elapsed time of the block is given beside it. The ratio is now / before, the median over the
rounds, with the interval in which 95 of 100 medians of rounds drawn again lie (bootstrap). The case ``before again`` is
the other version against itself: what its interval leaves open, no other row can show.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.lab.results import machine
from gateway import ASKED, SOURCE, STREAMED, Variant, budgeteer, load, running

OUT = Path(__file__).parent / "results" / "versions.json"
LOAD = Path(__file__).parent / "gateway_load.py"

STARTED = {
    "import budgeteer": "import budgeteer",
    "budgeteer --help": "import sys; from budgeteer.cli import main; sys.exit(main(['--help']))",
}
"""Measured as whole processes."""
_LEDGER = """
from budgeteer.ledger import Limit, MemoryLedger, SqliteLedger
def prepare(ledger, path):
    parts = path.split("/")
    for depth in range(len(parts)):
        ledger.open("/".join(parts[: depth + 1]), [Limit("all", 10**15)])
    def run(n):
        for _ in range(n):
            held = ledger.reserve(path, {"all": 100})
            ledger.settle(held.id, {"all": 50})
    return run
"""
_CLIENT = """
import json, openai
try:
    import httpx2 as httpx  # what newer versions of openai are made on
except ImportError:
    import httpx
from budgeteer.ledger import Allowance, Limit, MemoryLedger, SqliteLedger
answer = json.dumps({
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "tok " * 64}}],
    "usage": {"prompt_tokens": 120, "completion_tokens": 64, "total_tokens": 184},
}).encode()
reply = lambda request: httpx.Response(200, content=answer, headers={"content-type": "application/json"})
client = openai.OpenAI(api_key="sk", http_client=httpx.Client(transport=httpx.MockTransport(reply)))
messages = [{"role": "user", "content": "Where is order 4711, and when will it be here? " * 6}]
def calls(client):
    def run(n):
        for _ in range(n):
            client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=64)
    return run
def wrapped(ledger):
    from budgeteer.adapters.openai import wrap
    ledger.open("org", [Limit("all", 10**15)])
    return calls(wrap(client, Allowance(ledger, "org", {"all": 10**12})))
"""
CASES: dict[str, tuple[str, int]] = {
    "memory ledger, 1 scope": (_LEDGER + "run = prepare(MemoryLedger(), 'org')", 3000),
    "memory ledger, 4 scopes": (_LEDGER + "run = prepare(MemoryLedger(), 'org/team/key/session')", 2000),
    "sqlite ledger, 1 scope": (
        _LEDGER + "import tempfile; run = prepare(SqliteLedger(tempfile.mkdtemp(dir=HERE) + '/l.db'), 'org')",
        100,
    ),
    "sqlite ledger, 4 scopes": (
        _LEDGER + "import tempfile; run = prepare(SqliteLedger(tempfile.mkdtemp(dir=HERE) + '/l.db'), 'a/b/c/d')",
        100,
    ),
    "a call of a bare client": (_CLIENT + "run = calls(client)", 200),
    "a call of a wrapped client": (_CLIENT + "run = wrapped(MemoryLedger())", 200),
    "exact knapsack, 10,000 menus of 32": (
        """
import numpy as np
from budgeteer import Items, Menu
from budgeteer.allocate import menu_knapsack
rng = np.random.default_rng(1)
cost = np.sort(rng.integers(1, 1000, (10_000, 32)), axis=1)
gain = np.cumsum(rng.integers(0, 1000, (10_000, 32)), axis=1).astype(float)
items = Items(tuple(map(str, range(10_000))), menu=Menu.of(cost, gain))
build = getattr(menu_knapsack, "menu_knapsack", menu_knapsack)
allocator = build(exact=True)
budget = int(cost.mean(axis=1).sum())
def run(n):
    for _ in range(n):
        allocator.allocate(budget, items, allocator.init(items), rng=np.random.default_rng(0))
""",
        3,
    ),
    "sampler, 32 prompts x 8": (
        """
import numpy as np, torch
torch.set_num_threads(1)
from budgeteer.lab import pool
from budgeteer.models.policy import load_policy
from budgeteer.rl.sampler import sample
policy = load_policy()
items = pool.build("chains", 0, 64, 64).train[:32]
prompts, keys = policy.encode([item.prompt for item in items]), [item.key for item in items]
def run(n):
    for seed in range(n):
        sample(policy.model, keys, prompts, np.full(32, 8), max_tokens=96, markers=policy.markers, seed=seed)
""",
        2,
    ),
}
"""Name -> code that defines ``run(n)`` in either version, calls a round."""
WORKER = """
import json, sys, time
code, HERE = json.loads(sys.stdin.readline())
exec(code)
run(2)
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    n = int(line)
    begin, working = time.perf_counter(), time.process_time()
    run(n)
    print(json.dumps([time.perf_counter() - begin, time.process_time() - working]), flush=True)
"""


def environment(source: Path) -> dict[str, str]:
    """Of a process that imports the version in ``source``."""
    return {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


@contextlib.contextmanager
def worker(source: Path, code: str, folder: Path) -> Iterator[Callable[[int], tuple[float, float]]]:
    """A process of one version; gives a function of n: (elapsed, processor) seconds a call of n calls."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment(source), cwd=folder,
    )  # fmt: skip
    stdin, stdout = process.stdin, process.stdout
    assert stdin
    assert stdout

    def say(line: str) -> Any:
        stdin.write(line + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise SystemExit(f"a worker of {source} ended: its message is above")
        return json.loads(answer)

    def timed(n: int) -> tuple[float, float]:
        elapsed, worked = say(str(n))
        return elapsed / n, worked / n

    try:
        say(json.dumps([code, str(folder)]))
        yield timed
    finally:
        stdin.close()
        process.wait()


def started(source: Path, code: str) -> tuple[float, float]:
    """(elapsed, processor) seconds of a whole process."""
    timing = (
        "import resource, subprocess, sys, time; begin = time.perf_counter();"
        "subprocess.run([sys.executable, '-c', sys.argv[1]], check=True, stdout=subprocess.DEVNULL);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(time.perf_counter() - begin, used.ru_utime + used.ru_stime)"
    )
    done = subprocess.run(
        [sys.executable, "-c", timing, code], capture_output=True, text=True, check=True, env=environment(source)
    )
    elapsed, worked = map(float, done.stdout.split())
    return elapsed, worked


def compared(times: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Of the rounds of both versions: medians in microseconds, and ratios now / before with their 95 % intervals.

    A round's ratio is of the two blocks that ran one after the other.
    """
    now, before = np.array(times["now"]), np.array(times["before"])
    rng = np.random.default_rng(0)
    row: dict[str, Any] = {"rounds": len(now)}
    for column, name in enumerate(("elapsed", "processor")):
        ratio = now[:, column] / before[:, column]
        drawn = np.median(ratio[rng.integers(0, len(ratio), (2000, len(ratio)))], axis=1)
        row[name] = {
            "now_microseconds": float(np.median(now[:, column]) * 1e6),
            "before_microseconds": float(np.median(before[:, column]) * 1e6),
            "ratio": float(np.median(ratio)),
            "low": float(np.quantile(drawn, 0.025)),
            "high": float(np.quantile(drawn, 0.975)),
        }
    return row


def in_turns(blocks: dict[str, Callable[[], tuple[float, float]]], rounds: int) -> dict[str, Any]:
    """Both versions' blocks, the first of a round taking turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in blocks}
    for i in range(rounds):
        for name in list(blocks) if i % 2 else list(blocks)[::-1]:
            times[name].append(blocks[name]())
    return compared(times)


def gateways(versions: dict[str, Path], rounds: int, seconds: float) -> dict[str, Any]:
    """Processor time a request of both versions' gateways over a memory and a SQLite ledger."""
    cores = sorted(os.sched_getaffinity(0))
    client, core = cores[0], cores[-1]
    rows = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path(__file__).parent)))
        echo = stack.enter_context(running(client, [sys.executable, str(LOAD), "echo"], stdout=subprocess.PIPE))
        assert echo.stdout
        upstream = int(echo.stdout.readline())
        for ledger in ("memory", "sqlite"):
            variants = {}
            for name, source in versions.items():
                url = "memory:" if ledger == "memory" else str(folder / f"{name}.db")
                file = f"{ledger}-{name}"
                variants[name] = stack.enter_context(budgeteer(core, folder, file, url, upstream, source))
            for kind, body in (("requests", ASKED), ("streams", STREAMED)):
                task = {"kind": "closed", "connections": 8, "seconds": seconds, "body": body}
                blocks = {name: partial(a_request, client, variant, task) for name, variant in variants.items()}
                for block in blocks.values():
                    block()  # warm up
                rows[f"gateway, {ledger} ledger, {kind}"] = in_turns(blocks, rounds)
    return rows


def a_request(client: int, variant: Variant, task: dict[str, Any]) -> tuple[float, float]:
    """Elapsed time and a gateway's processor time, in seconds a request of a load."""
    seen = load(client, variant, **task)
    n = max(1, len(seen["times"]))
    return seen["seconds"] / n, seen["processor_seconds"] / n


def run(before: Path, quick: bool, only: str) -> dict[str, Any]:
    """All cases whose name contains ``only``."""
    versions = {"now": SOURCE, "before": before}
    rounds = 3 if quick else 31
    rows: dict[str, Any] = {}
    for name, code in STARTED.items():
        if only in name:
            for source in versions.values():
                started(source, code)  # writes the byte code
            rows[name] = in_turns({v: partial(started, source, code) for v, source in versions.items()}, rounds)
            show(name, rows[name])
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        for name, (code, n) in CASES.items():
            for row, pair in ((name, versions), (f"before again: {name}", {"now": before, "before": before})):
                if only in row:
                    with contextlib.ExitStack() as stack:
                        size = max(1, n // 10) if quick else n
                        blocks = {
                            v: partial(stack.enter_context(worker(source, code, Path(folder))), size)
                            for v, source in pair.items()
                        }
                        rows[row] = in_turns(blocks, rounds)
                    show(row, rows[row])
    if only in "gateway":
        for name, row in gateways(versions, 3 if quick else 11, 0.3 if quick else 2.0).items():
            rows[name] = row
            show(name, row)
    added = added_to_a_call(rows)
    return {"quick": quick, "rows": rows, **({"added_to_a_call": added} if added else {}), "machine": machine()}


def added_to_a_call(rows: dict[str, Any]) -> dict[str, float] | None:
    """What wrapping adds to a call of a client, in processor microseconds, and the ratio of the two versions."""
    bare, wrapped = rows.get("a call of a bare client"), rows.get("a call of a wrapped client")
    if not bare or not wrapped:
        return None
    now, before = (
        wrapped["processor"][f"{v}_microseconds"] - bare["processor"][f"{v}_microseconds"] for v in ("now", "before")
    )
    return {"now_microseconds": now, "before_microseconds": before, "ratio": now / before}


def show(name: str, row: dict[str, Any]) -> None:
    """One line of the table."""
    worked, elapsed = row["processor"], row["elapsed"]
    print(
        f"{name:52} processor {worked['ratio']:.3f} [{worked['low']:.3f}, {worked['high']:.3f}]"
        f"  elapsed {elapsed['ratio']:.3f} [{elapsed['low']:.3f}, {elapsed['high']:.3f}]"
        f"  {worked['now_microseconds']:,.0f} us",
        flush=True,
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="src folder of the other version")
    parser.add_argument("--only", default="", help="the cases whose name contains this")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    results = run(args.before.resolve(), args.quick, args.only)
    if "added_to_a_call" in results:
        print(f"what wrapping adds to a call: {results['added_to_a_call']['ratio']:.3f} of before")
    out = args.out or (None if args.quick or args.only else OUT)
    if out is not None:
        out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
