"""budgeteer route: learn which model answers what from a table of scores and costs, and measure it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from budgeteer.route.table import Table

TABLE = "CSV, JSON lines or Parquet with columns score:MODEL, cost:MODEL (dollars), perhaps signal:MODEL, and what " \
    "describes the requests: prompt, categories, numbers"  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    fit = commands.add_parser("fit", help="fit a route to a table and write it to a file")
    measured = commands.add_parser("eval", help="measure routes on held-out requests, at equal dollars")
    for command in (fit, measured):
        command.add_argument("table", metavar="TABLE", help=TABLE)
        command.add_argument(
            "--ignore", nargs="+", default=[], metavar="COLUMN", help="columns that are no features, such as an id"
        )
        command.add_argument("--seed", type=int, default=0, help="of splits and fits (default %(default)s)")
    fit.add_argument("--method", required=True, metavar="METHOD", help="a route with options, such as classifier")
    fit.add_argument(
        "--budget",
        type=_dollars,
        required=True,
        metavar="DOLLARS",
        help="most of a request, on the mean: 0.002 or '$0.002'",
    )
    fit.add_argument("--out", type=Path, required=True, metavar="FILE", help="the router, as JSON")
    measured.add_argument("--methods", nargs="+", default=None, metavar="METHOD", help="routes (default: all that can)")
    measured.add_argument(
        "--shares",
        default="10%,25%,50%,75%",
        metavar="S,...",
        help="budgets, on the way from the cheapest to the dearest model (default %(default)s)".replace("%,", "%%,"),
    )
    measured.add_argument("--splits", type=int, default=10, metavar="N", help="random splits (default %(default)s)")
    measured.add_argument("--group", metavar="COLUMN", help="hold out whole groups of rows, such as tasks")
    measured.add_argument("--out", type=Path, metavar="FILE", help="results as JSON")


def _dollars(text: str) -> float:
    try:
        return float(text.strip().removeprefix("$"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of dollars; write 0.002 or '$0.002'") from error


def run(args: argparse.Namespace) -> int:
    """Fit and save, or evaluate and print a row for each method and budget."""
    from budgeteer.route.table import read

    table = read(args.table)
    if args.action == "fit":
        return _fit(args, table)
    return _eval(args, table)


def _fit(args: argparse.Namespace, table: Table) -> int:
    from budgeteer.route.saved import fitted, save

    router = fitted(args.method, table, args.budget, without=args.ignore, seed=args.seed)
    save(router, args.out)
    sys.stdout.write(f"{router.method} of {len(table):,} requests and {', '.join(router.models)}\n")
    sys.stdout.write(f"price   {router.price:,.6g} scores a dollar, for {args.budget:g} dollars a request\n")
    sys.stdout.write(f"router  {args.out}\n")
    return 0


def _eval(args: argparse.Namespace, table: Table) -> int:
    import numpy as np

    from budgeteer.core import registry
    from budgeteer.core.errors import InvalidInput
    from budgeteer.core.files import write_text
    from budgeteer.lab.routing import Row, measure

    if args.splits < 2:
        raise InvalidInput(f"--splits is {args.splits}; give 2 or more, for an interval")
    given = [share.strip() for share in args.shares.split(",")]
    try:
        shares = [float(share.removesuffix("%")) / 100 for share in given]
    except ValueError:
        shares = []
    if not shares or not all(share.endswith("%") for share in given):  # 0.5 may be meant as a half
        raise InvalidInput(f"--shares is {args.shares!r}; give shares such as 10%,50%")
    methods = args.methods
    if methods is None:
        cost = table.cost.mean(axis=0)
        lacks = {"cascade": np.isnan(table.signal).all(), "boundary": cost.max() == cost.min()}
        methods = [name for name in registry.of("route") if not lacks.get(name)]
    sys.stdout.write(f"{len(table):,} requests\n{'model':>24}  {'dollars':>11}  score\n")
    for model, cost, score in zip(table.models, table.cost.mean(axis=0), table.score.mean(axis=0), strict=True):
        sys.stdout.write(f"{model:>24}  {cost:11.3g}  {score:6.1%}\n")
    sys.stdout.write(f"\n{'method':24}  share      dollars   score  above the mix of models at the same dollars\n")

    def tell(row: Row) -> None:
        change = f"{100 * row.gain:+5.1f} points [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
        sys.stdout.write(f"{row.method:24}  {row.share:5.0%}  {row.cost:11.3g}  {row.score:6.1%}  {change}\n")
        sys.stdout.flush()

    found = measure(
        table, methods, shares, count=args.splits, group=args.group, without=args.ignore, seed=args.seed, tell=tell
    )
    if args.out is not None:
        about = {"table": Path(args.table).name, "splits": args.splits, "group": args.group, "seed": args.seed}
        text = json.dumps({"about": about, "rows": [row.to_json() for row in found]}, indent=1)
        write_text(text + "\n", args.out)
    return 0
