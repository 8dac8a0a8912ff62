"""budgeteer lab: tools of the laboratory."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from budgeteer.cli._options import add_task, task_of

STEPS = 5000
"""Of PretrainConfig, whose module is too slow to import for a help text."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    commands = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")
    pretrain = commands.add_parser("pretrain", help="rebuild the embedded reasoner from nothing (resumable)")
    pretrain.add_argument("--out", type=Path, default=Path("runs/reasoner"), help="folder (default %(default)s)")
    pretrain.add_argument("--steps", type=int, default=STEPS, help="optimiser steps (default %(default)s)")
    pretrain.add_argument("--seed", type=int, default=0, help="of everything random (default %(default)s)")
    heads = commands.add_parser("heads", help="train the heads of a reasoner on its own traces, from nothing")
    heads.add_argument("--model", type=Path, default=None, help="folder (default: the embedded reasoner)")
    heads.add_argument("--out", type=Path, default=Path("runs/heads"), help="folder (default %(default)s)")
    heads.add_argument("--seed", type=int, default=0, help="of everything random (default %(default)s)")
    profile = commands.add_parser("profile", help="pass rates of a pool under a policy, as RLVR diagnostics show them")
    add_task(profile, "real")
    profile.add_argument("--task-seed", type=int, default=0, help="seed of the problems (default %(default)s)")
    profile.add_argument("--items", type=int, default=512, help="problems (default %(default)s)")
    profile.add_argument("--rollouts", type=int, default=8, help="samples of each problem (default %(default)s)")
    profile.add_argument(
        "--model", type=Path, default=None, help="folder of a Llama policy (default: the embedded one)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the tool."""
    return {"pretrain": _pretrain, "heads": _heads, "profile": _profile}[args.tool](args)


def _pretrain(args: argparse.Namespace) -> int:
    from budgeteer.lab.pretrain import PretrainConfig, pretrain

    config = PretrainConfig(steps=args.steps, seed=args.seed)
    begin, first = time.monotonic(), -1

    def progress(step: int, loss: float) -> None:
        nonlocal first
        first = step if first < 0 else first
        rate = (step - first) / max(time.monotonic() - begin, 1e-9)
        left = (config.steps - step) / rate / 60 if rate else float("nan")
        filled = 30 * step // config.steps
        end = "\r" if sys.stderr.isatty() else "\n"
        bar = "#" * filled + "." * (30 - filled)
        sys.stderr.write(f"[{bar}] step {step}/{config.steps}  loss {loss:.4f}  {left:.1f} min left{end}")
        sys.stderr.flush()

    pretrain(config, args.out, progress)
    sys.stdout.write(f"\nthe reasoner is in {args.out.resolve()}\n")
    return 0


def _heads(args: argparse.Namespace) -> int:
    from budgeteer.lab.heads import train
    from budgeteer.models.policy import REASONER, load_policy

    seen = train(load_policy(args.model or REASONER), args.out, seed=args.seed)
    for name, value in seen.items():
        sys.stdout.write(f"{name}: {value:,.6g}\n")
    sys.stdout.write(f"the heads are in {args.out.resolve()}; put them beside the model's weights\n")
    return 0


def _profile(args: argparse.Namespace) -> int:
    from budgeteer.lab.profile import profile, render
    from budgeteer.models.policy import REASONER

    found = profile(args.model or REASONER, task_of(args, args.task), args.task_seed, args.items, args.rollouts)
    sys.stdout.write(render(found) + "\n")
    if found.prompts < args.items:
        sys.stderr.write(f"--items is {args.items:,}, but {args.task} has {found.prompts:,}: all of them were taken\n")
    return 0
