"""All recipes at 100 %, 50 % and 25 % of GRPO's tokens, on three pools, over seeds; and the ablation of DUET.

    python benchmarks/rlvr.py                      # everything, resumable; about an hour on 2 cores
    python benchmarks/rlvr.py --jobs key ablation  # some of it
    python benchmarks/rlvr.py --summary            # only rewrite benchmarks/results/rlvr.json and docs/rlvr.md

Seeds and problem sets differ from those that any setting was chosen on: runs use seeds from 200 on and problem sets
from 8200; settings were chosen with seeds below 120 and problem sets below 7120. ``clock`` runs the arms of the main
claim once more for their times only: start it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.lab import report, results
from budgeteer.lab.compare import Arm, compare
from budgeteer.lab.run import RunSpec
from budgeteer.lab.stats import mean_ci, paired
from budgeteer.rl.recipes import USED
from budgeteer.rl.trainer import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
POOLS = ("real", "hard", "homogeneous", "real, twice the learning rate")
KEY = ("grpo", "uniform-stop", "duet", "duet-select")
LEAD = ("uniform-stop", "uniform-answer-stop", "duet-select")
OTHERS = (
    "uniform-answer-stop", "duet-published", "vip", "knapsack", "dapo", "reinforce-ada-pos", "reinforce-ada-balance",
)  # fmt: skip
CLOCK = "real, clock"
FIRST_SEED, PROBLEMS = 200, 8000


def arms(recipes: Sequence[str], budgets: Sequence[str]) -> list[Arm]:
    """The reference, then every recipe at every budget."""
    return [Arm.parse("grpo@100%")] + [Arm.parse(f"{r}@{b}") for b in budgets for r in recipes]


def jobs(seeds: int) -> dict[str, tuple[str, list[Arm], int]]:
    """Name -> (pool, arms, seeds), the most important first; runs that two jobs share are done once."""
    mends = [f"duet-no-{m}" for m in USED]
    return {
        "key": ("real", arms(KEY, ("50%", "25%")), seeds + 3),
        # more seeds for one question: is the lead over uniform groups larger at 25 % than at 50 %?
        "lead": ("real", arms(LEAD, ("50%", "25%")), seeds + 11),
        "clock": (CLOCK, arms(KEY, ("50%", "25%")), seeds),
        "others": ("real", arms(OTHERS, ("50%", "25%")), seeds),
        "homogeneous": ("homogeneous", arms(KEY, ("50%", "25%")), seeds),
        "hard": ("hard", arms(KEY, ("50%", "25%")), seeds),
        "ablation": ("real", arms(["duet-allocation", "duet-plus-i", *mends], ("50%",)), seeds),
        "full": ("real", arms((*KEY[1:], *OTHERS), ("100%",)), seeds),
        "higher-lr": ("real, twice the learning rate", arms(("uniform-stop", "duet", "duet-select"), ("50%",)), seeds),
    }


def folder(pool: str) -> str:
    """File name of a pool's results."""
    return pool.replace(", ", "-").replace(" ", "-")


def collect(path: Path, config: dict[str, Any]) -> results.Results | None:
    """Everything that was run on a pool, whichever job asked for it."""
    runs = [json.loads(file.read_text()) for file in sorted((path / "runs").glob("*.json"))]
    runs = [{k: v for k, v in run.items() if k != "digest"} for run in runs]
    if not runs:
        return None
    order = {
        "grpo@100%": -1,
        **{f"{r}@{b}": i for i, (b, r) in enumerate(product(("100%", "50%", "25%"), (*KEY, *OTHERS)))},
    }
    runs.sort(key=lambda r: (order.get(results.label(r), 999), results.label(r), r["seed"]))
    found = results.labels(runs)
    pairs = [(name, "grpo@100%") for name in found if name != "grpo@100%"]
    return {
        "schema": results.SCHEMA, "runs": runs, "comparisons": results.compare(runs, pairs), "config": config,
        "versions": results.versions(),
    }  # fmt: skip


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
        row["by_seed"] = {
            seed: {"accuracy": r["accuracy"], "seconds": r["seconds"]} for seed, r in sorted(runs.items())
        }
        row["mixed_groups"] = float(np.mean([r["diagnostics"]["mixed_groups"] for r in runs.values()]))
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
        rows.append(row)
    return {"name": name, "config": found["config"], "versions": found["versions"], "arms": rows}


