"""Steers, planners and searches by steps on SmolLM2-135M or Gemma 3 270M, beside greedy decoding and one request.

    python benchmarks/think_small.py                  # writes benchmarks/results/think_small.json
    python benchmarks/think_small.py --model gemma3   # renews the other model's part; see benchmarks/gemma3.py
    python benchmarks/think_small.py --quick          # smoke test: 2 questions, 1 seed; writes nothing without --out

Sums of 2 to 4 terms of one digit, after worked examples with reasoning, through llama.cpp's server: the family
"chain_sum, reasoned" of ``benchmarks/smollm2.py``, 8 samples of each seed at temperature 0.7, and a greedy one.
Nothing here asks for log-probabilities, which over Gemma's 262,144 tokens halve its speed. All strategies are run on a
question before the next one is asked, so a run that is stopped has all of the first ones (``--questions``); it goes on
where it was (``--pool``). ``truncate, 16`` has a budget of 16 sampled tokens, a search by steps one of ``WIDE``; votes
and checks have none but their 8 samples, which they share. What decodes greedily has one row, which counts for every
seed.

Each row has its paired differences, intervals over questions and seeds: to greedy decoding; to greedy decoding cut by
the same budget; to the question asked for an answer at once; to a choice at random (one sample); to the check alone
(``greedy first, checked``: the greedy trace unless a calculation that it writes out is wrong, else samples until one
passes); and to self-consistency in one request at equal tokens: sampled ones, all with the prompt of every request, all
with the prompt read once. What takes more tokens than 8 samples is compared with 8, and ``beyond`` names the count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.lab.results import write_text
from budgeteer.lab.stats import crossed, crossed_weights
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.llama_cpp import LlamaCpp
from budgeteer.models.model import Model
from budgeteer.solve import Budgeted, Question, Strategy, Style, Task, derive, styles
from budgeteer.solve.lines import Lines
from budgeteer.solve.styles import TaskInfo
from budgeteer.strategies import (
    beam,
    best_of_n,
    budget_forcing,
    convergence,
    direct,
    dora,
    elastic,
    plan_and_budget,
    rebase,
    scale,
    self_consistency,
    truncate,
)
from budgeteer.strategies.scorer import programmatic
from gemma3 import gemma3
from search import greedy_first
from smollm2 import (
    MODELS,
    ROOT,
    SAMPLES,
    TEMPERATURE,
    Family,
    Measured,
    at_equal,
    draw,
    gym_families,
    one_by_one,
    play,
    shown,
)
from think import calculations_hold

OUT = ROOT / "benchmarks" / "results" / "think_small.json"
BUDGETS, PLANNED, WIDE = (16, 32), (32, 64), 96
"""Sampled tokens: of steers, of strategies that plan first, of searches by steps."""
REQUESTS = (1, 2, 4, 8)
UNLIMITED = 10**6
COUNTS = ("output", "all", "cached")


def family(n: int) -> Family:
    """The questions, an answer of at most 8 tokens each."""
    found = gym_families(1, n)[-1]
    return replace(found, style=replace(found.style, answer_tokens=8))


def at_once() -> Style:
    """The same worked examples without their reasoning."""
    return styles.direct(TaskInfo("chain_sum", True))


def live(cap: int) -> dict[str, tuple[Strategy, int, bool, bool]]:
    """Name -> strategy, its budget of sampled tokens, whether it samples, whether the answer is asked for at once."""
    made: dict[str, tuple[Strategy, int, bool, bool]] = {
        "greedy, answer at once": (direct(8), UNLIMITED, False, True),
    }
    steers = {
        "greedy": direct(cap),
        "truncate": truncate(cap),
        "budget-forcing": budget_forcing(cap),
        "elastic": elastic(cap),
        "convergence": convergence(every=8, agree=2, thinking=cap),
    }
    planners = {"plan-and-budget": plan_and_budget(thinking=cap), "scale": scale(max_tokens=cap, temperature=0.0)}
    for strategies, budgets in ((steers, BUDGETS), (planners, PLANNED)):
        made |= {
            f"{name}, {budget}": (strategy, budget, False, False)
            for name, strategy in strategies.items()
            for budget in budgets
        }
    step: dict[str, Any] = {"step": ". ", "step_tokens": 16, "depth": 8, "temperature": TEMPERATURE}
    scorer = programmatic(calculations_hold)
    return made | {
        f"rebase checked, {WIDE}": (rebase(scorer, 4, **step), WIDE, True, False),
        f"dora checked, {WIDE}": (dora(scorer, 4, **step), WIDE, True, False),
        f"beam checked, {WIDE}": (beam(scorer, 4, width=2, **step), WIDE, True, False),
    }


async def solve(
    model: Model, asked: Family, number: int, name: str, strategy: Strategy, budget: int, seed: int, style: Style
) -> dict[str, Any]:
    """One strategy on one question."""
    ledger = MemoryLedger()
    ledger.open("bench", [Limit("output", budget)])
    text = asked.items[number][0]
    question = Question(f"{asked.name}:{number:04d}", text)
    task = Task(
        question, Budgeted(model, Allowance(ledger, "bench", {"output": budget})), style,
        derive(seed, asked.name, number),
    )  # fmt: skip
    answer = await strategy.solve(task)
    output, read = (float(x or 0) for x in (task.model.spend.usage.output, task.model.spend.usage.input))
    if output > budget:
        raise AssertionError(f"{name} spent {output} of {budget} tokens")
    once = model.count(style.prompt(text))
    return {
        "name": name, "number": number, "seed": seed, "right": float(asked.right(number, answer.answer)),
        "output": output, "all": output + read, "cached": output + min(read, once),
    }  # fmt: skip


async def measure(model: Model, asked: Family, n: int, seeds: int, file: Lines) -> list[dict[str, Any]]:
    """Rows of all questions, those of ``file`` among them: samples, and of each strategy that is asked live."""
    rows = list(file.earlier)
    there = {(row["name"], row["number"], row["seed"]) for row in rows}
    arms = live(asked.cap)
    room = asyncio.Semaphore(SAMPLES)

    async def one(name: str, number: int, seed: int) -> dict[str, Any]:
        strategy, budget, _, brief = arms[name]
        async with room:
            style = at_once() if brief else asked.style
            return await solve(model, asked, number, name, strategy, budget, seed, style)

    for number in range(n):
        if ("samples", number, 0) not in there:
            drawn = await draw(model, asked, number, seeds, logprobs=False)
            rows.append({"name": "samples", "seed": 0, **drawn})
            file.append(rows[-1])
        wanted = [(name, seed) for name, arm in arms.items() for seed in range(seeds if arm[2] else 1)]
        todo = [(name, number, seed) for name, seed in wanted if (name, number, seed) not in there]
        for done in asyncio.as_completed([one(*which) for which in todo]):
            rows.append(await done)
            file.append(rows[-1])
        print(f"\r{number + 1}/{n} questions ", end="", file=sys.stderr, flush=True)
    return [row for row in rows if row["number"] < n]


def tables(rows: Sequence[Mapping[str, Any]], asked: Family, n: int, seeds: int) -> dict[str, Measured]:
    """What each strategy did, [seeds, questions]: replayed on the samples, or read from its rows."""
    samples = sorted((row for row in rows if row["name"] == "samples"), key=lambda row: row["number"])
    first = replace(asked, items=asked.items[:n])
    replayed = {
        "greedy": self_consistency(1, max_tokens=asked.cap, temperature=0.0),
        **{f"self-consistency {k}": self_consistency(k, max_tokens=asked.cap) for k in REQUESTS},
        f"best-of-n checked {SAMPLES}": best_of_n(programmatic(calculations_hold), SAMPLES, max_tokens=asked.cap),
        f"greedy first, checked {SAMPLES}": greedy_first(calculations_hold, SAMPLES, max_tokens=asked.cap),
    }
    measured = {}
    for name, strategy in replayed.items():
        each = [
            play(one_by_one(lambda cap, s=strategy: s), [first], samples, seed, 10**12, "output")
            for seed in range(seeds)
        ]
        measured[name] = Measured(*(np.array(column) for column in zip(*each, strict=True)))
    own: dict[tuple[str, int, int], Mapping[str, Any]] = {
        (row["name"], row["seed"], row["number"]): row for row in rows if row["name"] != "samples"
    }
    for name in dict.fromkeys(key[0] for key in own):
        drawn = max(seed for other, seed, _ in own if other == name) + 1
        columns = {
            key: np.array([[own[name, seed % drawn, number][key] for number in range(n)] for seed in range(seeds)])
            for key in ("right", *COUNTS)
        }
        nothing = np.full((seeds, n), np.nan)
        measured[name] = Measured(**columns, vouched=nothing, samples=nothing)
    return measured


def analyse(measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """A row for each strategy."""
    requests = [measured[f"self-consistency {k}"] for k in REQUESTS]
    seeds, questions = requests[0].right.shape
    weights = crossed_weights(questions, seeds)
    table = []
    for name, own in measured.items():
        budget = name.rpartition(", ")[2]
        references = {
            "greedy": measured["greedy"],
            "greedy_cut": measured.get(f"greedy, {budget}"),
            "at_once": measured["greedy, answer at once"],
            "random": requests[0],
            "check": measured[f"greedy first, checked {SAMPLES}"],
        }
        row: dict[str, Any] = {"name": name, "accuracy": shown(crossed(own.right, weights))}
        row |= {key: float(getattr(own, key).mean()) for key in COUNTS}
        for label, other in references.items():
            row[f"minus_{label}"] = None if other is None else shown(crossed(own.right - other.right, weights))
        row["beyond"] = []
        for key in COUNTS:
            same = at_equal(own, requests, key)
            if same is None:
                same = requests[-1].right
                row["beyond"].append(key)
            row[f"at_equal_{key}"] = shown(crossed(own.right - same, weights))
        table.append(row)
    return table


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for people, differences in points."""

    def points(ci: Mapping[str, float] | None) -> str:
        return (
            f"{'-':>20}"
            if ci is None
            else f"{100 * ci['mean']:+5.1f} [{100 * ci['low']:+.0f}, {100 * ci['high']:+.0f}]"
        )

    keys = ("minus_greedy", "minus_greedy_cut", "minus_check", "at_equal_output", "at_equal_all", "at_equal_cached")
    lines = [f"{'':28} right  output    all  cached  " + " ".join(f"{key:>20}" for key in keys) + "  beyond"]
    lines += [
        f"{row['name']:28} {100 * row['accuracy']['mean']:5.1f}  {row['output']:6.0f} {row['all']:6.0f} "
        f"{row['cached']:7.0f}  " + " ".join(f"{points(row[key]):>20}" for key in keys) + f"  {','.join(row['beyond'])}"
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(MODELS), default="smollm2", help="default %(default)s")
    parser.add_argument("--quick", action="store_true", help="smoke test; the numbers mean nothing")
    parser.add_argument("--questions", type=int, help="the first so many (default 40, of Gemma 20)")
    parser.add_argument("--seeds", type=int, default=1, help="default %(default)s")
    parser.add_argument("--pool", type=Path, help="folder of the rows so far (default runs/think_small)")
    parser.add_argument("--out", type=Path, help=f"results file (default: {OUT.name} beside this file; none if quick)")
    args = parser.parse_args(argv)
    small = args.model == "gemma3"
    n = 2 if args.quick else args.questions or (20 if small else 40)
    seeds = 1 if args.quick else args.seeds
    folder = (args.pool or ROOT / "runs" / "think_small") / ("quick" if args.quick else "")
    asked = family(40)
    file = Lines(folder / f"{args.model}-{seeds}.jsonl", sync=False)
    weights = gemma3(folder) if small else None
    model = LlamaCpp(weights, slots=SAMPLES, context=1024, stall=900.0)

    async def work() -> list[dict[str, Any]]:
        try:
            return await measure(model, asked, n, seeds, file)
        finally:
            await model.aclose()

    try:
        rows = asyncio.run(work())
    finally:
        file.close()
    table = analyse(tables(rows, asked, n, seeds))
    print()
    print(text(table))
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        results = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
        results[args.model] = {
            "model": f"{MODELS[args.model]}, llama.cpp's server", "questions": n, "seeds": seeds, "samples": SAMPLES,
            "temperature": TEMPERATURE, "cap": asked.cap, "table": table,
        }  # fmt: skip
        write_text(json.dumps(results, indent=1) + "\n", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
