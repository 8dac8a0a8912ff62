"""Every reward from one checkpoint at equal training tokens: accuracy, lengths, and lengths that were asked for.

    python benchmarks/rewards.py                       # everything, resumable, also after kill -9
    python benchmarks/rewards.py --rewards none kimi   # some of it
    python benchmarks/rewards.py --summary             # run nothing, only rewrite results/rewards.json and the page
    python benchmarks/rewards.py --quick               # smoke test: writes nothing without --out

All runs of a seed train on the same problems from the same policy, sample the same number of tokens (a hard budget, an
equal share a step), and differ in the reward alone: GRPO, advantages scaled to their group, rewards with their
published weights. Shorter rollouts buy more of them. ``--stop yes`` trains with rollouts that end at their answer.
Held-out problems are sampled at temperature 1 without a stop; what they take to their end and to their answer are two
columns of the same rollouts. In part greedy they are answered by the likeliest tokens. Rewards for a length or an
effort that the prompt says are trained and evaluated with what is said to them. The policy that all start from thinks
too much on purpose (:func:`overthinking`). Problem sets (from 9200) and seeds (from 300) are of this benchmark alone.
Each run is one file under ``--folder``; several processes may work at one folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core import registry
from budgeteer.core.environment import Item
from budgeteer.engine.llama import save
from budgeteer.lab import pool as pools
from budgeteer.lab import results
from budgeteer.lab.hacking import rewards as registered
from budgeteer.lab.heldout import GREEDY_TEMPERATURE, judged, rewards
from budgeteer.lab.pretrain import PretrainConfig, batches
from budgeteer.lab.run import level_of, one_thread, wording_of
from budgeteer.lab.traces import Style
from budgeteer.models.chat import EASY_TAG, HARD_TAG
from budgeteer.models.policy import REASONER, LlamaPolicy, load_policy
from budgeteer.rl import recipes
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.recipe import Recipe, Variant, Variants, View
from budgeteer.rl.reward.protocol import Reward
from budgeteer.rl.trainer import Trainer
from pages import between
from rewards_report import (
    NONE,
    ONLY,
    SHUFFLED,
    START,
    WHOLE,
    Row,
    agreement,
    by_difficulty,
    effort_table,
    main_table,
    picture,
    plain_name,
    right_at_once,
)
from rewards_taught import fit, taught

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "benchmarks" / "results" / "rewards.json"
PAGE, MEASURED = ROOT / "docs" / "rewards.md", ROOT / "docs" / "rewards-measured.md"
BEGIN, END = "<!-- written by benchmarks/rewards.py -->\n", "<!-- end -->"
SHORT = "<!-- short table written by benchmarks/rewards.py -->\n", "<!-- end of the short table -->"
EARLIER = "earlier start"
"""Part of the results: runs of part main from another start of the same making, by older code; nothing adds to it."""
IN_SHORT = (START, NONE, "right-only", "o1-pruner", "alp", "kimi", "arlcp", "overlong", "laser")
"""Arms of the short table at the head of the page."""
FIRST_SEED, PROBLEMS, CAP = 300, 8900, 128


@dataclass(frozen=True, slots=True)
class Ask:
    """How held-out problems are asked.

    Attributes:
        name: as in the tables; "" = as they are.
        before: text before the prompt.
        begun: text at the head of the answer, which is not counted.
        wanted: what is asked for: tokens, or a share of what the last ask of the same reward takes; None = no number.
    """

    name: str = ""
    before: str = ""
    begun: str = ""
    wanted: float | None = None


def tagged() -> Variant:
    """A prompt's rollouts begin with ``[Easy]`` and ``[Hard]`` in turns: AdaCtrl's tags, which this policy was never
    taught to write."""

    def vary(state: object, view: View, rng: np.random.Generator) -> Variants:
        turns = [np.arange(n) % 2 for n in view.plan.units.tolist()]
        return Variants(hint=tuple(TAGS[i] for i in np.concatenate([np.zeros(0, int), *turns]).astype(int).tolist()))

    return Variant(vary)


TAGS = (EASY_TAG, HARD_TAG)
ASKED: dict[str, tuple[str, tuple[Ask, ...]]] = {
    "l1": ("drawn-budget", tuple(Ask(f"{n} tokens", f"{n}: ", wanted=n) for n in (16, 32, 48, 64))),
    "l1:at_most=true": ("drawn-budget", tuple(Ask(f"{n} tokens", f"{n}: ", wanted=n) for n in (16, 32, 48, 64))),
    "e1": ("effort", tuple(Ask(f"{n} %", f"{n}%: ", wanted=n / 100) for n in (25, 50, 75, 100))),
    "thinkdial": (
        "effort-modes",
        tuple(Ask(name, f"{name}: ", wanted=n) for name, n in (("low", 0.25), ("medium", 0.5), ("high", 1.0))),
    ),
    "adactrl": ("", tuple(Ask(tag, begun=tag) for tag in TAGS)),
    "adactrl:hard=true": ("", tuple(Ask(tag, begun=tag) for tag in TAGS)),
    "hbpo": ("split-budgets", (Ask(), *(Ask(f"{n} tokens", begun=f"{n}: ", wanted=n) for n in (12, 24, 48, 96)))),
    "triangular": ("falling-budget", (Ask(), Ask("24 tokens", "24: ", wanted=24))),
    "adaptive-deep": ("both-kinds", (Ask(), Ask("short", "short: "), Ask("long", "long: "))),
}
"""Reward -> the variant that it is trained with, and how it is asked afterwards."""
DIALS = ("l1", "e1", "thinkdial", "adactrl")
"""Rewards of part effort; also trained with shuffled tags, AdaCtrl only where it is taught them: no prompt says
them."""
ALL = tuple(name for name in registered() if name != "router-r1")
"""Every reward but that which needs models to call."""
RECIPES = ("traac", "ares", "adaptive-deep", "rmt", "elastic", "budget-forcing", "dr-grpo", "dapo")
"""Recipes that have more than a reward, or none."""
CHOICE = tuple("adaptive-deep" + more for more in (ONLY, "", WHOLE))
"""A policy that was taught two kinds of answers and is not asked for one: what it chooses."""
STEERED = ("elastic", "budget-forcing")
"""Of these, those that end rollouts by a rule of their own: none is trained with the stop at the answer."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is run.

    Attributes:
        names: arms.
        tokens, steps: of training.
        title: of its tables.
        taught: whether the policies begin with supervised training on traces with their tags.
        greedy: whether held-out problems are answered by the likeliest tokens, once.
    """

    names: tuple[str, ...]
    tokens: int
    steps: int
    title: str
    taught: bool = False
    greedy: bool = False


PARTS = {
    "main": Part((START, NONE, *ALL, *(name + WHOLE for name in RECIPES)), 48_000, 12, "Rewards"),
    "effort": Part(
        (*DIALS, *(name + SHUFFLED for name in DIALS if name != "adactrl")), 200_000, 48, "Asked and measured"
    ),
    "taught": Part(
        (*DIALS, *(name + SHUFFLED for name in DIALS), *(name + ONLY for name in DIALS), *CHOICE),
        48_000,
        12,
        "Asked and measured, after supervised training with the tags",
        taught=True,
    ),
    "greedy": Part(IN_SHORT, 48_000, 12, "Decoded greedily", greedy=True),
}


def shuffled(variant: Variant) -> Variant:
    """The variant, with the columns of another prompt's rows than those that the prompt's text was made for."""

    def vary(state: Any, view: View, rng: np.random.Generator) -> Variants:
        made = variant.vary(state, view, rng)
        units = view.plan.units
        first = np.concatenate([[0], np.cumsum(units)[:-1]])
        order = rng.permutation(np.flatnonzero(units))
        other = np.zeros(len(units), np.int64)
        other[np.sort(order)] = first[order]
        return replace(made, columns={k: np.repeat(v[other], units) for k, v in made.columns.items()})

    return variant._replace(vary=vary)


def recipe_of(name: str, stop: bool, knows: bool = False) -> Recipe:
    """The recipe of an arm; a policy that knows the tags writes them itself."""
    plain = plain_name(name)
    recipe = recipes.get("uniform-answer-stop" if stop else "grpo")
    if name.endswith(WHOLE):
        tags = f':long="{HARD_TAG}",short="{EASY_TAG}"' if knows else ""
        whole = recipes.get(plain + tags)
        return replace(whole, name=name, steer=recipe.steer or whole.steer)
    if plain in (NONE, START):
        return recipe
    # alone, repetition has no term for being right
    reward: Reward = registry.part_of("reward", "kimi:weight=0+repetition" if plain == "repetition" else plain)
    variant = None
    if plain in ASKED:
        said = ASKED[plain][0]
        variant = registry.part_of("variant", said) if said else None if knows else tagged()
        variant = shuffled(variant) if variant is not None and name.endswith(SHUFFLED) else variant
    advantage = registry.part_of("advantage", "hbpo") if plain == "hbpo" else recipe.advantage
    return replace(recipe, name=name, reward=reward, variant=variant, advantage=advantage)


def measured(
    policy: LlamaPolicy, pool: pools.Pool, ask: Ask, samples: int, cap: int, seed: int, temperature: float = 1.0
) -> Row:
    """What the held-out problems take when they are asked so."""
    items: Sequence[Item] = pool.heldout
    head = policy.encode([ask.begun])[0][1:] if ask.begun else []
    prompts = [[*ids, *head] for ids in policy.encode([ask.before + item.prompt for item in items])]
    rollouts, good = judged(
        policy, policy.model, pool.environment, items, prompts,
        samples=samples, max_tokens=cap, seed=seed, temperature=temperature,
    )  # fmt: skip
    whole = rollouts.length
    answered = np.where(rollouts.answered >= 0, rollouts.answered, whole)
    thinking = np.where(rollouts.closed >= 0, rollouts.closed - 1, whole)
    level = np.array([level_of(items[g]) for g in rollouts.group])
    wanted = [each.wanted for each in ASKED.get("l1", ("", ()))[1] if each.wanted is not None]

    def means(at: Any) -> list[float]:
        return [float(good[at].mean()), float(whole[at].mean()), float(answered[at].mean())]

    return {
        "ask": ask.name, "n": len(good), "accuracy": float(good.mean()), "tokens": float(whole.mean()),
        "to answer": float(answered.mean()), "thinking": float(thinking.mean()),
        "distance": {f"{n:g}": float(np.abs(whole - n).mean()) for n in wanted},
        "levels": {name: means(level == name) for name in sorted(set(level.tolist()))},
    }  # fmt: skip


def run(name: str, stop: bool, seed: int, args: argparse.Namespace) -> Row:
    """Train an arm and measure it."""
    start = time.perf_counter()
    plain, model = plain_name(name), args.model
    if args.taught:
        mixed = name == "adactrl" + SHUFFLED
        model = taught(plain, model, args.folder / f"taught-{plain}{'-mixed' * mixed}", args.cap, args.quick, mixed)
    policy, recipe = load_policy(model), recipe_of(name, stop, args.taught)
    pool = pools.build("real", PROBLEMS + seed, args.train, args.heldout)
    steps = 0 if name == START or name.endswith(ONLY) else args.steps
    config = TrainConfig(
        steps, args.prompts, max_tokens=args.cap, lr=args.lr, warmup=2, minibatches=4, eval_every=0, seed=seed
    )
    # AdaCoT has a judge label its prompts; here a problem of one step needs no thinking
    labels = {"needs_thinking": [int(len(item.solution) > 1) for item in pool.train]}
    trainer = Trainer(
        recipe, config, policy.model, policy.encode([item.prompt for item in pool.train]),
        [item.key for item in pool.train],
        lambda index, rows: rewards(policy, pool.environment, [pool.train[i] for i in index], rows), policy.markers,
        budget=args.tokens, decode=policy.decode, columns=labels, wording=wording_of(policy, pool.train),
    )  # fmt: skip
    progress = trainer.run()
    trained = time.perf_counter()
    asks = ASKED[plain][1] if plain in ASKED else (Ask(),)
    samples, temperature = (1, GREEDY_TEMPERATURE) if args.greedy else (args.samples, 1.0)
    found = [measured(policy, pool, ask, samples, args.cap, 20_000 + seed, temperature) for ask in asks]
    return {
        "reward": name, "stop": stop, "seed": seed, "asks": found, "used": progress.used, "steps": progress.step,
        "rollouts": sum(row["rollouts"] for row in progress.steps_log),
        "seconds": {"training": trained - start, "measuring": time.perf_counter() - trained},
    }  # fmt: skip


def overthinking(folder: Path) -> Path:
    """The policy that all start from: the embedded reasoner after 300 further steps of its pretraining, on traces that
    check again and wander off more often. Made once."""
    if not (folder / "tokenizer.json").exists():
        config = PretrainConfig(seed=1, style=Style(recheck=0.8, detour=0.1), max_new=CAP)
        policy, steps = load_policy(), 300
        fit(policy, islice(batches(config, policy.tokenizer, 0), steps), 1e-3, steps)
        save(policy.model, folder)
        for path in (REASONER / "tokenizer_config.json", REASONER / "tokenizer.json"):
            shutil.copy(path, folder / path.name)
    return folder


def path_of(folder: Path, name: str, stop: bool, seed: int) -> Path:
    """The file of a run."""
    plain = name.replace(":", "-").replace("=", "-").replace(", ", "-").replace(" ", "-")
    return folder / f"{plain}-{'stop' if stop else 'free'}-{seed}.json"


def claimed(path: Path) -> bool:
    """Whether this process may do the run of that file; another one that lives may be at it."""
    mark = path.with_suffix(".running")
    try:
        other = int(mark.read_text())
    except (OSError, ValueError):
        other = 0
    if other and other != os.getpid() and Path(f"/proc/{other}").exists():
        return False
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(str(os.getpid()))
    return True


def summary(content: Row) -> str:
    """All tables, as Markdown."""
    lines: list[str] = []
    for part, found in content["parts"].items():
        if part == EARLIER:
            continue
        runs, c = found["runs"], found["config"]
        said = f"{c['tokens']:,} tokens of training in {c['steps']} steps, {c['problems']} held-out problems"
        if part == "greedy":
            lines += [f"**{PARTS[part].title}**: {said}.", "", *main_table(runs, False)]
            if together := right_at_once(runs, False):
                lines += [together, ""]
            continue
        if part != "main":
            wanted = {name: [(ask.name, ask.wanted) for ask in asks] for name, (_, asks) in ASKED.items()}
            dials = [run for run in runs if run["reward"] not in CHOICE]
            lines += [f"**{PARTS[part].title}**: {said}.", "", *effort_table(dials, wanted)]
            if chosen := [run for run in runs if run["reward"] in CHOICE]:
                start = [run for run in content["parts"]["main"]["runs"] if run["reward"] == START]
                lines += [
                    "**Two kinds that were taught, and none asked for**.",
                    "",
                    *main_table(chosen, False, base=CHOICE[0]),
                ]
                lines += ["**By difficulty**, none asked for.", "", *by_difficulty([*start, *chosen], False)]
            continue
        for stop in sorted({run["stop"] for run in runs}):
            how = "rollouts that end at their answer" if stop else "rollouts that end by themselves"
            lines += [f"**{PARTS[part].title}**, {how}: {said}.", "", *main_table(runs, stop)]
            if together := right_at_once(runs, stop):
                lines += [together, ""]
            lines += [f"**By difficulty**, {how}.", "", *by_difficulty(runs, stop)]
            if not stop and EARLIER in content["parts"]:
                lines += [agreement(runs, content["parts"][EARLIER]["runs"]), ""]
    return "\n".join(lines)


def short(content: Row) -> str:
    """The table at the head of the page."""
    runs = [run for run in content["parts"]["main"]["runs"] if run["reward"] in IN_SHORT]
    return "\n".join(main_table(runs, False, answered=False)[:-1]) + "\n"


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The runs of both, a new one in the place of an old one, in the order of the arms."""
    rows = {(row["reward"], row["stop"], row["seed"]): row for row in (*old, *new)}
    names = dict.fromkeys(name for part in PARTS.values() for name in part.names)
    place = {name: i for i, name in enumerate(names)}
    return sorted(rows.values(), key=lambda row: (row["stop"], place.get(row["reward"], 999), row["seed"]))


