"""budgeteer methods: the registry as a table."""

from __future__ import annotations

import argparse
import json
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("part", nargs="?", help="only the methods of this part, such as allocator")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print every method with its part, paper, decision and verdicts."""
    from budgeteer.core import registry
    from budgeteer.core.errors import UnknownName
    from budgeteer.core.method import PARTS
    from budgeteer.lab.verdicts import verdicts

    if args.part is not None and args.part not in PARTS:
        raise UnknownName("part", args.part, PARTS)
    rows = []
    for method in registry.methods():
        if args.part in (None, method.part):
            title, arxiv = method.citation or ("", "")
            rows.append({
                "name": method.name, "part": method.part, "path": method.path, "decides": method.decides,
                "paper": title, "arxiv": arxiv, "evidence": method.evidence, "verdict": verdicts(method.evidence),
            })  # fmt: skip
    if args.json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return 0
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        paper = f"arXiv {row['arxiv']}" if row["arxiv"] else ""
        sys.stdout.write(f"{row['name']:{width}}  {row['part']:10} {paper:17} {row['decides']}\n")
        if row["verdict"]:
            sys.stdout.write(f"{'':{width}}  evidence: {row['verdict']}\n")
    return 0
