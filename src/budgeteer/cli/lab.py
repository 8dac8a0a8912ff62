"""budgeteer lab: tools of the laboratory."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from budgeteer.cli import _awareness, _forecast, _made_models
from budgeteer.cli._options import add_task, task_of
from budgeteer.cli._printed import printable

STEPS = {"reasoner": 5000, "thinker": 7200}
"""Of PretrainConfig and ThinkerConfig, whose modules are too slow to import for a help text."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    commands = parser.add_subparsers(dest="tool", required=True, metavar="ACTION")
    pretrain = commands.add_parser("pretrain", help="rebuild an embedded model from nothing (resumable)")
    pretrain.add_argument(
        "--model",
        choices=tuple(STEPS),
        default="reasoner",
        help="the small reasoner, or the thinking model with a chat template (default %(default)s)",
    )
    pretrain.add_argument("--out", type=Path, default=None, help="folder (default runs/MODEL)")
    defaults = " or ".join(f"{steps} for the {model}" for model, steps in STEPS.items())
    pretrain.add_argument("--steps", type=int, default=None, help=f"optimiser steps (default {defaults})")
    pretrain.add_argument("--seed", type=int, default=0, help="of everything random (default %(default)s)")
    export = commands.add_parser("export", help="write the thinking model in the format of another engine")
    export.add_argument(
        "--model", default="thinker", help="thinker, the embedded one, or a folder of its kind (default %(default)s)"
    )
    export.add_argument("--gguf", type=Path, required=True, metavar="FILE", help="file for llama.cpp to write")
    last = commands.add_parser("last-token", help="how late, and at which token, a model computes the answer of a sum")
    last.add_argument("--model", default="thinker", help="thinker, hf:FOLDER or a name (default %(default)s)")
    last.add_argument("--template", default="{a}+{b}=", help="raw text with fields for numbers (default %(default)s)")
    last.add_argument("--low", type=int, default=10, help="smallest number (default %(default)s)")
    last.add_argument("--high", type=int, default=99, help="largest number (default %(default)s)")
    last.add_argument("--limit", type=int, default=200, help="prompts (default %(default)s)")
    last.add_argument("--seed", type=int, default=0, help="of the prompts (default %(default)s)")
    last.add_argument("--json", action="store_true", help="as JSON")
    ability = commands.add_parser("ability", help="estimate a model by few questions, from the answers of other models")
    ability.add_argument(
        "responses", metavar="FILE", help="a response matrix: a row a model, its name in the column model, 1 and 0"
    )
    ability.add_argument(
        "--questions", default=None, metavar="FILE", help="key, cost in tokens, and group of the questions"
    )
    ability.add_argument(
        "--answers",
        default=None,
        metavar="FILE",
        help="key and right (1 or 0) of the answers of the tested model so far",
    )
    ability.add_argument(
        "--budget", default="0", help="tokens of the questions to ask next; their number, where none has a cost"
    )
    ability.add_argument(
        "--discount", type=float, default=1.0, help="exponent of the cost: 0 counts questions (default %(default)s)"
    )
    ability.add_argument("--json", action="store_true", help="one JSON object")
    tokens = commands.add_parser("tokens", help="where the tokens of agents' runs go: by stage, role or turn")
    tokens.add_argument("calls", metavar="FILE", help="a row a call, in order (JSON lines, CSV, Parquet)")
    tokens.add_argument(
        "--by", default="stage", metavar="COLUMN", help="of the stage or role, or turn (default %(default)s)"
    )
    tokens.add_argument(
        "--rules", type=Path, default=None, metavar="FILE", help="lines of STAGE, tab, REGEX, for the text in --by"
    )
    for name, of in (("input", "a call's input"), ("output", "a call's output")):
        tokens.add_argument(f"--{name}", default=name, metavar="COLUMN", help=f"tokens of {of} (default %(default)s)")
    tokens.add_argument("--cached", default="cached", metavar="COLUMN", help="part of the input (default %(default)s)")
    tokens.add_argument(
        "--reasoning", default="reasoning", metavar="COLUMN", help="part of the output (default %(default)s)"
    )
    tokens.add_argument("--beside", action="store_true", help="reasoning is counted beside the output, not inside it")
    tokens.add_argument("--run", default="run", metavar="COLUMN,...", help="what names a run (default %(default)s)")
    tokens.add_argument("--plot", type=Path, default=None, metavar="FILE.svg", help="write a picture")
    tokens.add_argument("--json", action="store_true", help="as JSON")
    audit = commands.add_parser("audit", help="whether a provider counts tokens as before, against one's own estimate")
    audit.add_argument("calls", metavar="FILE", help="a row a call, in order of time (JSON lines, CSV, Parquet)")
    for name, text in (("model", "of the model's name"), ("billed", "tokens that were billed")):
        audit.add_argument(f"--{name}", default=name, metavar="COLUMN", help=f"{text} (default %(default)s)")
    audit.add_argument(
        "--estimate", default="estimate", metavar="COLUMN", help="your own count, or characters (default %(default)s)"
    )
    audit.add_argument("--text", default=None, metavar="COLUMN", help="that was shown, to find counts that cannot be")
    audit.add_argument(
        "--baseline", type=int, default=50, help="first calls of a model, which judge the others (default %(default)s)"
    )
    audit.add_argument("--json", action="store_true", help="as JSON")
    _awareness.add_arguments(commands)
    _forecast.add_arguments(commands)
    _made_models.add_arguments(commands)
    commands.add_parser("hacking", help="what each reward of training pays for that nobody wants, on made-up rollouts")
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
    tools = {
        "pretrain": _pretrain,
        "export": _export,
        "ability": _ability,
        "audit": _audit,
        "awareness": _awareness.run,
        "forecast": _forecast.run,
        "hacking": _hacking,
        "last-token": _last_token,
        "merge": _made_models.merge,
        "profile": _profile,
        "tokenizer": _made_models.tokenizer,
        "tokens": _tokens,
        "transplant": _made_models.transplant,
    }
    return tools[args.tool](args)


