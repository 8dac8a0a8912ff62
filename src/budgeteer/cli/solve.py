"""budgeteer solve: answer the questions of a file or a task under a hard budget."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from budgeteer.cli import _solving


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    from budgeteer.lab.tasks import named

    parser.add_argument("source", metavar="FILE|TASK|-", help=named.HELP + "; - is JSON lines on standard input")
    parser.add_argument(
        "--strategy",
        required=True,
        metavar="NAME[:key=value,...]",
        help="how a question is answered, such as direct or self-consistency:n=8; all: budgeteer methods strategy",
    )
    parser.add_argument("--budget", required=True, help="such as 2k, output:500, '$0.01'")
    per = parser.add_mutually_exclusive_group()
    per.add_argument("--per-question", action="store_true", help="the budget is of every question (default)")
    per.add_argument("--total", action="store_true", help="the budget is of all questions together")
    parser.add_argument("--out", type=Path, default=None, help="JSON lines, one a question; run again to go on")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default %(default)s)")
    parser.add_argument("--traces", action="store_true", help="with --out: keep the traces, in OUT.run/traces.jsonl")
    parser.add_argument("--oracle", action="store_true", help="the references serve as the verifier of strategies")
    _solving.add_solving(parser)


def run(args: argparse.Namespace) -> int:
    """Solve, print the rows or the summary."""
    from budgeteer.core.amounts import MONEY
    from budgeteer.core.budget import Budgets
    from budgeteer.core.errors import InvalidInput
    from budgeteer.core.spec import parse
    from budgeteer.solve import Strategy, registered, runner, styles

    if args.traces and args.out is None:
        raise InvalidInput("--traces needs --out: traces are kept beside it")
    spec = parse(args.strategy, "strategy").plain()
    strategy = registered.build(spec)
    budget = Budgets.parse(args.budget)
    prices = _solving.prices_of(args.prices, money=any(part.kind == MONEY for part in budget))
    asked = _solving.questions_of(args)
    model = _solving.model_of(args)
    live = _solving.Live()

    def on_row(row: runner.Row, progress: runner.Progress) -> None:
        if args.out is None:
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
            sys.stdout.flush()
        live(row, progress)

    async def work(pause: Any) -> tuple[runner.Run, list[runner.Row], str]:
        try:
            await _solving.probed(args, model)
            name = styles.choose(model, asked.info) if args.style is None else args.style
            style = styles.style_of(name, asked.info.by(model))
            settings = runner.Settings(
                per_question=not args.total,
                seed=args.seed,
                concurrency=args.concurrency,
                timeout=args.timeout,
                grade=asked.grade,
                pass_at=args.pass_at,
                check=asked.score if args.oracle else None,
                tools=asked.tools,
                prices=prices,
                out=args.out,
                durable=_solving.durable(args.model, strategy, asked=asked),
                traces=args.traces,
                on_row=on_row,
                pause=pause,
                about={
                    "strategy": str(spec),
                    "style": name,
                    "oracle": "yes" if args.oracle else "no",
                    "verifier": asked.task.identity,
                },
            )
            done = await runner.run(asked.questions, strategy, model, style, budget, settings)
            missed = [row for row in done.rows if _solving.unasked(row)]
            if not missed or not isinstance(strategy, Strategy):
                return done, missed, "not one call fits into its share"
            return (
                done,
                missed,
                await _solving.not_one_fits(
                    missed,
                    asked.questions,
                    strategy=strategy,
                    model=model,
                    style=style,
                    prices=prices,
                    check=(lambda answer: 0.0) if args.oracle else None,
                    tools=asked.tools,
                ),
            )
        finally:
            await _solving.close(model, strategy)

    done = _solving.pausable(work, live)
    if done is None:
        return 1
    outcome, missed, why = done
    if missed and len(missed) == len(outcome.rows) and not outcome.paused:
        each = "; a question's share of --total" if args.total else ""
        sys.stderr.write(f"error: none of {len(missed)} questions was asked: {why}{each}; give a larger --budget\n")
        return 1
    (sys.stdout if args.out else sys.stderr).write(_solving.summary(outcome, args.pass_at) + "\n")
    sys.stderr.write(_solving.unverified(asked))
    if missed:
        sys.stderr.write(f"{len(missed)} of {len(outcome.rows)} questions were not asked: {why}\n")
    if not outcome.paused:
        return int(_solving.all_failed(outcome.rows))
    if args.out is None:
        sys.stderr.write("paused; without --out nothing can go on from here\n")
        return 130
    again = _solving.command(
        "solve",
        [args.source],
        {
            "--strategy": args.strategy,
            "--budget": args.budget,
            "--total": args.total,
            "--out": args.out,
            "--seed": args.seed,
            "--traces": args.traces,
            "--oracle": args.oracle,
            **_solving.given(args),
        },
    )
    sys.stderr.write(f"paused; to go on: {again}\n")
    return 130
