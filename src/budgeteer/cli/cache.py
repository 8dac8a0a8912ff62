"""budgeteer cache: what a budget of the KV cache costs and frees, what fits a memory, and what is trained for it."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from budgeteer.cli import _cache_train

EVERY = 30.0
"""Seconds between two lines in a log."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    evaluated = commands.add_parser("eval", help="answer questions about long texts with each method and budget")
    evaluated.add_argument("model", metavar="MODEL", help="smollm2, thinker or hf:FOLDER; it runs in transformers")
    evaluated.add_argument(
        "--methods",
        nargs="+",
        default=None,
        metavar="METHOD",
        help="scores of a cache with options and split, a blank between two: snapkv:window=16 tova (default: all that "
        "fit the model without training)",
    )
    evaluated.add_argument(
        "--budgets",
        default="50%,25%,12.5%",
        metavar="B,...",
        help="of the cache: shares of the text so far, of the prompt (prompt:25%%), tokens (256) or bytes (bytes:1m) "
        "(default %(default)s)",
    )
    evaluated.add_argument(
        "--tasks",
        default="single,multikey,variables",
        metavar="TASK,...",
        help="what is asked for: single, multikey, multivalue, multiquery, variables, common, frequent, instructions, "
        "episodes, generation, or qa (default %(default)s)",
    )
    evaluated.add_argument(
        "--qa",
        metavar="FILE",
        help="task qa: rows with question, answers and paragraphs, and gold where an answer stands in none of them",
    )
    evaluated.add_argument(
        "--length", type=int, default=512, metavar="N", help="tokens of a text (default %(default)s)"
    )
    evaluated.add_argument(
        "--samples", type=int, default=20, metavar="N", help="texts a task, 2 or more (default %(default)s)"
    )
    evaluated.add_argument(
        "--question",
        choices=("known", "unknown", "both"),
        default="both",
        help="whether it is known when the choice is made (default %(default)s)",
    )
    evaluated.add_argument("--seed", type=int, default=0, help="of texts and random methods (default %(default)s)")
    evaluated.add_argument("--device", default="cpu", help="such as cuda (default %(default)s)")
    evaluated.add_argument("--out", type=Path, metavar="FILE", help="results as JSON")
    evaluated.add_argument(
        "--report", type=Path, metavar="FILE.html", help="page: quality against bytes, all numbers, what was kept where"
    )
    apart = commands.add_parser(
        "parallel", help="what it costs to read documents apart, once each for many prompts (APE), tuned and held out"
    )
    apart.add_argument("model", metavar="MODEL", help="smollm2, thinker or hf:FOLDER; it runs in transformers")
    apart.add_argument(
        "--documents", type=int, default=4, metavar="N", help="of a prompt, 2 to 12 (default %(default)s)"
    )
    apart.add_argument("--length", type=int, default=128, metavar="N", help="tokens of one (default %(default)s)")
    apart.add_argument(
        "--samples", type=int, default=20, metavar="N", help="questions, half of them to choose with (default 20)"
    )
    apart.add_argument("--seed", type=int, default=0, help="of the documents (default %(default)s)")
    apart.add_argument("--device", default="cpu", help="such as cuda (default %(default)s)")
    apart.add_argument("--out", type=Path, metavar="FILE", help="results as JSON")
    planned = commands.add_parser("plan", help="what of weights and cache fits into a memory, from the configuration")
    planned.add_argument("model", metavar="MODEL", help="hf:FOLDER, a config.json, smollm2 or thinker")
    planned.add_argument("--gpu", required=True, metavar="SIZE", help="its memory, such as 24GB (10^9) or 24GiB (2^30)")
    planned.add_argument("--context", required=True, metavar="TOKENS", help="of a sequence, such as 32k")
    planned.add_argument("--batch", type=int, default=1, metavar="N", help="sequences at a time (default %(default)s)")
    planned.add_argument("--bits", type=int, default=16, metavar="N", help="of a weight (default %(default)s)")
    planned.add_argument(
        "--cache-bits", type=int, default=16, metavar="N", help="of a number in the cache (default %(default)s)"
    )
    planned.add_argument("--reserve", default="10%", metavar="SHARE", help="of the memory for all else (default 10%%)")
    planned.add_argument(
        "--measured", type=Path, metavar="FILE", help="of cache eval --out: what the share that fits costs in quality"
    )
    planned.add_argument("--json", action="store_true", help="what fits as JSON")
    _cache_train.add_arguments(commands)


