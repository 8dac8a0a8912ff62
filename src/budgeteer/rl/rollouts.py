"""Rollouts as a struct of arrays: ragged groups, one row a rollout."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.plan import CUT, F64, I64, Outcomes
from budgeteer.rl.branch import branched
from budgeteer.rl.reward import counted  # noqa: F401 (declares columns that any reward may name)
from budgeteer.rl.reward.protocol import Columns


class Role(IntEnum):
    """Where a token of a rollout comes from. Only tokens that some policy sampled are trained on."""

    NONE = 0
    """No token: behind the end of the row."""
    SAMPLED = 1
    """Sampled in this step."""
    FORCED = 2
    """Put there by a method that steers the decoding; the model reads it, so it is paid for."""
    CARRIED = 3
    """The beginning of the rollout, sampled and paid for in an earlier step."""
    HINT = 4
    """The head of the answer, which a variant put there: computed with the prompt, and never sampled."""


OF_SAMPLER = ("closed", "answered", "tokens", "sampled", "prompt_key")
"""The columns that every sampler's rollouts have beside those that a reward always sees."""


@dataclass(frozen=True, slots=True)
class Rollouts:
    """n rollouts of g prompts. What is not known is NaN, never 0.

    Attributes:
        keys: g prompt keys; a group is all rows with the same ``group``, in any order and number.
        prompts: g prompts as token ids; where the rows of a group were asked differently, that of one of them.
        group: [n] index into keys.
        tokens: [n, t] int64 tokens, right-padded.
        length: [n] tokens of each row, whatever their role.
        logprob: [n, t] float32 log-probability of each token under the policy that sampled it; NaN where nothing was
            sampled, and where the token of an earlier step is only read.
        role: [n, t] int8, a :class:`Role`.
        version: [n, t] int32, steps of training done when the token was made; -1 where there is none.
        cap: [n] most tokens that the row might have had.
        status: [n] ENDED, FINISHED, ABORTED or CUT.
        closed, answered: [n] length at which thinking closed / the answer was complete, -1 = never.
        verified: [n] the verifier's score (NaN until scored): what history and allocator see.
        reward: [n] what advantages are made of: the same, unless the recipe has a reward of its own.
        weight: [n] importance weight, 1 unless a gate kept the row by chance.
        prefill_tokens: prompt tokens computed, once a prompt.
        entropy: [n, t] float32 entropy in nats of the distribution that each token stands for; NaN where it is not
            known. None unless a part of the recipe needs it.
        more: what else the trainer or a variant gives of each row or token, by the names of columns of rollouts: [n] or
            [n, t].
        asked: n prompts, where rows were asked with more than the prompts of their keys; None = with these.
    """

    keys: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]
    group: I64
    tokens: I64
    length: I64
    cap: I64
    logprob: NDArray[np.float32]
    role: NDArray[np.int8]
    version: NDArray[np.int32]
    status: NDArray[np.int8]
    closed: I64
    answered: I64
    verified: F64
    reward: F64
    weight: F64
    prefill_tokens: int
    entropy: NDArray[np.float32] | None = None
    more: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    asked: tuple[tuple[int, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.group)

    @property
    def sampled(self) -> NDArray[np.bool_]:
        """[n, t] whether the token may carry gradient: it was sampled in this step, or in an earlier one whose
        log-probability of it is known."""
        known: NDArray[np.bool_] = np.equal(self.role, Role.CARRIED) & np.isfinite(self.logprob)
        return np.equal(self.role, Role.SAMPLED) | known

    @property
    def replayed(self) -> NDArray[np.bool_]:
        """[n] whether the whole row is of an earlier step, which paid for it and counted it."""
        new = (self.role == Role.SAMPLED) | (self.role == Role.FORCED)
        old: NDArray[np.bool_] = np.equal(self.role, Role.CARRIED).any(axis=1) & ~new.any(axis=1)
        return old

    @property
    def billed(self) -> I64:
        """[n] tokens of each row that are on the bill of this step or an earlier one as its own: all but hints, and but
        the tokens of its trace where the row is a branch."""
        of_trace = np.equal(self.role, Role.CARRIED) & branched(self)[:, None]
        others: I64 = (np.equal(self.role, Role.HINT) | of_trace).sum(1)
        return self.length - others

    @property
    def paid(self) -> I64:
        """[n] tokens of each row on this step's bill: neither hints nor what earlier steps sampled."""
        made: I64 = (np.equal(self.role, Role.SAMPLED) | np.equal(self.role, Role.FORCED)).sum(1)
        return made

    @property
    def used(self) -> int:
        """Number of tokens on this step's bill, including beginnings of aborted rows and forced tokens."""
        return int(self.paid.sum())

    @property
    def short(self) -> NDArray[np.bool_]:
        """[n] whether the end of a budget cut the row before its own cap: it never had its chance."""
        return np.equal(self.status, CUT) & (self.length < self.cap)

    def prompts_of(self, rows: I64) -> list[tuple[int, ...]]:
        """The prompts [k] that the rows [k] of these indices were asked."""
        if self.asked is not None:
            return [self.asked[i] for i in rows.tolist()]
        return [self.prompts[g] for g in self.group[rows].tolist()]

    @property
    def counts(self) -> I64:
        """[g] rollouts of each prompt."""
        return np.bincount(self.group, minlength=len(self.keys)).astype(np.int64)

    def outcomes(self, score: F64) -> Outcomes:
        """The outcomes that an allocator observes; score [n] as in Outcomes."""
        keys = tuple(self.keys[g] for g in self.group)
        return Outcomes(keys, self.billed, self.verified, score, self.status)

    def columns(self, needs: Collection[str] = (), given: Mapping[str, NDArray[Any]] | None = None) -> Columns:
        """The columns that a reward reads.

        Args:
            needs: columns beside those that are always there; what is computed from others is computed here.
            given: columns that are not of the rollouts but of their prompts, such as what a task says of each.

        Raises:
            InvalidInput: nobody gave a column that cannot be computed; the message says which and where it comes from.
            UnknownName: nobody declared such a column.
        """
        own = (self.closed, self.answered, self.tokens, self.sampled * 1, [self.keys[g] for g in self.group])
        values: dict[str, Any] = {**(given or {}), **self.more, **dict(zip(OF_SAMPLER, own, strict=True))}
        if self.entropy is not None:
            values["entropy"] = self.entropy
        values["branched"] = branched(self) * 1
        rows = Columns(self.verified, self.length, self.group, self.cap, self.status)
        return rows.completed(needs, values)

    def scored(self, verified: F64) -> Rollouts:
        """A copy with the verifier's scores [n], which are the rewards, too."""
        return replace(self, verified=verified, reward=verified)

    def at(self, step: int) -> Rollouts:
        """A copy with ``step`` as the version of all tokens that were sampled or forced in this step."""
        made = (self.role == Role.SAMPLED) | (self.role == Role.FORCED)
        return replace(self, version=np.where(made, step, self.version).astype(np.int32))

    def take(self, rows: NDArray[Any]) -> Rollouts:
        """The rows at these indices, or where ``rows`` [n] is true; the prompts stay."""
        per_row = {f.name: getattr(self, f.name) for f in fields(self)}
        more = {name: values[rows] for name, values in self.more.items()}
        kept = {name: a[rows] for name, a in per_row.items() if isinstance(a, np.ndarray)}
        asked = None if self.asked is None else tuple(self.prompts_of(np.arange(len(self))[rows]))
        return replace(self, more=more, asked=asked, **kept)

    def begun(
        self,
        keys: tuple[str, ...],
        group: I64,
        beginnings: Sequence[I64],
        versions: Sequence[I64],
        logprobs: Sequence[F64] | None = None,
    ) -> Rollouts:
        """Rows that continue beginnings of earlier steps or hints, as whole rollouts.

        Args:
            keys: distinct keys of the prompts, in the order of ``group``.
            group: [r] index into these of each of this object's prompts, which are requests of their own here.
            beginnings: r arrays of token ids, which stand at the end of those prompts.
            versions: r arrays: when each of those tokens was sampled; -1 for the tokens of hints.
            logprobs: r arrays: their log-probabilities, where they are to be trained on, NaN elsewhere; None = nowhere.
        """
        order = self.group
        size = np.array([len(beginnings[i]) for i in order], np.int64)
        width = int((size + self.length).max(initial=1))
        place = np.arange(width)
        new = (place >= size[:, None]) & (place < (size + self.length)[:, None])
        old = place < size[:, None]
        within = np.arange(self.tokens.shape[1]) < self.length[:, None]

        def joined(own: NDArray[Any], before: Any, fill: Any) -> NDArray[Any]:
            out = np.full((len(self), width), fill, own.dtype)
            out[new], out[old] = own[within], before
            return out

        first = np.concatenate([beginnings[i] for i in order]) if len(order) else np.zeros(0, np.int64)
        when = np.concatenate([versions[i] for i in order]) if len(order) else np.zeros(0, np.int64)
        known = first * np.nan if logprobs is None else np.concatenate([first[:0], *(logprobs[i] for i in order)])
        requests = [prompt[: len(prompt) - len(begun)] for prompt, begun in zip(self.prompts, beginnings, strict=True)]
        prompts = {int(group[i]): requests[i] for i in order.tolist()}
        return replace(
            self,
            keys=keys,
            prompts=tuple(prompts.get(g, ()) for g in range(len(keys))),
            group=group[order],
            tokens=joined(self.tokens, first, 0),
            length=size + self.length,
            cap=size + self.cap,
            logprob=joined(self.logprob, known, np.nan),
            role=joined(self.role, np.where(when >= 0, Role.CARRIED, Role.HINT), Role.NONE),
            version=joined(self.version, when, -1),
            closed=np.where(self.closed >= 0, self.closed + size, -1),
            answered=np.where(self.answered >= 0, self.answered + size, -1),
            asked=tuple(requests[i] for i in order.tolist()),
        )

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
                elif prompt:
                    prompts[index[key]] = prompt
            groups.append(np.array([index[k] for k in part.keys], np.int64)[part.group])
        width = max(p.tokens.shape[1] for p in parts)

        def joined(arrays: list[NDArray[Any]], padding: Any = 0) -> NDArray[Any]:
            return np.concatenate(
                [
                    np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=padding) if a.ndim == 2 else a
                    for a in arrays
                ]
            )

        def join(name: str) -> Any:
            arrays = [getattr(p, name) for p in parts]
            return None if arrays[0] is None else joined(arrays, _PADDING.get(name, 0))

        asked = None
        if any(part.asked is not None for part in parts):
            asked = tuple(prompt for part in parts for prompt in part.prompts_of(np.arange(len(part))))
        own = {"keys", "prompts", "group", "prefill_tokens", "more", "asked"}
        return replace(
            parts[0],
            keys=tuple(index),
            prompts=tuple(prompts),
            group=np.concatenate(groups),
            prefill_tokens=sum(p.prefill_tokens for p in parts),
            more={name: joined([p.more[name] for p in parts]) for name in parts[0].more},
            asked=asked,
            **{f.name: join(f.name) for f in fields(Rollouts) if f.name not in own},
        )


_PADDING = {"logprob": np.nan, "entropy": np.nan, "version": -1}
"""What stands behind the end of a row, where it is not 0."""


def per_token(values: F64, like: NDArray[Any]) -> F64:
    """``values`` [n] or [n, t] as [n, t] of the shape of ``like``."""
    return np.broadcast_to(values if values.ndim == 2 else values[:, None], like.shape)
