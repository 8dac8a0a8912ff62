"""What a policy gets right of problems: drawn as in training, and decoded greedily, which needs no training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.environment import Environment, Item
from budgeteer.core.plan import F64, right
from budgeteer.core.steer import Steer
from budgeteer.engine.llama import Llama
from budgeteer.lab.tasks.base import score
from budgeteer.models.policy import LlamaPolicy
from budgeteer.rl.rollouts import Rollouts
from budgeteer.rl.sampler import sample
from budgeteer.steer import answered

GREEDY_TEMPERATURE = 1e-4
"""Temperature of greedy decoding, since the sampler always draws: a token whose logit is 0.001 below the likeliest has
e^-10 of its probability."""


def rewards(policy: LlamaPolicy, environment: Environment, items: Sequence[Item], rows: Sequence[Sequence[int]]) -> F64:
    """[n] rewards of completions, items[i] being the problem of row i."""
    texts = policy.decode(rows)
    return np.array([score(environment, item, text) for item, text in zip(items, texts, strict=True)], np.float64)


def judged(
    policy: LlamaPolicy,
    model: Llama,
    environment: Environment,
    items: Sequence[Item],
    prompts: Sequence[Sequence[int]],
    *,
    samples: int,
    max_tokens: int,
    seed: int,
    temperature: float,
    steer: Steer | None = None,
) -> tuple[Rollouts, NDArray[np.bool_]]:
    """``samples`` rollouts of each problem, asked as ``prompts`` say (token ids), and [n] which have full reward."""
    rollouts, _ = sample(
        model,
        [item.key for item in items],
        prompts,
        np.full(len(items), samples),
        max_tokens=max_tokens,
        markers=policy.markers,
        seed=seed,
        temperature=temperature,
        steer=steer,
    )
    rows = [t[:n].tolist() for t, n in zip(rollouts.tokens, rollouts.length, strict=True)]
    return rollouts, right(rewards(policy, environment, [items[g] for g in rollouts.group], rows))


def accuracy(
    policy: LlamaPolicy,
    model: Llama,
    environment: Environment,
    items: Sequence[Item],
    samples: int,
    max_tokens: int,
    seed: int,
    temperature: float = 1.0,
) -> float:
    """Share of rollouts with full reward: pass@1 as drawn, or, at :data:`GREEDY_TEMPERATURE`, of greedy decoding, which
    one sample a problem measures. Rollouts stop at complete answers, which cannot change the reward."""
    prompts = policy.encode([item.prompt for item in items])
    _, good = judged(
        policy,
        model,
        environment,
        items,
        prompts,
        samples=samples,
        max_tokens=max_tokens,
        seed=seed,
        temperature=temperature,
        steer=answered(),
    )
    return float(good.mean())
