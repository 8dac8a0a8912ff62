"""RL under equal token budgets: recipes at 100 %, 50 % and 25 % of GRPO's tokens, over pools, policies and seeds.

    python benchmarks/rlvr.py                      # everything, resumable; about three hours on 2 idle cores
    python benchmarks/rlvr.py --jobs key ablation  # some of it
    python benchmarks/rlvr.py --summary            # only rewrite benchmarks/results/rlvr.json and docs/rlvr.md

Seeds and problem sets differ from those that any setting was chosen on: runs use seeds from 200 on and problem sets
from 8200; settings were chosen with seeds below 120 and problem sets below 7120. Every run is one row of rlvr.json, and
a row stays until it is run again. On one kind of processor a run is the same each time; on another, rounding differs,
and training carries that on: of 79 runs done on two kinds, half moved by at most 0.05 points, one by 2.7, with no
direction. Older rows lack the accuracy decoded greedily: ``start`` and those of its kind measure it for the untrained
policy alone, in minutes, ``greedy`` runs the arms of the main claim once more.
``tidy`` first pretrains a policy that never goes on after its answer. ``clock`` runs the arms of the main
claim once more for their times only: start it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.lab import results
from budgeteer.lab.arms import CONTROLS, FULL, REFERENCE, Arm, with_references
from budgeteer.lab.claim import MARGIN, SHARE
from budgeteer.lab.compare import compare
from budgeteer.lab.pretrain import PretrainConfig, pretrain
from budgeteer.lab.run import RunSpec
from budgeteer.lab.stats import Paired, mean_ci, paired
from budgeteer.lab.traces import Style
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.recipes import UNTRAINED, duet
from pages import between

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "benchmarks" / "results" / "rlvr.json"
START = f"{UNTRAINED}@0"
STOP = CONTROLS[0]
KEY = (STOP, "uniform-stop", "grpo", "duet", "prompt-selection")
OTHERS = ("duet-published", "vip", "knapsack", "dapo", "reinforce-ada-pos", "reinforce-ada-balance", "c-grpo", "mopps")
DESIGNS = tuple(f"prompt-selection:{options}" for options in ("replay=1", "probe=true", "probe=true,replay=1"))
CLOCK, TIDY, FAST = "real, clock", "real, tidy policy", "real, twice the learning rate"
GREEDY = "real, decoded greedily"
POOLS = {
    "real": "The embedded policy; a pool like published ones: a third of the prompts all right, a sixth all wrong.",
    TIDY: "The same pool; a policy pretrained on traces that end at their answer: there is no rambling to stop.",
    "hard": "Long chains only.",
    "homogeneous": "Chains of one length, where there is little to choose.",
    GREEDY: "The policy and the pool of the first table, run once more with greedy decoding measured for all arms.",
    FAST: "The same pool and policy at twice the learning rate.",
    CLOCK: "",
}
FIRST_SEED, PROBLEMS = 200, 8000

Row = dict[str, Any]
"""One run: arm, seed, accuracy, seconds and, since it was last run, tokens, steps, groups and seconds of control."""


def arms(recipes: Sequence[str], budgets: Sequence[str]) -> list[Arm]:
    """Every recipe at every budget, with what the percentages are of."""
    return with_references([Arm.parse(f"{r}@{b}") for b in budgets for r in recipes])


def jobs() -> dict[str, tuple[str, list[Arm], int]]:
    """Name -> (pool, arms, seeds), the most important first; runs that two jobs share are done once."""
    without = [f"duet:{name}=false" for name, p in inspect.signature(duet).parameters.items() if p.default]
    start = [Arm.parse(UNTRAINED)]
    return {
        "tidy": (TIDY, arms((STOP, "grpo", "duet", "prompt-selection"), ("50%",)), 8),
        "key": ("real", arms(KEY, ("50%",)), 16),
        "full": ("real", arms((STOP, "duet", "prompt-selection"), ("100%",)), 16),
        "start": ("real", start, 16),
        "start-hard": ("hard", start, 5),
        "start-homogeneous": ("homogeneous", start, 5),
        "start-tidy": (TIDY, start, 8),
        "greedy": (GREEDY, arms((STOP, "duet", "prompt-selection"), ("50%",)), 5),
        "quarter": ("real", arms(KEY, ("25%",)), 16),
        "hard": ("hard", arms(KEY, ("50%", "25%")), 5),
        "homogeneous": ("homogeneous", arms(KEY, ("50%", "25%")), 5),
        "clock": (CLOCK, arms(KEY, ("50%", "25%")), 5),
        "others": ("real", arms(OTHERS, ("50%", "25%", "100%")), 5),
        "designs": ("real", arms((STOP, *DESIGNS, f"{STOP}:replay=1"), ("50%", "25%")), 5),
        "ablation": ("real", arms(["duet-allocation", "duet:shrunk_baseline=true", *without], ("50%",)), 5),
        "higher-lr": (FAST, arms(("uniform-stop", "duet", "prompt-selection"), ("50%",)), 5),
    }


def folder(pool: str) -> str:
    """File name of a pool's results."""
    return pool.replace(", ", "-").replace(" ", "-")