def _hacking(args: argparse.Namespace) -> int:
    from budgeteer.lab import hacking

    sys.stdout.write(f"{hacking.legend()}\n\n{hacking.table()}\n")
    return 0


def _last_token(args: argparse.Namespace) -> int:
    import json

    from budgeteer.core.errors import InvalidInput
    from budgeteer.lab import last_token
    from budgeteer.models.load import load_model
    from budgeteer.models.transformers import Transformers

    if not 0 <= args.low < args.high:
        raise InvalidInput(f"--low {args.low}, --high {args.high}; give two numbers, the smaller one first")
    loaded = load_model(args.model)
    if not isinstance(loaded, Transformers):
        raise InvalidInput(f"{args.model} shows no layers here; give thinker or hf:FOLDER")
    prompts = last_token.prompts_of(args.template, range(args.low, args.high + 1), args.limit, args.seed)
    ids = last_token.encoded(loaded.tokenizer, prompts)
    depth = len(last_token.layers_of(loaded.model))
    settings = [(wait, transfer) for wait in range(depth) for transfer in range(depth - wait + 1)]
    flows = last_token.faithfulness(loaded.model.float(), ids, settings)
    if args.json:
        sys.stdout.write(json.dumps([flow._asdict() for flow in flows]) + "\n")
        return 0
    sys.stdout.write(
        f"prompts with the whole model's next token, {len(ids)} such as {prompts[0]!r}, {depth} layers\n\n"
        f"{last_token.render(flows)}\n"
    )
    return 0


def _pretrain(args: argparse.Namespace) -> int:
    steps = STEPS[args.model] if args.steps is None else args.steps
    out = args.out or Path("runs") / args.model
    return (_pretrain_thinker if args.model == "thinker" else _pretrain_reasoner)(steps, args.seed, out)


def _pretrain_thinker(steps: int, seed: int, out: Path) -> int:
    from budgeteer.lab.thinker.train import Progress, ThinkerConfig, pretrain

    def progress(now: Progress) -> None:
        end = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + now.seconds_left))
        sys.stderr.write(f"step {now.step}/{now.steps}  loss {now.loss:.4f}  {now.speed:,.0f} tokens/s  ends {end}\n")
        sys.stderr.flush()

    pretrain(ThinkerConfig(steps=steps, seed=seed), out, progress)
    sys.stdout.write(f"the thinking model is in {out.resolve()}\n")
    return 0


def _export(args: argparse.Namespace) -> int:
    from budgeteer.lab.thinker.export import write_gguf
    from budgeteer.models.thinker import THINKER

    write_gguf(THINKER if args.model == "thinker" else Path(args.model), args.gguf)
    sys.stdout.write(f"{args.gguf.resolve()}: {args.gguf.stat().st_size:,} bytes\n")
    return 0


def _pretrain_reasoner(steps: int, seed: int, out: Path) -> int:
    from budgeteer.lab.pretrain import PretrainConfig, pretrain

    config = PretrainConfig(steps=steps, seed=seed)
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

    pretrain(config, out, progress)
    sys.stdout.write(f"\nthe reasoner is in {out.resolve()}\n")
    return 0


def _profile(args: argparse.Namespace) -> int:
    from budgeteer.lab.profile import profile, render
    from budgeteer.models.policy import REASONER

    profiled = profile(args.model or REASONER, task_of(args, args.task), args.task_seed, args.items, args.rollouts)
    sys.stdout.write(render(profiled) + "\n")
    if profiled.prompts < args.items:
        sys.stderr.write(
            f"--items is {args.items:,}, but {args.task} has {profiled.prompts:,}: all of them were taken\n"
        )
    return 0


