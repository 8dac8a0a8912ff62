"""budgeteer frontier: accuracy against tokens for several strategies, with a report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from budgeteer.cli import _solving
from budgeteer.cli._options import RAY


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    from budgeteer.lab.tasks import named

    parser.add_argument(
        "strategies", metavar="S1,S2,...", help="each NAME or NAME:key=value,...; the first is the reference"
    )
    parser.add_argument("source", metavar="FILE|TASK|-", help=named.HELP + "; - is JSON lines on standard input")
    parser.add_argument("--budgets", required=True, help="of a question, such as 256,512,1k")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/frontier"), help="folder (default %(default)s)")
    parser.add_argument("--oracle", action="store_true", help="the references serve as the verifier of strategies")
    parser.add_argument("--ray", default=None, metavar="ADDRESS", help=RAY)
    _solving.add_solving(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, write frontier.json and report.html, print the table."""
    from budgeteer.core.amounts import MONEY
    from budgeteer.core.errors import InvalidInput
    from budgeteer.core.spec import parse_all
    from budgeteer.lab import frontier, frontier_report
    from budgeteer.lab.results import write_text
    from budgeteer.solve import Strategy, registered, styles
    from budgeteer.solve.runner import Progress, Row

    specs = list(dict.fromkeys(spec.plain() for spec in parse_all(args.strategies, "strategy")))
    strategies = {}
    for spec in specs:
        made = registered.build(spec)
        if not isinstance(made, Strategy):
            raise InvalidInput(f"{spec.name} answers all questions together; a frontier's budgets are of one question")
        strategies[str(spec)] = made
    budgets = frontier.budgets_of(args.budgets)
    if args.ray is not None:
        _on_ray(args, list(strategies), [str(budget) for budget in budgets])
    seeds = list(range(args.first_seed, args.first_seed + args.seeds))
    prices = _solving.prices_of(args.prices, money=budgets[0].kind == MONEY)
    asked = _solving.questions_of(args)
    ungraded = [question.id for question in asked.questions if asked.grade(question, None) is None]
    if ungraded:
        raise InvalidInput(
            f"{len(ungraded)} questions have no answer, such as {ungraded[0]!r}; a frontier needs all: "
            f"name the field with --answer-field"
        )
    model = _solving.model_of(args)
    modes = {} if args.style is None else frontier.modes_of(args.style)
    live, cells = _solving.Live(), len(strategies) * max(len(modes), 1) * len(budgets) * len(seeds)
    begun: dict[frontier.Cell, None] = {}

    def on_row(cell: frontier.Cell, row: Row, progress: Progress) -> None:
        begun[cell] = None
        live.name = f"{len(begun)} of {cells}, {cell.strategy}@{cell.budget} seed {cell.seed}"
        live(row, progress)

    async def work(pause: Any) -> Any:
        try:
            await _solving.probed(args, model)
            written = modes or {"": styles.choose(model, asked.info)}
            looks = {mode: styles.style_of(text, asked.info.by(model)) for mode, text in written.items()}
            style = args.style or written[""]
            measured: dict[frontier.Cell, tuple[Row, ...]] = {}
            for mode, look in looks.items():
                found = await frontier.measure(
                    {frontier.line_of(name, mode): strategy for name, strategy in strategies.items()},
                    budgets,
                    seeds,
                    asked,
                    model,
                    look,
                    args.out,
                    about={
                        "style": written[mode],
                        "oracle": "yes" if args.oracle else "no",
                        "verifier": asked.task.identity,
                    },
                    oracle=args.oracle,
                    pass_at=args.pass_at,
                    concurrency=args.concurrency,
                    timeout=args.timeout,
                    prices=prices,
                    durable=_solving.durable(args.model, *strategies.values(), asked=asked),
                    pause=pause,
                    on_row=on_row,
                )
                if found is None:
                    return style, None, []
                measured |= found
            lines = {frontier.line_of(name, mode): (name, look) for mode, look in looks.items() for name in strategies}
            missed = {}
            for cell, rows in measured.items():
                missing = [row for row in rows if _solving.unasked(row)]
                if missing and (cell.strategy, cell.budget) not in missed:
                    name, look = lines[cell.strategy]
                    why = await _solving.not_one_fits(
                        missing,
                        asked.questions,
                        strategy=strategies[name],
                        model=model,
                        style=look,
                        prices=prices,
                        check=(lambda answer: 0.0) if args.oracle else None,
                    )
                    part = f"{len(missing)} of {len(rows)} questions were not asked"
                    missed[cell.strategy, cell.budget] = f"{cell.strategy}@{cell.budget}: {part}: {why}"
            return style, measured, list(missed.values())
        finally:
            await _solving.close(model, *strategies.values())

    done = _solving.pausable(work, live)
    if done is None:
        return 1
    style, measured, missed = done
    if measured is None:
        again = _solving.command(
            "frontier",
            [args.strategies, args.source],
            {
                "--budgets": args.budgets,
                "--seeds": args.seeds,
                "--first-seed": args.first_seed,
                "--out": args.out,
                "--oracle": args.oracle,
                **_solving.given(args),
            },
        )
        sys.stderr.write(f"paused; to go on: {again}\n")
        return 130
    if all(_solving.unasked(row) for rows in measured.values() for row in rows):
        sys.stderr.write("".join(f"error: {text}; give larger --budgets\n" for text in missed))
        return 1
    failed = dict.fromkeys(
        f"{cell.strategy}@{cell.budget}: none of {len(rows)} questions was answered: {_solving.why_failed(rows)}"
        for cell, rows in measured.items()
        if _solving.all_failed(rows)
    )
    if all(_solving.all_failed(rows) for rows in measured.values()):  # no table of zeros
        sys.stderr.write("".join(f"error: {text}\n" for text in failed))
        return 1
    config = {
        "task": args.source,
        "questions": len(asked.questions),
        "task seed": args.task_seed,
        "model": model.name,
        "style": style,
        "budgets": [str(budget) for budget in budgets],
        "seeds": seeds,
        "strategies": list(dict.fromkeys(cell.strategy for cell in measured)),
        "concurrency": args.concurrency,
        "oracle": args.oracle,
        "pass at": args.pass_at,
    }
    numbers = frontier.analyse(measured, budgets[0].kind, config)
    numbers_path = write_text(frontier.to_text(numbers), args.out / "frontier.json")
    texts = frontier.traces(measured, args.out, asked.references)
    page = write_text(frontier_report.render(numbers, texts), args.out / "report.html")
    sys.stdout.write(
        f"{frontier_report.table(numbers)}\n\nnumbers: {numbers_path.resolve()}\nreport: {page.resolve()}\n"
    )
    sys.stderr.write(_solving.unverified(asked) + "".join(f"{text}\n" for text in [*missed, *failed]))
    return 0


