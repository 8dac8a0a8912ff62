"""budgeteer train: one run of one recipe."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from budgeteer.cli import _posttrain
from budgeteer.cli._options import Lines, add_training, shown_run, spec_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "recipe",
        nargs="?",
        help="such as grpo, duet or vip (all: budgeteer methods recipe). Options follow a colon, as in "
        "duet:stop_answered=false, and so do parts of other methods: grpo:reward=NAME for a reward (budgeteer methods "
        "reward), grpo:allocator=NAME for a split (budgeteer methods allocator)",
    )
    parser.add_argument("--recipe", dest="named_recipe", metavar="RECIPE", default=None, help="the same, as an option")
    parser.add_argument(
        "--budget",
        default=None,
        help="hard cap of sampled tokens of the run, such as 300k. Default: no cap; in each step the recipe's "
        "allocator splits what GROUP rollouts a prompt (--group) are expected to cost, and a recipe that draws until "
        "it has what it wants (dapo) does so",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="folder of the results, the report, the checkpoint and the trained policy, of one run (default: "
        "runs/train/RECIPE@BUDGET-seedSEED). A checkpoint is written every eight steps and at Ctrl-C; the same command "
        "goes on from it",
    )
    parser.add_argument(
        "--save-model", type=Path, default=None, help="folder of the trained policy (default: OUT/policy)"
    )
    parser.add_argument(
        "--log",
        default="",
        metavar="NAMES",
        help="where metrics go beside OUT/metrics.jsonl: tensorboard, wandb, trackio, joined by commas",
    )
    add_training(parser, hf=True)
    _posttrain.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train, write results.json, the report and the policy, print the table and where they are."""
    from budgeteer.lab import report, results
    from budgeteer.lab.run import UNCAPPED, execute, one_thread
    from budgeteer.lab.runlog import RunLog, names_of
    from budgeteer.lab.workers import Update
    from budgeteer.rl import recipes

    recipe = _recipe(args)
    recipes.get(recipe)
    loggers, (tokens, budget) = names_of(args.log), _budget(args.budget)
    shown = budget or UNCAPPED
    if _posttrain.asked(args):
        return _posttrain.run(args, recipe, shown, tokens, loggers)
    spec = spec_of(args, recipe, shown, tokens, args.seed)
    out: Path = args.out or Path("runs") / "train" / spec.name
    policy: Path = args.save_model or out / "policy"
    path, page, settings = out / "results.json", out / "report.html", results.to_json(spec.identity())
    results.require_writable(out)
    if path.exists() and _trained(path, settings) and (policy / "model.safetensors").exists():
        sys.stdout.write("this run was done before; nothing was trained\n")
        return shown_run(report.table(results.read(path)), path, page, policy)
    one_thread()
    lines, interrupts = Lines(1), 0

    def interrupt(number: int, frame: Any) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            raise KeyboardInterrupt
        sys.stderr.write("pausing at the end of the step; Ctrl-C again stops at once\n")

    def on_step(progress: Any, config: Any) -> bool:
        last = progress.curve[-1]["accuracy"] if progress.curve else float("nan")
        lines(Update(spec.name, progress.step, config.steps, progress.used, tokens, progress.seconds, last, "running"))
        return not interrupts

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        record = execute(spec, out, on_step, policy, lambda: RunLog(out, spec.name, settings, loggers))
    finally:
        signal.signal(signal.SIGINT, before)
        lines.close()
    if record is None:
        sys.stderr.write("paused; the same command continues where it stopped\n")
        return 130
    document = {
        "schema": results.SCHEMA,
        "runs": [record],
        "comparisons": [],
        "config": {**settings, "model": spec.model},
        "versions": results.versions(),
    }
    results.write(document, path)
    (out / "checkpoint.pt").unlink(missing_ok=True)
    report.write_report(document, page)
    return shown_run(report.table(document), path, page, policy)


def _recipe(args: argparse.Namespace) -> str:
    """The recipe's name, wherever it stands.

    Raises:
        InvalidInput: it stands nowhere, or two are there.
    """
    from budgeteer.core.errors import InvalidInput

    named: str | None = args.named_recipe
    if args.recipe is not None and named is not None:
        raise InvalidInput(f"two recipes, {args.recipe!r} and --recipe {named}; give one")
    if args.recipe is None and named is None:
        raise InvalidInput("no recipe; give one, such as duet: budgeteer methods recipe lists them")
    return str(args.recipe if named is None else named)


def _budget(text: str | None) -> tuple[int | None, str | None]:
    """A budget as a number of tokens and as it is shown; None = there is none.

    Raises:
        InvalidInput: a share, or money.
    """
    from budgeteer.core.budget import Budget
    from budgeteer.core.errors import InvalidInput

    if text is None:
        return None, None
    budget = Budget.parse(text)
    if budget.amount is None or budget.kind not in ("all", "output") or budget.window is not None:
        raise InvalidInput(f"--budget {text!r} must be a number of tokens here; percentages are for compare")
    return budget.amount, str(budget)


def _trained(path: Path, settings: dict[str, Any]) -> bool:
    """Whether the results are those of this run.

    Raises:
        InvalidInput: they are those of another run, which stays.
    """
    from budgeteer.core.errors import InvalidInput
    from budgeteer.lab import results
    from budgeteer.rl.identity import differences

    theirs = results.read(path)["config"]
    different = differences(settings, {name: theirs.get(name) for name in settings})
    if different:
        raise InvalidInput(f"{path} is the result of another run ({different}); choose another --out")
    return True
