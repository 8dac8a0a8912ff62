"""budgeteer compare: recipes at equal budgets, over seeds, with a report."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from budgeteer.cli._options import RAY, Lines, add_training, spec_of

OUT = """folder of the results, the report and the checkpoints; calling again with it does what is missing, with other
settings it is refused. Trained policies are not kept: budgeteer train keeps one (default %(default)s)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "arms",
        nargs="+",
        metavar="RECIPE@BUDGET",
        help="such as uniform-answer-stop@50%% duet@50%% vip@300k, grpo:reward=NAME@50%% with a reward of budgeteer "
        "methods reward; percentages are of what grpo@100%% uses",
    )
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help=OUT)
    parser.add_argument("--workers", type=int, default=None, help="processes at once (default: one a core)")
    parser.add_argument("--ray", default=None, metavar="ADDRESS", help=RAY)
    add_training(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, write results.json and report.html, print the table."""
    # before PyTorch is imported, which takes seconds
    sys.stderr.write(f"{' '.join(args.arms)}: {args.seeds} seeds, in {args.out}; what is finished there is kept\n")
    sys.stderr.flush()
    from budgeteer.lab import on_ray, report
    from budgeteer.lab.arms import Arm, with_references
    from budgeteer.lab.claim import claim
    from budgeteer.lab.compare import compare

    arms = with_references([Arm.parse(text) for text in args.arms])
    base = spec_of(args, "grpo", "100%", None, args.first_seed)
    seeds = list(range(args.first_seed, args.first_seed + args.seeds))
    lines = Lines(len(arms) * len(seeds))

    def on_pause(reason: str) -> None:
        lines.say(f"{reason}: the other runs pause at the end of their step; Ctrl-C again stops at once")

    try:
        with nullcontext() if args.ray is None else on_ray.cluster(args.ray) as ray:
            results = compare(
                arms,
                seeds,
                base,
                args.out,
                workers=args.workers if ray is None or args.workers else on_ray.cores(ray),
                on_update=lines,
                on_pause=on_pause,
                elsewhere=None if ray is None else partial(on_ray.starter, ray),
            )
    except KeyboardInterrupt:
        lines.close()
        sys.stderr.write("paused; the same command continues where it stopped\n")
        return 130
    finally:
        lines.close()
    path = report.write_report(results, args.out / "report.html")
    sys.stdout.write(report.table(results) + "\n\n" + claim(results) + f"\n\nreport: {path.resolve()}\n")
    return 0
