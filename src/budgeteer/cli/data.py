"""budgeteer data: training examples out of a model's own traces, under a hard budget."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from budgeteer.cli import _solving
from budgeteer.lab.results import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    from budgeteer.lab.tasks import named

    parser.add_argument(
        "name", metavar="NAME[:key=value,...]", help="what is taught, such as brief; all: budgeteer methods tuning"
    )
    parser.add_argument("--questions", required=True, metavar="FILE|TASK", dest="source", help=named.HELP)
    parser.add_argument("--budget", required=True, help="of all questions together, such as 200k or '$5'")
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON lines for TRL; OUT.work keeps the run, run again to go on"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the traces (default %(default)s)")
    _solving.add_solving(parser)


def run(args: argparse.Namespace) -> int:
    """Ask the model, write the examples, and print how many there are of which questions."""
    from budgeteer.core import registry
    from budgeteer.core.amounts import MONEY
    from budgeteer.core.budget import Budgets
    from budgeteer.core.errors import InvalidInput
    from budgeteer.core.spec import parse
    from budgeteer.solve import runner, styles
    from budgeteer.tuning.protocol import Builder, as_strategy

    spec = parse(args.name, "tuning").plain()
    builder = registry.part_of("tuning", str(spec))
    if not isinstance(builder, Builder):
        raise InvalidInput(f"{spec.name} makes a {type(builder).__name__}, no Builder")
    strategy = as_strategy(builder)
    budget = Budgets.parse(args.budget)
    prices = _solving.prices_of(args.prices, money=any(part.kind == MONEY for part in budget))
    asked = _solving.questions_of(args)
    if missing := [question.id for question in asked.questions if question.id not in asked.references]:
        raise InvalidInput(
            f"{len(missing)} questions have no reference answer, such as {missing[0]!r}; examples are made of answers "
            "that are known to be right, so give questions with references"
        )
    model = _solving.model_of(args)
    live = _solving.Live()
    work = Path(f"{args.out}.work")

    async def build(pause: Any) -> runner.Run:
        try:
            await _solving.probed(args, model)
            name = styles.choose(model, asked.info) if args.style is None else args.style
            settings = runner.Settings(
                per_question=False,
                seed=args.seed,
                concurrency=args.concurrency,
                timeout=args.timeout,
                check=asked.score,
                prices=prices,
                out=work / "questions.jsonl",
                durable=_solving.durable(args.model, strategy),
                traces=True,
                on_row=live,
                pause=pause,
                about={"strategy": str(spec), "style": name, "verifier": asked.task.identity},
            )
            style = styles.style_of(name, asked.info.by(model))
            return await runner.run(asked.questions, strategy, model, style, budget, settings)
        finally:
            await _solving.close(model, strategy)

    work.mkdir(parents=True, exist_ok=True)
    done = _solving.pausable(build, live)
    if done is None:
        return 1
    live.close()
    lines = gathered(work / "questions.jsonl.run" / "traces.jsonl", [row["id"] for row in done.rows])
    write_text("".join(line + "\n" for line in lines), args.out)
    used = len({json.loads(line)["id"] for line in lines})
    of = f"of {used:,} of {len(done.rows):,} questions"
    sys.stdout.write(
        f"examples    {len(lines):,} of kind {builder.kind}, {of}, in {args.out}\n{_solving.summary(done)}\n"
    )
    sys.stderr.write(_solving.unverified(asked))
    if done.paused:
        again = _solving.command(
            "data",
            [args.name],
            {
                "--questions": args.source,
                "--budget": args.budget,
                "--out": args.out,
                "--seed": args.seed,
                **_solving.given(args),
            },
        )
        sys.stderr.write(f"paused; to go on: {again}\n")
        return 130
    if not lines:
        why = _solving.why_failed(done.rows) or (
            "no question has the traces that an example takes; try easier questions, or more traces of each"
            if any(row["calls"] for row in done.rows)
            else "not one trace of full length fits into a question's share; "
            "give a larger --budget, or smaller max_tokens"
        )
        sys.stderr.write(f"error: there is no example: {why}\n")
        return 1
    return 0


def gathered(traces: Path, ids: list[str]) -> list[str]:
    """The examples of these questions, in their order; of two lines of a question the later one counts, since a run
    that was killed may have written the first."""
    found: dict[str, list[str]] = {}
    if traces.exists():
        for line in traces.read_bytes().splitlines():  # of bytes: a text may hold U+2028, which is no end of a line
            row = json.loads(line)
            found[row["id"]] = row["traces"]
    return [example for name in ids for example in found.get(name, [])]
