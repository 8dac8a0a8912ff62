"""budgeteer lab tokenizer, transplant and merge: tokens that span words, and models made of models."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_arguments(commands: Any) -> None:
    """Arguments of the tools."""
    tokenizer = commands.add_parser("tokenizer", help="train a tokenizer whose tokens may span words")
    tokenizer.add_argument("texts", nargs="+", metavar="FILE", help="text files to learn from (UTF-8)")
    tokenizer.add_argument("--size", type=int, default=32_000, help="of the vocabulary (default %(default)s)")
    tokenizer.add_argument(
        "--words",
        type=int,
        default=3,
        help="most words that a token may come from; 1 is ordinary (default %(default)s)",
    )
    tokenizer.add_argument("--seed", type=int, default=0, help="of the chunks (default %(default)s)")
    tokenizer.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="to write")
    transplant = commands.add_parser("transplant", help="give a model another tokenizer without training (TokenAdapt)")
    transplant.add_argument("model", help="a FOLDER, .gguf file or name of a causal model of transformers")
    transplant.add_argument("tokenizer", help="a FOLDER or name with the new tokenizer, such as that of lab tokenizer")
    transplant.add_argument(
        "--way",
        choices=("tokenadapt", "pieces", "mean", "random"),
        default="tokenadapt",
        help="how new tokens are embedded; all but the first are controls (default %(default)s)",
    )
    transplant.add_argument(
        "--encoder", default=None, metavar="FOLDER", help="a sentence encoder, or its name (default: lengths alone)"
    )
    transplant.add_argument("--seed", type=int, default=0, help="of --way random (default %(default)s)")
    transplant.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="to write, for transformers")
    merge = commands.add_parser(
        "merge", help="weights between a model that thinks long and one that thinks short (Ada-R1)"
    )
    merge.add_argument(
        "long", type=Path, help="a FOLDER with weights in safetensors; all but the weights is taken from it"
    )
    merge.add_argument(
        "short", type=Path, help="a FOLDER of the same architecture and tokenizer, such as LONG trained on"
    )
    merge.add_argument(
        "--weight", type=float, default=0.8, help="of LONG, 0 to 1; that of SHORT is the rest (default %(default)s)"
    )
    merge.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="to write, for transformers")


def tokenizer(args: argparse.Namespace) -> int:
    """Train a tokenizer and write its folder."""
    from budgeteer.core.errors import InvalidInput
    from budgeteer.models.supertokens import supertokens

    texts = []
    for name in args.texts:
        try:
            texts.append(Path(name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{name} cannot be read as text in UTF-8: {error}") from error
    made = supertokens(texts, args.size, args.words, args.seed)
    made.save_pretrained(args.out)
    tokens = sum(len(made(text)["input_ids"]) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    short = "" if len(made) == args.size else f"; the text has no more of the {args.size:,} that --size asks for"
    sys.stdout.write(
        f"{args.out.resolve()}: {len(made):,} tokens, {size / tokens:.2f} bytes a token on its own text{short}\n"
    )
    return 0


def transplant(args: argparse.Namespace) -> int:
    """Give a model the tokenizer and write its folder."""
    import transformers

    from budgeteer.core.errors import CheckpointError, InvalidInput
    from budgeteer.models.embedder import embedder
    from budgeteer.models.hub import require_known
    from budgeteer.models.transformers import pretrained
    from budgeteer.models.transplant import transplant as put

    if args.encoder is not None and args.way != "tokenadapt":
        raise InvalidInput(f"--way {args.way} takes no --encoder; leave it out")
    if args.out.is_dir() and any(args.out.iterdir()):
        raise InvalidInput(f"--out {args.out} is not empty; choose another folder")
    for name in (args.tokenizer, args.encoder):
        if name is not None and not Path(name).exists():
            require_known(name)
    try:
        new = transformers.AutoTokenizer.from_pretrained(args.tokenizer)
    except Exception as error:  # transformers raises whatever its parts raise
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"transformers cannot load a tokenizer from {args.tokenizer}: {why}") from error
    embed = None if args.encoder is None else embedder(args.encoder)
    old, model = pretrained(args.model)
    report = put(model, old, new, args.way, embed, seed=args.seed)
    model.save_pretrained(args.out)
    new.save_pretrained(args.out)
    (args.out / "transplant.json").write_text(json.dumps({"way": args.way, **report._asdict()}) + "\n")
    sys.stdout.write(
        f"{args.out.resolve()}: {report.tokens:,} tokens, {report.copied:,} as they were, {report.mixed:,} made of "
        f"others, {report.left:,} {'drawn' if args.way == 'random' else 'the mean of all'}\n"
    )
    return 0


def merge(args: argparse.Namespace) -> int:
    """Merge two models and write the folder."""
    from budgeteer.models.merge import merge as put

    report = put(args.long, args.short, args.out, args.weight)
    sys.stdout.write(
        f"{args.out.resolve()}: {report.tensors:,} tensors of {report.numbers:,} numbers, {args.weight:g} of "
        f"{args.long} and {1 - args.weight:g} of {args.short}\n"
    )
    return 0
