"""budgeteer stages: which model and how many samples each stage of a pipeline gets from a budget."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from budgeteer.core.method import Method


TRIALS = 30
"""Pipelines to try, of a method that takes their number."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("pipeline", type=Path, metavar="PIPELINE.toml", help="ways and stages (docs/stages.md)")
    parser.add_argument("questions", type=Path, metavar="FILE.jsonl", help="rows with an answer, to try pipelines on")
    parser.add_argument("--budget", type=float, required=True, help="weighted tokens of one question")
    parser.add_argument("--trials", type=int, default=None, help=f"pipelines to try (default: {TRIALS})")
    parser.add_argument("--batch", type=int, default=None, help="proposals at a time (default: that of the method)")
    parser.add_argument(
        "--search",
        default="agent-tts",
        metavar="SPEC",
        help="a joint method that needs no gradient, NAME:option=value: budgeteer methods joint (default %(default)s)",
    )
    parser.add_argument("--agent", default=None, metavar="MODEL", help="that proposes (default: the paper's rules)")
    parser.add_argument("--heldout", type=Path, default=None, metavar="FILE.jsonl", help="rows to test the best one on")
    parser.add_argument("--seed", type=int, default=0, help="of samples and draws (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Search, print a line a trial, and the best pipeline."""
    import asyncio

    import numpy as np

    from budgeteer.core import registry
    from budgeteer.lab import stages
    from budgeteer.lab.stats import wilson
    from budgeteer.models.load import load_model

    method, options = _search(args)
    pipeline = stages.load(args.pipeline)
    rows = stages.rows_of(args.questions, pipeline)
    heldout = None if args.heldout is None else stages.rows_of(args.heldout, pipeline)
    models = {way.model: load_model(way.model) for way in pipeline.ways.values()}
    proposer = None if args.agent is None else models.get(args.agent) or load_model(args.agent)
    loop = asyncio.Runner()  # one for all calls: clients of endpoints belong to a loop
    try:
        runner = stages.Runner(pipeline, models, args.seed, loop.run)
        counted = next(iter(models.values()))
        known = {**rows[0], **{stage.name: rows[0]["answer"] for stage in pipeline.stages}}
        prompts = [float(counted.count(stage.prompt.format_map(known))) for stage in pipeline.stages]

        def tell(choice: Sequence[int], right: float) -> None:
            named = ", ".join(f"{stage}: {what}" for stage, what in pipeline.named(choice).items())
            sys.stdout.write(f"{right:6.1%}  {named}\n")
            sys.stdout.flush()

        cost = pipeline.costs(prompts)
        loss, rng = stages.evaluation(runner, rows, tell), np.random.default_rng(args.seed)
        if "family" in registry.options_of(method):
            options["family"] = pipeline.family.tolist()
        if proposer is not None:
            options["propose"] = stages.agent(proposer, pipeline, run=loop.run)
        winner = registry.make("joint", method.name, **options)(loss, cost, args.budget, cost * 0, rng=rng)
        best = ", ".join(f"{stage}: {what}" for stage, what in pipeline.named(winner.choice.tolist()).items())
        spent = sum(float(row[k]) for row, k in zip(cost, winner.choice.tolist(), strict=True))
        lines = [f"\nbest       {best}", f"cost       {spent:,.6g} of {args.budget:,.6g} weighted tokens a question"]
        lines.append(f"right      {1 - winner.loss:.1%} of the {len(rows)} questions that chose it")
        if heldout is not None:
            share = wilson(round(runner.score(winner.choice.tolist(), heldout) * len(heldout)), len(heldout))
            lines.append(f"held out   {share.mean:.1%} [{share.low:.1%}, {share.high:.1%}] of {len(heldout)}")
        lines.append(f"search     {winner.calls} pipelines, {runner.tokens:,} tokens sampled")
        sys.stdout.write("\n".join(lines) + "\n")
    finally:
        for model in {id(m): m for m in (*models.values(), proposer) if m is not None}.values():
            loop.run(model.aclose())
        loop.close()
    return 0


def _search(args: argparse.Namespace) -> tuple[Method, dict[str, Any]]:
    """The joint method of ``--search``, and the options of it that stand in its name or in the command's own flags.

    Raises:
        UnknownName: no joint method has the name, or it has no such option.
        InvalidInput: it needs a gradient, or does not take what a flag gives.
    """
    from budgeteer.core import registry
    from budgeteer.core.errors import InvalidInput
    from budgeteer.core.spec import parse

    spec = parse(args.search, "joint")
    method = registry.get("joint", spec.name)
    if "gradient" in method.traits:
        raise InvalidInput(f"--search {spec.name} follows the gradient of a loss, and a pipeline has none")
    takes, options = registry.options_of(method), dict(spec.values)
    for name, flag, given in (
        ("trials", "--trials", args.trials),
        ("batch", "--batch", args.batch),
        ("propose", "--agent", args.agent),
    ):
        if given is not None and name not in takes:
            raise InvalidInput(f"--search {spec.name} has no option {name}; leave {flag} out")
        if given is not None and name in options:
            raise InvalidInput(f"{flag} and --search {args.search} both say {name}; leave one of them out")
    if "trials" in takes:
        options.setdefault("trials", TRIALS if args.trials is None else args.trials)
    if args.batch is not None:
        options["batch"] = args.batch
    return method, registry.arguments_of(method, options)