def specification(pool: str, out: Path) -> RunSpec:
    """What all runs on a pool share."""
    config = TrainConfig(lr=TrainConfig().lr * 2) if pool == FAST else TrainConfig()
    spec = RunSpec("grpo", "100%", None, config, pool=pool.partition(", ")[0], pool_seed=PROBLEMS)
    return replace(spec, model=str(out / "tidy-policy")) if pool == TIDY else spec


def make_tidy_policy(path: Path) -> None:
    """Pretrain the reasoner on traces that end at their answer, unless it is there; about ten minutes on a core."""
    if not (path / "model.safetensors").exists():

        def news(step: int, loss: float) -> None:
            if step % 500 == 0:
                print(f"pretraining the tidy policy: step {step}, loss {loss:.3f}", file=sys.stderr, flush=True)

        pretrain(PretrainConfig(style=Style(junk=0.0)), path, news)


def row_of(run: results.Run) -> Row:
    """A finished run as a row."""
    d = run["diagnostics"]
    return {
        "arm": results.label(run), "seed": run["seed"], "accuracy": run["accuracy"], "seconds": run["seconds"],
        **({results.GREEDY: run[results.GREEDY]} if results.GREEDY in run else {}),
        **{key: run["tokens"][key] for key in ("used", "trained", "wasted")},
        "steps": d["steps"], "mixed_groups": d["mixed_groups"],
        "control_seconds": d["allocation_seconds"] + d["stopping_seconds"],
    }  # fmt: skip


