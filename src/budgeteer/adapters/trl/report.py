"""What is logged of a generation: TRL's metrics, of all rollouts instead of those that are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from trl.trainer.utils import nanstd

from budgeteer.core.plan import CUT, I64


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
