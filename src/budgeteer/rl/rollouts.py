"""Rollouts as a struct of arrays: ragged groups, one row a rollout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import F64, I64, Outcomes
from budgeteer.rl.reward.protocol import Columns


@dataclass(frozen=True, slots=True)
class Rollouts:
    """n rollouts of g prompts.

    Attributes:
        keys: g prompt keys; a group is all rows with the same ``group``, in any order and number.
        prompts: g prompts as token ids.
        group: [n] index into keys.
        tokens: [n, t] int64 sampled tokens, right-padded.
        length: [n] sampled tokens of each row, every one of them paid for.
        logprob: [n, t] float32 log-probability of each token under the sampling policy.
        forced: [n, t] bool, token was put there by a stopper and not sampled: never trained on.
        cap: [n] most tokens that the row might have had.
        status: [n] ENDED, FINISHED, ABORTED or CUT.
        closed, answered: [n] length at which thinking closed / the answer was complete, -1 = never.
        verified: [n] the verifier's score (0 until scored): what history and allocator see.
        reward: [n] what advantages are made of: the same, unless the recipe has a reward of its own.
        weight: [n] importance weight, 1 unless a gate kept the row by chance.
        prefill_tokens: prompt tokens computed, once a prompt.
    """

    keys: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]
    group: I64
    tokens: I64
    length: I64
    cap: I64
    logprob: NDArray[np.float32]
    forced: NDArray[np.bool_]
    status: NDArray[np.int8]
    closed: I64
    answered: I64
    verified: F64
    reward: F64
    weight: F64
    prefill_tokens: int

    def __len__(self) -> int:
        return len(self.group)

    @property
    def used(self) -> int:
        """Tokens sampled, aborted prefixes included; forced tokens count too, the model reads them."""
        return int(self.length.sum())

    @property
    def counts(self) -> I64:
        """[g] rollouts of each prompt."""
        return np.bincount(self.group, minlength=len(self.keys)).astype(np.int64)

    def outcomes(self, score: F64) -> Outcomes:
        """What an allocator observes; score [n] as in Outcomes."""
        keys = tuple(self.keys[g] for g in self.group)
        return Outcomes(keys, self.length, self.verified, score, self.status)

    def columns(self) -> Columns:
        """What a reward looks at."""
        return Columns(self.verified, self.length, self.group, self.cap, self.status)

    def scored(self, verified: F64) -> Rollouts:
        """The same with the verifier's scores [n]."""
        return replace(self, verified=verified, reward=verified)

    @staticmethod
    def concatenate(parts: list[Rollouts]) -> Rollouts:
        """Join the rounds of one step; groups with the same key become one group."""
        if len(parts) == 1:
            return parts[0]
        index: dict[str, int] = {}
        prompts: list[tuple[int, ...]] = []
        groups = []
        for part in parts:
            for key, prompt in zip(part.keys, part.prompts, strict=True):
                if key not in index:
                    index[key] = len(prompts)
                    prompts.append(prompt)
            groups.append(np.array([index[k] for k in part.keys], np.int64)[part.group])
        width = max(p.tokens.shape[1] for p in parts)

        def pad(a: NDArray[Any]) -> NDArray[Any]:
            return np.pad(a, ((0, 0), (0, width - a.shape[1])))

        def join(name: str) -> Any:
            arrays = [getattr(p, name) for p in parts]
            return np.concatenate([pad(a) if a.ndim == 2 else a for a in arrays])

        names = (
            "tokens",
            "length",
            "cap",
            "logprob",
            "forced",
            "status",
            "closed",
            "answered",
            "verified",
            "reward",
            "weight",
        )
        return replace(
            parts[0],
            keys=tuple(index),
            prompts=tuple(prompts),
            group=np.concatenate(groups),
            prefill_tokens=sum(p.prefill_tokens for p in parts),
            **{name: join(name) for name in names},
        )
