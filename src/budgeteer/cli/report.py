"""budgeteer report: a page that stands alone, from a results.json or from the log of a training run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "results",
        type=Path,
        help="results.json of a comparison; or the log of a training run: the output folder of a trainer of TRL, its "
        "trainer_state.json, or a metrics.jsonl",
    )
    parser.add_argument(
        "--out", type=Path, default=None, help="page (default: report.html beside it, of a log log.html)"
    )


def run(args: argparse.Namespace) -> int:
    """Render and print the table."""
    from budgeteer.lab import report, results, trl_log

    given: Path = args.results
    if trl_log.is_log(given):
        rows = trl_log.read(given)
        folder = given if given.is_dir() else given.parent
        path = results.write_text(trl_log.render(rows, folder.resolve().name), args.out or folder / "log.html")
        sys.stdout.write(f"{trl_log.table(rows)}\n\nreport: {path.resolve()}\n")
        return 0
    loaded = results.read(given)
    path = report.write_report(loaded, args.out or given.with_name("report.html"))
    sys.stdout.write(f"{report.table(loaded)}\n\nreport: {path.resolve()}\n")
    return 0
