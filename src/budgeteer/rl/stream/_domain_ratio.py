"""Domains in fixed shares of the rollouts that were completed (Apriel-Reasoner, arXiv 2604.02007)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import ABORTED, CUT, I64, Outcomes
from budgeteer.rl.recipe import Stream


@dataclass(frozen=True, slots=True)
class Domains:
    """State: names of the domains seen, completed rollouts and prompts taken of each."""

    names: tuple[str, ...]
    completed: I64
    taken: I64


def domain(key: str) -> str:
    """The domain of a prompt: what its key begins with, up to the first colon."""
    return key.partition(":")[0]


def domain_ratio(**targets: float) -> Stream:
    """Prompts of each domain in proportion to ``target^2 / achieved``: what lags behind its share comes more often.

    ``achieved`` is the domain's share of the rollouts that ended so far, plus one pseudo-rollout for each domain,
    spread by the targets. The counts of a step are rounded by largest remainders; within a domain prompts come in
    epochs of random order. Helps where domains differ in how many of their rollouts are completed in a step; with equal
    domains it is plain mixing. The paper's abstract gives no formula: the ratio is this project's reading.

    Args:
        targets: domain -> share, > 0, in any unit; without any, all domains share alike. The domain is what a prompt's
            key begins with, up to the first colon.

    Raises:
        InvalidInput: a share that is not above 0, or (when picking) prompts of a domain without one.
    """
    if any(not share > 0 for share in targets.values()):
        raise InvalidInput(f"domain_ratio got {targets}; give each domain a share above 0")

    def shares(names: list[str]) -> Any:
        if not targets:
            return np.full(len(names), 1 / len(names))
        if missing := [name for name in names if name not in targets]:
            raise InvalidInput(f"domain_ratio has no share for {', '.join(missing)}; it has {', '.join(targets)}")
        given = np.array([targets[name] for name in names])
        return given / given.sum()

    def counts(state: Domains, names: list[str]) -> tuple[I64, I64]:
        at = {name: i for i, name in enumerate(state.names)}
        both = [(state.completed[at[n]], state.taken[at[n]]) if n in at else (0, 0) for n in names]
        array = np.array(both, np.int64).reshape(-1, 2)
        return array[:, 0], array[:, 1]

    def pick(state: Domains, keys: tuple[str, ...], count: int, seed: int) -> I64:
        members: dict[str, list[int]] = {}
        for i, key in enumerate(keys):
            members.setdefault(domain(key), []).append(i)
        names = sorted(members)
        target, (completed, taken) = shares(names), counts(state, names)
        achieved = (completed + target * len(names)) / (completed.sum() + len(names))
        size = np.array([len(members[name]) for name in names])
        quota = _rounded(target * target / achieved, size, count)
        chosen = []
        for d, name in enumerate(names):
            epoch, offset = divmod(int(taken[d]), int(size[d]))
            orders = [np.random.default_rng((seed, d, epoch + e, 9)).permutation(int(size[d])) for e in (0, 1)]
            ahead = np.concatenate(orders)[offset:]
            _, first = np.unique(ahead, return_index=True)
            chosen.append(np.array(members[name], np.int64)[ahead[np.sort(first)[: quota[d]]]])
        # the domains in turns, so that a step that stops early has all of them
        place = np.concatenate([(np.arange(len(rows)) + 0.5) / max(len(rows), 1) for rows in chosen])
        picked: I64 = np.concatenate(chosen)[np.argsort(place, kind="stable")]
        return picked

    def observe(state: Domains, keys: tuple[str, ...], taken: I64, outcomes: Outcomes) -> Domains:
        names = sorted({domain(key) for key in keys})
        number = {name: i for i, name in enumerate(names)}
        completed, used = (array.copy() for array in counts(state, names))
        np.add.at(used, [number[domain(keys[i])] for i in taken.tolist()], 1)
        ended = (outcomes.status != ABORTED) & (outcomes.status != CUT)
        rows = [number[domain(key)] for key, whole in zip(outcomes.keys, ended.tolist(), strict=True) if whole]
        np.add.at(completed, rows, 1)
        return Domains(tuple(names), completed, used)

    empty = Domains((), np.zeros(0, np.int64), np.zeros(0, np.int64))
    return Stream(lambda: empty, pick, observe)


def _rounded(weight: Any, size: I64, count: int) -> I64:
    """Whole numbers in proportion to ``weight``, none above its ``size``, in sum ``count``."""
    due = weight / weight.sum() * count
    quota: I64 = np.minimum(np.floor(due).astype(np.int64), size)
    while quota.sum() < count:
        quota[int(np.argmax(np.where(quota < size, due - quota, -np.inf)))] += 1
    return quota