def run(args: argparse.Namespace) -> int:
    """Evaluate, compare, plan or train."""
    return {"plan": _plan, "eval": _evaluate, "parallel": _parallel, "train": _cache_train.run}[args.action](args)


def _parallel(args: argparse.Namespace) -> int:
    """Read documents apart and one behind the other, and print what that costs and saves."""
    from budgeteer.core.errors import InvalidInput
    from budgeteer.core.files import write_text
    from budgeteer.lab.cache_eval import opened
    from budgeteer.lab.cache_parallel import PREFIX, compare, questions

    if args.samples < 4:
        raise InvalidInput(f"--samples is {args.samples}; give 4 questions or more, half of them to choose with")
    what = f"--length {args.length} for {args.documents} documents"
    model, encode = opened(args.model, args.device, tokens=args.length * args.documents, what=what)
    asked = questions(encode, args.samples, args.documents, args.length, seed=args.seed)
    found = compare(model, encode(PREFIX, True), asked)
    said = [
        f"temperature {found['temperature']}, scale {found['scale']}, chosen on {len(asked) - found['questions']} "
        f"questions; judged on {found['questions']} others about {args.documents} documents",
        f"{'':12} right   95 % interval  log p lost  95 % interval   tokens still to read",
    ]
    for row in found["rows"]:
        right, lost = row["right"], row["lost"]
        said.append(
            f"{row['way']:12} {right['mean']:5.0%}  [{right['low']:5.0%}, {right['high']:4.0%}]  {lost['mean']:10.2f}  "
            f"[{lost['low']:5.2f}, {lost['high']:5.2f}]  {row['read']:10,.0f}"
        )
    sys.stdout.write("\n".join(said) + "\n")
    if args.out:
        write_text(json.dumps(found, indent=1) + "\n", args.out)
    return 0


def _plan(args: argparse.Namespace) -> int:
    """Print what fits; exit code 1 if the weights alone do not."""
    from budgeteer.cache.plan import fit, shape_of, size_of
    from budgeteer.core.budget import Budget
    from budgeteer.core.errors import InvalidInput

    context, reserve = Budget.parse(args.context), Budget.parse(args.reserve)
    if context.kind != "all" or not context.amount or context.window:
        raise InvalidInput(f"--context is {args.context}; give tokens, such as 32k")
    if reserve.fraction is None or reserve.kind != "all" or reserve.fraction >= 1:
        raise InvalidInput(f"--reserve is {args.reserve}; give a share below 100%")
    if (memory := size_of(args.gpu)) < 10**6:
        raise InvalidInput(f"--gpu is {args.gpu}, {memory} bytes, less than a model takes; write 24GB or 24GiB")
    measured, measured_on = _measured(args.measured)
    model, windows = _described(args.model)
    shape = shape_of(model, windows)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    found = fit(
        shape, memory, context.amount, args.batch, bits=args.bits, cache_bits=args.cache_bits, reserve=reserve.fraction
    )
    best = _promised(measured, float(found.share))
    if args.json:
        said_of = {"measured": best, "measured_on": measured_on, "positions": positions}
        sys.stdout.write(json.dumps({**asdict(found), "share": float(found.share), **said_of}, indent=1) + "\n")
        return int(found.free == 0)
    slides = sum(window is not None for window in shape.windows)
    said = [
        f"weights       {_gigabytes(found.weights)}, {shape.parameters:,} parameters of {args.bits} bits",
        f"cache         {found.token:,} bytes a token, {len(shape.windows)} layers, {slides} of them slide",
        f"free          {_gigabytes(found.free)} of {_gigabytes(memory)}, without {args.reserve} and the weights",
        f"full cache    {_gigabytes(found.full)} for {args.batch} x {context.amount:,} tokens",
    ]
    if found.free == 0:
        said.append("the weights do not fit: give a larger memory, fewer --bits, or a smaller reserve")
    else:
        fits = f"{float(found.share):.1%} of the cache, {found.tokens:,} tokens a head"
        said += [
            f"what fits     {fits if found.share < 1 else 'the full cache'}",
            f"full at most  {found.batch:,} x {context.amount:,} tokens, or {args.batch} x {found.context:,}",
        ]
    if positions is not None and max(context.amount, found.context) > positions:
        said.append(f"positions     {positions:,} in the model: a longer text takes more than memory")
    if measured and found.free:
        said.append(f"measured      on {measured_on or 'a model that the file does not name'}: {args.measured}")
        if not best:
            said.append(
                f"              no share of it is within {float(found.share):.1%}; give cache eval such --budgets"
            )
    for row in best:
        asked = "known" if row["known"] else "unknown"
        said.append(
            f"at {row['budget']:>6}     {row['method']}, question {asked}: right {row['right']['mean']:.0%}, log p "
            f"lost {row['lost']['mean']:.2f} [{row['lost']['low']:.2f}, {row['lost']['high']:.2f}]"
        )
    sys.stdout.write("\n".join(said) + "\n")
    return int(found.free == 0)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB"


