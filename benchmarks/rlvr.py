"""All recipes at 100 %, 50 % and 25 % of GRPO's tokens, on three pools, over seeds; and the ablation of DUET.

    python benchmarks/rlvr.py                      # everything (resumable; hours on 2 cores with 5 seeds)
    python benchmarks/rlvr.py --pools real --seeds 5
    python benchmarks/rlvr.py --ablation
    python benchmarks/rlvr.py --summary            # only rewrite benchmarks/results/rlvr.json and docs/rlvr.md

Seeds and problem sets differ from those that any setting was chosen on: runs use seeds from 100 on and problem set
7000; settings were chosen with seeds below 10 and problem sets 100 to 110.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.lab import report, results
from budgeteer.lab.compare import Arm, compare
from budgeteer.lab.run import RunSpec
from budgeteer.lab.stats import mean_ci, paired
from budgeteer.rl.trainer import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
POOLS = ("real", "hard", "homogeneous")
MAIN = ("grpo", "uniform-answer-stop", "uniform-stop", "duet", "duet-published", "vip", "knapsack")
FULL_ONLY = ("dapo", "reinforce-ada-pos", "reinforce-ada-balance")
FIRST_SEED, PROBLEMS = 100, 7000
MENDS = "abcdefghijs"


def arms_of(pool: str) -> list[Arm]:
    """The arms of a pool: all recipes on the real-like one, the question of allocation on the others."""
    if pool != "real":
        return [Arm.parse("grpo@100%")] + [
            Arm.parse(f"{r}@{b}") for b in ("50%", "25%") for r in ("grpo", "uniform-stop", "duet")
        ]
    return [Arm.parse(f"{r}@{b}") for b in ("100%", "50%", "25%") for r in (*MAIN, *FULL_ONLY)]


def ablation_arms() -> list[Arm]:
    """Allocator only, stopper only, both, and each mend off, at half and a quarter of the tokens."""
    names = ["grpo", "uniform-answer-stop", "uniform-stop", "duet-allocation", "duet", "duet-published"]
    half = [Arm.parse("grpo@100%")] + [Arm.parse(f"{n}@50%") for n in names]
    return half + [Arm.parse(f"duet-no-{m}@50%") for m in MENDS]


def summarise(name: str, found: results.Results) -> dict[str, Any]:
    """Mean accuracy with interval, tokens, seconds, and paired differences of every arm."""
    rows = []
    for label in results.labels(found["runs"]):
        runs = results.by_seed(found["runs"], label)
        budget = label.partition("@")[2]
        row: dict[str, Any] = {"arm": label, "seeds": len(runs)}
        ci = mean_ci(np.array([r["accuracy"] for r in runs.values()]))
        row["accuracy"] = [ci.mean, ci.low, ci.high]
        for key in ("used", "trained", "wasted"):
            row[key] = float(np.mean([r["tokens"][key] for r in runs.values()]))
        row["seconds"] = float(np.mean([r["seconds"] for r in runs.values()]))
        row["steps"] = float(np.mean([r["diagnostics"]["steps"] for r in runs.values()]))
        d = [r["diagnostics"] for r in runs.values()]
        row["control_share"] = float(
            np.mean(
                [
                    (x["allocation_seconds"] + x["stopping_seconds"]) / r["seconds"]
                    for x, r in zip(d, runs.values(), strict=True)
                ]
            )
        )
        for other, key in (
            ("grpo@100%", "vs_full"),
            (f"uniform-stop@{budget}", "vs_control"),
            (f"grpo@{budget}", "vs_grpo"),
        ):
            if other == label or other not in results.labels(found["runs"]):
                continue
            base = results.by_seed(found["runs"], other)
            seeds = sorted(runs.keys() & base.keys())
            p = paired(np.array([runs[s]["accuracy"] for s in seeds]), np.array([base[s]["accuracy"] for s in seeds]))
            row[key] = [p.mean, p.low, p.high]
            if key == "vs_full":
                row["time_ratio"] = float(np.mean([runs[s]["seconds"] / base[s]["seconds"] for s in seeds]))
        rows.append(row)
    return {"name": name, "config": found["config"], "versions": found["versions"], "arms": rows}


def page(parts: list[dict[str, Any]]) -> str:
    """The Markdown page."""

    def interval(x: list[float] | None) -> str:
        return "" if x is None else f"{100 * x[0]:+.1f} [{100 * x[1]:+.1f}, {100 * x[2]:+.1f}]"

    lines = [
        "# RLVR at equal token budgets",
        "",
        "Written by `python benchmarks/rlvr.py`; data: `benchmarks/results/rlvr.json`. Accuracy is sampled pass@1 on",
        "held-out problems, in percent; differences are in points, paired by seed, with 95 % t intervals over seeds.",
        "Every sampled token counts, aborted ones included. Time is that of training, relative to `grpo@100%` of the",
        "same seed, two runs at once on two cores with one thread each. The two columns in the middle compare with the",
        "control arm and with plain GRPO at the same budget.",
        "",
    ]
    for part in parts:
        c = part["config"]
        t = c["config"]
        seeds = c["seeds"]
        lines += [
            f"## {part['name']}",
            "",
            f"{c['train']} training and {c['heldout']} held-out problems of their own for each seed, "
            f"seeds {seeds[0]} to {seeds[-1]}, "
            f"{t['steps']} steps of {t['prompts']} prompts, {t['group']} rollouts a prompt at 100 %, at most "
            f"{t['max_tokens']} tokens a rollout, learning rate {t['lr']}.",
            "",
            "| arm | accuracy | against grpo@100% | against uniform-stop | against grpo | tokens | trained | wasted | time |",
            "|---|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for row in part["arms"]:
            a = row["accuracy"]
            lines.append(
                f"| {row['arm']} | {100 * a[0]:.1f} | {interval(row.get('vs_full'))} "
                f"| {interval(row.get('vs_control'))} "
                f"| {interval(row.get('vs_grpo'))} | {row['used'] / 1000:.0f}k | {row['trained'] / 1000:.0f}k "
                f"| {row['wasted'] / 1000:.0f}k | {row.get('time_ratio', 1.0):.2f} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    """Run what is asked, then write the summary of everything that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", nargs="*", default=list(POOLS), choices=POOLS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--arms", nargs="*", help="only these arms")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "rlvr")
    parser.add_argument("--summary", action="store_true")
    args = parser.parse_args()
    jobs = [(pool, pool, arms_of(pool)) for pool in args.pools]
    if args.ablation:
        jobs = [("ablation", "real", ablation_arms())]
    seeds = list(range(FIRST_SEED, FIRST_SEED + args.seeds))
    for name, pool, arms in [] if args.summary else jobs:
        if args.arms:
            arms = [Arm.parse(a) for a in args.arms]
        base = RunSpec("grpo", "100%", None, TrainConfig(), pool=pool, pool_seed=PROBLEMS)

        def news(update: Any) -> None:
            if update.state == "done":
                print(f"done {update.name}", file=sys.stderr, flush=True)

        # the real pool and the ablation share their runs
        found = compare(arms, seeds, base, args.out / pool, on_update=news)
        results.write(found, args.out / f"{name}.json")
        report.write_report(found, args.out / f"{name}.html")
    parts = []
    for name in (*POOLS, "ablation"):
        path = args.out / f"{name}.json"
        if path.exists():
            parts.append(summarise(name, results.read(path)))
    target = ROOT / "benchmarks" / "results" / "rlvr.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(parts, indent=1) + "\n")
    (ROOT / "docs" / "rlvr.md").write_text(page(parts))
    print(page(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
