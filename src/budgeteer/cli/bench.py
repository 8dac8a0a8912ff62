"""budgeteer bench: benchmarks of others, built anew, on any model and under a hard budget."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from budgeteer.cli import _solving


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    benches = parser.add_subparsers(dest="bench", required=True, metavar="BENCHMARK")
    overflow = benches.add_parser(
        "overflow", help="how often a model writes until its cap at nine kinds of plain prompts (BenchOverflow)"
    )
    overflow.add_argument(
        "models", nargs="+", metavar="MODEL", help="smollm2, thinker, gguf:PATH, hf:FOLDER or http://HOST/v1#NAME"
    )
    overflow.add_argument("--cap", type=int, default=5000, help="most tokens of an answer (default %(default)s)")
    overflow.add_argument(
        "--at", default="1k,3k,5k", metavar="K,...", help="lengths of CSR@K, and the cap (default %(default)s)"
    )
    overflow.add_argument("--each", type=int, default=6, metavar="N", help="prompts of a kind, 1 to 6 (default 6)")
    overflow.add_argument("--repeats", type=int, default=3, help="answers to a prompt (default %(default)s)")
    overflow.add_argument("--temperature", type=float, default=1.0, help="of the answers (default %(default)s)")
    overflow.add_argument("--reminder", action="store_true", help="ask once more with the conciseness reminder")
    overflow.add_argument(
        "--budget",
        default=None,
        help="tokens of all answers together: refused before the first call if they may be more",
    )
    overflow.add_argument("--seed", type=int, default=0, help="of the answers (default %(default)s)")
    overflow.add_argument("--concurrency", type=int, default=8, help="prompts at once (default %(default)s)")
    overflow.add_argument("--timeout", type=float, default=600.0, help="seconds a prompt (default %(default)g)")
    overflow.add_argument(
        "--out", type=Path, default=Path("runs/overflow"), help="folder; run again to go on (default %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the benchmark."""
    return {"overflow": _overflow}[args.bench](args)


def _overflow(args: argparse.Namespace) -> int:
    import json

    from budgeteer.core.amounts import MONEY
    from budgeteer.core.budget import Budget
    from budgeteer.core.errors import InvalidInput
    from budgeteer.lab.bench import overflow, overflow_report
    from budgeteer.lab.results import write_text
    from budgeteer.models.load import load_model

    if not 1 <= args.each <= 6:
        raise InvalidInput(f"--each {args.each}; a kind has 6 prompts, so give 1 to 6")
    at = sorted({k for k in _lengths(args.at) if k <= args.cap} | {args.cap})
    asked, arms = overflow.prompts(args.each), ("plain", "reminder") if args.reminder else ("plain",)
    budget = None if args.budget is None else Budget.parse(args.budget)
    if budget is not None and (budget.amount is None or budget.kind == MONEY or budget.window is not None):
        raise InvalidInput(f"--budget {args.budget!r} must be tokens here, such as 2m")
    answers = len(asked) * args.repeats * len(arms)
    live = _solving.Live()

    async def work(pause: Any) -> Any:
        tables, failures, left = {}, [], None if budget is None else budget.amount
        for word in dict.fromkeys(args.models):
            model = load_model(word, **({"capabilities": frozenset()} if _solving.endpoint(word) else {}))
            try:
                most = answers * overflow.needed(model, asked, args.cap)
                if left is not None and most > left:
                    raise InvalidInput(
                        f"{word}: {answers:,} answers may take {most:,} tokens and {left:,} of --budget {budget} are "
                        "left; give more, or lower --cap, --each or --repeats"
                    )
                left = None if left is None else left - most
                for arm in arms:
                    live.name = f"{model.name}, {arm}"
                    rows = await overflow.measure(
                        model, arm, asked, args.out, cap=args.cap, repeats=args.repeats, temperature=args.temperature,
                        seed=args.seed, concurrency=args.concurrency, timeout=args.timeout,
                        durable=_solving.billed(word), pause=pause, on_row=live,
                    )  # fmt: skip
                    if rows is None:
                        return {}, []
                    flat = [row for repeat in rows for row in repeat]
                    tables[overflow.Cell(model.name, arm)] = overflow.lengths(rows, args.cap)
                    if _solving.all_failed(flat):
                        failures.append(f"{model.name}: not one prompt was answered: {_solving.why_failed(flat)}")
            finally:
                await _solving.close(model)
        return tables, failures

    done = _solving.pausable(work, live)
    if done is None:
        return 1
    tables, failures = done
    if not tables:
        sys.stderr.write("paused; the same command goes on\n")
        return 130
    if failures:
        sys.stderr.write("".join(f"error: {text}\n" for text in failures))
        return 1
    config = {name: getattr(args, name) for name in ("models", "temperature", "seed", "each")}
    numbers = overflow.analyse(tables, asked, cap=args.cap, at=at, config=config)
    file = write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n", args.out / "overflow.json")
    page = write_text(overflow_report.render(numbers), args.out / "report.html")
    sys.stdout.write(f"{overflow_report.tables(numbers)}\n\nnumbers: {file.resolve()}\nreport: {page.resolve()}\n")
    return 0


def _lengths(text: str) -> list[int]:
    from budgeteer.core.budget import Budget
    from budgeteer.core.errors import InvalidInput

    found = [Budget.parse(word).amount for word in text.split(",") if word.strip()]
    if not found or any(not amount for amount in found):
        raise InvalidInput(f"--at {text!r} are not lengths; write 1k,3k,5k")
    return [amount for amount in found if amount]
