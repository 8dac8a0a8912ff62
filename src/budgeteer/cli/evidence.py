"""budgeteer evidence: run the experiments behind a method's claims, or renew the page of those that were run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("name", nargs="?", help="a method, or a set of experiments (duet, knapsack, reinforce_ada)")
    parser.add_argument("--all", action="store_true", help="every set")
    parser.add_argument(
        "--page",
        action="store_true",
        help="run nothing: label the stored rows as the code declares them, renew the page",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/evidence"), help="folder (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run, write NAME.json and the page, print verdicts; or only renew the page."""
    from budgeteer.core import registry
    from budgeteer.core.errors import InvalidInput, UnknownName
    from budgeteer.lab import evidence

    sets = sorted({m.evidence for m in registry.methods() if m.evidence})
    if args.all + args.page + bool(args.name) != 1:
        raise InvalidInput(f"give one name or --all or --page; sets of experiments: {', '.join(sets)}")
    if args.page:
        evidence.relabel(args.out)
        sys.stdout.write(f"written: {args.out / 'README.md'}\n")
        return 0
    names = sets
    if args.name:
        if args.name in sets:
            names = [args.name]
        else:
            called = [method for method in registry.methods() if method.name == args.name]
            if not called:
                raise UnknownName("method", args.name, {method.name for method in registry.methods()})
            names = sorted({method.evidence for method in called if method.evidence})
            if not names:
                raise InvalidInput(
                    f"{args.name} has no evidence yet. To add some: copy templates/evidence.py into a module, and name "
                    f'the module in its Method(..., evidence="my_package.evidence"); docs/add/index.md shows how. Sets '
                    f"of experiments: {', '.join(sets)}"
                )
    for name in names:
        results = evidence.run(name)
        path = evidence.write(name, args.out, results)
        for entry in results:
            low, high = entry.interval
            assert entry.row is not None  # run() labels its rows
            sys.stdout.write(
                f"{f'{entry.verdict} ({entry.row.data})':28} {name}: {entry.name}: {entry.estimate:.4g} "
                f"[{low:.4g}, {high:.4g}] against {entry.baseline}, {entry.seeds} seeds\n"
            )
        sys.stdout.write(f"written: {path}\n")
    return 0
