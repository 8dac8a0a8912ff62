"""budgeteer probe: what an endpoint honours, ignores or breaks of what strategies ask for."""

from __future__ import annotations

import argparse
import json
import os
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("endpoint", metavar="URL#MODEL", help="such as http://127.0.0.1:8080/v1#qwen3")
    parser.add_argument(
        "--dialect",
        default=None,
        metavar="NAME",
        help="of the engine, for how to think (default: one that works)",
    )
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="of one call (default %(default)g s)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Probe, and print a line for each finding; about 25 calls, the key from OPENAI_API_KEY."""
    import asyncio
    from dataclasses import asdict

    from budgeteer.core.errors import InvalidInput
    from budgeteer.core.urls import without_password
    from budgeteer.models.probe import Finding, Verdict, probe

    url, _, model = args.endpoint.partition("#")
    if not model:
        raise InvalidInput(f"{without_password(args.endpoint)!r} does not say which model to ask; give URL#MODEL")
    if not args.timeout > 0:
        raise InvalidInput(f"--timeout is {args.timeout}; give more than 0 seconds")

    def tell(finding: Finding) -> None:
        if not args.json:
            sys.stdout.write(f"{finding.feature:20} {finding.verdict:9} {finding.said}\n")
            sys.stdout.flush()

    key = os.environ.get("OPENAI_API_KEY") or "none"
    report = asyncio.run(probe(url, model, api_key=key, dialect=args.dialect, timeout=args.timeout, on_finding=tell))
    if args.json:
        shown = {**asdict(report), "findings": [finding._asdict() for finding in report.findings]}
        sys.stdout.write(json.dumps(shown, indent=1, ensure_ascii=False) + "\n")
        return 0
    thinks = report.verdict("thinking shown") == Verdict.HONOURED
    options = f" --dialect {report.dialect}" * (report.dialect != "openai") + " --style think" * thinks
    sys.stdout.write(
        f"\n{report.calls} calls, {report.input} tokens in, {report.output} out\n"
        f"to use it: budgeteer solve ... --model {without_password(args.endpoint)}{options}\n"
    )
    return 0
