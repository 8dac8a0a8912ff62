"""Every reward from one checkpoint at equal training tokens: accuracy and lengths on held-out problems, and asked lengths.

    python benchmarks/rewards.py                     # the reasoner, everything; resumable, also after kill -9
    python benchmarks/rewards.py --rewards none kimi # some of it
    python benchmarks/rewards.py --summary           # run nothing, only rewrite results/rewards.json and print the tables
    python benchmarks/rewards.py --quick             # smoke test: writes nothing without --out

All runs of a seed train on the same problems from the same policy, sample the same number of tokens (a hard budget, an
equal share a step), and differ in the reward alone: GRPO, advantages scaled to their group, rewards with their published
weights. Shorter rollouts buy more of them. ``stop`` trains with rollouts that end at their answer. Held-out problems are
sampled at temperature 1 without a stop; what they take to their end and to their answer are two columns of the same
rollouts. Rewards for a length or an effort that the prompt says are trained and evaluated with what is said to them.
Problem sets (from 9200) and seeds (from 300) are of this benchmark alone. Each run is one file under ``--folder``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core import registry
from budgeteer.core.environment import Item
from budgeteer.core.plan import right
from budgeteer.lab import pool as pools
from budgeteer.lab import results
from budgeteer.lab.hacking import rewards as registered
from budgeteer.lab.run import level_of, one_thread, rewards, wording_of
from budgeteer.models.policy import LlamaPolicy, load_policy
from budgeteer.rl import recipes
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.recipe import Recipe, Variant, Variants, View
from budgeteer.rl.reward.protocol import Reward
from budgeteer.rl.sampler import sample
from budgeteer.rl.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "benchmarks" / "results" / "rewards.json"
NONE = "none"
SHUFFLED = ", tags shuffled"
"""Behind the name of a reward: it is trained with what other prompts were asked."""
FIRST_SEED, PROBLEMS = 300, 8900

Row = dict[str, Any]


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


TAGS = ("[Easy]", "[Hard]")
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
"""Those of part effort, also trained with shuffled tags where a number is asked for."""


def names() -> list[str]:
    """All arms, no length reward first."""
    return [NONE, *registered(), *(name + SHUFFLED for name in DIALS if name != "adactrl")]


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


def recipe_of(name: str, stop: bool) -> Recipe:
    """The recipe of an arm."""
    plain = name.removesuffix(SHUFFLED)
    recipe = recipes.get("uniform-answer-stop" if stop else "grpo")
    if plain == NONE:
        return recipe
    # alone, repetition has no term for being right
    reward: Reward = registry.part_of("reward", "kimi:weight=0+repetition" if plain == "repetition" else plain)
    variant = None
    if plain in ASKED:
        said = ASKED[plain][0]
        variant = registry.part_of("variant", said) if said else tagged()
        variant = shuffled(variant) if name != plain else variant
    advantage = registry.part_of("advantage", "hbpo") if plain == "hbpo" else recipe.advantage
    return replace(recipe, name=name, reward=reward, variant=variant, advantage=advantage)


def measured(policy: LlamaPolicy, pool: pools.Pool, ask: Ask, samples: int, cap: int, seed: int) -> Row:
    """What the held-out problems take when they are asked so."""
    items: Sequence[Item] = pool.heldout
    head = policy.encode([ask.begun])[0][1:] if ask.begun else []
    prompts = [[*ids, *head] for ids in policy.encode([ask.before + item.prompt for item in items])]
    rollouts, _ = sample(
        policy.model, [item.key for item in items], prompts, np.full(len(items), samples),
        max_tokens=cap, markers=policy.markers, seed=seed,
    )  # fmt: skip
    rows = [t[:n].tolist() for t, n in zip(rollouts.tokens, rollouts.length, strict=True)]
    good = right(rewards(policy, pool.environment, [items[g] for g in rollouts.group], rows))
    whole = rollouts.length
    answered = np.where(rollouts.answered >= 0, rollouts.answered, whole)
    thinking = np.where(rollouts.closed >= 0, rollouts.closed - 1, whole)
    level = np.array([level_of(items[g]) for g in rollouts.group])
    wanted = [each.wanted for each in ASKED.get("l1", ("", ()))[1] if each.wanted is not None]

    def means(at: Any) -> list[float]:
        return [float(good[at].mean()), float(whole[at].mean()), float(answered[at].mean())]

    return {
        "ask": ask.name, "n": len(rows), "accuracy": float(good.mean()), "tokens": float(whole.mean()),
        "to answer": float(answered.mean()), "thinking": float(thinking.mean()),
        "distance": {f"{n:g}": float(np.abs(whole - n).mean()) for n in wanted},
        "levels": {name: means(level == name) for name in sorted(set(level.tolist()))},
    }  # fmt: skip


def run(name: str, stop: bool, seed: int, args: argparse.Namespace) -> Row:
    """Train an arm and measure it."""
    start = time.perf_counter()
    policy, recipe = load_policy(args.model), recipe_of(name, stop)
    pool = pools.build("real", PROBLEMS + seed, args.train, args.heldout)
    config = TrainConfig(
        steps=args.steps, prompts=args.prompts, lr=args.lr, eval_every=0, seed=seed, max_tokens=args.cap
    )  # fmt: skip
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
    asks = ASKED[name.removesuffix(SHUFFLED)][1] if name.removesuffix(SHUFFLED) in ASKED else (Ask(),)
    found = [measured(policy, pool, ask, args.samples, args.cap, 20_000 + seed) for ask in asks]
    return {
        "reward": name, "stop": stop, "seed": seed, "asks": found, "used": progress.used, "steps": progress.step,
        "rollouts": sum(row["rollouts"] for row in progress.steps_log),
        "seconds": {"training": trained - start, "measuring": time.perf_counter() - trained},
    }  # fmt: skip


def overthinking(folder: Path) -> Path:
    """The policy that all start from: the embedded reasoner after 300 further steps of its pretraining, on traces that
    check again and wander off more often. Made once."""
    if not (folder / "tokenizer.json").exists():
        config = PretrainConfig(seed=1, style=Style(recheck=0.3, detour=0.12), max_new=CAP)
        policy, steps = load_policy(), 300
        optimiser = torch.optim.AdamW(policy.model.parameters(), lr=1e-3, betas=(0.9, 0.95))
        for step, (tokens, weight) in enumerate(islice(batches(config, policy.tokenizer, 0), steps)):
            optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
            logits = policy.model.logits(policy.model(tokens[:, :-1]))
            losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
            optimiser.zero_grad()
            ((losses * weight.flatten()).sum() / weight.sum()).backward()
            optimiser.step()
        save(policy.model, folder)
        for path in (REASONER / "tokenizer_config.json", REASONER / "tokenizer.json"):
            shutil.copy(path, folder / path.name)
    return folder


def path_of(folder: Path, name: str, stop: bool, seed: int) -> Path:
    """The file of a run."""
    plain = name.replace(":", "-").replace("=", "-").replace(", ", "-").replace(" ", "-")
    return folder / f"{plain}-{'stop' if stop else 'free'}-{seed}.json"