def _described(spec: str) -> tuple[Any, list[int | None]]:
    """A model without its weights, and the window of each layer."""
    from budgeteer.cache.budgeted_cache import windows_of
    from budgeteer.cache.plan import described
    from budgeteer.core.errors import InvalidInput
    from budgeteer.models.thinker import thinker

    if spec.startswith(("http://", "https://", "anthropic:")):
        raise InvalidInput(
            f"{spec!r}: the cache of an endpoint is its server's; give the model that it serves, hf:FOLDER"
        )
    if spec == "smollm2":
        from budgeteer.lab.cache_eval import opened

        model = opened(spec)[0]
    else:
        model = described(thinker() if spec == "thinker" else Path(spec.removeprefix("hf:")))
    return model, windows_of(model)


def _measured(file: Path | None) -> tuple[list[dict[str, Any]], str | None]:
    """The rows of an evaluation, and its model as it was named there."""
    from budgeteer.core.budget import Budget
    from budgeteer.core.errors import InvalidInput

    if file is None:
        return [], None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = found["rows"]
        assert isinstance(rows, list)
        assert rows
        for row in rows:
            numbers = [row["right"]["mean"], *(row["lost"][name] for name in ("mean", "low", "high"))]
            assert all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
            assert isinstance(row["method"], str)
            assert isinstance(row["known"], bool)
            Budget.parse(row["budget"])
        model = found.get("settings", {}).get("model")
        assert model is None or isinstance(model, str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise InvalidInput(f"{file} holds no evaluation; make one: budgeteer cache eval MODEL --out {file}") from error
    return rows, model


def _promised(rows: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """The two best methods at the largest measured budget within a share, with the question known and unknown."""
    from budgeteer.core.budget import Budget

    found: list[dict[str, Any]] = []
    for known in (True, False):
        sized = [(Budget.parse(row["budget"]).fraction or 2, row) for row in rows if row["known"] == known]
        within = [(float(size), row) for size, row in sized if size <= share]
        largest = max((size for size, _ in within), default=0.0)
        fitting = [row for size, row in within if size == largest]
        found += sorted(fitting, key=lambda row: float(row["lost"]["mean"]))[:2]
    return found


def _evaluate(args: argparse.Namespace) -> int:
    """Answer questions, and print a row for each method and budget."""
    from budgeteer.cache import selection
    from budgeteer.core import registry
    from budgeteer.core.errors import InvalidInput, UnknownName
    from budgeteer.core.files import write_text
    from budgeteer.lab import cache_eval
    from budgeteer.lab.needles import TASKS, samples
    from budgeteer.lab.paragraphs import TASK, read_questions, samples_of

    if args.samples < 2:
        raise InvalidInput(f"--samples is {args.samples}; give 2 samples or more, for an interval")
    budgets = [budget.strip() for budget in args.budgets.split(",")]
    tasks = [task.strip() for task in args.tasks.split(",")]
    if unknown := [task for task in tasks if task not in (*TASKS, TASK)]:
        raise UnknownName("task of a cache", unknown[0], (*TASKS, TASK))
    cache_eval.require_once(tasks, tasks)
    if (TASK in tasks) != (args.qa is not None):
        raise InvalidInput(f"task {TASK} and --qa FILE, whose questions it asks, go together; give both or none")
    questions = read_questions(args.qa) if args.qa else []
    if args.qa and len(questions) < args.samples:
        fewer = f"--samples {len(questions)} or " if len(questions) > 1 else ""
        raise InvalidInput(f"{args.qa} has {len(questions)} questions; give {fewer}more rows")
    given = args.methods or [name for name, method in registry.of("score").items() if not method.arguments]
    if args.methods and (joined := [each for each in given if "," in each.split(":", 1)[0]]):
        raise InvalidInput(
            f"--methods has {joined[0]!r}; put a blank between two methods: {joined[0].replace(',', ' ')}"
        )
    methods = [selection(method).name for method in given]
    cache_eval.check(methods, budgets, args.length)
    twice = bool(args.methods) and any(selection(method).score.replays for method in methods)
    what = f"--length {args.length}{', for a method that reads twice,' if twice else ''}"
    model, encode = cache_eval.opened(args.model, args.device, tokens=args.length * (1 + twice), what=what)
    args.methods = methods if args.methods else cache_eval.possible(model, methods, args.length)

    def size(text: str) -> int:
        return len(encode(text, True))

    made = []
    for task in tasks:
        if task == TASK:
            made += samples_of(questions, args.samples, args.length, size, seed=args.seed)
        else:
            made += samples(task, args.samples, args.length, size, seed=args.seed)
    known = {"known": (True,), "unknown": (False,), "both": (True, False)}[args.question]
    answered, arms = [], (1 + len(args.methods) * len(budgets)) * len(known)
    so_far = _SoFar(len(made))
    for each in cache_eval.evaluate(model, encode, made, args.methods, budgets, known=known, seed=args.seed):
        answered.append(each)
        if len(answered) % arms == 0:
            so_far(len(answered) // arms)
    rows = cache_eval.table(answered)
    for knows in known:
        sys.stdout.write(_printed([row for row in rows if row["known"] == knows], tasks, knows))
    if args.out:
        settings = {name: value for name, value in vars(args).items() if name not in ("out", "report", "action")}
        write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n", args.out)
        sys.stdout.write(f"written: {args.out}\n")
    if args.report:
        from budgeteer.lab.cache_report import render

        write_text(render(rows, args.model), args.report)
        sys.stdout.write(f"written: {args.report}\n")
    return 0


class _SoFar:
    """How many texts are done: live on a terminal, in a log a line at the start, at the end and every half minute.

    Args:
        total: texts in all.
    """

    def __init__(self, total: int) -> None:
        self.total, self.told = total, -math.inf
        if not sys.stderr.isatty():
            self(0)

    def __call__(self, done: int) -> None:
        """Say it, if it is time."""
        said = f"{done} of {self.total} texts"
        if sys.stderr.isatty():
            _cache_train.said(said)
        elif done == self.total or time.monotonic() - self.told >= EVERY:
            self.told = time.monotonic()
            sys.stderr.write(f"{said}\n")
            sys.stderr.flush()


def _printed(rows: list[dict[str, Any]], tasks: list[str], known: bool) -> str:
    title = "question known when the choice is made" if known else "question asked after the choice"
    width = max(len(row["method"]) for row in rows)
    lines = [
        f"\n{title}, {rows[0]['samples']} texts; times over those of the full cache",
        f"{'method':{width}}  budget    kept  at end      bytes       peak  prompt  token  right   95 % interval  "
        "log p lost  95 % interval    " + "  ".join(tasks),
    ]
    for row in rows:
        right, lost = row["right"], row["lost"]
        end, token = (
            "" if row[name] is None else format(row[name], how) for name, how in (("end", ".1%"), ("token", ".2f"))
        )
        said = [
            f"{row['method']:{width}}  {row['budget']:>6}  {row['kept']:6.1%}  {end:>6}  {row['bytes']:9,}  ",
            f"{row['peak']:9,}  {row['prompt']:6.2f}  {token:>5}  ",
            f"{right['mean']:5.0%}  [{right['low']:5.0%}, {right['high']:4.0%}]  {lost['mean']:10.2f}  ",
            f"[{lost['low']:5.2f}, {lost['high']:5.2f}]  ",
            "  ".join(f"{row['tasks'][task]:{len(task)}.0%}" for task in tasks),
        ]
        lines.append("".join(said))
    return "\n".join(lines) + "\n"
