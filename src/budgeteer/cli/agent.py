"""budgeteer agent: what pays, one agent, many or none, and how long training one takes, from one's own runs."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

RUNS = (
    "rows with correct (or score), tokens, id, perhaps budget, agents, task, tools and relayed (how right a reader of "
    "the run's message alone is), such as those of solve --out"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    plan = commands.add_parser("plan", help="one agent, many, or none: what pays at a budget")
    plan.add_argument("runs", metavar="RUNS", help=f"{RUNS}; - is JSON lines on standard input")
    plan.add_argument("--budget", required=True, metavar="TOKENS", help="of a question, such as 8k")
    plan.add_argument("--message", type=int, default=64, metavar="TOKENS", help="of a message (default %(default)s)")
    plan.add_argument(
        "--fidelity",
        type=float,
        default=None,
        help="share of an agent's bias that a message keeps (default: from runs with relayed, else 1)",
    )
    plan.add_argument("--shared", type=float, default=None, help="correlation of errors (default: from repeated runs)")
    plan.add_argument("--sequential", action="store_true", help="each step of the task needs the one before it")
    plan.add_argument("--worth", type=float, default=None, metavar="TOKENS", help="of a right answer (default: any)")
    plan.add_argument(
        "--guess", type=float, default=0.5, help="accuracy of guessing; 0 for free answers (default %(default)g)"
    )
    plan.add_argument("--window", type=int, default=None, metavar="TOKENS", help="of context of the one that settles")
    plan.add_argument("--seed", type=int, default=0, help="of the bootstrap (default %(default)s)")
    plan.add_argument("--out", type=Path, metavar="FILE", help="all numbers as JSON")
    workers = commands.add_parser("workers", help="training an agent: workers that wait for the trainer, or do not")
    workers.description = (
        "How long training takes with workers that wait for the trainer, are one step ahead, or never wait (DART): "
        "steps of the trainer are simulated on recorded durations. The table has the total time, how busy environments "
        "and trainer were, and by how many updates the weights that made a trajectory were behind."
    )
    workers.add_argument(
        "runs",
        metavar="RUNS",
        help="rows with task (or id) and seconds, a trajectory each and how long it held its environment; - is JSON "
        "lines on standard input",
    )
    workers.add_argument("--environments", type=int, required=True, metavar="N", help="trajectories at once")
    workers.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="TASKS",
        help="of a step of the trainer, each with all its trajectories (default %(default)s)",
    )
    workers.add_argument("--train-seconds", type=float, required=True, metavar="SECONDS", help="of a step")


def run(args: argparse.Namespace) -> int:
    """Do the sub-command."""
    return _workers(args) if args.action == "workers" else _plan(args)


def _workers(args: argparse.Namespace) -> int:
    """Simulate and print."""
    from budgeteer.agent.workers import AHEAD, lines, read, simulated

    runs = read(args.runs)
    sizes = {"environments": args.environments, "batch": args.batch, "train_seconds": args.train_seconds}
    made = [simulated(runs, ahead=ahead, **sizes) for ahead in AHEAD]
    sys.stdout.write("\n".join(lines(made)) + "\n")
    return 0


def _plan(args: argparse.Namespace) -> int:
    """Fit, decide and print."""
    from budgeteer.agent.plan import advised, lines, read
    from budgeteer.core.budget import Budget
    from budgeteer.core.errors import InvalidInput
    from budgeteer.core.files import write_text

    budget = Budget.parse(args.budget)
    if budget.kind != "all" or not budget.amount or budget.window is not None:
        raise InvalidInput(f"--budget {args.budget!r} is no number of tokens above 0; write 8k")
    advice = advised(
        read(args.runs),
        budget.amount,
        message=args.message,
        fidelity=args.fidelity,
        shared=args.shared,
        sequential=args.sequential,
        worth=args.worth,
        guess=args.guess,
        window=args.window,
        seed=args.seed,
    )
    if args.out is not None:
        write_text(json.dumps(_plain(asdict(advice)), indent=1) + "\n", args.out)
    sys.stdout.write("\n".join(lines(advice, budget.amount)) + "\n")
    return 0


def _plain(value: Any) -> Any:
    """JSON data: arrays as lists, what is not known as null."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
