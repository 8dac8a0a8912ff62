"""budgeteer bench: benchmarks of others, built anew, on any model and under a hard budget."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from budgeteer.cli import _solving


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    benches = parser.add_subparsers(dest="bench", required=True, metavar="ACTION")
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
    constraints = benches.add_parser(
        "constraints",
        help="which constraints the schedules keep that solve wrote for the task schedule (R-ConstraintBench)",
    )
    constraints.add_argument("answers", metavar="FILE", help="what budgeteer solve schedule --out FILE wrote")
    constraints.add_argument(
        "--task", default="schedule", help="as it was solved, such as schedule:tasks=6,axes=1 (default %(default)s)"
    )
    constraints.add_argument("--limit", type=int, default=None, metavar="N", help="as it was solved (default 100)")
    constraints.add_argument("--task-seed", type=int, default=0, help="as it was solved (default %(default)s)")
    vending = benches.add_parser(
        "vending", help="a vending machine run for many days, within a budget of tokens a day (Vending-Bench)"
    )
    vending.add_argument(
        "who", nargs="+", metavar="WHO", help="idle, reorder or forgetful (scripted), or a model as for overflow"
    )
    vending.add_argument("--days", type=int, default=120, help="days that the machine runs (default %(default)s)")
    vending.add_argument("--seeds", type=int, default=5, help="worlds, each run once (default %(default)s)")
    vending.add_argument("--first-seed", type=int, default=0, help="first seed (default %(default)s)")
    vending.add_argument(
        "--tokens-a-day",
        type=int,
        default=20_000,
        metavar="N",
        help="hard budget of a model each day (default %(default)s)",
    )
    vending.add_argument(
        "--calls-a-day", type=int, default=40, metavar="N", help="most calls of tools (default %(default)s)"
    )
    vending.add_argument(
        "--out", type=Path, default=None, help="folder of runs.jsonl and calls.jsonl; run again to go on"
    )


def run(args: argparse.Namespace) -> int:
    """Run the benchmark."""
    return {"overflow": _overflow, "constraints": _constraints, "vending": _vending}[args.bench](args)


def _vending(args: argparse.Namespace) -> int:
    import asyncio
    import contextlib
    from dataclasses import asdict

    from budgeteer.core.errors import InvalidInput
    from budgeteer.draw.text import ruled
    from budgeteer.lab.bench import vending_run
    from budgeteer.lab.stats import mean_ci
    from budgeteer.models.load import load_model
    from budgeteer.solve.folders import lock
    from budgeteer.solve.lines import Lines

    shared = {"days": args.days, "tokens_a_day": args.tokens_a_day, "calls_a_day": args.calls_a_day}

    def opened(name: str, sync: bool) -> Lines:
        file = Lines(args.out / name, sync=sync)
        stack.callback(file.close)
        for row in file.earlier:
            if not {"who", "seed", *shared} <= row.keys():
                raise InvalidInput(f"{args.out / name} holds {str(row)[:80]}, which is no run; choose another folder")
            if other := [f"{key} {row[key]}" for key, value in shared.items() if row[key] != value]:
                raise InvalidInput(f"{args.out} has runs with other options ({other[0]}); choose another folder")
        return file

    async def runs(who: str) -> list[dict[str, Any]]:
        model = None if who in vending_run.POLICIES else load_model(who)
        found = []
        try:
            for seed in range(args.first_seed, args.first_seed + args.seeds):
                row = known.get((who, seed))
                if row is None:
                    about = {"who": who, "seed": seed, **shared}

                    def keep(call: dict[str, Any], about: dict[str, Any] = about) -> None:
                        if calls is not None:
                            calls.append({**about, **call})

                    before = [call for call in made if (call["who"], call["seed"]) == (who, seed)]
                    agent = (
                        vending_run.POLICIES[who]()
                        if model is None
                        else vending_run.Agent(model, tokens=args.tokens_a_day, seed=seed, earlier=before, keep=keep)
                    )
                    played = await vending_run.play(agent, seed=seed, days=args.days, calls=args.calls_a_day)
                    tokens = agent.used if isinstance(agent, vending_run.Agent) else 0
                    row = {**about, **asdict(played), "tokens": tokens}
                    if file is not None:
                        file.append(row)
                found.append(row)
        finally:
            if model is not None:
                await model.aclose()
        return found

    table = [["who", "net worth", "least", "ruined", "sold", "last sale", "refused calls", "tokens a run"]]
    with contextlib.ExitStack() as stack:
        file = calls = None
        if args.out is not None:
            lock(args.out, stack)
            file, calls = opened("runs.jsonl", True), opened("calls.jsonl", False)
        known = {} if file is None else {(row["who"], row["seed"]): row for row in file.earlier}
        made = [] if calls is None else calls.earlier
        for who in dict.fromkeys(args.who):
            rows = asyncio.run(runs(who))
            if who not in vending_run.POLICIES and not any(row["tokens"] for row in rows):
                sys.stderr.write(
                    f"{who} was never asked: not one call fits into a day of {args.tokens_a_day:,} tokens; give a "
                    "larger --tokens-a-day\n"
                )
            n, mean = len(rows), mean_ci([row["worth"] for row in rows])
            spread = "" if n == 1 else f" [{mean.low:,.0f}, {mean.high:,.0f}]"

            def average(name: str, rows: list[dict[str, Any]] = rows) -> float:
                return float(sum(row[name] for row in rows)) / len(rows)

            table.append(
                [
                    who, f"${mean.mean:,.0f}{spread}", f"${min(row['worth'] for row in rows):,.0f}",
                    f"{sum(row['ruined'] for row in rows)} of {n}", f"{average('sold'):,.0f}",
                    f"day {average('last_sale'):,.0f}", f"{average('refused'):,.1f} of {average('calls'):,.0f}",
                    f"{average('tokens'):,.0f}",
                ]
            )  # fmt: skip
    sys.stdout.write(ruled(table) + "\n")
    return 0


def _constraints(args: argparse.Namespace) -> int:
    from collections import Counter

    from budgeteer.core import rows
    from budgeteer.core.errors import InvalidInput
    from budgeteer.draw.svg import percent
    from budgeteer.draw.text import ruled
    from budgeteer.lab import questions
    from budgeteer.lab.bench import constraints

    asked = questions.load(args.task, limit=args.limit, seed=args.task_seed)
    if asked.info.name != "schedule":
        raise InvalidInput(f"--task {args.task} is no task of schedules; give schedule, with the options of the run")
    answers = {}
    for place, row in rows.read(args.answers):
        if not isinstance(row, dict) or not {"id", "answer"} <= row.keys() or not isinstance(row["answer"], str | None):
            raise InvalidInput(
                f"{rows.where(args.answers)}, {place}: give an object with id and answer, as solve writes"
            )
        answers[str(row["id"])] = row["answer"]
    found = constraints.levels(list(asked.items.values()), answers)
    table = [["orders", "problems", "all kept", "greedy", "no plan read"]]
    table += [
        [
            str(one.edges), str(one.problems),
            f"{percent(one.kept.mean)} [{percent(one.kept.low)}, {percent(one.kept.high)}]", percent(one.greedy),
            str(one.unread),
        ]
        for one in found
    ]  # fmt: skip
    shares = {one.edges: one.kept.mean for one in found}
    point = constraints.breakpoint_of(shares)
    broken = sum((Counter(one.broken) for one in found), Counter[str]())
    simple = constraints.wauc({one.edges: one.greedy for one in found})
    lines = [
        f"weighted area  {constraints.wauc(shares):.3f} (greedy {simple:.3f})",
        f"breakpoint     {'none' if point is None else f'{point} orders'}",
        "plans broke    " + (", ".join(f"{kind} {n}" for kind, n in broken.most_common()) or "nothing"),
    ]
    sys.stdout.write(f"{ruled(table)}\n\n" + "\n".join(lines) + "\n")
    return 0


def _overflow(args: argparse.Namespace) -> int:
    import json

    from budgeteer.core.amounts import MONEY
    from budgeteer.core.budget import Budget
    from budgeteer.core.errors import InvalidInput
    from budgeteer.lab.bench import overflow, overflow_report
    from budgeteer.lab.results import write_text
    from budgeteer.models.load import load_model

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
                    live.name = f"{word}, {arm}"
                    rows = await overflow.measure(
                        model, word, arm, asked, args.out, cap=args.cap, repeats=args.repeats,
                        temperature=args.temperature, seed=args.seed, concurrency=args.concurrency,
                        timeout=args.timeout, durable=_solving.billed(word), pause=pause, on_row=live,
                    )  # fmt: skip
                    if rows is None:
                        return {}, []
                    flat = [row for repeat in rows for row in repeat]
                    tables[overflow.Cell(word, arm)] = overflow.lengths(rows, args.cap)
                    if _solving.all_failed(flat):
                        failures.append(f"{word}: not one prompt was answered: {_solving.why_failed(flat)}")
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
