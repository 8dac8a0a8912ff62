"""budgeteer papers: the catalogue of papers, and how much of each is here."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "word", nargs="?", default="", help="a number, or a word in name, part, title, arXiv id or method"
    )
    parser.add_argument("--open", action="store_true", help="only those of which nothing is here yet")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--markdown", action="store_true", help="the whole catalogue as a page, docs/papers.md")


def run(args: argparse.Namespace) -> int:
    """Print every paper with what is here and what is missing."""
    from budgeteer.core import papers
    from budgeteer.core.errors import InvalidInput

    if args.markdown:
        if args.word or args.open:
            raise InvalidInput("--markdown prints the whole catalogue; leave out the word and --open")
        sys.stdout.write(papers.page())
        return 0
    chosen = [entry for entry in papers.matching(args.word) if entry.level == "open" or not args.open]
    if args.json:
        sys.stdout.write(json.dumps([asdict(entry) for entry in chosen], indent=1) + "\n")
        return 0
    for entry in chosen:
        arxiv = f"arXiv {entry.arxiv}" if entry.arxiv else ""
        sys.stdout.write(f"{entry.number:3}  {entry.level:13} {arxiv:16} {entry.heading} ({entry.part})\n")
        facts = {"here": entry.here, "missing": entry.missing, "methods": ", ".join(entry.methods)}
        for name, text in (facts | {"evidence": ", ".join(entry.evidence)}).items():
            if text:
                sys.stdout.write(f"{'':5}{name}: {text}\n")
    sys.stdout.write(f"{len(chosen)} of {papers.count()}\n")
    return 0