def merge(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The rows of both, a new one in the place of an old one, in the order of the tables."""
    rows = {(row["arm"], row["seed"]): row for row in (*old, *new)}
    shown = [REFERENCE, START, *(f"{r}@{b}" for b, r in product(("100%", "50%", "25%"), (*KEY, *DESIGNS, *OTHERS)))]
    place = {arm: i for i, arm in enumerate(dict.fromkeys(shown))}
    return sorted(rows.values(), key=lambda row: (place.get(row["arm"], len(place)), row["arm"], row["seed"]))


def by_arm(rows: Sequence[Row]) -> dict[str, dict[int, Row]]:
    """Arm -> seed -> row."""
    arms: dict[str, dict[int, Row]] = {}
    for row in rows:
        arms.setdefault(row["arm"], {})[row["seed"]] = row
    return arms


def difference(
    a: Mapping[int, Row], b: Mapping[int, Row], key: str = "accuracy", other: str | None = None
) -> Paired | None:
    """a's accuracy (``key``) minus b's (``other``; None = the same) over the seeds that both have; None = no seed."""
    other = other or key
    seeds = sorted(seed for seed in a.keys() & b.keys() if key in a[seed] and other in b[seed])
    if not seeds:
        return None
    return paired(np.array([a[s][key] for s in seeds]), np.array([b[s][other] for s in seeds]))


def mean(rows: Mapping[int, Row], key: str = "accuracy") -> str:
    """Mean accuracy in percent over the rows that have it; "" where none has."""
    known = [row[key] for row in rows.values() if key in row]
    return f"{100 * np.mean(known):.1f}" if known else ""


def interval(p: Paired | None) -> str:
    """A difference in points, with its interval where there is one."""
    if p is None:
        return ""
    if not np.isfinite(p.low):
        return f"{100 * p.mean:+.1f} (one seed)"
    return f"{100 * p.mean:+.1f} [{100 * p.low:+.1f}, {100 * p.high:+.1f}]"


def thousands(rows: Mapping[int, Row], key: str) -> str:
    """Mean of a token count over the rows that have it."""
    known = [row[key] for row in rows.values() if key in row]
    return f"{np.mean(known) / 1000:.0f}k" if known else ""


HEAD = f"""# RL at equal token budgets

Written by `python benchmarks/rlvr.py`; data, one row a run: `benchmarks/results/rlvr.json`. One policy of 0.15 million
parameters on short arithmetic: effects of this size say where to look on a large model, not what will be found there.

**Arms.** An arm is `recipe@budget`. A budget in percent is a share of the tokens that `grpo@100%`, GRPO with 8 rollouts
a prompt, samples with the same seed and problems; nobody may sample more. Every sampled token counts, aborted ones too.

| recipe | what it is |
|---|---|
| `untrained` | no training: the policy that all start from |
| `grpo` | GRPO, every rollout runs to its end or to its cap |
| `{STOP}` | GRPO that ends a rollout at its answer: **the strongest plain baseline**, see below |
| `uniform-stop` | uniform groups with the stopping rule, loss and memory of `duet` |
| `duet` | DUET (arXiv 2605.08441), corrected: rollouts by predicted spread and length, and its stopping rule |
| `prompt-selection` | this project's own: `duet` with three times the candidates; none for the solved or hopeless |
| `NAME:replay=1` | the same as NAME, and mixed groups are learnt from again in the next step |
| `prompt-selection:probe=true` | the same in two rounds: small groups, then more where they were or may become mixed |
| `mopps` | GRPO that stops at its answer, its prompts by Thompson sampling of their success rates (arXiv 2507.04632) |
| others | Knapsack RL, VIP, DAPO, Reinforce-Ada, C-GRPO and DUET as published, under the same hard budget |

The embedded policy was pretrained on traces half of which go on after their answer, so that there is something to stop;
the tidy policy was not.

**Numbers.** Accuracy is sampled pass@1 on 1,024 held-out problems, 4 samples each at temperature 1, in percent. Column
"minus untrained, greedy" holds it against the untrained policy with the likeliest token each time, a baseline that
needs no training; the table of the tidy policy lacks it, and trained policies were decoded so in "{GREEDY}"
only: all other accuracies are drawn. Differences are in points,
paired by seed, with 95 % t intervals over seeds, not corrected for their number. "Not worse" was fixed beforehand: the
lower end above minus {100 * MARGIN:.0f} point, or above minus {100 * SHARE:.0f} % of what `grpo@100%` gains over the
untrained policy where that is less. Token columns are means over the runs that were done since their accounts were
corrected; rows without them are older and from another kind of processor, where rounding moves single runs (half of
them by at most 0.05 points, one of 79 by 2.7).
"""


def section(name: str, config: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """The table of a pool, as Markdown lines."""
    t, arms = config["config"], by_arm(rows)
    lines = [
        f"## {name}", "",
        f"{POOLS[name]} {config['train']} training problems of their own for each seed, {t['steps']} steps of "
        f"{t['prompts']} prompts, {t['group']} rollouts a prompt at 100 %, at most {t['max_tokens']} tokens a rollout, "
        f"learning rate {t['lr']}.", "",
    ]  # fmt: skip
    base, start = arms.get(REFERENCE), arms.get(START)
    if base and start:
        gain = difference(base, start)
        assert gain is not None
        margin = min(MARGIN, SHARE * max(gain.mean, 0.0))
        lines += [
            f"`{REFERENCE}` gains {interval(gain)} over the untrained policy; margin {100 * margin:.2f} points.",
            "",
        ]
    if base and start and mean(start, results.GREEDY):
        said = interval(difference(start, base, results.GREEDY, "accuracy"))
        lines += [
            f"**Decoded greedily, without any training, the policy is right on {mean(start, results.GREEDY)} %**: "
            f"{said} against `{REFERENCE}` as it is drawn.",
            "",
        ]
    trained = any(results.GREEDY in row for arm, found in arms.items() if arm != START for row in found.values())
    greedy = bool(start and mean(start, results.GREEDY))
    head = ["arm", "seeds", "accuracy", *["greedy", "greedy minus untrained, greedy"] * trained]
    head += ["minus untrained, greedy"] * greedy
    head += [f"minus {full}" for full in FULL] + [f"minus {control}, same tokens" for control in CONTROLS]
    head += ["tokens", "trained", "wasted"]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for arm, runs in arms.items():
        recipe, _, budget = arm.partition("@")
        others = [*map(arms.get, FULL), *(arms.get(f"{control}@{budget}") for control in CONTROLS)]
        cells = ["" if other is None or other is runs else interval(difference(runs, other)) for other in others]
        if budget == "100%":
            cells[2] = ""  # the second column says the same
            cells[-1] = "" if recipe != "grpo" else cells[-1]  # and the first
        beside = [interval(difference(runs, arms.get(START, {}), "accuracy", results.GREEDY))] * greedy
        if trained:
            gain = None if arm == START else difference(runs, arms.get(START, {}), results.GREEDY)
            beside = [mean(runs, results.GREEDY), interval(gain), *beside]
        tokens = [thousands(runs, key) for key in ("used", "trained", "wasted")]
        lines.append(f"| {arm} | {len(runs)} | {mean(runs)} | {' | '.join([*beside, *cells, *tokens])} |")
    return [*lines, ""]


def times(rows: Sequence[Row]) -> list[str]:
    """The table of times, as Markdown lines."""
    arms = by_arm(rows)
    lines = [
        "## Time on the real pool", "",
        f"Seconds of training relative to `{REFERENCE}` of the same seed, median and range over seeds, from runs that",
        "had the machine to themselves (two at once on two cores, one thread each). The policy has 0.15 million",
        "parameters, so that overhead decides as much as arithmetic.", "",
        "| arm | seeds | time | range |", "|---|---|---|---|",
    ]  # fmt: skip
    for arm, runs in arms.items():
        ratios = sorted(row["seconds"] / arms[REFERENCE][seed]["seconds"] for seed, row in runs.items())
        if arm != START:
            lines.append(f"| {arm} | {len(runs)} | {np.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |")
    return [*lines, ""]


COLOURS = {
    "grpo": "#0072b2", STOP: "#e69f00", "uniform-stop": "#d55e00", "duet": "#009e73", "prompt-selection": "#cc79a7",
}  # fmt: skip


def picture(name: str, rows: Sequence[Row]) -> str:
    """An SVG of accuracy against the share of GRPO's tokens, with 95 % intervals over seeds, for the key recipes."""
    share = {"25%": 0, "50%": 1, "100%": 2}
    points: dict[str, list[tuple[int, list[float]]]] = {recipe: [] for recipe in COLOURS}
    for arm, runs in by_arm(rows).items():
        recipe, _, budget = arm.partition("@")
        if recipe in points and budget in share:
            ci = mean_ci(np.array([row["accuracy"] for row in runs.values()]))
            points[recipe].append((share[budget], [ci.mean, ci.low, ci.high]))
    every = [value for series in points.values() for _, ci in series for value in ci]
    low, high = min(every) - 0.01, max(every) + 0.01

    def y(value: float) -> float:
        return 20 + 260 * (high - value) / (high - low)

    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 340" role="img" '
        'font-family="sans-serif" font-size="13">',
        f"<title>Held-out accuracy on the {name} pool against the share of GRPO's tokens</title>",
        '<rect width="680" height="340" fill="#ffffff"/>',
    ]
    step = 0.05
    for k in range(int(np.ceil(low / step)), int(high / step) + 1):
        out.append(f'<path d="M60 {y(k * step):.1f}H500" stroke="#dddddd"/>')
        out.append(f'<text x="52" y="{y(k * step) + 4:.1f}" text-anchor="end" fill="#555555">{k * step:.0%}</text>')
    for budget, k in share.items():
        out.append(f'<text x="{120 + 160 * k}" y="302" text-anchor="middle" fill="#555555">{budget}</text>')
    out.append(f'<text x="280" y="326" text-anchor="middle" fill="#555555">share of the tokens of {REFERENCE}</text>')
    for i, (recipe, series) in enumerate(points.items()):
        colour, series = COLOURS[recipe], sorted(series)
        xs = [120 + 160 * k + 10 * (i - 2) for k, _ in series]
        line = " ".join(f"{x:.1f},{y(ci[0]):.1f}" for x, (_, ci) in zip(xs, series, strict=True))
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, (_, ci) in zip(xs, series, strict=True):
            out.append(f'<path d="M{x:.1f} {y(ci[1]):.1f}V{y(ci[2]):.1f}" stroke="{colour}" stroke-width="1.5"/>')
            out.append(f'<circle cx="{x:.1f}" cy="{y(ci[0]):.1f}" r="4" fill="{colour}"/>')
        out.append(f'<path d="M512 {60 + 26 * i}h20" stroke="{colour}" stroke-width="3"/>')
        out.append(f'<text x="538" y="{64 + 26 * i}" fill="#222222">{recipe}</text>')
    return "\n".join([*out, "</svg>"])