def _ability(args: argparse.Namespace) -> int:
    from budgeteer.core.budget import Budget
    from budgeteer.core.errors import InvalidInput
    from budgeteer.lab import ability

    budget = Budget.parse(args.budget)
    if budget.amount is None or budget.kind != "all" or budget.window is not None:
        raise InvalidInput(f"--budget {args.budget!r} must be a number of tokens here, such as 20k")
    known = ability.responses(args.responses)
    questions = ability.About() if args.questions is None else ability.about(args.questions)
    answers = {} if args.answers is None else ability.answered(args.answers)
    if unpriced := [key for key in known.keys if key not in questions.cost] if questions.cost else []:
        raise InvalidInput(f"{len(unpriced)} questions have no cost, such as {unpriced[0]!r}; give all or none")
    bank, fit = ability.fitted(known, questions)
    estimate = ability.estimate(bank, questions, answers, budget.amount, discount=args.discount)
    if args.json:
        shown = {
            "models": len(known.models),
            "questions": len(known.keys),
            "rounds": len(fit.loss),
            "ability": estimate.ability.tolist(),
            "deviation": estimate.deviation.tolist(),
            "scores": [asdict(score) for score in estimate.scores],
            "ask": list(estimate.ask),
            "tokens": estimate.tokens,
        }
        sys.stdout.write(json.dumps(shown) + "\n")
        return 0
    sys.stdout.write(f"calibrated on {len(known.models):,} models and {len(known.keys):,} questions\n")
    general, sure = float(estimate.ability[0]), float(estimate.deviation[0])
    sys.stdout.write(f"ability  {general:+.2f}, standard deviation {sure:.2f}, from {len(answers)} answers\n")
    width = max(len(score.name) for score in estimate.scores)
    for score in estimate.scores:
        about = f"{score.answered} of {score.questions} answered"
        sys.stdout.write(f"{score.name:{width}}  {score.mean:6.1%} +- {score.deviation:.1%}  {about}\n")
    if budget.amount:
        unit = "tokens" if questions.cost else "questions"
        sys.stdout.write(f"ask next ({estimate.tokens:,.6g} of {budget.amount:,} {unit}):\n")
        sys.stdout.write("".join(f"  {printable(key)}\n" for key in estimate.ask))
    return 0


def _audit(args: argparse.Namespace) -> int:
    from budgeteer.draw.text import ruled
    from budgeteer.lab import audit

    calls = audit.read(args.calls, args.model, args.billed, args.estimate, args.text)
    found = audit.watch(calls, baseline=args.baseline)
    if args.json:
        sys.stdout.write(json.dumps([one._asdict() for one in found]) + "\n")
    else:
        table = [["model", "calls", "billed / estimate", "changed at call", "to", "seen at call", "impossible counts"]]
        for one in found:
            change = ["-"] * 3 if one.after is None else [str(one.since), f"{one.after:.3g}", str(one.alarm)]
            impossible = "-" if one.impossible is None else str(one.impossible)
            table.append([printable(one.model), f"{one.calls:,}", f"{one.before:.3g}", *change, impossible])
        sys.stdout.write(ruled(table) + "\n")
    return int(any(one.alarm is not None or one.impossible for one in found))


def _tokens(args: argparse.Namespace) -> int:
    from budgeteer.draw.svg import compact, percent
    from budgeteer.draw.text import ruled
    from budgeteer.draw.tree import Branch, tree_chart
    from budgeteer.lab import tokens
    from budgeteer.lab.results import write_text

    run = tuple(word.strip() for word in args.run.split(",") if word.strip()) or ("run",)
    fields = tokens.Fields(run, args.input, args.output, args.cached, args.reasoning, args.beside)
    calls = tokens.read(args.calls, args.by, fields, None if args.rules is None else tokens.rules(args.rules))
    found = tokens.shares(calls)
    if args.plot is not None:
        label = "{:.1%} of all".format
        branches = [Branch(one.name, 0, one.tokens, label(one.of_sum)) for one in found]
        write_text(tree_chart(branches, f"Tokens by {args.by}", tokens.PARTS), args.plot)
    if args.json:
        shown = [one._asdict() | {"of_runs": asdict(one.of_runs)} for one in found]
        sys.stdout.write(json.dumps(shown) + "\n")
        return 0
    table = [[args.by, "calls", *tokens.PARTS, "all", "of all tokens", "mean share of a run"]]
    for one in found:
        mean = one.of_runs
        spread = "" if mean.n < 2 else f" [{percent(mean.low)}, {percent(mean.high)}]"
        cells = [f"{one.calls:,}", *map(compact, one.tokens), compact(one.total), percent(one.of_sum)]
        table.append([printable(one.name), *cells, f"{percent(mean.mean)}{spread}"])
    every = [sum(one.tokens[i] for one in found) for i in range(len(tokens.PARTS))]
    runs, total = int(calls.run.max()) + 1, sum(every)
    table.append(["all", f"{len(calls.label):,}", *map(compact, every), compact(total), "100%", f"{runs:,} runs"])
    sys.stdout.write(ruled(table) + "\n")
    return 0
