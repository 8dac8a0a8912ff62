"""budgeteer lab awareness: how well an agent knows what it still needs."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def add_arguments(commands: Any) -> None:
    """Arguments of the tool."""
    tool = commands.add_parser("awareness", help="how well an agent knows its remaining budget (BAGEN)")
    tool.add_argument(
        "said",
        metavar="FILE",
        help="a row each time that it was asked: run, spent, total, done, and text or low and high",
    )
    tool.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from budgeteer.draw.text import ruled
    from budgeteer.lab.awareness import measured, read

    found = measured(read(args.said))
    if args.json:
        shown = {
            name: value._asdict() if hasattr(value, "_asdict") else value for name, value in found._asdict().items()
        }
        sys.stdout.write(json.dumps(shown) + "\n")
        return 0

    def share(value: Any) -> str:
        if value is None:
            return "-"
        if isinstance(value, float):
            return f"{value:.1%}"
        return f"{value.mean:.1%}" + (f" [{value.low:.1%}, {value.high:.1%}]" if value.n > 1 else "")

    lines = [
        ["answers that could be read", share(found.readable)],
        ["runs that succeed: says that it can", share(found.sees_possible)],
        ["runs that fail: says that it cannot", share(found.sees_impossible)],
        ["intervals that hold what was needed", share(found.covers)],
        ["their width over what was needed (median)", "-" if found.width is None else f"{found.width:.2f}"],
        ["error of their middle (median)", share(found.error)],
        ["score: covered and narrow", share(found.score)],
        ["failed runs: spent behind the first alarm", share(found.saved)],
        ["good runs that an alarm would have ended", share(found.lost)],
    ]
    sys.stdout.write(ruled([[f"asked {found.asked:,} times", f"{found.runs:,} runs"], *lines]) + "\n")
    return 0