def _on_ray(args: argparse.Namespace, strategies: list[str], budgets: list[str]) -> None:
    """Measure all cells on a Ray cluster, each by this command for one cell; what they wrote is in ``--out`` then.

    Raises:
        InvalidInput: a model whose calls are billed, or questions on standard input.
        BudgeteerError: a cell failed; the others are kept.
    """
    import itertools

    from budgeteer.core.errors import InvalidInput
    from budgeteer.lab import on_ray
    from budgeteer.lab.frontier import Cell, line_of, modes_of

    if _solving.billed(args.model):
        raise InvalidInput(
            f"--ray measures models that run on the machines of a cluster; calls of {args.model} are billed, and their "
            "answers are kept on one machine: leave --ray out and raise --concurrency"
        )
    if args.source == "-":
        raise InvalidInput("--ray reads the questions on several machines; write standard input to a file and name it")
    if Path(args.source).exists():
        args.source = str(Path(args.source).resolve())
    numbers = range(args.first_seed, args.first_seed + args.seeds)
    modes = [""] if args.style is None else modes_of(args.style)
    jobs = []
    for budget, strategy, seed in itertools.product(budgets, strategies, numbers):
        paths = [Cell(line_of(strategy, mode), budget, seed).path(args.out) for mode in modes]
        earlier = [part for path in paths for part in (path, path.with_name(path.name + ".run"))]
        own = vars(args) | {"strategies": strategy, "budgets": budget, "first_seed": seed, "seeds": 1, "ray": None}
        jobs.append((own, on_ray.packed(earlier, args.out)))
    with on_ray.cluster(args.ray) as ray:
        for count, content in enumerate(on_ray.cells(ray, jobs, on_ray.cores(ray), measured_cell), 1):
            on_ray.unpacked(content, args.out)
            sys.stderr.write(f"{count} of {len(jobs)} cells are done\n")


def measured_cell(given: dict[str, Any], before: bytes) -> bytes:
    """One cell on a machine of a cluster; what it wrote.

    Args:
        given: arguments of the command for this cell.
        before: what was written of it before.

    Raises:
        BudgeteerError: nothing was measured.
    """
    import contextlib
    import io
    import tempfile

    from budgeteer.core.errors import BudgeteerError
    from budgeteer.lab import on_ray
    from budgeteer.lab.run import one_thread

    one_thread()
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        out = Path(name)
        on_ray.unpacked(before, out)
        run(argparse.Namespace(**given | {"out": out}))
        if not list(out.glob("rows/*.jsonl")):
            raise BudgeteerError(said.getvalue().strip() or "a cell wrote no rows")
        return on_ray.packed([out / "rows"], out)
