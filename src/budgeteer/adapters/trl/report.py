"""What is logged of a generation: TRL's metrics, of all rollouts instead of those that are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from trl.trainer.utils import nanstd

from budgeteer.adapters.trl.drawn import Drawn
from budgeteer.core.plan import ABORTED, CUT, I64
from budgeteer.rl.rollouts import Rollouts
from budgeteer.rl.step import Update


def total_of(rewards: Tensor, weights: Tensor) -> Tensor:
    """[n] weighted sum of the functions' rewards [n, f]; NaN where none scored the row.

    >>> nan = float("nan")
    >>> total_of(torch.tensor([[1.0, nan], [nan, nan]]), torch.tensor([2.0, 1])).tolist()
    [2.0, nan]
    """
    total = (rewards * weights.to(rewards.device).unsqueeze(0)).nansum(dim=1)
    total[torch.isnan(rewards).all(dim=1)] = torch.nan
    return total


def of_lengths(length: I64, status: NDArray[np.int8]) -> dict[str, float]:
    """TRL's metrics of completions; a row that a steer ended counts as terminated.

    Args:
        length: [n] tokens of each rollout.
        status: [n] a :class:`budgeteer.core.plan.Status`.
    """
    ended = length[status != CUT] if (status != CUT).any() else np.zeros(1)
    said = {"completions/clipped_ratio": float((status == CUT).mean())}
    for kind, values in (("", length), ("terminated_", ended)):
        for name, value in (("mean", values.mean()), ("min", values.min()), ("max", values.max())):
            said[f"completions/{name}_{kind}length"] = float(value)
    return said


def of_rewards(rewards: Tensor, weights: Tensor, names: Sequence[str]) -> dict[str, float]:
    """TRL's metrics of rewards.

    Args:
        rewards: [n, f] of each function, NaN = it did not score the row.
        weights: [f].
        names: of the functions.
    """
    said: dict[str, Tensor] = {}
    for name, column in zip(names, rewards.T, strict=True):
        said |= {f"rewards/{name}/mean": torch.nanmean(column), f"rewards/{name}/std": nanstd(column)}
    total = total_of(rewards, weights)
    said |= {"reward": torch.nanmean(total), "reward_std": nanstd(total)}
    return {name: float(value) for name, value in said.items()}


def replace_content(log: Any, values: Sequence[Any]) -> None:
    """Let one of TRL's logs of completions hold these values alone, as far as they fit."""
    log.clear()
    log.extend(values)


def report(trainer: Any, drawn: Drawn, rollouts: Rollouts, update: Update, no_spread: float) -> None:
    """Log all rollouts of a generation, where TRL's own code has logged those that are trained on.

    Args:
        trainer: ours.
        drawn, rollouts: what was generated.
        update: what is learnt.
        no_spread: share of rollouts whose group has equal rewards.
    """
    metrics, rewards = trainer._metrics["train"], torch.cat(drawn.rewards)
    trainer.state.num_input_tokens_seen += sum(map(len, drawn.prompt_ids)) + rollouts.used
    metrics["num_tokens"] = [trainer.state.num_input_tokens_seen]
    new = of_lengths(rollouts.billed, rollouts.status)
    if trainer.tools:
        new["tools/call_frequency"] = drawn.calls / len(rollouts)
        new["tools/failure_frequency"] = drawn.failures / max(drawn.calls, 1)
    new |= {"budget/rollouts": len(rollouts), "budget/aborted": float((rollouts.status == ABORTED).mean())}
    new |= {f"budget/reward/{name}": mean for name, mean in trainer.spending.terms.items()}
    if trainer.spending.recipe.replay is not None:
        new["budget/replayed"] = int(update.trained[len(update.given) :].sum())
    again = of_rewards(rewards, trainer.reward_weights, trainer.reward_func_names)
    again["frac_reward_zero_std"] = no_spread
    for name, value in new.items():
        metrics[name].append(value)
    for name, value in again.items():
        metrics[name][-1:] = [value]
    advantage = np.zeros(len(rollouts))
    own = update.advantage[: len(update.given)]  # rows of earlier steps, which are behind these, were logged then
    advantage[update.given] = own if own.ndim == 1 else own.mean(1)
    logs = trainer._logs
    replace_content(logs["prompt"], [row["prompt"] for row in drawn.inputs])
    replace_content(logs["completion"], drawn.completions)
    replace_content(logs["advantages"], advantage.tolist())
    for name, column in zip(trainer.reward_func_names, rewards.T, strict=True):
        replace_content(logs["rewards"][name], column.tolist())
    for name, values in drawn.extra.items():
        replace_content(logs["extra"][name], values)
