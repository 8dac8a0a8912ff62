"""Named recipes: each a few lines that chain parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from budgeteer.allocate import (
    dynamic_sampling,
    elimination,
    knapsack,
    neyman,
    selective,
    uniform,
    variance,
)
from budgeteer.core import registry
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.core.stopper import Stopper
from budgeteer.rl.advantage import group_norm, history_baseline
from budgeteer.rl.history import Memory
from budgeteer.rl.recipe import Recipe, RowWeightFn, SelectFn, StopperFn, View, no_weight
from budgeteer.rl.rollouts import Rollouts
from budgeteer.rl.weight import prompt_mean, token_mean
from budgeteer.steer import answered, marker_gate

UNTRAINED = "untrained"
"""The recipe that trains nothing."""
MENDS = "abcdefghijst"
"""Corrections of DUET's published form, by the letter of the pitfall that each mends; see :func:`duet`."""
USED = "abcdefghjst"
"""Those that the recipe ``duet`` has on. Mend i is off: with two rollouts a prompt there are no groups of one, and in
exploratory runs the group's own normalisation did better."""


# -- parts that adapt pure functions to a step's view ----------------------------------------------------------------


def grpo_advantage(rollouts: Rollouts, view: View) -> F64:
    """Group-normalised reward over all rollouts of the prompt, aborted ones included."""
    return group_norm(rollouts.reward, rollouts.group, len(rollouts.keys))


def centred_advantage(rollouts: Rollouts, view: View) -> F64:
    """Reward minus the mean of the prompt's whole pool, no std (large pools would make 1/std explode)."""
    return group_norm(rollouts.reward, rollouts.group, len(rollouts.keys), scale=False)


def shrunk_advantage(rollouts: Rollouts, view: View) -> F64:
    """Reward minus a leave-one-out mean shrunk to the prompt's history."""
    by_key = dict(zip(view.items.keys, view.items.column("pass_rate"), strict=True))
    rate = np.array([by_key[key] for key in rollouts.keys])
    rate[view.history.find(rollouts.keys) < 0] = np.nan  # a prediction alone is no baseline
    return history_baseline(rollouts.reward, rollouts.group, rate)


def stop_answered(view: View) -> Stopper:
    """End a rollout once its answer is complete."""
    return answered()


def _length_quantile(view: View, q: float, start: float) -> float:
    """Quantile of recent kept lengths, a share of the cap before 32 are known."""
    known = view.history.quantile(q)
    return start * view.max_tokens if np.isnan(known) else known


def _thresholds(view: View) -> F64:
    """Margin threshold of each rollout: its prompt's rank by std^2 / cost, mapped onto [0.5, 0.99], so that
    informative prompts are stopped later."""
    rate = view.items.column("std") ** 2 / view.items.cost
    rank = np.argsort(np.argsort(rate, kind="stable"), kind="stable") / max(len(rate) - 1, 1)
    return np.repeat(0.5 + 0.49 * rank, view.plan.units)


def duet_gate(*, per_prompt: bool, at_once: bool, keep: float) -> StopperFn:
    """DUET's gate, its windows scaled from the official 3,072 tokens to the run's cap.

    Args:
        per_prompt: a rollout is overdue at twice its prompt's own expected length, instead of at the 80 % quantile
            of recent lengths plus a grace.
        at_once: end complete answers at once (a verifier that reads the first answer cannot change its mind),
            instead of waiting for a confident next token.
        keep: share of overdue rollouts that run on.
    """

    def soonest(view: View) -> float:
        return max(_length_quantile(view, 0.3, 0.3), 200 * view.max_tokens / 3072)

    def stopper(view: View) -> Stopper:
        scale = view.max_tokens / 3072
        last: float | F64
        if per_prompt:
            own = np.where(view.items.column("visits") > 0, 2 * view.items.cost, 2 * view.items.cost + 150 * scale)
            last = np.repeat(np.minimum(own, view.max_tokens), view.plan.units)
        else:
            last = max(_length_quantile(view, 0.8, 0.7), soonest(view) + 50 * scale) + 150 * scale
        if at_once:
            return marker_gate(0.0, last, threshold=-1.0, keep_abort=keep, keep_length=0.0)
        return marker_gate(soonest(view), last, threshold=_thresholds(view), confident=2, keep_abort=keep)

    return stopper


def kept_weight(rollouts: Rollouts, view: View) -> F64:
    """1 / epsilon for gate-kept rows."""
    return rollouts.weight


