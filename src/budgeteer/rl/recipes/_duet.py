"""DUET, with its corrections as options."""

from __future__ import annotations

from budgeteer.allocate import neyman
from budgeteer.rl.advantage import grpo_advantage, shrunk_advantage
from budgeteer.rl.history import Memory, Std
from budgeteer.rl.recipe import NO_IMPORTANCE, Aborted, Recipe
from budgeteer.rl.recipes.kit import KEPT, PUBLISHED, duet_gate
from budgeteer.rl.weight import prompt_mean, token_mean


def duet(
    *,
    prompt_mean_loss: bool = True,
    plain_scores: bool = True,
    weighted_lengths: bool = True,
    rate_std: bool = True,
    forgetting: bool = True,
    own_horizon: bool = True,
    median_cold_std: bool = True,
    exact: bool = True,
    shrunk_baseline: bool = False,
    aborted_fail: bool = True,
    stop_answered: bool = True,
    thinned: bool = True,
) -> Recipe:
    """DUET (arXiv 2605.08441). Each option corrects one thing of its official code; all false is that code.

    Args:
        prompt_mean_loss: every prompt weighs the same in the loss (prompt mean) instead of 1 / p_q weights.
        plain_scores: informativeness from advantages before importance weights.
        weighted_lengths: lengths of gate-kept and aborted rows count with their weights in length quantiles.
        rate_std: informativeness is sqrt(p (1 - p)), which does not grow with length.
        forgetting: a memory that forgets and shrinks to a prediction from the prompt, and at least 2 rollouts a prompt
            (1 with ``shrunk_baseline``), so that no prompt is frozen out.
        own_horizon: the abort horizon is per prompt.
        median_cold_std: a prompt never measured gets the median informativeness.
        exact: the allocation is solved to the unit.
        shrunk_baseline: the baseline is a leave-one-out mean shrunk to the prompt's history. Off: with two rollouts a
            prompt there are no groups of one, and in exploratory runs the group's own normalisation did better.
        aborted_fail: aborted rollouts are failures that carry gradient, instead of lowering the baseline and vanishing.
        stop_answered: a complete answer ends the rollout at once.
        thinned: the larger side of a group (right or wrong) trains on at most twice the rows of the other, reweighted.
    """
    importance = PUBLISHED
    if prompt_mean_loss:
        importance = NO_IMPORTANCE if aborted_fail else KEPT
    return Recipe(
        "duet",
        neyman(2 if forgetting and not shrunk_baseline else 1, 32, published=not exact),
        shrunk_advantage if shrunk_baseline else grpo_advantage,
        duet_gate(per_prompt=own_horizon, at_once=stop_answered, keep=0.05),
        importance=importance,
        token_weight=prompt_mean if prompt_mean_loss else token_mean,
        memory=Memory(
            decay=0.7 if forgetting else 1.0,
            prior=3.0 if forgetting else 0.0,
            predict=forgetting,
            aborted=weighted_lengths,
            std=Std.RATE if rate_std else Std.SCORE,
            cold_std=float("nan") if median_cold_std else 1.0,
        ),
        thin=2.0 if thinned else None,
        aborted=Aborted.FAILURE if aborted_fail else Aborted.MASK,
        weighted_scores=not plain_scores,
        kept_lengths=weighted_lengths,
    )