SHORT = ("real", TIDY), (START, REFERENCE, FULL[1], f"{STOP}@50%", "duet@50%", "prompt-selection@50%")
"""Pools and arms of the table in docs/findings.md."""
BEGIN, END = "<!-- written by benchmarks/rlvr.py -->\n", "<!-- end -->"


def short(content: Mapping[str, Any]) -> str:
    """The table in docs/findings.md: the arms of the main claim, with the embedded and the tidy policy."""
    lines = [
        "| recipe at its share of GRPO's tokens | policy | seeds | accuracy | against the untrained policy, greedily "
        f"| against `{REFERENCE}` "
        f"| against `{FULL[1]}` | against `{STOP}`, same tokens |",
        "|---|---|---|---|---|---|---|---|",
    ]
    pools, chosen = SHORT
    for pool in pools:
        arms = by_arm(content["pools"].get(pool, {"runs": []})["runs"])
        policy = "tidy" if pool == TIDY else "rambling"
        for arm in (arm for arm in chosen if arm in arms):
            runs, stop = arms[arm], f"{STOP}@{arm.partition('@')[2]}"
            others = [other if other in arms and other != arm else None for other in (*FULL, stop)]
            if arm == REFERENCE:
                others[2] = None  # the second column says the same
            cells = ["" if other is None else interval(difference(runs, arms[other])) for other in others]
            greedy = interval(difference(runs, arms.get(START, {}), "accuracy", results.GREEDY))
            lines.append(f"| `{arm}` | {policy} | {len(runs)} | {mean(runs)} | {' | '.join([greedy, *cells])} |")
    return "\n".join(lines) + "\n"


