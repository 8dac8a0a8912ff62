"""Why TRAAC's compressed traces cost right answers: which are learnt from, how they end, and what of them hurts.

    python benchmarks/traac.py                 # resumable: a file a run
    python benchmarks/traac.py --summary       # run nothing, rewrite results and page
    python benchmarks/traac.py --quick         # smoke test: writes nothing without --out

Start, problems, budget and settings are those of ``benchmarks/rewards.py`` (seeds from 300), so that the first two arms
are runs of its table. The others change one thing of the compression (``ARMS``). Of every compressed row is kept how
difficult its prompt is, whether its answer is right, what advantage it gets, and how many of the steps that were left
out stand nowhere else in its trace.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core.plan import I64, right
from budgeteer.lab import pool as pools
from budgeteer.lab import results
from budgeteer.lab.heldout import rewards
from budgeteer.lab.run import one_thread, wording_of
from budgeteer.models.policy import REASONER, LlamaPolicy, load_policy
from budgeteer.rl import recipes
from budgeteer.rl.asked import RoundRequests
from budgeteer.rl.branch import CUT_AT, TRACE, branched
from budgeteer.rl.compress import ATTENTION, STEP, Compression, kept
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.reward._traac import difficulty
from budgeteer.rl.rollouts import Rollouts
from budgeteer.rl.step import Update
from budgeteer.rl.trainer import Trainer
from pages import Place, published
from rewards import CAP, FIRST_SEED, PROBLEMS, Ask, measured, overthinking
from rewards import TARGET as OF_REWARDS
from rewards_report import TRAAC_MARKS, banded, traac_summary
from runs import Runs

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "benchmarks" / "results" / "traac.json"
ALONE, WHOLE = "reward alone", "compressed"


@dataclass(frozen=True, slots=True)
class Read(Compression):
    """What is left of the thinking is read, and only the answer behind it is learnt."""

    def requests(self, traces: Rollouts, cap: int, written: Sequence[int]) -> RoundRequests:
        """As they are, but for the heads."""
        return replace(super(Read, self).requests(traces, cap, written), learnt=False)


@dataclass(frozen=True, slots=True)
class Shuffled(Compression):
    """As many steps are left out, at random."""

    def requests(self, traces: Rollouts, cap: int, written: Sequence[int]) -> RoundRequests:
        """With the attention of a trace's steps in another order."""
        attention, rng = traces.more[ATTENTION].copy(), np.random.default_rng(int(traces.tokens.sum()))
        for i in range(len(traces)):
            step = traces.more[STEP][i]
            if step.max(initial=-1) < 1:
                continue
            mean = np.array([attention[i][step == s].mean() for s in range(step.max() + 1)])
            attention[i] = np.where(step >= 0, mean[rng.permutation(len(mean))][np.maximum(step, 0)], attention[i])
        moved = replace(traces, more={**traces.more, ATTENTION: attention})
        return super(Shuffled, self).requests(moved, cap, written)


def unlearnt(rollouts: Rollouts, rng: np.random.Generator) -> I64:
    """The traces alone: compressed rows are paid for and count in their groups, and carry no gradient."""
    return np.flatnonzero(~branched(rollouts))


def as_many(rollouts: Rollouts, rng: np.random.Generator) -> I64:
    """As many rows of a prompt as it had traces, drawn from both kinds, as the paper's code does."""
    chosen = []
    for g in range(len(rollouts.keys)):
        rows = np.flatnonzero(rollouts.group == g)
        chosen.append(rng.permutation(rows)[: int((~branched(rollouts)[rows]).sum())])
    return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))


def recipe_of(arm: str) -> Recipe:
    """The recipe of an arm."""
    whole = recipes.get("traac")
    rates = (0.75, 0.5, 0.25)
    return {
        ALONE: replace(whole, branch=None),
        WHOLE: whole,
        "heads only read": replace(whole, branch=Read(rates)),
        "not learnt": replace(whole, select=unlearnt),
        "as many rows as before": replace(whole, select=as_many),
        "steps at random": replace(whole, branch=Shuffled(rates)),
    }[arm]


ARMS = (ALONE, WHOLE, "heads only read", "not learnt", "as many rows as before", "steps at random")


class Watched(Trainer):
    """A trainer that keeps a line for each compressed row."""

    seen: list[dict[str, Any]]

    def _update(self, update: Update) -> None:
        self.seen += lines(update, self.progress.step, self.decode)
        super()._update(update)