def page(parts: list[dict[str, Any]]) -> str:
    """The Markdown page."""

    def interval(x: list[float] | None) -> str:
        if x is None:
            return ""
        if not np.isfinite(x[1]):
            return f"{100 * x[0]:+.1f} (one seed)"
        return f"{100 * x[0]:+.1f} [{100 * x[1]:+.1f}, {100 * x[2]:+.1f}]"

    lines = [
        "# RLVR at equal token budgets",
        "",
        "Written by `python benchmarks/rlvr.py`; data: `benchmarks/results/rlvr.json`. Accuracy is sampled pass@1 on",
        "held-out problems, in percent; differences are in points, paired by seed, with 95 % t intervals over seeds.",
        "Every sampled token counts, aborted ones included. The columns vs uniform-stop and vs grpo compare with the",
        "control arm and plain GRPO at the same budget. Times have a table of their own, from runs that had the",
        "machine to themselves (two at once on two cores, one thread each).",
        "",
    ]
    for part in parts:
        c = part["config"]
        t = c["config"]
        if part["name"] == CLOCK:
            lines += times(part)
            continue
        lines += [
            f"## {part['name']}",
            "",
            f"{c['train']} training and {c['heldout']} held-out problems of their own for each seed, "
            f"{t['steps']} steps of {t['prompts']} prompts, {t['group']} rollouts a prompt at 100 %, at most "
            f"{t['max_tokens']} tokens a rollout, learning rate {t['lr']}.",
            "",
            "| arm | seeds | accuracy | vs grpo@100% | vs uniform-stop | vs grpo | tokens | trained | wasted |",
            "|---|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for row in part["arms"]:
            a = row["accuracy"]
            lines.append(
                f"| {row['arm']} | {row['seeds']} | {100 * a[0]:.1f} | {interval(row.get('vs_full'))} "
                f"| {interval(row.get('vs_control'))} "
                f"| {interval(row.get('vs_grpo'))} | {row['used'] / 1000:.0f}k | {row['trained'] / 1000:.0f}k "
                f"| {row['wasted'] / 1000:.0f}k |"
            )
        lines.append("")
    return "\n".join(lines)


def times(part: dict[str, Any]) -> list[str]:
    """The table of times, as Markdown lines."""
    lines = [
        "## Time on the real pool",
        "",
        "Seconds of training relative to `grpo@100%` of the same seed, median and range over seeds; control is the",
        "share of allocation (estimates and memory included) and stopping in a run's time, mean over seeds.",
        "",
        "| arm | seeds | time | range | control |",
        "|---|---|---|---|---|",
    ]
    base = next(row["by_seed"] for row in part["arms"] if row["arm"] == "grpo@100%")
    for row in part["arms"]:
        ratios = sorted(r["seconds"] / base[s]["seconds"] for s, r in row["by_seed"].items() if s in base)
        lines.append(
            f"| {row['arm']} | {row['seeds']} | {np.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} "
            f"| {100 * row['control_share']:.1f} % |"
        )
    return [*lines, ""]


COLOURS = {"grpo": "#0072b2", "uniform-stop": "#d55e00", "duet": "#009e73", "duet-select": "#cc79a7"}


def picture(part: dict[str, Any]) -> str:
    """An SVG of accuracy against the share of GRPO's tokens, with 95 % intervals over seeds, for the key recipes."""
    share = {"25%": 0, "50%": 1, "100%": 2}
    points: dict[str, list[tuple[int, list[float]]]] = {name: [] for name in COLOURS}
    for row in part["arms"]:
        recipe, _, budget = row["arm"].partition("@")
        if recipe in points and budget in share:
            points[recipe].append((share[budget], row["accuracy"]))
    every = [value for found in points.values() for _, ci in found for value in ci]
    low, high = min(every) - 0.01, max(every) + 0.01

    def y(value: float) -> float:
        return 20 + 260 * (high - value) / (high - low)

    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 340" role="img" '
        'font-family="sans-serif" font-size="13">',
        f"<title>Held-out accuracy on the {part['name']} pool against the share of GRPO's tokens</title>",
        '<rect width="680" height="340" fill="#ffffff"/>',
    ]
    step = 0.05
    for k in range(int(np.ceil(low / step)), int(high / step) + 1):
        out.append(f'<path d="M60 {y(k * step):.1f}H500" stroke="#dddddd"/>')
        out.append(f'<text x="52" y="{y(k * step) + 4:.1f}" text-anchor="end" fill="#555555">{k * step:.0%}</text>')
    for budget, k in share.items():
        out.append(f'<text x="{120 + 160 * k}" y="302" text-anchor="middle" fill="#555555">{budget}</text>')
    out.append('<text x="280" y="326" text-anchor="middle" fill="#555555">share of the tokens of grpo@100%</text>')
    for i, (recipe, found) in enumerate(points.items()):
        colour, found = COLOURS[recipe], sorted(found)
        xs = [120 + 160 * k + 12 * (i - 1.5) for k, _ in found]
        line = " ".join(f"{x:.1f},{y(ci[0]):.1f}" for x, (_, ci) in zip(xs, found, strict=True))
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, (_, ci) in zip(xs, found, strict=True):
            out.append(f'<path d="M{x:.1f} {y(ci[1]):.1f}V{y(ci[2]):.1f}" stroke="{colour}" stroke-width="1.5"/>')
            out.append(f'<circle cx="{x:.1f}" cy="{y(ci[0]):.1f}" r="4" fill="{colour}"/>')
        out.append(f'<path d="M520 {60 + 26 * i}h24" stroke="{colour}" stroke-width="3"/>')
        out.append(f'<text x="552" y="{64 + 26 * i}" fill="#222222">{recipe}</text>')
    return "\n".join([*out, "</svg>"])


