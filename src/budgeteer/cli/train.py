"""budgeteer train: one run of one recipe."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from budgeteer.cli._options import Lines, add_training, spec_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("recipe", help="such as grpo, duet, vip; see budgeteer methods")
    parser.add_argument("--budget", default=None, help="sampled tokens of the run, such as 300k (default: no cap)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/train"), help="folder (default %(default)s)")
    parser.add_argument("--save-model", type=Path, default=None, help="write the trained policy to this folder")
    add_training(parser)


def run(args: argparse.Namespace) -> int:
    """Train, write the run's results.json, print one line."""
    from budgeteer.budget import Budget
    from budgeteer.errors import InvalidInput
    from budgeteer.lab import report, results
    from budgeteer.lab.compare import Update
    from budgeteer.lab.run import execute, one_thread
    from budgeteer.rl import recipes

    recipes.get(args.recipe)
    tokens, shown = None, "100%"
    if args.budget is not None:
        budget = Budget.parse(args.budget)
        if budget.amount is None or budget.kind not in ("all", "output"):
            raise InvalidInput(f"--budget {args.budget!r} must be a number of tokens here; percentages are for compare")
        tokens, shown = budget.amount, str(budget)
    spec = spec_of(args, args.recipe, shown, tokens, args.seed)
    one_thread()
    lines, paused = Lines(1), False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal paused
        paused = True

    def on_step(progress: Any, config: Any) -> bool:
        last = progress.curve[-1]["accuracy"] if progress.curve else float("nan")
        lines(Update(spec.name, progress.step, config.steps, progress.used, tokens, progress.seconds, last, "running"))
        return not paused

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        record = execute(spec, args.out / "checkpoints" / spec.name, on_step, args.save_model)
    finally:
        signal.signal(signal.SIGINT, before)
        lines.close()
    if record is None:
        sys.stderr.write("paused; the same command continues where it stopped\n")
        return 130
    found = {
        "schema": results.SCHEMA, "runs": [record], "comparisons": [], "config": json.loads(spec.to_json()),
        "versions": results.versions(),
    }  # fmt: skip
    path = results.write(found, args.out / "results.json")
    (args.out / "checkpoints" / spec.name / "checkpoint.pt").unlink(missing_ok=True)
    page = report.write_report(found, args.out / "report.html")
    sys.stdout.write(f"{report.table(found)}\n\nresults: {path.resolve()}\nreport: {page.resolve()}\n")
    return 0