def page(content: Mapping[str, Any]) -> str:
    """The Markdown page of the content of rlvr.json."""
    lines = [HEAD]
    for name, pool in content["pools"].items():
        lines += times(pool["runs"]) if name == CLOCK else section(name, pool["config"], pool["runs"])
    return "\n".join(lines)


def main() -> int:
    """Run what is asked, then write the summary of everything that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="*", default=list(jobs()), choices=list(jobs()), help="default: all")
    parser.add_argument("--seeds", type=int, default=None, help="at most so many of each job")
    parser.add_argument("--workers", type=int, default=None, help="processes at once (default: one a core)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "rlvr")
    parser.add_argument("--target", type=Path, default=TARGET, help="default: benchmarks/results/rlvr.json")
    parser.add_argument("--summary", action="store_true", help="run nothing, only rewrite the summary")
    args = parser.parse_args()

    def news(update: Any) -> None:
        if update.state == "done":
            print(f"done {update.name}", file=sys.stderr, flush=True)

    for name in [] if args.summary else args.jobs:
        pool, chosen, most = jobs()[name]
        if pool == TIDY:
            make_tidy_policy(args.out / "tidy-policy")
        seeds = range(FIRST_SEED, FIRST_SEED + min(most, args.seeds or most))
        run = partial(compare, workers=args.workers, on_update=news)
        run(chosen, seeds, specification(pool, args.out), args.out / folder(pool))
    old = json.loads(args.target.read_text())["pools"] if args.target.exists() else {}
    pools = {}
    for pool in POOLS:
        files = sorted((args.out / folder(pool) / "runs").glob("*.json"))
        rows = merge(old.get(pool, {}).get("runs", []), [row_of(json.loads(path.read_text())) for path in files])
        if rows:
            config = json.loads(specification(pool, args.out).to_json())
            config["model"] = "a policy of its own" if pool == TIDY else "the embedded reasoner"
            pools[pool] = {"config": config, "runs": rows}
    content = {"versions": results.versions(), "pools": pools}
    results.write_text(json.dumps(results.to_json(content), indent=1) + "\n", args.target)
    if args.target == TARGET:
        results.write_text(page(content), ROOT / "docs" / "rlvr.md")
        findings = ROOT / "docs" / "findings.md"
        results.write_text(between(findings.read_text(), short(content), BEGIN, END), findings)
        results.write_text(picture("real", pools["real"]["runs"]) + "\n", ROOT / "docs" / "curve.svg")
    print(page(content))
    return 0


if __name__ == "__main__":
    sys.exit(main())
