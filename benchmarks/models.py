"""The embedded reasoner as a Model: what sharing batches brings, and what the protocol and the accounting cost.

    python benchmarks/models.py            # writes benchmarks/results/models.json
    python benchmarks/models.py --quick    # smoke test: few calls, writes nothing without --out

One call at a time against 32 and 128 at a time, in one process and in turns: bare; behind a budget, an account a call;
and as ``budgeteer solve`` asks, with a strategy, an account and a line a question (``direct`` for one sample, else
``self-consistency``). Wall time and CPU time of the whole process are both given: on a busy machine the second is the
steadier. What is not spent in a decoding step (encoding, random numbers, hand-over between threads, futures; behind a
budget: bounds, reservation, settlement) is overhead, measured as CPU time of the process less that of the steps;
``more`` is what a way has above ``bare``, as milliseconds a call and as a share of its time. Use an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.lab import pool
from budgeteer.lab.asking import STYLE
from budgeteer.lab.results import installed, machine, to_json, write_text
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models import reasoner
from budgeteer.models.model import Request
from budgeteer.models.reasoner import Reasoner
from budgeteer.solve import Budgeted, Question
from budgeteer.solve.runner import Settings as RunSettings
from budgeteer.solve.runner import run
from budgeteer.strategies import direct, self_consistency
from sampler import PACKAGES

OUT = Path(__file__).parent / "results" / "models.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of a measurement.

    Attributes:
        loads: (calls at a time, choices of a call, calls of a round).
        repetitions: rounds.
        max_tokens: cap of a call.
        seed: of the questions; call k of a round draws with seed k.
    """

    loads: tuple[tuple[int, int, int], ...] = ((1, 1, 24), (32, 1, 256), (128, 1, 512), (32, 8, 64))
    repetitions: int = 9
    max_tokens: int = 96
    seed: int = 0


QUICK = Settings(loads=((1, 1, 4), (32, 1, 16), (128, 1, 128), (32, 8, 4)), repetitions=1)
WAYS = ("bare", "budgeted", "solved")


