"""budgeteer report: a page that stands alone from a results.json."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("results", type=Path, help="results.json of a comparison")
    parser.add_argument("--out", type=Path, default=None, help="page (default: report.html beside it)")


def run(args: argparse.Namespace) -> int:
    """Render and print the table."""
    from budgeteer.lab import report, results

    loaded = results.read(args.results)
    path = report.write_report(loaded, args.out or args.results.with_name("report.html"))
    sys.stdout.write(f"{report.table(loaded)}\n\nreport: {path.resolve()}\n")
    return 0