def main() -> int:
    """Run what is missing, then write and print the summary of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS), help="default: all")
    every = list(dict.fromkeys(name for part in PARTS.values() for name in part.names))
    parser.add_argument("--rewards", nargs="*", choices=every, metavar="NAME", help="default: all of a part")
    parser.add_argument("--stop", choices=("no", "yes", "both"), default="both", help="of part main (default: both)")
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "rewards", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="two rewards, one seed, two steps: means nothing")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, help=f"default: {TARGET.name} among the results; none if quick")
    args = parser.parse_args()
    args.prompts, args.lr, args.cap, args.train, args.heldout, args.samples = 8, 1e-3, CAP, 512, 256, 2
    if args.quick:
        args.rewards, args.seeds, args.stop, args.folder = [START, NONE, "kimi", "l1"], 1, "no", args.folder / "quick"
        args.train, args.heldout = 32, 16
    one_thread()
    out = args.out or (None if args.quick else TARGET)
    content: Row = json.loads(out.read_text()) if out and out.exists() else {"parts": {}}
    args.model = None if args.summary else REASONER if args.quick else overthinking(args.folder / "start")
    for name in args.parts:
        part, folder = PARTS[name], args.folder / name
        args.tokens, args.steps = (4_000, 2) if args.quick else (part.tokens, part.steps)
        args.taught, args.greedy = part.taught, part.greedy
        stops = {"no": (False,), "yes": (True,), "both": (False, True)}[args.stop if name == "main" else "no"]
        wanted = [arm for arm in part.names if args.rewards is None or arm in args.rewards]
        for seed in range(FIRST_SEED, FIRST_SEED + (0 if args.summary else args.seeds)):
            for stop, arm in product(stops, wanted):
                path = path_of(folder, arm, stop and arm != START, seed)
                if (stop and plain_name(arm) in STEERED) or path.exists() or not claimed(path):
                    continue
                row = run(arm, stop and arm != START, seed, args)
                results.write_text(json.dumps(results.to_json(row)) + "\n", path)
                path.with_suffix(".running").unlink(missing_ok=True)
                print(time.strftime("%H:%M"), path.stem, shown(row), file=sys.stderr, flush=True)
        old = content["parts"].get(name, {}).get("runs", [])
        runs = merged(old, [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))])
        if runs:
            shared = ("tokens", "steps", "prompts", "lr", "cap", "train", "samples")
            config = {key: getattr(args, key) for key in shared} | {"problems": args.heldout}
            content["parts"][name] = {"config": config, "runs": runs}
    content["versions"] = results.versions()
    if out:
        results.write_text(json.dumps(results.to_json(content)) + "\n", out)
    if out == TARGET:
        for page, table, marks in ((MEASURED, summary, (BEGIN, END)), (PAGE, short, SHORT)):
            results.write_text(between(page.read_text(), table(content), *marks), page)
        drawing = picture(content["parts"]["main"]["runs"], "Rewards at equal training tokens")
        results.write_text(drawing + "\n", ROOT / "docs" / "rewards.svg")
    print(summary(content))
    return 0


def shown(row: Row) -> str:
    """A run in a line."""
    asks = (f"{a['ask']} {100 * a['accuracy']:.1f} % {a['tokens']:.1f}/{a['to answer']:.1f}" for a in row["asks"])
    return f"{'; '.join(asks)} ({row['seconds']['training']:.0f} s, {row['steps']} steps)"


if __name__ == "__main__":
    sys.exit(main())
