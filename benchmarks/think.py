"""Thinking budgets and samples on the embedded thinking model, every strategy beside greedy decoding and one request.

    python benchmarks/think.py                # writes benchmarks/results/think.json
    python benchmarks/think.py --only tight   # renews one part of it: tight, wide or effort
    python benchmarks/think.py --quick        # smoke test: 10 questions, 1 seed, writes nothing without --out

300 held-out problems (sums, stories, comparisons, sorting, dates; all levels), 5 seeds, each
question with a budget of its own, as ``budgeteer frontier`` runs them (a run that is stopped goes on: ``--folder``).
The model is asked in a chat through llama.cpp, which reads the file that ``budgeteer lab export --gguf`` writes.

Part ``tight``: budgets of sampled tokens at and below what one trace takes. Greedy decoding is cut by the budget like
all else; ``truncate`` at the same budget is its equal in name. ``low effort`` asks in the chat template for less
thinking, which needs no strategy at all. Part ``wide``: searches that go step by step, with the tokens of two or three
traces; votes and checks of whole traces are in ``benchmarks/search_thinker.py``. ``one request`` is self-consistency,
which asks for all samples that fit in one request. Part ``effort``: what a word of effort buys where hardly a trace is
cut. Two totals are reported for every point: sampled tokens, and with
the input of every call. Intervals draw questions and seeds; differences are paired, to greedy, to low effort and to one
request at the same budget.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from budgeteer.core.budget import Budget
from budgeteer.lab import frontier, questions
from budgeteer.lab.results import write_text
from budgeteer.lab.thinker.export import write_gguf
from budgeteer.models.llama_cpp import LlamaCpp
from budgeteer.models.thinker import THINKER
from budgeteer.solve import Answer, Strategy, Task, styles
from budgeteer.solve.runner import Pause
from budgeteer.strategies import (
    beam,
    budget_forcing,
    convergence,
    diffadapt,
    direct,
    dora,
    elastic,
    plan_and_budget,
    rebase,
    scale,
    self_consistency,
    truncate,
)
from budgeteer.strategies.scorer import mean_logprob
from steps import table

OUT = Path(__file__).parent / "results" / "think.json"
BUDGETS = {"tight": (64, 96, 128, 192), "wide": (400,), "effort": (960,)}
SEEDS = 5
CAP, MOST = 400, 32
STYLE = "think:answer_tokens=32"
SAMPLED = frozenset({"one request", "diffadapt", "rebase logprob", "dora logprob", "beam logprob"})
"""The others decode greedily and are run with one seed, whose rows count for every seed."""
REFERENCES = frozenset({"one request", "greedy, low effort"})
"""What differences are taken to, beside greedy decoding."""
_WORKED = re.compile(r"(\d+)\s*([-+*/])\s*(\d+)\s*=\s*(-?\d+)")


def calculations_hold(question: str, trace: str) -> float:
    """The share of the calculations of a trace that are right; NaN without any."""
    right = [_holds(int(a), sign, int(b), int(c)) for a, sign, b, c in _WORKED.findall(trace)]
    return sum(right) / len(right) if right else math.nan


def _holds(a: int, sign: str, b: int, c: int) -> bool:
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b and a % b == 0 else None}[sign] == c


def asked_so(strategy: Strategy, style: str) -> Strategy:
    """The strategy, asking in another style."""

    async def solve(task: Task) -> Answer:
        return await strategy.solve(replace(task, style=styles.style_of(style, styles.TaskInfo("thinking"))))

    return Strategy(solve, strategy.needs)


def strategies(part: str) -> dict[str, Strategy]:
    """All that is compared in a part; the first is what differences are taken to."""
    greedy = direct(CAP, temperature=0.0)
    if part == "tight":
        return {
            "greedy": greedy,
            "greedy, low effort": asked_so(greedy, "think:effort=low"),
            "greedy, no thinking": asked_so(greedy, "think:on=false"),
            "one request": self_consistency(MOST, max_tokens=CAP),
            "truncate": truncate(CAP),
            "budget-forcing": budget_forcing(CAP),
            "budget-forcing, low effort": asked_so(budget_forcing(CAP), "think:effort=low"),
            "elastic": elastic(CAP),
            "convergence": convergence(every=32, agree=2, thinking=CAP),
            "plan-and-budget": plan_and_budget(thinking=CAP),
            "scale": scale(max_tokens=CAP, temperature=0.0),
        }
    if part == "effort":
        whole = direct(BUDGETS[part][0], temperature=0.0)
        return {
            "greedy": whole,
            "greedy, low effort": asked_so(whole, "think:effort=low"),
            "greedy, high effort": asked_so(whole, "think:effort=high"),
        }
    return {
        "greedy": greedy,
        "greedy, low effort": asked_so(greedy, "think:effort=low"),
        "one request": self_consistency(MOST, max_tokens=CAP),
        "diffadapt": diffadapt(max_tokens=CAP),
        "rebase logprob": rebase(mean_logprob(), 8, step="\n", step_tokens=48, depth=32, temperature=1.0),
        "dora logprob": dora(mean_logprob(), 8, step="\n", step_tokens=48, depth=32, temperature=1.0),
        "beam logprob": beam(mean_logprob(), 8, width=2, step="\n", step_tokens=48, depth=32, temperature=1.0),
    }


def measure(
    part: str, budgets: Sequence[int], n: int, seeds: Sequence[int], folder: Path, gguf: Path, arms: Sequence[str] = ()
) -> dict[str, Any]:
    """All numbers of a part; of these arms, or of all."""
    asked = questions.load("thinking", limit=n, seed=77)
    model = LlamaCpp(gguf, slots=MOST, context=1024, threads=1)
    style = styles.style_of(STYLE, asked.info.by(model))
    compared = {name: strategy for name, strategy in strategies(part).items() if name in (arms or strategies(part))}

    def told(cell: frontier.Cell, row: Any, progress: Any) -> None:
        if progress.done == progress.total:
            print(f"{cell.strategy}, {cell.budget}, seed {cell.seed}: {progress.correct} right", file=sys.stderr)

    async def work() -> dict[frontier.Cell, Any]:
        cells: dict[frontier.Cell, Any] = {}
        try:
            for group, drawn in ((compared.keys() - SAMPLED, seeds[:1]), (compared.keys() & SAMPLED, seeds)):
                chosen = {name: strategy for name, strategy in compared.items() if name in group}
                cells |= await frontier.measure(
                    chosen, [Budget.parse(f"output:{units}") for units in budgets], drawn, asked, model, style,
                    folder / part, about={"benchmark": "think"}, concurrency=48, timeout=600, prices=None,
                    durable=False, pause=Pause(), on_row=told,
                ) or {}  # fmt: skip
        finally:
            await model.aclose()
        return cells

    measured = asyncio.run(work())
    cells = {
        (cell := frontier.Cell(name, f"output:{units}", seed)): measured.get(cell, measured.get(replace(cell, seed=0)))
        for units in budgets
        for name in compared
        for seed in seeds
    }
    config = {"task": "thinking", "questions": n, "seeds": list(seeds), "style": STYLE}
    results = frontier.analyse(cells, "output", config)
    for reference in REFERENCES & compared.keys():
        first = dict(sorted(cells.items(), key=lambda pair: pair[0].strategy != reference))
        results["differences"] += frontier.analyse(first, "output", config)["differences"]
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=THINKER, help="folder (default: the embedded thinking model)")
    parser.add_argument("--quick", action="store_true", help="smoke test; the numbers mean nothing")
    parser.add_argument("--only", choices=tuple(BUDGETS), help="measure one part; the file's other part stays as it is")
    parser.add_argument("--arms", help="these strategies only, 'greedy;budget-forcing'; the first one is greedy")
    parser.add_argument("--folder", type=Path, default=Path("runs/think"), help="rows so far (default %(default)s)")
    parser.add_argument("--out", type=Path, help=f"results file (default: {OUT.name} beside this file; none if quick)")
    args = parser.parse_args(argv)
    folder = args.folder / "quick" if args.quick else args.folder
    out = args.out or (None if args.quick else OUT)
    old = args.only and out is not None and out.is_file()
    results: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if old and out is not None else {}
    with tempfile.TemporaryDirectory() as scratch:
        gguf = Path(scratch) / "thinker.gguf"
        write_gguf(args.model, gguf)
        for part in BUDGETS if args.only is None else (args.only,):
            n, seeds = (10, range(1)) if args.quick else (300, range(SEEDS))
            budgets = BUDGETS[part][: 2 if args.quick else None]
            results[part] = measure(part, budgets, n, seeds, folder, gguf, args.arms.split(";") if args.arms else ())
            print(table(results[part]))
    if out is not None:
        write_text(json.dumps(results, indent=1) + "\n", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
