"""SEELE (arXiv 2509.06923): hints that bring each prompt to half right.

Simulated: 64 prompts, each with an accuracy that rises with the hinted share p of its solution as
b + (1 - b) / (1 + exp(-k (p + mu))), k uniform in 6 to 25, -mu in -0.2 to 0.9 (so that some need no hint), b in 0 to
0.2; solutions of 12 steps; 3 visits of 4 rounds of 8 rollouts, the very first with all steps but one. On the embedded
reasoner: 6 steps of 16 prompts, without learning, both sides with the same sampled tokens; what hints cost in prefill
is not among them, and stands in the details. Whether a trained policy is better for it is another question.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from budgeteer.core.plan import ENDED, F64, Items, Plan
from budgeteer.lab.evidence import ABOVE_ZERO, Evidence, declare, measured
from budgeteer.rl.history import History
from budgeteer.rl.recipe import Variant, View
from budgeteer.rl.rollouts import Role, Rollouts
from budgeteer.rl.variant import seele

PROMPTS, STEPS, VISITS, ROUNDS, UNITS = 64, 12, 3, 4, 8
KEYS = tuple(f"q{i:02d}" for i in range(PROMPTS))
TOKENS = 36_000

DECLARED = declare(
    "simulation",
    claims=("against no hints", "against one share for all", "against bisection"),
    controls=("against one share for all, all alike",),
) | declare(
    "embedded reasoner",
    claims=("mixed groups",),
)


def experiments() -> list[Evidence]:
    """Rounds of simulated prompts, and of the embedded reasoner."""
    return [
        rounds("no hints"),
        rounds("one share for all"),
        rounds("bisection"),
        rounds("one share for all", alike=True),
        mixed_groups(),
    ]


Accuracy = Callable[[F64], F64]
"""[PROMPTS] hinted shares -> accuracies."""


def prompts(seed: int, *, alike: bool) -> Accuracy:
    """The accuracies of a seed's prompts; alike = that of a prompt in the middle for all."""
    rng = np.random.default_rng([seed, 21])
    k, mu, b = rng.uniform(6, 25, PROMPTS), -rng.uniform(-0.2, 0.9, PROMPTS), rng.uniform(0, 0.2, PROMPTS)
    if alike:
        k, mu, b = (np.full(PROMPTS, value) for value in (12.0, -0.5, 0.1))
    return lambda p: b + (1 - b) / (1 + np.exp(-k * (p + mu)))


def signal(accuracy: F64) -> float:
    """Mean of a (1 - a), which bounds what a step can gain."""
    return float(np.mean(accuracy * (1 - accuracy)))