@dataclass(slots=True)
class Steps:
    """Time in decoding steps: wall and CPU seconds."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def watched() -> Iterator[Steps]:
    """Have the steps of every batch timed."""
    steps, original = Steps(), reasoner._Batch.step

    def timed(batch: Any) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        original(batch)
        steps.wall += time.perf_counter() - wall
        steps.cpu += time.thread_time() - cpu

    reasoner._Batch.step = timed  # type: ignore[method-assign]
    try:
        yield steps
    finally:
        reasoner._Batch.step = original  # type: ignore[method-assign]


async def asked(model: Reasoner, requests: Sequence[Request], at_once: int, budgeted: bool) -> int:
    """Tokens of all requests, so many at a time; behind a budget, each has its own."""
    ledger = MemoryLedger()
    spent = 0

    async def ask_model(k: int, request: Request) -> None:
        nonlocal spent
        asked: Any = model
        if budgeted:
            account = f"q{k}"
            ledger.open(account, [Limit("all", 10_000)])
            asked = Budgeted(model, Allowance(ledger, account, {"all": 10_000}))
        response = await asked.generate(request)
        spent += response.usage.output

    waiting = iter(enumerate(requests))

    async def worker() -> None:
        for k, request in waiting:
            await ask_model(k, request)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return spent


async def solved(model: Reasoner, requests: Sequence[Request], at_once: int) -> int:
    """Tokens of the same questions, asked by a strategy."""
    n, cap = requests[0].n, requests[0].max_tokens
    strategy = direct(cap, 1.0) if n == 1 else self_consistency(n, max_tokens=cap)
    questions = [Question(f"q{k}", str(request.prompt)) for k, request in enumerate(requests)]
    finished = await run(questions, strategy, model, STYLE, "10k", RunSettings(concurrency=at_once))
    return sum(row["tokens"]["output"] for row in finished.rows)


async def a_round(model: Reasoner, requests: Sequence[Request], at_once: int, way: str) -> dict[str, float]:
    """Seconds and tokens of all requests, so many at a time."""
    with watched() as steps:
        wall, cpu = time.perf_counter(), time.process_time()
        if way == "solved":
            spent = await solved(model, requests, at_once)
        else:
            spent = await asked(model, requests, at_once, way == "budgeted")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"tokens": spent, "wall": wall, "cpu": cpu, "step_wall": steps.wall, "step_cpu": steps.cpu}


async def measure(settings: Settings) -> list[dict[str, Any]]:
    """One entry a variant."""
    items = pool.build("real", settings.seed, 512, 64).train
    rounds: dict[tuple[int, int, str], list[dict[str, float]]] = {}
    model = Reasoner()
    try:
        for repetition in range(-1, settings.repetitions):
            order = [(*load, way) for load in settings.loads for way in WAYS]
            for at_once, choices, calls, way in order if repetition % 2 else order[::-1]:
                requests = [
                    Request(items[k % 512].prompt, settings.max_tokens, choices, seed=k, stop=STYLE.stop)
                    for k in range(calls)
                ]
                round_result = await a_round(model, requests, at_once, way)
                if repetition >= 0:
                    rounds.setdefault((at_once, choices, way), []).append(round_result | {"calls": calls})
    finally:
        await model.aclose()
    return [
        {"at_once": a, "choices": c, "way": way, **summary(rounds_of_variant, rounds[a, c, "bare"])}
        for (a, c, way), rounds_of_variant in sorted(rounds.items())
    ]


def summary(rounds: Sequence[dict[str, float]], bare: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Medians over rounds; what is more than bare of the same round."""
    column = {name: np.array([r[name] for r in rounds]) for name in rounds[0]}
    overhead = column["cpu"] - column["step_cpu"]
    more = overhead - np.array([r["cpu"] - r["step_cpu"] for r in bare])
    return {
        "more_ms_per_call": float(np.median(more / column["calls"] * 1e3)),
        "more_share_of_cpu": float(np.median(more / column["cpu"])),
        "tokens_per_second": float(np.median(column["tokens"] / column["wall"])),
        "tokens_per_cpu_second": float(np.median(column["tokens"] / column["cpu"])),
        "overhead_ms_per_call": float(np.median(overhead / column["calls"] * 1e3)),
        "overhead_share_of_cpu": float(np.median(overhead / column["cpu"])),
        "step_ms_per_call": float(np.median(column["step_cpu"] / column["calls"] * 1e3)),
        "mean_length": float(np.mean(column["tokens"] / column["calls"])),
        "rounds": list(rounds),
    }


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Tokens a second of many at a time over one at a time, one choice a call, round by round."""
    by_load = {}
    single = {(r["at_once"], r["way"]): r for r in rows if r["choices"] == 1}
    for (at_once, way), many in single.items():
        single_row = single[1, way]
        if single_row is many:
            continue
        for clock in ("wall", "cpu"):
            ratio = [
                (m["tokens"] / m[clock]) / (o["tokens"] / o[clock])
                for o, m in zip(single_row["rounds"], many["rounds"], strict=True)
            ]
            by_load[f"{at_once} at once, {way}, {clock} time"] = {
                "median": float(np.median(ratio)),
                "low": min(ratio),
                "high": max(ratio),
            }
    return by_load


def table(results: dict[str, Any]) -> str:
    """The results for people."""
    lines = [
        f"{results['machine']['cpu']}, {results['machine']['cores']} cores, load {results['machine']['load_before']}",
        "at once  choices  way       tokens/s  per CPU-s  decoding ms/call  overhead ms/call  more ms/call  of time",
    ]
    lines += [
        f"{r['at_once']:>7}  {r['choices']:>7}  {r['way']:<8} {r['tokens_per_second']:>9,.0f} "
        f"{r['tokens_per_cpu_second']:>10,.0f} {r['step_ms_per_call']:>17.2f} {r['overhead_ms_per_call']:>17.3f} "
        f"{r['more_ms_per_call']:>13.3f} {r['more_share_of_cpu']:>8.1%}"
        for r in results["variants"]
    ]
    lines += [
        f"{name}: {r['median']:.1f}x ({r['low']:.1f}-{r['high']:.1f}) the tokens a second of one at a time"
        for name, r in results["many_over_one"].items()
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke test; the numbers mean nothing")
    parser.add_argument("--out", type=Path, help=f"results file (default: {OUT.name} beside this file; none if quick)")
    args = parser.parse_args(argv)
    settings = QUICK if args.quick else Settings()
    before = machine()
    rows = asyncio.run(measure(settings))
    results = {
        "quick": args.quick,
        "machine": before,
        "versions": installed(PACKAGES),
        "settings": asdict(settings),
        "variants": rows,
        "many_over_one": ratios(rows),
    }
    print(table(results))
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        write_text(json.dumps(to_json(results), indent=1) + "\n", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
