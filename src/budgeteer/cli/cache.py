"""budgeteer cache: what a budget of the KV cache costs in quality, and what it frees."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="eval")
    evaluated = commands.add_parser("eval", help="answer questions about long texts with each method and budget")
    evaluated.add_argument("model", metavar="MODEL", help="smollm2, thinker or hf:FOLDER; it runs in transformers")
    evaluated.add_argument(
        "--methods",
        nargs="+",
        default=None,
        metavar="METHOD",
        help="scores of a cache, with options and split, such as snapkv:window=16 (default: all)",
    )
    evaluated.add_argument(
        "--budgets",
        default="50%,25%,12.5%",
        metavar="B,...",
        help="of the cache (default %(default)s)".replace("%,", "%%,"),
    )
    evaluated.add_argument(
        "--tasks", default="single,multikey,variables", metavar="TASK,...", help="what is hidden (default %(default)s)"
    )
    evaluated.add_argument(
        "--length", type=int, default=512, metavar="N", help="tokens of a text (default %(default)s)"
    )
    evaluated.add_argument("--samples", type=int, default=20, metavar="N", help="texts a task (default %(default)s)")
    evaluated.add_argument(
        "--question",
        choices=("known", "unknown", "both"),
        default="both",
        help="whether it is known when the choice is made (default %(default)s)",
    )
    evaluated.add_argument("--seed", type=int, default=0, help="of texts and random methods (default %(default)s)")
    evaluated.add_argument("--device", default="cpu", help="such as cuda (default %(default)s)")
    evaluated.add_argument("--out", type=Path, metavar="FILE", help="results as JSON")


def run(args: argparse.Namespace) -> int:
    """Evaluate, and print a row for each method and budget."""
    from budgeteer.core import registry
    from budgeteer.core.errors import InvalidInput, UnknownName
    from budgeteer.lab import cache_eval
    from budgeteer.lab.needles import TASKS, samples

    if args.samples < 2:
        raise InvalidInput(f"--samples is {args.samples}; give 2 samples or more, for an interval")
    budgets = [budget.strip() for budget in args.budgets.split(",")]
    tasks = [task.strip() for task in args.tasks.split(",")]
    if unknown := [task for task in tasks if task not in TASKS]:
        raise UnknownName("task of a cache", unknown[0], TASKS)
    args.methods = args.methods or list(registry.of("score"))
    cache_eval.check(args.methods, budgets, args.length)
    model, encode = cache_eval.opened(args.model, args.device)
    made = [
        sample
        for task in tasks
        for sample in samples(task, args.samples, args.length, lambda text: len(encode(text, True)), seed=args.seed)
    ]
    known = {"known": (True,), "unknown": (False,), "both": (True, False)}[args.question]
    answered, arms = [], (1 + len(args.methods) * len(budgets)) * len(known)
    for each in cache_eval.evaluate(model, encode, made, args.methods, budgets, known=known, seed=args.seed):
        answered.append(each)
        if len(answered) % arms == 0 and sys.stderr.isatty():
            sys.stderr.write(f"\r{len(answered) // arms} of {len(made)} texts")
    rows = cache_eval.table(answered)
    for knows in known:
        sys.stdout.write(_printed([row for row in rows if row["known"] == knows], tasks, knows))
    if args.out:
        settings = {name: value for name, value in vars(args).items() if name not in ("out", "action")}
        args.out.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


def _printed(rows: list[dict[str, Any]], tasks: list[str], known: bool) -> str:
    title = "question known when the choice is made" if known else "question asked after the choice"
    width = max(len(row["method"]) for row in rows)
    lines = [
        f"\n{title}, {rows[0]['samples']} texts",
        f"{'method':{width}}  budget    kept     bytes  right   95 % interval  log p lost  95 % interval    "
        + "  ".join(tasks),
    ]
    for row in rows:
        right, lost = row["right"], row["lost"]
        said = [
            f"{row['method']:{width}}  {row['budget']:>6}  {row['kept']:6.1%}  {row['bytes']:8,}  ",
            f"{right['mean']:5.0%}  [{right['low']:5.0%}, {right['high']:4.0%}]  {lost['mean']:10.2f}  ",
            f"[{lost['low']:5.2f}, {lost['high']:5.2f}]  ",
            "  ".join(f"{row['tasks'][task]:{len(task)}.0%}" for task in tasks),
        ]
        lines.append("".join(said))
    return "\n".join(lines) + "\n"