def hinted(variant: Variant, accuracy: Accuracy, seed: int) -> float:
    """The mean signal of all rounds of a variant's hints."""
    rng, state, signals = np.random.default_rng([seed, 22]), variant.init(), []
    units, n = np.full(PROMPTS, UNITS), PROMPTS * UNITS
    solutions = {key: tuple(f"{i};" for i in range(STEPS)) for key in KEYS}
    view = View(Items(KEYS, np.ones(PROMPTS)), Plan(KEYS, units, 0.0), History.empty(), 9, 0.0, solutions)
    group, ones = np.repeat(np.arange(PROMPTS), UNITS), np.ones(n, np.int64)
    for turn in range(VISITS * ROUNDS):
        variants = variant.vary(state, view, rng)
        rate = accuracy(np.asarray(variants.columns["hinted"])[::UNITS])
        signals.append(signal(rate))
        right = rng.binomial(1, rate[group]).astype(np.float64)
        role, nothing = np.full((n, 1), Role.SAMPLED, np.int8), np.full(n, -1)
        rows = Rollouts(
            KEYS,
            ((1,),) * PROMPTS,
            group,
            ones[:, None],
            ones,
            2 * ones,
            np.zeros((n, 1), np.float32),
            role,
            np.full((n, 1), turn // ROUNDS, np.int32),
            np.full(n, ENDED, np.int8),
            nothing,
            nothing,
            right,
            right,
            np.ones(n),
            0,
            more=variants.columns,
        )
        state = variant.observe(state, rows)
    return float(np.mean(signals))


def bisected(accuracy: Accuracy, seed: int) -> float:
    """The mean signal when each prompt's share moves by halves: down if at least half of a round was right, else up."""
    rng, low, high, signals = np.random.default_rng([seed, 23]), np.zeros(PROMPTS), np.ones(PROMPTS), []
    for turn in range(VISITS * ROUNDS):
        if turn % ROUNDS == 0 and turn:  # what the last visit ended with, and a quarter of the range around it
            low, high = np.maximum((low + high) / 2 - 0.125, 0), np.minimum((low + high) / 2 + 0.125, 1)
        p = np.round((low + high) / 2 * STEPS) / STEPS
        signals.append(signal(accuracy(p)))
        right = rng.binomial(UNITS, accuracy(p)) * 2 >= UNITS
        low, high = np.where(right, low, (low + high) / 2), np.where(right, (low + high) / 2, high)
    return float(np.mean(signals))


def rounds(baseline: str, *, alike: bool = False, seeds: int = 20, variant: Variant | None = None) -> Evidence:
    """Mean a (1 - a) of all rollouts with SEELE's hints, minus that of a baseline with as many rollouts."""
    values, both = [], []
    for seed in range(seeds):
        accuracy = prompts(seed, alike=alike)
        ours = hinted(variant or seele(), accuracy, seed)
        if baseline == "no hints":
            other = signal(accuracy(np.zeros(PROMPTS)))
        elif baseline == "bisection":
            other = bisected(accuracy, seed)
        else:
            other = max(signal(accuracy(np.full(PROMPTS, i / STEPS))) for i in range(STEPS + 1))
        values.append(ours - other)
        both.append((ours, other))
    means = np.mean(both, axis=0)
    return measured(
        f"against {baseline}" + (", all alike" if alike else ""),
        values,
        (-0.25, 0.0) if alike else ABOVE_ZERO,
        claim="Mean a (1 - a) of the rollouts "
        + ("is not above that of the best share, if all prompts are alike" if alike else f"exceeds that of {baseline}"),
        baseline=f"{baseline}, the best one" if baseline == "one share for all" else baseline,
        budget=f"{VISITS * ROUNDS * UNITS} rollouts a prompt",
        details=({"seele": float(means[0]), "baseline": float(means[1])},),
    )


def mixed(recipe: str, seed: int) -> tuple[float, int]:
    """(share of mixed groups, prefill tokens) of 6 steps on the embedded reasoner, which learns nothing from them."""
    from budgeteer.lab.run import RunSpec, one_thread, prepare
    from budgeteer.rl.config import TrainConfig

    one_thread()
    config = TrainConfig(steps=6, prompts=16, lr=0.0, seed=seed, eval_every=0, device="cpu")
    trainer, _ = prepare(RunSpec(recipe, "equal", TOKENS, config, "hard", pool_seed=seed, train=48, heldout=16))
    progress = trainer.run()
    return sum(row["mixed"] for row in progress.steps_log) / (config.steps * config.prompts), progress.prefill


def mixed_groups(*, seeds: int = 4) -> Evidence:
    """Share of mixed groups with hints, minus that of the same recipe without, at equal sampled tokens."""
    ours, other = (
        np.array([mixed(recipe, seed) for seed in range(seeds)]) for recipe in ("seele", "grpo:advantage=centred")
    )
    return measured(
        "mixed groups",
        ours[:, 0] - other[:, 0],
        ABOVE_ZERO,
        claim="On chains of 5 to 8 steps, the share of prompts with right and wrong rollouts exceeds that "
        "without hints",
        baseline="the same recipe without hints",
        budget=f"{TOKENS:,} sampled tokens",
        details=tuple(
            {"recipe": name, "mixed groups": float(rows[:, 0].mean()), "prefill tokens": float(rows[:, 1].mean())}
            for name, rows in (("with hints", ours), ("without", other))
        ),
    )
