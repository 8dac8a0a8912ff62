"""Recipes on the embedded thinking model in TRL, at half and a quarter of the tokens of GRPO.

    python benchmarks/trl_thinker.py                          # resumable: a file a run
    python benchmarks/trl_thinker.py --arms duet@50% --seeds 3
    python benchmarks/trl_thinker.py --summary                # run nothing, rewrite results and page
    python benchmarks/trl_thinker.py --quick                  # smoke test: writes nothing without --out

The model (Qwen3 architecture, all weights trained) is asked with low effort, where a trace is short and there is most
to learn. A seed has problems and an order of its own. ``grpo@100%`` has no budget; its tokens are what shares are of.
All arms have as many generations, of the same number of prompts; a share buys fewer rollouts, which every recipe
places as it likes. ``grpo twice`` learns from each generation two times. The plain baseline is ``grpo`` at the same
share; this model ends its turn with the answer, so a stop at the answer has nothing to save. Rollouts are drawn as in
``benchmarks/rewards_thinker.py``; accuracy is that of one sample of each held-out problem at temperature 1, of the
likeliest tokens in arms with ``, greedy``; differences are paired by seed.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from budgeteer.lab import results
from budgeteer.lab.posttrain.problems import Grader
from budgeteer.lab.stats import mean_ci, paired
from budgeteer.models.thinker import THINKER
from pages import Place, published
from rewards_report import GREEDY
from rewards_thinker import add_training, measured, trained
from runs import Runs
from thinker_brief import problems
from thinker_pool import Drawer

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "benchmarks" / "results" / "trl_thinker.json"
MARKS = "<!-- written by benchmarks/trl_thinker.py -->", "<!-- end of the table -->"
PLAIN, FULL, START = "grpo", "grpo@100%", "untrained@0%"
LIKELIEST = f"untrained{GREEDY}@0%"
UNTRAINED = (START, LIKELIEST)
FREE = (*UNTRAINED, FULL, f"{PLAIN}{GREEDY}@100%")
"""Arms without a budget."""
RECIPES = (
    PLAIN, "prompt-selection", "duet-allocation", "duet", "knapsack", "vip", "reinforce-ada-balance",
    "reinforce-ada-pos", "dapo", "c-grpo", "mopps",
)  # fmt: skip
TWICE = " twice"
RIVAL = "trl-cgrpo"
"""Not a recipe but the package of that name: ``benchmarks/c_grpo_package.py``. Only on demand, by ``--arms``."""
ARMS = (
    *FREE, f"{PLAIN}{TWICE}@100%",
    *(f"{recipe}@{share}%" for share in (50, 25) for recipe in (PLAIN, f"{PLAIN}{TWICE}", *RECIPES[1:])),
)  # fmt: skip
FIRST_SEED = 600
FEWEST = 3
"""Seeds below which there is no interval."""
SHARED = ("steps", "prompts", "lr", "max_tokens", "train", "heldout", "effort")


def run(arm: str, seed: int, total: int | None, args: argparse.Namespace) -> dict[str, Any]:
    """Train an arm and measure it; ``total`` = the tokens of the reference."""
    begin = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(THINKER)
    model: Any = AutoModelForCausalLM.from_pretrained(THINKER, dtype=torch.float32)
    made, drawer = problems(seed, tokenizer, args, f"think:effort={args.effort}"), Drawer(THINKER, torch.float32)
    grader = Grader(made, lambda ids: str(tokenizer.decode(ids)), frozenset({drawer.end}), print)
    recipe, _, share = arm.rpartition("@")
    tokens: dict[str, Any] = dict.fromkeys(("planned", "used", "trained", "wasted"), 0)
    steps = rollouts = 0
    if arm not in UNTRAINED:
        budget = None if total is None else total * int(share[:-1]) // 100
        passes = 2 if TWICE in recipe else 1
        name = recipe.removesuffix(GREEDY).removesuffix(TWICE)
        if name == RIVAL:
            import c_grpo_package  # which needs a package of its own

            trainer: Any = c_grpo_package.trained(seed, model, tokenizer, made, grader, drawer, budget, args)
            tokens = {"planned": budget, "used": trainer.used, "wasted": trainer.calibrating}
            tokens["trained"] = trainer.used - trainer.calibrating
            steps, rollouts = trainer.generations, trainer.rollouts
        else:
            trainer = trained(name, seed, model, tokenizer, made, grader, drawer, budget, args, iterations=passes)
            progress = trainer.spending.progress
            tokens = {name: getattr(progress, name) for name in tokens}
            steps, rollouts = progress.step, sum(row["rollouts"] for row in progress.steps_log)
        model = trainer.accelerator.unwrap_model(trainer.model)
    middle = time.perf_counter()
    drawer.take(model.eval())
    found = measured(
        drawer, tokenizer, made, grader, args.max_tokens, seed, temperature=0.0 if recipe.endswith(GREEDY) else 1.0
    )
    made.close()
    return {
        "arm": arm, "seed": seed, **found, **tokens, "steps": steps, "rollouts": rollouts,
        "seconds": {"training": middle - begin, "measuring": time.perf_counter() - middle},
    }  # fmt: skip


def minus(own: Sequence[Mapping[str, Any]], base: str, of: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    """Points of accuracy above another arm over the seeds that both have, with an interval from FEWEST seeds on."""
    pairs = [(row, of[base, row["seed"]]) for row in own if base != row["arm"] and (base, row["seed"]) in of]
    if len(pairs) < FEWEST:
        points = [100 * (one["accuracy"] - other["accuracy"]) for one, other in pairs]
        return f"{np.mean(points):+.1f}" if points else ""
    p = paired(*(np.array([pair[i]["accuracy"] for pair in pairs]) for i in (0, 1)))
    return f"{100 * p.mean:+.1f} [{100 * p.low:+.1f}, {100 * p.high:+.1f}]"


def accuracy_of(own: Sequence[Mapping[str, Any]]) -> str:
    """Percent that are right, with an interval over seeds from FEWEST on."""
    right = [100 * row["accuracy"] for row in own]
    told = mean_ci(right) if len(right) >= FEWEST else None
    return f"{told.mean:.1f} [{told.low:.1f}, {told.high:.1f}]" if told else f"{np.mean(right):.1f}"


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line an arm: accuracy and tokens over the seeds, differences to the baselines of full and of its own share."""
    of = {(row["arm"], row["seed"]): row for row in rows}
    lines = [
        "| recipe | of the tokens | seeds | accuracy | minus `grpo` at 100 % | minus `grpo` at the same share | "
        "tokens of an answer | sampled in training | rollouts |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    for arm in dict.fromkeys(row["arm"] for row in rows):
        own, (recipe, _, share) = [row for row in rows if row["arm"] == arm], arm.rpartition("@")
        tokens, used, rollouts = (float(np.mean([row[name] for row in own])) for name in ("tokens", "used", "rollouts"))
        same = minus(own, f"{PLAIN}@{share}", of) if arm != FULL else ""
        cells = [f"`{recipe}`", share.replace("%", " %"), str(len(own)), accuracy_of(own), minus(own, FULL, of), same]
        lines.append(f"| {' | '.join(cells)} | {tokens:.0f} | {used:,.0f} | {rollouts:,.0f} |")
    return "\n".join(lines)


def main() -> int:
    """Run what is missing, then write and print the table of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), metavar="RECIPE@SHARE", help="default: all")
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="default: %(default)s")
    add_training(parser, steps=16, prompts=12, max_tokens=384, heldout=512)
    parser.add_argument("--effort", default="low", help="of the thinking (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "trl-thinker", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="three arms, one seed, one generation: means nothing")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, help=f"default: {TARGET.name} among the results; none if quick")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if args.quick:
        args.arms, args.seeds, args.folder = [START, FULL, "duet@50%"], 1, args.folder / "quick"
        args.steps, args.prompts, args.train, args.heldout, args.max_tokens = 1, 2, 16, 8, 48
    out = args.out or (None if args.quick else TARGET)
    runs = Runs(args.folder, {key: getattr(args, key) for key in SHARED})
    seeds = range(args.first_seed, args.first_seed + (0 if args.summary else args.seeds))
    for arm, seed in runs.missing(args.arms, seeds):
        if arm not in FREE and (FULL, seed) not in runs.rows:
            parser.error(f"{arm} is a share of the tokens of {FULL}: give {FULL} before it")
        total = None if arm in FREE else int(runs.rows[FULL, seed]["used"])
        runs.keep(row := run(arm, seed, total, args))
        print(
            time.strftime("%H:%M"), arm, seed, f"{100 * row['accuracy']:.1f} %, {row['tokens']:.0f} tokens,",
            row["used"], row["steps"], row["rollouts"], row["seconds"], file=sys.stderr, flush=True,
        )  # fmt: skip
    order = runs.with_those_of(out, ARMS)
    content = {"config": runs.config, "runs": order}
    content["versions"] = results.versions() | results.installed(("trl", "accelerate"))
    published(content, summary(order), out, Place(TARGET, ROOT / "docs" / "trl.md", MARKS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