def lines(update: Update, step: int, decode: Any) -> list[dict[str, Any]]:
    """What became of each compressed row of a step."""
    rollouts, found = update.rollouts, []
    if TRACE not in rollouts.more:
        return []
    whole = ~branched(rollouts)
    level = difficulty(rollouts.verified, rollouts.group, whole)
    trace_of = {int(rollouts.more[TRACE][i]): int(i) for i in np.flatnonzero(whole)}
    for i in np.flatnonzero(rollouts.more[CUT_AT] >= 0).tolist():
        own = trace_of.get(int(rollouts.more[TRACE][i]))
        if own is None:
            continue
        end = int(rollouts.closed[own])
        step_of, attention = (rollouts.more[name][own, :end] for name in (STEP, ATTENTION))
        left = kept(attention, step_of, (0.75, 0.5, 0.25)[level[own]])
        texts = [
            decode([rollouts.tokens[own, :end][step_of == s].tolist()])[0].strip(" ;\n?")
            for s in range(step_of.max() + 1)
        ]
        out = sorted({int(s) for s in step_of[~left]})
        others = [text for s, text in enumerate(texts) if s not in out]
        found.append(
            {
                "step": step, "level": int(level[own]), "right": bool(right(rollouts.verified[i])),
                "advantage": float(np.mean(update.advantage[i])),
                "trace advantage": float(np.mean(update.advantage[own])),
                "steps": len(texts), "out": len(out), "needed": sum(texts[s] not in others for s in out),
                "trace": int(rollouts.length[own]), "tokens": int(rollouts.length[i]),
                "logprob": float(np.nanmean(rollouts.logprob[i, : rollouts.length[i]])),
            }
        )  # fmt: skip
    return found


def run(arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train an arm and measure it."""
    begin = time.perf_counter()
    policy: LlamaPolicy = load_policy(args.model)
    pool = pools.build("real", PROBLEMS + seed, args.train, args.heldout)
    config = TrainConfig(args.steps, 8, max_tokens=CAP, lr=1e-3, warmup=2, minibatches=4, eval_every=0, seed=seed)
    trainer = Watched(
        recipe_of(arm), config, policy.model, policy.encode([item.prompt for item in pool.train]),
        [item.key for item in pool.train],
        lambda index, rows: rewards(policy, pool.environment, [pool.train[i] for i in index], rows), policy.markers,
        budget=args.tokens, decode=policy.decode, wording=wording_of(policy, pool.train),
    )  # fmt: skip
    trainer.seen = []
    progress = trainer.run()
    found = measured(policy, pool, Ask(), 2, CAP, 20_000 + seed)
    return {
        "arm": arm, "seed": seed, "used": progress.used, "steps": progress.step,
        "rollouts": sum(row["rollouts"] for row in progress.steps_log), "compressed": trainer.seen,
        "accuracy": found["accuracy"], "tokens": found["tokens"], "levels": found["levels"],
        "seconds": time.perf_counter() - begin,
    }  # fmt: skip


def main() -> int:
    """Run what is missing, then write and print the summary of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS, metavar="NAME", help="default: all")
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "traac", help="default: %(default)s")
    parser.add_argument("--start", type=Path, default=ROOT / "runs" / "rewards" / "start", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="two arms, one seed, two steps: means nothing")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, help=f"default: {TARGET.name} among the results; none if quick")
    args = parser.parse_args()
    args.tokens, args.steps, args.train, args.heldout = 48_000, 12, 512, 256
    if args.quick:
        args.arms, args.seeds, args.folder = [WHOLE, "heads only read"], 1, args.folder / "quick"
        args.tokens, args.steps, args.train, args.heldout = 4_000, 2, 32, 16
    one_thread()
    out = args.out or (None if args.quick else TARGET)
    runs = Runs(args.folder, {key: getattr(args, key) for key in ("tokens", "steps", "train", "heldout")})
    if not args.summary:
        args.model = REASONER if args.quick else overthinking(args.start)
    for arm, seed in runs.missing(args.arms, range(FIRST_SEED, FIRST_SEED + (0 if args.summary else args.seeds))):
        runs.keep(row := run(arm, seed, args))
        print(
            time.strftime("%H:%M"), arm, seed, f"{100 * row['accuracy']:.1f} %, {row['tokens']:.0f} tokens,",
            len(row["compressed"]), f"{row['seconds']:.0f} s", file=sys.stderr, flush=True,
        )  # fmt: skip
    known = json.loads(OF_REWARDS.read_text())["parts"]["main"]["runs"]  # easy or hard for the start of that table
    content = {
        "config": runs.config,
        "bands": banded(known),
        "runs": runs.with_those_of(out, ARMS),
        "versions": results.versions(),
    }
    published(content, traac_summary(content), out, Place(TARGET, ROOT / "docs" / "rewards-measured.md", TRAAC_MARKS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
