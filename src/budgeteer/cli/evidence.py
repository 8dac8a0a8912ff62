"""budgeteer evidence: run the experiments behind a method's claims."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("name", nargs="?", help="a method, or a set of experiments (duet, knapsack, reinforce_ada)")
    parser.add_argument("--all", action="store_true", help="every set")
    parser.add_argument("--out", type=Path, default=Path("docs/evidence"), help="folder (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run, write NAME.json and the page, print verdicts."""
    from budgeteer import registry
    from budgeteer.errors import InvalidInput
    from budgeteer.lab import evidence

    sets = sorted({m.evidence for m in registry.methods().values() if m.evidence})
    if args.all == bool(args.name):
        raise InvalidInput(f"give one name or --all; sets of experiments: {', '.join(sets)}")
    names = sets
    if args.name:
        if args.name in sets:
            names = [args.name]
        else:
            behind = registry.get(args.name).evidence
            if behind is None:
                raise InvalidInput(f"{args.name} has no evidence yet; sets of experiments: {', '.join(sets)}")
            names = [behind]
    for name in names:
        found = evidence.run(name)
        path = evidence.write(name, args.out, found)
        for entry in found:
            low, high = entry.interval
            sys.stdout.write(
                f"{entry.verdict:13} {name}: {entry.name}: {entry.estimate:.4g} [{low:.4g}, {high:.4g}] "
                f"against {entry.baseline}, {entry.seeds} seeds\n"
            )
        sys.stdout.write(f"written: {path}\n")
    return 0
