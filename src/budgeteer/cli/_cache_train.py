"""budgeteer cache train: gates and projections, and what is measured of a model's layers for a split."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

TABLES = {"knapsack": "losses", "prefix": "sizes", "epi-cache": "sizes", "tca-attention": "sizes"}
"""Kinds that are measured and not trained -> the column of their file."""


def add_arguments(commands: Any) -> None:
    """Arguments of the action, added to those of ``budgeteer cache``."""
    trained = commands.add_parser(
        "train",
        help="train the gates of a score or the projections of a rest, or measure losses or sizes of layers",
    )
    trained.add_argument(
        "kind",
        choices=("kvzap", "trim-kv", "matryoshka", *TABLES),
        help="the score of the gates, the rest of the projections, the split of the losses, or whose sizes of layers "
        "(tca-attention: of heads)",
    )
    trained.add_argument("model", metavar="MODEL", help="hf:FOLDER, smollm2 or thinker")
    trained.add_argument(
        "--texts", type=Path, required=True, metavar="FILE", help="UTF-8 text like what the model reads"
    )
    trained.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: gates/KIND.safetensors, or .json, in the folder of hf:FOLDER; smollm2 and thinker need one",
    )
    trained.add_argument(
        "--method", default="snapkv", help="knapsack: the score that chooses what is kept (default %(default)s)"
    )
    trained.add_argument("--length", type=int, default=256, metavar="N", help="tokens of a text (default %(default)s)")
    trained.add_argument("--limit", type=int, default=200, metavar="N", help="the first N texts (default %(default)s)")
    trained.add_argument("--steps", type=int, default=300, metavar="N", help="updates (default %(default)s)")
    trained.add_argument("--width", type=int, default=64, metavar="N", help="of a hidden layer (default %(default)s)")
    trained.add_argument(
        "--budget", default="25%", metavar="B", help="trim-kv: entries that may be alive at a time (default 25%%)"
    )
    trained.add_argument(
        "--power", type=float, default=2.0, metavar="P", help="epi-cache: preference for sensitive layers (default 2)"
    )
    trained.add_argument("--seed", type=int, default=0, help="of everything random (default %(default)s)")
    trained.add_argument("--device", default="cpu", help="such as cuda (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Train, print what was measured on held-out texts, and write the file; or measure layers, and write that."""
    from budgeteer.cache import selection
    from budgeteer.cache.gates import GATES, save_gates
    from budgeteer.cache.projections import NAME, save_projections
    from budgeteer.cache.size import parsed
    from budgeteer.cli import _outputs
    from budgeteer.core.errors import InvalidInput
    from budgeteer.lab import cache_eval
    from budgeteer.lab.cache_gates import Training, texts_of, train_gates
    from budgeteer.lab.cache_losses import require_losses
    from budgeteer.lab.cache_profile import require_length
    from budgeteer.lab.cache_projections import Fitting, Progress, described, train_projections

    budget, folder = parsed(args.budget), Path(args.model.removeprefix("hf:"))
    if budget.kind == "bytes":
        raise InvalidInput(f"--budget is {args.budget}; give tokens or a share of the texts, such as 25%")
    if args.out is None and not (args.model.startswith("hf:") and folder.is_dir()):
        raise InvalidInput(f"{args.model} is no folder that the file could lie in; give --out FILE")
    keep = budget.of(args.length)
    if args.kind == "trim-kv" and keep < 1:
        raise InvalidInput(f"--budget is {args.budget}, which leaves {keep} of {args.length} tokens; give 1 or more")
    path = args.out or folder / GATES / f"{args.kind}.{'json' if args.kind in TABLES else 'safetensors'}"
    _outputs.require("--out", path, _outputs.FILE)
    replays = selection(args.method).score.replays
    if args.kind == "knapsack":
        require_losses(args.method)
    if args.kind in ("prefix", "tca-attention"):
        require_length({"prefix": "prefix-kv"}.get(args.kind, args.kind), args.length)
    if not args.texts.is_file():
        raise InvalidInput(f"cannot read {args.texts}: it is no file; give a file of UTF-8 text")
    twice = args.kind == "kvzap" or (args.kind == "knapsack" and replays)
    what = f"a text of {args.length} tokens{', which is read twice,' if twice else ''}"
    model, encode = cache_eval.opened(args.model, args.device, tokens=args.length * (1 + twice), what=what)
    texts = texts_of(args.texts, encode, args.length, args.limit)
    if args.kind in TABLES:
        return _measured(args, model, texts, path)
    if args.kind == NAME:
        fitting = Fitting(steps=args.steps, seed=args.seed)
        progress = Progress(path.with_name(f"{path.name}.partial"), described(model, texts, fitting))
        fitted = train_projections(model, texts, fitting, said, progress)
        save_projections(fitted.projections, path)
        progress.done()
        numbers, use = fitted.measured, f"recent:every=0,rest={NAME}:projections={path}"
    else:
        given = Training(steps=args.steps, inside=args.width, keep=keep, seed=args.seed)
        done = train_gates(args.kind, model, texts, given, said)
        save_gates(done.gates, path)
        numbers, use = done.measured, f"{args.kind}:gates={path}"
    _end()
    sys.stdout.write("".join(f"{name}: {number:.3f}\n" for name, number in numbers.items()))
    sys.stdout.write(f"written: {path}; use it as {use}\n")
    return 0


def _measured(args: argparse.Namespace, model: Any, texts: Any, path: Path) -> int:
    """Measure the layers of a model, print a line for each, and write the file."""
    from budgeteer.core.files import write_text
    from budgeteer.lab.cache_losses import losses
    from budgeteer.lab.cache_profile import head_sizes, prefix_sizes, sensitivity_sizes

    if args.kind == "knapsack":
        found = losses(model, texts, args.method, watch=said)
    elif args.kind == "prefix":
        found = prefix_sizes(model, texts, said)
    elif args.kind == "tca-attention":
        found = head_sizes(model, texts, said)
    else:
        found = sensitivity_sizes(model, texts, args.power, said)
    _end()
    column = TABLES[args.kind]
    split = f"knapsack:losses={path}" if column == "losses" else f"profile:sizes={path}"
    write_text(json.dumps(found) + "\n", path)
    sys.stdout.write(f"{column} at {', '.join(f'{share:.2%}' for share in found['shares'])} of the entries\n")
    for layer, numbers in enumerate(found[column]):
        for head, row in enumerate(numbers if isinstance(numbers[0], list) else [numbers]):
            of = f"layer {layer:3}" + (f", head {head:3}" if isinstance(numbers[0], list) else "")
            sys.stdout.write(f"{of}: " + "  ".join(f"{number:6.3f}" for number in row) + "\n")
    sys.stdout.write(f"written: {path}; use it as {found['method']}:split={split}\n")
    return 0


def said(how_far: str) -> None:
    """Say on a terminal how far the work is."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{how_far:60}")


def _end() -> None:
    """End the line of :func:`said`."""
    if sys.stderr.isatty():
        sys.stderr.write("\n")
