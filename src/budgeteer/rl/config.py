"""The settings of a run that all recipes of a comparison share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from budgeteer.core.budget import Budget
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import whole


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The settings of a run that all recipes of a comparison share.

    Attributes:
        steps: optimiser phases of a run (a step has ``minibatches`` updates).
        prompts: prompts a step.
        group: rollouts a prompt that the uniform allocator gives at 100 %.
        max_tokens: cap of a rollout.
        lr: of AdamW at its height, after ``warmup`` steps; it decays to a tenth over the last quarter.
        kl: weight of a KL penalty to the starting policy (0 = none; its reference pass costs time, not tokens).
        temperature: of sampling; the update uses the same.
        eval_every: steps between evaluations of the curve; 0 = none.
        seed: of everything.
        device, dtype: ``"auto"`` = CUDA when there is one, float32.
    """

    steps: int = 48
    prompts: int = 32
    group: int = 8
    max_tokens: int = 96
    lr: float = 5e-4
    warmup: int = 4
    minibatches: int = 2
    kl: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    eval_every: int = 8
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        least = {"steps": 0, "prompts": 1, "group": 1, "max_tokens": 1, "warmup": 0, "minibatches": 1, "eval_every": 0}
        for name, low in least.items():
            if whole(f"TrainConfig.{name}", getattr(self, name), low) > 2**31:
                raise InvalidInput(f"TrainConfig.{name} is {getattr(self, name)}; give 2^31 at most")
        for name in ("lr", "kl", "weight_decay", "max_grad_norm", "temperature"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InvalidInput(f"TrainConfig.{name} is {value}; give a finite number, 0 or more")


def tokens_of(name: str, budget: int | str | None) -> int | None:
    """A budget of generated tokens: a number, or a text such as ``2m``.

    Raises:
        InvalidInput: a share, money, a window, or nothing above 0.
    """
    if budget is None:
        return None
    if isinstance(budget, str):
        parsed = Budget.parse(budget)
        if parsed.amount is None or parsed.kind not in ("all", "output") or parsed.window is not None:
            raise InvalidInput(f"{name}={budget!r}; give a number of generated tokens, such as 300_000, '300k' or '2m'")
        budget = parsed.amount
    return whole(name, budget, 1)