def main() -> int:
    """Run what is asked, then write the summary of everything that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="*", default=list(jobs(1)), choices=list(jobs(1)), help="default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "rlvr")
    parser.add_argument("--summary", action="store_true", help="run nothing, only rewrite the summary")
    args = parser.parse_args()

    def base(pool: str) -> RunSpec:
        name = pool.partition(", ")[0]
        config = TrainConfig(lr=TrainConfig().lr * 2) if "learning rate" in pool else TrainConfig()
        return RunSpec("grpo", "100%", None, config, pool=name, pool_seed=PROBLEMS)

    def news(update: Any) -> None:
        if update.state == "done":
            print(f"done {update.name}", file=sys.stderr, flush=True)

    for name in [] if args.summary else args.jobs:
        pool, chosen, seeds = jobs(args.seeds)[name]
        compare(chosen, range(FIRST_SEED, FIRST_SEED + seeds), base(pool), args.out / folder(pool), on_update=news)
    parts = []
    for pool in (*POOLS, CLOCK):
        found = collect(args.out / folder(pool), json.loads(base(pool).to_json()))
        if found is not None:
            found["config"]["model"] = "embedded reasoner"
            results.write(found, args.out / f"{folder(pool)}.json")
            report.write_report(found, args.out / f"{folder(pool)}.html")
            parts.append(summarise(pool, found))
    target = ROOT / "benchmarks" / "results" / "rlvr.json"
    results.write_text(json.dumps(results.to_json(parts), indent=1) + "\n", target)
    results.write_text(page(parts) + "\n", ROOT / "docs" / "rlvr.md")
    for part in parts:
        if part["name"] == "real":
            results.write_text(picture(part) + "\n", ROOT / "docs" / "curve.svg")
    print(page(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
