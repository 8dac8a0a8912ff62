"""budgeteer train --model hf:FOLDER: one run of one recipe on any causal model of transformers."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from budgeteer.cli._options import HF, TRAINING, Lines, shown_run, task_of

_ONLY = ("batch", "gradient_checkpointing", "lora", "style")
"""Options of these models alone."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of training models of transformers."""
    group = parser.add_argument_group("with --model hf:FOLDER")
    group.add_argument("--style", default=None, metavar="NAME[:key=value,...]", help="how the model is asked, as solve")
    group.add_argument(
        "--lora",
        default=None,
        metavar="r=16",
        help="train an adapter instead of all weights: r, alpha (2 r), dropout (0), targets (all-linear, or names of "
        "modules joined by +)",
    )
    group.add_argument("--batch", type=int, default=None, help="rollouts in memory at once while learning (default 4)")
    group.add_argument(
        "--gradient-checkpointing",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="recompute activations instead of keeping them (default: on a GPU)",
    )


def asked(args: argparse.Namespace) -> bool:
    """Whether the command is to train a model of transformers.

    Raises:
        InvalidInput: it is not, and has an option of these models.
    """
    from budgeteer.core.errors import InvalidInput

    if str(args.model or "").startswith(HF):
        if str(args.model) == HF:
            raise InvalidInput(f"--model {HF!r} names no folder; put a path behind the colon")
        return True
    for name in _ONLY:
        if getattr(args, name) is not None:
            option = "--" + name.replace("_", "-")
            raise InvalidInput(f"{option} is for --model hf:FOLDER, a model of transformers; leave it out here")
    return False


def run(args: argparse.Namespace, recipe: str, budget: str, tokens: int | None, loggers: Sequence[str]) -> int:
    """Train, write results and the model, print the table and where they are.

    Args:
        args: of the command.
        recipe, budget, tokens: its recipe, and its budget in words and in tokens.
        loggers: names of loggers.
    """
    from budgeteer.core.errors import MissingExtra
    from budgeteer.lab import report
    from budgeteer.lab.posttrain.settings import Settings
    from budgeteer.lab.workers import Update, interrupts

    try:
        from budgeteer.lab.posttrain.run import posttrain, summary
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "trl", "trl") from error
    from budgeteer.lab import results

    settings = _settings(args, Settings, recipe, budget, tokens)
    out: Path = args.out or Path("runs") / "train" / settings.name
    policy: Path = args.save_model or out / "policy"
    path, page = out / "results.json", out / "report.html"
    results.require_writable(out)
    if path.exists():
        sys.stderr.write(f"{path} is there; what was done is kept\n")
    _quiet()
    lines, begin = Lines(1), time.monotonic()
    first = os.environ.get("RANK", "0") == "0"  # of the processes of a run on several
    with interrupts() as seen:

        def on_step(progress: Any, accuracy: float) -> bool:
            seconds = time.monotonic() - begin
            used = progress.used
            if first:
                lines(Update(settings.name, progress.step, settings.steps, used, tokens, seconds, accuracy, "running"))
            if seen:
                lines.say("pausing at the end of the step; Ctrl-C again stops at once")
            return not seen

        try:
            document = posttrain(settings, out, policy, loggers=loggers, on_step=on_step, say=lines.say)
        finally:
            lines.close()
    if document is None:
        if seen:
            sys.stderr.write("paused; the same command continues where it stopped\n")
        return 130 if seen else 0  # a further process of a run on several
    report.write_report(document, page)
    return shown_run(f"{report.table(document)}\n\n{summary(out)}", path, page, policy)


def _quiet() -> None:
    """No bars and advice of transformers between the lines of progress; its errors stay."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call, unused-ignore]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def _settings(args: argparse.Namespace, make: Any, recipe: str, budget: str, tokens: int | None) -> Any:
    """The run's settings."""
    lr = args.lr if args.lr is not None else 1e-6 if args.lora is None else 1e-5
    given = {name: getattr(args, name) for name in TRAINING if name not in ("lr", "train_items", "heldout_items")}
    known = {name: TRAINING[name].hf if value is None else value for name, value in given.items()}
    heldout = TRAINING["heldout_items"].hf if args.heldout_items is None else args.heldout_items
    return make(
        str(args.model).removeprefix(HF),
        recipe,
        budget,
        tokens,
        task_of(args, args.task),
        train=args.train_items,
        heldout=heldout,
        lr=lr,
        seed=args.seed,
        style=args.style,
        lora=args.lora,
        batch=4 if args.batch is None else args.batch,
        checkpointing=args.gradient_checkpointing,
        **known,
    )
