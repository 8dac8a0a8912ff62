"""From a step's update to what TRL's loss multiplies: pure functions over ragged groups."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from trl.trainer.utils import nanstd

from budgeteer.adapters.trl.report import total_of
from budgeteer.core.plan import CUT, F64, I64
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.rollouts import Rollouts, per_token
from budgeteer.rl.step import Update
from budgeteer.rl.weight import token_mean

ROW_MEANS = frozenset({"grpo", "sapo", "luspo", "dr_grpo"})
"""Losses of TRL that are means over the rows of a micro-batch."""
TOKEN_MEANS = frozenset({"dapo", "cispo", "vespo"})
"""Losses of TRL that are means over the tokens of the whole generation batch."""


class Advantages(NamedTuple):
    """What TRL computes from rewards.

    Attributes:
        value: [n] float32; 0 for rows that no function scored.
        no_spread: [n] whether the standard deviation that divides is 0 (``frac_reward_zero_std`` of TRL's log).
    """

    value: Tensor
    no_spread: Tensor


def trl_advantages(rewards: Tensor, weights: Tensor, group: I64, scale: str, aggregation: str) -> Advantages:
    """TRL's advantages, operation by operation, for groups of any size and order.

    TRL views n rewards as n / G rows of G. Here the groups are the rows of a table whose gaps are NaN, which the means
    and standard deviations of TRL leave out. A group of one has advantage 0.

    Args:
        rewards: [n, f] of each function, NaN = it did not score the row.
        weights: [f] of the functions.
        group: [n] index of each row's group.
        scale: ``scale_rewards`` of TRL: ``"group"``, ``"batch"`` or ``"none"``.
        aggregation: ``multi_objective_aggregation`` of TRL.

    >>> rewards, group = torch.tensor([[1.0], [0], [1], [0], [1]]), np.array([0, 1, 0, 0, 2])
    >>> got = trl_advantages(rewards, torch.ones(1), group, "none", "sum_then_normalize")
    >>> [round(value, 3) for value in got.value.tolist()]
    [0.333, 0.0, 0.333, -0.667, 0.0]
    """
    at, place = torch.from_numpy(group).to(rewards.device), torch.from_numpy(_places(group)).to(rewards.device)

    def table(values: Tensor) -> Tensor:
        shape = (int(at.max()) + 1 if len(at) else 0, int(place.max()) + 1 if len(at) else 0, *values.shape[1:])
        made = values.new_full(shape, float("nan"))
        made[at, place] = values
        return made

    def spread(values: Tensor) -> Tensor:
        return nanstd(values).expand_as(values) if values.numel() > 1 else torch.zeros_like(values)

    if aggregation == "sum_then_normalize":
        reward = total_of(rewards, weights)
        grouped = table(reward)
        std = spread(reward) if scale == "batch" else nanstd(grouped, dim=1)[at]
        value = reward - torch.nanmean(grouped, dim=1)[at]
        if scale != "none":
            value = value / (std + 1e-4)
    else:
        grouped = table(rewards)
        unscored = torch.isnan(rewards).all(dim=1)
        mean, deviation = torch.nanmean(grouped, dim=1, keepdim=True), nanstd(grouped, dim=1, keepdim=True)
        normalised = ((grouped - mean) / (deviation + 1e-4))[at, place]
        normalised[torch.isnan(normalised) & ~unscored[:, None]] = 0.0  # a score without another one in its group
        reward = total_of(normalised, weights)
        std = spread(reward)
        value = (reward - torch.nanmean(reward)) / (std + 1e-4)
    return Advantages(torch.nan_to_num(value, nan=0.0), torch.isclose(std, torch.zeros_like(std)))


def _places(group: I64) -> I64:
    """[n] number of each row within its group."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    place = np.empty(len(group), np.int64)
    place[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place


class Weighted(NamedTuple):
    """The rows that TRL gets.

    Attributes:
        rows: [k] indices into the update's rollouts, in their order.
        advantage: [k] or [k, t] of these rows, for TRL's loss.
        over: [n] the rows that the loss is a mean over: those, and the ones that they stand for.
    """

    rows: I64
    advantage: F64
    over: I64


def weighted(update: Update, recipe: Recipe, loss: str, multiple: int) -> Weighted:
    """The update as rows and advantages with which TRL's own loss is the recipe's.

    Rows that were aborted or cut short and carry no gradient are left out, from the means, too. TRL's ``loss_type``
    says how tokens weigh; a recipe's token weight multiplies that by its ratio to the mean over tokens.

    Args:
        update: what was learnt.
        recipe: for its token weight, of rows or of tokens.
        loss: ``loss_type`` of TRL.
        multiple: the rows that TRL gets are filled up to a multiple of this with rows that carry nothing. Losses that
            are means over rows count those; the advantages make up for it (a KL term does not).
    """
    rollouts = update.rollouts
    over = np.flatnonzero(update.chosen & ~update.wasted)
    share, length = update.share[over], rollouts.length[over]
    kept, of_tokens = share > 0, None
    if recipe.token_weight is not token_mean:
        weight = recipe.token_weight(length, rollouts.group[over]) * length.sum()
        if weight.ndim == 1:
            share = share * weight
        else:
            of_tokens = np.pad(weight[kept], ((0, 0), (0, rollouts.tokens.shape[1] - weight.shape[1])))
    rows, share = over[kept], share[kept]
    if loss in ROW_MEANS and len(rows):
        share = share * (filled(len(rows), multiple) / len(over))
    elif loss not in TOKEN_MEANS and len(rows):
        seen = rollouts.sampled.sum(1)
        share = share * (seen[rows].sum() / max(seen[over].sum(), 1))
    advantage = update.advantage[rows]
    if of_tokens is not None:
        advantage = per_token(advantage, of_tokens) * of_tokens
    return Weighted(rows, advantage * (share if advantage.ndim == 1 else per_token(share, advantage)), over)


def without_truncated(update: Update) -> Update:
    """The same update, in whose bill rows that ended at their cap are wasted: the loss does not see them
    (``mask_truncated_completions``)."""
    cut = update.rollouts.status == CUT
    return replace(update, trained=update.trained & ~cut, wasted=update.wasted | cut)


def loss_tokens(rollouts: Rollouts, chosen: Weighted, truncated: bool) -> int:
    """The tokens that losses which are means over tokens are means over.

    Args:
        rollouts: of the update.
        chosen: what TRL gets of it.
        truncated: rows that ended at a cap are left out (``mask_truncated_completions``).
    """
    over = chosen.over[rollouts.status[chosen.over] != CUT] if truncated else chosen.over
    return int(rollouts.sampled[over].sum())


def filled(count: int, multiple: int) -> int:
    """The least multiple, at least one, that ``count`` rows fit into."""
    return max(-(-count // multiple), 1) * multiple
