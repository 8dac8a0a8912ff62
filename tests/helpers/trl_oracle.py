"""What training with TRL should come to: single rows, without padding, batches or TRL's loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from budgeteer.rl.control import Control
from budgeteer.rl.rollouts import per_token
from budgeteer.rl.step import Update

LR = 0.1
SGD = {
    "optim": "sgd", "learning_rate": LR, "lr_scheduler_type": "constant", "max_grad_norm": 0.0,
}  # fmt: skip
"""Settings of ``GRPOConfig`` with which a step is one step down the gradient."""
Surrogate = Callable[[Any, Any, Any], Any]
"""(log-probability, that of who sampled, advantage) of a row's tokens -> what is to grow, of each."""


def updates_of(monkeypatch: Any) -> list[Update]:
    """The updates of each step, once there are some."""
    seen: list[Update] = []
    own = Control.learn

    def learn(self: Control, *given: Any) -> Update:
        seen.append(own(self, *given))
        return seen[-1]

    monkeypatch.setattr(Control, "learn", learn)
    return seen


def model_of(folder: Path) -> Any:
    """The model at the start."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logprobs(model: Any, prompt: tuple[int, ...], tokens: Any) -> Any:
    """[t] log-probabilities of the tokens behind the prompt."""
    ids = [*prompt, *map(int, tokens)]
    logits = model(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(tokens)), torch.tensor(ids[len(prompt) :])]


def clipped(new: Any, old: Any, advantage: Any, low: float = 0.2, high: float = 0.2) -> Any:
    """PPO's, as TRL has it by default."""
    ratio = (new - old).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def descended(
    folder: Path,
    updates: list[Update],
    surrogate: Surrogate = clipped,
    iterations: int = 1,
    rows: bool = False,
    beside: Callable[[Any, Update], Any] | None = None,
) -> tuple[torch.Tensor, list[float]]:
    """Weights after these updates, and all ratios to who sampled where somebody told.

    Args:
        folder: of the model at the start.
        updates: of each generation; all of its rows are learnt from, with a mean over their tokens.
        surrogate: of tokens.
        iterations: how often each is learnt from.
        rows: a mean over rows of means over tokens instead.
        beside: (model, update) -> a loss that is added.
    """
    model = model_of(folder)
    ratios: list[float] = []
    for update in updates:
        rollouts = update.rollouts
        olds: dict[int, torch.Tensor] = {}
        over = np.flatnonzero(update.chosen & ~update.wasted)
        count = int(rollouts.sampled[over].sum())
        advantage = per_token(update.advantage, rollouts.tokens)
        for turn in range(iterations):
            model.zero_grad()
            for i in over.tolist():
                n = int(rollouts.length[i])
                (prompt,) = rollouts.prompts_of(np.array([i]))
                own = torch.from_numpy(rollouts.sampled[i, :n])
                new = logprobs(model, prompt, rollouts.tokens[i, :n])[own]
                told = torch.from_numpy(rollouts.logprob[i, :n])[own]
                old = olds.setdefault(i, torch.where(told.isfinite(), told, new.detach()))
                ratios += (new - told).exp()[told.isfinite()].tolist() if turn == 0 else []
                worth = surrogate(new, old, torch.from_numpy(advantage[i, :n].astype(np.float32))[own])
                (-worth.sum() / (len(over) * len(new) if rows else count)).backward()
            if beside is not None and (more := beside(model, update)).requires_grad:
                more.backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= LR * p.grad
    return torch.cat([p.detach().flatten() for p in model.parameters()]), ratios