def published_weight(rollouts: Rollouts, view: View) -> F64:
    """1 / p_q with p_q = clip(n_q / mean n, 0.05, 1), times 1 / epsilon for gate-kept rows, at most 1000."""
    units = view.plan.units.astype(np.float64)
    share = np.clip(units / max(units.mean(), 1.0), 0.05, 1.0)
    of = dict(zip(view.items.keys, share, strict=True))
    per_group = np.array([of[key] for key in rollouts.keys])
    weight = rollouts.weight / per_group[rollouts.group]
    return np.asarray(np.minimum(weight, 1000.0) if (rollouts.weight > 1).any() else weight, np.float64)


def balanced(keep: int) -> SelectFn:
    """Keep ``keep`` rollouts a prompt, half right and half wrong where there are enough (the earliest drawn)."""

    def select(rollouts: Rollouts, rng: np.random.Generator) -> I64:
        chosen = []
        for g in range(len(rollouts.keys)):
            rows = np.flatnonzero(rollouts.group == g)
            right, wrong = rows[rollouts.reward[rows] > 0.99], rows[rollouts.reward[rows] <= 0.99]
            from_right = min(len(right), max(keep // 2, keep - len(wrong)))
            chosen += [right[:from_right], wrong[: keep - from_right]]
        return np.concatenate(chosen) if chosen else np.zeros(0, np.int64)

    return select


def fixed_group(group: int) -> Allocator:
    """``group`` rollouts for every prompt: the reference that budgets in percent are a share of."""
    return uniform(group)


# -- recipes ----------------------------------------------------------------------------------------------------------


def grpo() -> Recipe:
    """Uniform rollouts, group-normalised advantage, token-mean loss (arXiv 2402.03300 with DAPO's loss)."""
    return Recipe("grpo", uniform(), grpo_advantage)


def uniform_answer_stop() -> Recipe:
    """GRPO that ends a rollout once its answer is complete: nothing else changes."""
    return Recipe("uniform-answer-stop", uniform(), grpo_advantage, stop_answered)


def dapo() -> Recipe:
    """Dynamic sampling: prompts are replaced until the batch has 16 mixed groups of 8; the extra tokens count
    (arXiv 2503.14476)."""
    return Recipe(
        "dapo", dynamic_sampling(group=8, target=16), grpo_advantage, rounds=4, oversample=3, pace="run"
    )  # fmt: skip


def reinforce_ada(exit: Literal["pos", "balance"]) -> Recipe:
    """Rounds of 4 rollouts until the exit rule holds, then 4 balanced ones train (arXiv 2510.04996)."""
    return Recipe(
        f"reinforce-ada-{exit}",
        elimination(round_units=4, exit=exit, keep=4, rounds=4),
        centred_advantage,
        select=balanced(4),
        rounds=4,
    )


def reinforce_ada_pos() -> Recipe:
    """Reinforce-Ada with exit at the first success."""
    return reinforce_ada("pos")


def reinforce_ada_balance() -> Recipe:
    """Reinforce-Ada with exit at half right and half wrong."""
    return reinforce_ada("balance")


def knapsack_rl() -> Recipe:
    """Knapsack RL: rollouts by the value of an effective gradient, rates of the last visit (arXiv 2509.25849)."""
    return Recipe("knapsack", knapsack(low=2, high=32), grpo_advantage, memory=Memory(last_only=True))


def vip() -> Recipe:
    """Success-variance allocation, like VIP but with running rates instead of a Gaussian process (2602.01601)."""
    return Recipe("vip", variance(2, 32), grpo_advantage, memory=Memory(decay=0.7, prior=1.0))


def duet(mends: str = USED, name: str = "duet") -> Recipe:
    """DUET (arXiv 2605.08441) with the chosen mends.

    Args:
        mends: letters of :data:`MENDS`, each switched on:
            a: every prompt weighs the same in the loss (prompt mean) instead of 1 / p_q weights;
            b: informativeness from advantages before importance weights;
            c: lengths of gate-kept and aborted rows count with their weights in length quantiles;
            d: informativeness is sqrt(p (1 - p)), which does not grow with length;
            e: a memory that forgets and shrinks to a prediction from the prompt, and at least 2 rollouts a prompt
                (1 with mend i), so that no prompt is frozen out;
            f: the abort horizon is per prompt;
            g: a prompt never measured gets the median informativeness;
            h: the allocation is solved to the unit;
            i: the baseline is a leave-one-out mean shrunk to the prompt's history;
            j: aborted rollouts are failures that carry gradient, instead of lowering the baseline and vanishing;
            s: a complete answer ends the rollout at once;
            t: the larger side of a group (right or wrong) trains on at most twice the rows of the other, reweighted.
        name: of the recipe.
    """
    on = {letter: letter in mends for letter in MENDS}
    weight: RowWeightFn = no_weight if on["a"] and on["j"] else kept_weight if on["a"] else published_weight
    return Recipe(
        name,
        neyman(2 if on["e"] and not on["i"] else 1, 32, published=not on["h"]),
        shrunk_advantage if on["i"] else grpo_advantage,
        duet_gate(per_prompt=on["f"], at_once=on["s"], keep=0.05),
        row_weight=weight,
        token_weight=prompt_mean if on["a"] else token_mean,
        memory=Memory(
            decay=0.7 if on["e"] else 1.0,
            prior=3.0 if on["e"] else 0.0,
            predict=on["e"],
            aborted=on["c"],
            std="rate" if on["d"] else "score",
            cold_std=float("nan") if on["g"] else 1.0,
        ),
        thin=2.0 if on["t"] else None,
        aborted="failure" if on["j"] else "mask",
        weighted_scores=not on["b"],
        kept_lengths=on["c"],
    )


def duet_published() -> Recipe:
    """DUET as its official code has it."""
    return duet("", "duet-published")


def duet_mended() -> Recipe:
    """DUET with the mends that are in use."""
    return duet()


def uniform_stop() -> Recipe:
    """The control arm of ``duet``: its stopping rule, loss and baseline, but uniform rollouts."""
    full = duet()
    return Recipe(
        "uniform-stop", uniform(), full.advantage, full.stopper, full.row_weight, full.token_weight, full.memory,
        thin=full.thin, aborted=full.aborted, kept_lengths=full.kept_lengths,
    )  # fmt: skip


def duet_allocation() -> Recipe:
    """``duet`` without its stopping rule: what the allocation does alone."""
    return replace(duet(), name="duet-allocation", stopper=None)


def prompt_selection() -> Recipe:
    """Choose the prompts: of three times as many candidates, those predicted to be solved or hopeless get no rollout.

    This is a method of this project and not of DUET, whose stopping rule, loss and memory it uses: the allocator is
    :func:`budgeteer.allocate._selective` over predictions of each prompt's success.
    """
    return replace(duet(), name="prompt-selection", allocator=selective(), oversample=3)


def untrained() -> Recipe:
    """No training: the starting policy, which every gain is measured from. A run of it takes no step."""
    return replace(grpo(), name=UNTRAINED)


RECIPES: dict[str, Callable[[], Recipe]] = {
    UNTRAINED: untrained,
    "grpo": grpo,
    "dapo": dapo,
    "uniform-answer-stop": uniform_answer_stop,
    "uniform-stop": uniform_stop,
    "duet": duet_mended,
    "prompt-selection": prompt_selection,
    "duet-allocation": duet_allocation,
    "duet-published": duet_published,
    "knapsack": knapsack_rl,
    "vip": vip,
    "reinforce-ada-pos": reinforce_ada_pos,
    "reinforce-ada-balance": reinforce_ada_balance,
}
"""Recipes by the name used on the command line; ``duet-no-X`` leaves mend X out, ``duet-plus-i`` adds mend i."""


def get(name: str) -> Recipe:
    """The recipe of that name: one of this package, a variant of ``duet``, or one that another package registers.

    Raises:
        UnknownName: with the nearest names.
        InvalidInput: another package's entry point does not make a recipe.
    """
    base, _, off = name.partition("-no-")
    if base == "duet" and off and set(off) <= set(USED):
        return duet("".join(m for m in USED if m not in off), name)
    if name == "duet-plus-i":
        return duet(MENDS, name)
    if name in RECIPES:
        return RECIPES[name]()
    method = registry.get("recipe", name)
    factory = registry.load(method)
    try:
        made = factory()
    except TypeError as error:
        raise InvalidInput(f"recipe {name!r}: {method.path} cannot be called without arguments: {error}") from error
    if not isinstance(made, Recipe):
        raise InvalidInput(f"recipe {name!r}: {method.path} makes a {type(made).__name__}; return a Recipe")
    return replace(made, name=name)
