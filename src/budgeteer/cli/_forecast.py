"""budgeteer lab forecast: what a run of an agent will cost, from its first turns."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from budgeteer.cli._printed import printable

if TYPE_CHECKING:
    from budgeteer.lab import forecast


def add_arguments(commands: Any) -> None:
    """Arguments of the tool."""
    forecast = commands.add_parser("forecast", help="what a run of an agent will cost, from its first turns")
    forecast.add_argument("runs", metavar="FILE", help="whole runs: a row a turn, in order (JSON lines, CSV, Parquet)")
    forecast.add_argument(
        "--of", default=None, metavar="FILE", help="runs that go on: forecast these (default: measure on held-out runs)"
    )
    forecast.add_argument("--run", default="run", metavar="COLUMN,...", help="what names a run (default %(default)s)")
    forecast.add_argument("--cost", default="cost_usd", metavar="COLUMN", help="cost of a turn (default %(default)s)")
    forecast.add_argument(
        "--columns", default="", metavar="COLUMN,...", help="further numbers of a turn, such as prompt_tokens"
    )
    forecast.add_argument("--group", default=None, metavar="COLUMN", help="what alike runs have in common: their task")
    forecast.add_argument(
        "--turns", default="5,10,20", metavar="N,...", help="first turns to look at, to measure (default %(default)s)"
    )
    forecast.add_argument("--level", type=float, default=0.9, help="of the intervals (default %(default)s)")
    forecast.add_argument("--splits", type=int, default=10, help="random splits, to measure (default %(default)s)")
    forecast.add_argument("--seed", type=int, default=0, help="of the splits (default %(default)s)")
    forecast.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure forecasts on held-out runs, or make those of runs that go on."""
    from budgeteer.core.errors import InvalidInput
    from budgeteer.lab import forecast

    def listed(text: str) -> list[str]:
        return [word.strip() for word in text.split(",") if word.strip()]

    if not listed(args.run):
        raise InvalidInput("--run names no column; give those that name a run, such as run,instance_id")
    columns = (listed(args.run), args.cost, args.group, listed(args.columns))
    known = forecast.read(args.runs, *columns)
    if args.of is not None:
        return _of(args, known, forecast.read(args.of, *columns))
    try:
        turns = [int(word) for word in listed(args.turns)]
    except ValueError:
        turns = []
    if not turns or min(turns) < 1 or args.splits < 2:
        raise InvalidInput(
            f"--turns {args.turns}, --splits {args.splits}; give whole numbers from 1 such as 5,10, "
            "and 2 splits or more"
        )
    if not args.json:
        sys.stdout.write(
            f"{len(known.keys):,} runs; beside each number that of the mean of other runs\n"
            "turns  in the interval      upper / lower    error of ln cost   better by\n"
        )

    def tell(row: forecast.Quality) -> None:
        if not args.json:
            sys.stdout.write(
                f"{row.turns:5}  {row.coverage:6.1%} ({row.blind_coverage:6.1%})  {row.ratio:6.2f} "
                f"({row.blind_ratio:6.2f})  {row.error:6.3f} ({row.blind_error:6.3f})    {row.gain:+.3f} "
                f"[{row.low:+.3f}, {row.high:+.3f}]\n"
            )

    rows = forecast.evaluate(known, turns, splits=args.splits, level=args.level, seed=args.seed, tell=tell)
    if args.json:
        sys.stdout.write(json.dumps([row._asdict() for row in rows]) + "\n")
    return 0


def _of(args: argparse.Namespace, known: forecast.Runs, going: forecast.Runs) -> int:
    """A forecast of each run that goes on."""
    from budgeteer.core.errors import InvalidInput
    from budgeteer.lab import forecast

    found, failed = list[dict[str, object]](), list[str]()
    for i, (key, cost) in enumerate(zip(going.keys, going.cost, strict=True)):
        about = {"run": key, "turns": len(cost), "spent": float(cost.sum())}
        try:
            (made,) = forecast.forecast(known, going.take([i]), len(cost), level=args.level)
        except InvalidInput as error:  # such as a run that is longer than nearly all that are known
            failed.append(f"the run {key!r} of {args.of}: {error}")
            found.append({**about, "cost": None, "low": None, "high": None})
        else:
            found.append({**about, **made._asdict()})
    if len(failed) == len(found):
        raise InvalidInput(failed[0])
    sys.stderr.write("".join(f"no forecast of {printable(text)}\n" for text in failed))
    if args.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    for row in found:
        if row["cost"] is None:
            sys.stdout.write(f"{printable(str(row['run']))}: {row['spent']:.4g} are spent in {row['turns']} turns\n")
            continue
        sys.stdout.write(
            f"{printable(str(row['run']))}: {row['cost']:.4g} [{row['low']:.4g}, {row['high']:.4g}], of which "
            f"{row['spent']:.4g} are spent in {row['turns']} turns\n"
        )
    return 0
