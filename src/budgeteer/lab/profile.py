"""How a pool looks to a policy: shares of prompts all right, all wrong and mixed, and where tokens go."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from budgeteer.core.environment import Item
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.heldout import judged
from budgeteer.lab.pool import build
from budgeteer.lab.run import level_of
from budgeteer.lab.tasks.named import Task, load
from budgeteer.models.policy import load_policy


@dataclass(frozen=True, slots=True)
class PoolProfile:
    """Diagnostics of a pool with a number of rollouts a prompt.

    Attributes:
        prompts, rollouts: how many, and how many of each.
        accuracy: mean reward of 1.
        all_right, all_wrong, mixed: shares of prompts.
        mean_length: tokens a rollout.
        after_answer: share of tokens sampled after the answer was complete.
        unanswered: share of tokens in rollouts without an answer.
        levels: (prompts, accuracy, mean tokens) of each difficulty level.
    """

    prompts: int
    rollouts: int
    accuracy: float
    all_right: float
    all_wrong: float
    mixed: float
    mean_length: float
    after_answer: float
    unanswered: float
    levels: dict[str, tuple[int, float, float]]


def _problems(task: str, seed: int, items: int) -> tuple[Task, tuple[Item, ...]]:
    """The training problems that a run with as many held-out ones would have; of a file and the like, the first."""
    if items < 1:
        raise InvalidInput(f"--items is {items}; give at least 1")
    loaded = load(task, size=items, seed=seed, limit=items)
    if not loaded.counted:
        return loaded, loaded.items[:items]
    pool = build(task, seed, items, items)
    return pool.environment, pool.train


def profile(model: Path, task: str, seed: int, items: int, rollouts: int, max_tokens: int = 96) -> PoolProfile:
    """Sample ``rollouts`` of each of ``items`` training problems and count."""
    environment, chosen = _problems(task, seed, items)
    policy = load_policy(model)
    prompts = policy.encode([item.prompt for item in chosen])
    r, good = judged(
        policy,
        policy.model,
        environment,
        chosen,
        prompts,
        samples=rollouts,
        max_tokens=max_tokens,
        seed=seed,
        temperature=1.0,
    )
    per = np.bincount(r.group, good, minlength=len(chosen))
    levels: dict[str, list[int]] = defaultdict(list)
    for i, item in enumerate(chosen):
        levels[level_of(item)].append(i)
    after = np.where(r.answered >= 0, r.length - r.answered, 0).sum() / r.used
    return PoolProfile(
        len(chosen),
        rollouts,
        float(good.mean()),
        float((per == rollouts).mean()),
        float((per == 0).mean()),
        float(((per > 0) & (per < rollouts)).mean()),
        float(r.length.mean()),
        float(after),
        float(r.length[r.answered < 0].sum() / r.used),
        {
            level: (
                len(members),
                float(per[members].sum() / rollouts / len(members)),
                float(r.length[np.isin(r.group, members)].mean()),
            )
            for level, members in sorted(levels.items())
        },
    )


def render(p: PoolProfile) -> str:
    """The profile as text."""
    lines = [
        f"{p.prompts} prompts x {p.rollouts} rollouts: accuracy {p.accuracy:.3f}, {p.mean_length:.1f} tokens a rollout",
        f"all right {p.all_right:.1%}, all wrong {p.all_wrong:.1%}, mixed {p.mixed:.1%}",
        f"tokens after the answer {p.after_answer:.1%}, tokens of rollouts without an answer {p.unanswered:.1%}",
        f"{'level':24}{'prompts':>8}{'accuracy':>10}{'tokens':>8}",
    ]
    lines += [f"{level:24}{n:8}{a:10.3f}{t:8.1f}" for level, (n, a, t) in p.levels.items()]
    return "\n".join(lines)
