"""budgeteer heads: train small heads on a frozen model of your own."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from budgeteer.cli._options import add_reading, task_of
from budgeteer.engine.kinds import FORMS, KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    from budgeteer.lab.tasks.named import HELP

    kinds = tuple(KINDS.values())
    commands = parser.add_subparsers(dest="tool", required=True, metavar="ACTION")
    train = commands.add_parser(
        "train",
        help="collect traces of a model and train heads on them",
        description="Collects traces of a model on questions, trains heads on four fifths of the questions, measures "
        "them on the rest, and writes them beside the model. The same command goes on where it was stopped.",
    )
    train.add_argument("kinds", nargs="+", choices=kinds, metavar="KIND", help=f"some of {', '.join(kinds)}")
    train.add_argument("--model", required=True, help="hf:FOLDER, thinker, reasoner or reasoner:FOLDER")
    train.add_argument("--questions", required=True, metavar="FILE|TASK", help=HELP)
    add_reading(train)
    train.add_argument("--limit", type=int, default=None, metavar="N", help="the first N questions; of a task, N of it")
    train.add_argument("--task-seed", type=int, default=0, help="seed of a task's questions (default %(default)s)")
    train.add_argument("--style", default=None, help="how the model is asked (default: what fits it)")
    train.add_argument(
        "--out",
        type=Path,
        default=None,
        help="folder of the heads (default: heads, in the folder of the model); with --form vocabulary, of a copy of "
        "the model with them",
    )
    train.add_argument("--traces", type=Path, default=None, help="folder of the traces (default OUT/traces)")
    train.add_argument(
        "--form",
        choices=tuple(FORMS),
        default="flat",
        help="flat: a hidden layer on the states of all layers; layers: attention over them; vocabulary: unused rows "
        "of the model's vocabulary, for engines that show no states (default %(default)s)",
    )
    train.add_argument("--width", type=int, default=None, help="of a head (default 64, of layers 768)")
    train.add_argument("--depth", type=int, default=12, help="blocks of the form layers (default %(default)s)")
    train.add_argument(
        "--line-end",
        action="append",
        default=None,
        metavar="TEXT",
        help="after which guidance steers; may be given several times (default: a line break)",
    )
    for option, kind, default, meaning in (
        ("--rollouts", int, 4, "traces of each question"),
        ("--max-tokens", int, 512, "cap of a trace"),
        ("--temperature", float, 1.0, "of the draws"),
        ("--positions", int, 32, "positions of a trace whose states are kept"),
        ("--steps", int, 1500, "updates of a head"),
        ("--seed", int, 0, "of everything random"),
    ):  # the defaults of Collection and Training, whose modules are too slow to import for a help text
        train.add_argument(option, type=kind, default=default, help=f"{meaning} (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Train heads, and print how they do on held-out questions."""
    import asyncio

    from budgeteer.lab import questions
    from budgeteer.lab.heads.fit import Form
    from budgeteer.lab.heads.traces import Collection
    from budgeteer.lab.heads.train import Training, train
    from budgeteer.models.load import load_model

    asked = questions.load(task_of(args, args.questions), limit=args.limit, seed=args.task_seed)
    model: Any = load_model(args.model)
    out = _out(args, model)
    how = Training(
        tuple(dict.fromkeys(args.kinds)),
        Form(args.form, args.width or FORMS[args.form], args.depth),
        args.steps,
        tuple(args.line_end or ["\n"]),
        args.seed,
        Collection(args.rollouts, args.max_tokens, args.temperature, args.positions, args.seed),
        args.style,
    )
    try:
        trained, seen = train(model, asked, how, out, args.traces or out / "traces", _Live())
    finally:
        asyncio.run(model.aclose())
    for name, value in seen.items():
        sys.stdout.write(f"{name}: {value:,.6g}\n")
    for head in trained:
        sys.stdout.write(f"{head.kind}: {head.held}\n  {head.path.resolve()}\n")
    if args.form == "vocabulary":
        sys.stdout.write(f"the model with its heads: --model hf:{out.resolve()}\n")
    return 0


def _out(args: argparse.Namespace, model: Any) -> Path:
    """Where the heads go.

    Raises:
        InvalidInput: nowhere that is the user's.
    """
    from budgeteer.core.errors import InvalidInput

    if args.out is not None:
        return Path(args.out)
    if args.model in ("reasoner", "thinker"):
        raise InvalidInput(f"{args.model} is inside the package, where nothing is written; give --out FOLDER")
    if args.form == "vocabulary":
        raise InvalidInput("--form vocabulary writes a copy of the model with its heads; give --out FOLDER for it")
    folder = getattr(model, "folder", None)
    if folder is None:
        raise InvalidInput(f"{args.model} is no folder of this machine that heads could go to; give --out FOLDER")
    return Path(folder) / "heads"


class _Live:
    """A line of progress of the collection, every ten seconds."""

    def __init__(self) -> None:
        self.begin, self.last, self.before = time.monotonic(), time.monotonic(), -1

    def __call__(self, done: int, total: int) -> None:
        self.before = done if self.before < 0 else self.before
        now = time.monotonic()
        if now - self.last < 10 and done < total:
            return
        self.last = now
        left = (now - self.begin) * (total - done) / max(done - self.before, 1) / 60
        sys.stderr.write(f"traces of {done:,} of {total:,} questions, {left:.1f} min left\n")
        sys.stderr.flush()
