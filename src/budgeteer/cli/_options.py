"""Options that training commands share."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from budgeteer.lab.run import RunSpec
    from budgeteer.lab.workers import Update


RAY = """run on the machines of this Ray cluster, such as 10.0.0.1:6379 or auto, one a core at once; budgeteer and the
files of models and tasks have to be there, at the same paths"""


class Default(NamedTuple):
    """An option of training.

    Attributes:
        kind: of its value.
        own: default of embedded policies; those of TrainConfig and RunSpec, whose modules are too slow to import here.
        hf: default with ``--model hf:FOLDER``, where it is another one.
        meaning: in a few words.
    """

    kind: Callable[[str], Any]
    own: Any
    hf: Any
    meaning: str


HF = "hf:"
"""What ``--model`` begins with for a model of transformers."""
TRAINING = {
    "steps": Default(int, 48, 100, "training steps"),
    "prompts": Default(int, 32, 8, "prompts a step"),
    "group": Default(int, 8, 8, "rollouts a prompt of the uniform reference"),
    "max_tokens": Default(int, 96, 512, "cap of one rollout, in tokens"),
    "lr": Default(float, 5e-4, "1e-6, with --lora 1e-5", "learning rate"),
    "kl": Default(float, 0.0, 0.0, "weight of the KL penalty"),
    "train_items": Default(int, 512, "all that are not held out", "training problems"),
    "heldout_items": Default(int, 1024, 100, "held-out problems"),
    "task_seed": Default(int, 0, 0, "seed of the problems and of their split"),
    "device": Default(str, "auto", "auto", "cpu, cuda or auto"),
    "dtype": Default(str, "auto", "auto", "float32, bfloat16 or auto"),
}


def add_training(parser: argparse.ArgumentParser, *, hf: bool = False) -> None:
    """Add the options that all runs of a comparison share.

    Args:
        parser: of the command.
        hf: the command trains models of transformers, too.
    """
    group = parser.add_argument_group("task and training")
    add_task(group, "real")
    model = "folder of a Llama policy (default: the embedded one)"
    if hf:
        model += ", or hf:FOLDER, any causal model of transformers"
    group.add_argument("--model", type=Path, default=None, help=model)
    for name, (kind, own, other, meaning) in TRAINING.items():
        said = f"default {own}; with hf: {other}" if hf and own != other else f"default {own}"
        group.add_argument("--" + name.replace("_", "-"), type=kind, default=None, help=f"{meaning} ({said})")


def add_task(parser: Any, default: str) -> None:
    """Add ``--task`` and the options of :func:`add_reading`."""
    from budgeteer.lab.tasks.named import HELP

    parser.add_argument("--task", default=default, help=HELP + " (default %(default)s)")
    add_reading(parser)


def add_reading(parser: Any) -> None:
    """Add the options that say how a task's file is read and its answers are graded."""
    parser.add_argument("--question-field", default=None, metavar="NAME", help="of a file (default question)")
    parser.add_argument("--answer-field", default=None, metavar="NAME", help="of a file (default answer)")
    parser.add_argument(
        "--verifier",
        default=None,
        metavar="V",
        help="how answers are compared with references: auto, exact, number, math, choice or python:FILE.py "
        "(default: the task's own; of a file auto, by what the reference is)",
    )


def task_of(args: argparse.Namespace, task: str) -> str:
    """A task's name with the options of :func:`add_reading`."""
    from budgeteer.lab.tasks.named import with_options

    return with_options(task, question=args.question_field, answer=args.answer_field, verifier=args.verifier)


def spec_of(args: argparse.Namespace, recipe: str, budget: str, tokens: int | None, seed: int) -> RunSpec:
    """The run that the options describe."""
    from budgeteer.core.errors import InvalidInput
    from budgeteer.lab.run import RunSpec
    from budgeteer.models.policy import REASONER
    from budgeteer.rl.config import TrainConfig

    if str(args.model or "").startswith(HF):
        raise InvalidInput(
            f"--model {args.model}: models of transformers are trained by `budgeteer train`; here give a folder of a "
            "Llama policy"
        )
    for name, default in TRAINING.items():
        if getattr(args, name) is None:
            setattr(args, name, default.own)
    if args.prompts > args.train_items:
        raise InvalidInput(
            f"--prompts is {args.prompts} and --train-items is {args.train_items}; a step takes distinct problems, so "
            f"lower --prompts or raise --train-items"
        )
    config = TrainConfig(
        steps=args.steps,
        prompts=args.prompts,
        group=args.group,
        max_tokens=args.max_tokens,
        lr=args.lr,
        kl=args.kl,
        seed=seed,
        device=args.device,
        dtype=args.dtype,
    )
    return RunSpec(
        recipe,
        budget,
        tokens,
        config,
        pool=task_of(args, args.task),
        pool_seed=args.task_seed,
        train=args.train_items,
        heldout=args.heldout_items,
        model=str(args.model or REASONER),
    )


def shown_run(table: str, path: Path, page: Path, policy: Path) -> int:
    """Print a run's table and where everything of it is."""
    sys.stdout.write(
        f"{table}\n\nresults: {path.resolve()}\nreport: {page.resolve()}\ntrained policy: {policy.resolve()}\n"
    )
    return 0


class Lines:
    """Live progress on a terminal, a line every few seconds elsewhere.

    Args:
        total_runs: how many runs there are in all.
    """

    def __init__(self, total_runs: int) -> None:
        self.total, self.done, self.begin, self.last = total_runs, 0, time.monotonic(), 0.0
        self.active: dict[str, Update] = {}
        self.weight: dict[str, float] = {}
        self.live = sys.stderr.isatty()
        self.drawn = 0

    def __call__(self, update: Update) -> None:
        """Take news of a run."""
        if update.state == "running":
            self.active[update.name] = update
        else:
            last = self.active.pop(update.name, update)
            self.done += update.state == "done"
            self.say(f"{update.state:>7}  {update.name}  {last.used:,} tokens in {last.seconds:.0f} s")
        now = time.monotonic()
        if now - self.last > (0.2 if self.live else 10):
            self.last = now
            self._draw()

    def _left(self) -> str:
        parts = self.done + sum(u.step / u.steps for u in self.active.values())
        if parts < 0.05:
            return "?"
        seconds = (time.monotonic() - self.begin) * (self.total - parts) / parts
        return f"{seconds / 60:.1f} min"

    def _draw(self) -> None:
        rows = [f"{self.done} of {self.total} runs done, about {self._left()} left"]
        for u in self.active.values():
            share = f" of {u.tokens:,}" if u.tokens else ""
            speed = u.used / max(u.seconds, 1e-9)
            rows.append(
                f"  {u.name:34} step {u.step:3}/{u.steps}  {u.used:,}{share} tokens  {speed:,.0f} tokens/s  "
                f"accuracy {u.accuracy:.3f}"
            )
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self._clear()
            sys.stderr.write("\n".join(row[:width] for row in rows) + "\n")
            self.drawn = len(rows)
        else:
            sys.stderr.write("\n".join(rows) + "\n")
        sys.stderr.flush()

    def _clear(self) -> None:
        if self.live and self.drawn:
            sys.stderr.write(f"\x1b[{self.drawn}A\x1b[J")
            self.drawn = 0

    def say(self, text: str) -> None:
        """Print a line above the live ones."""
        self._clear()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Remove the live lines."""
        self._clear()
