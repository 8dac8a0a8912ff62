"""Rollouts of earlier steps that are learnt from again: paid for once, with the log-probabilities of who sampled them.

A recipe's ratio is to the policy that sampled a token, so that old rows are weighed, clipped or masked by how far the
policy has moved since. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.allocator import load_state
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, right
from budgeteer.rl.rollouts import Role, Rollouts

__all__ = ["Kept", "Replay", "mixed", "recent", "success_pool"]


@dataclass(frozen=True, slots=True)
class Kept:
    """m whole rollouts of earlier steps. Fields as in :class:`budgeteer.rl.rollouts.Rollouts`, keys one a row.

    Attributes:
        keys: m prompt keys (they may repeat).
        tokens, version: [m, t], right-padded; logprob, entropy: [m, t] NaN where not sampled or not known.
        length, cap, status, closed, answered, verified, weight: [m].
        names: of the other numbers: ``reward``, and the columns of ``Rollouts.more`` with one number a row.
        numbers: [m, c] of these names.
    """

    keys: tuple[str, ...]
    tokens: I64
    version: I64
    logprob: F64
    entropy: F64
    length: I64
    cap: I64
    status: I64
    closed: I64
    answered: I64
    verified: F64
    weight: F64
    names: tuple[str, ...]
    numbers: F64

    def __post_init__(self) -> None:
        if not self.keys:  # JSON does not tell how wide nothing is
            object.__setattr__(self, "names", ())
            for name in _ARRAYS:
                kind = np.float64 if name in _FLOATS else np.int64
                object.__setattr__(self, name, np.zeros((0, 0) if name in (*_OF_TOKENS, "numbers") else 0, kind))

    @staticmethod
    def empty() -> Kept:
        """None."""
        nothing: Any = np.zeros(0)
        return Kept((), *(nothing,) * 11, (), nothing)  # shapes and kinds are set above

    @staticmethod
    def read(data: Mapping[str, Any]) -> Kept:
        """What ``dump_state`` wrote; before there were numbers, all rewards were the verifier's scores."""
        scores = {"dtype": "float64", "data": [[score] for score in data["verified"]["data"]]}
        kept: Kept = load_state(Kept.empty(), {"names": ["reward"], "numbers": scores, **data})
        return kept

    @staticmethod
    def of(rollouts: Rollouts, rows: NDArray[Any]) -> Kept:
        """The rollouts' rows at these indices, or where ``rows`` [n] is true."""
        taken = rollouts.take(rows)
        width = int(taken.length.max(initial=0))
        entropy = np.full(taken.tokens.shape, np.nan) if taken.entropy is None else taken.entropy

        def values(name: str) -> NDArray[Any]:
            array = entropy if name == "entropy" else getattr(taken, name)
            array = array[:, :width] if name in _OF_TOKENS else array
            return np.asarray(array, np.float64 if name in _FLOATS else np.int64)

        keys = tuple(taken.keys[g] for g in taken.group.tolist())
        more = {"reward": taken.reward, **{name: a for name, a in taken.more.items() if a.ndim == 1}}
        told = {name: a for name, a in more.items() if a.dtype.kind in "biuf"}
        numbers = np.stack([np.asarray(a, np.float64) for a in told.values()], 1)
        arrays: dict[str, Any] = {name: values(name) for name in _ARRAYS if name != "numbers"}
        return Kept(keys, names=tuple(told), numbers=numbers, **arrays)

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: NDArray[np.bool_]) -> Kept:
        """The rows where ``rows`` [m] is true."""
        keys = tuple(key for key, there in zip(self.keys, rows.tolist(), strict=True) if there)
        return replace(self, keys=keys, **{name: getattr(self, name)[rows] for name in _ARRAYS})

    def joined(self, other: Kept) -> Kept:
        """These rows, then those of ``other``."""
        if not len(self) or not len(other):
            return self if len(self) else other
        width = max(self.tokens.shape[1], other.tokens.shape[1])

        def both(name: str) -> NDArray[Any]:
            a, b = getattr(self, name), getattr(other, name)
            if name not in _OF_TOKENS:
                return np.concatenate([a, b])
            padding = {"tokens": 0, "version": -1}.get(name, np.nan)
            wide = [np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=padding) for x in (a, b)]
            return np.concatenate(wide)

        arrays: dict[str, Any] = {name: both(name) for name in _ARRAYS}
        return replace(self, keys=(*self.keys, *other.keys), **arrays)


_ARRAYS = tuple(f.name for f in fields(Kept) if f.name not in ("keys", "names"))
_OF_TOKENS = ("tokens", "version", "logprob", "entropy")
_FLOATS = ("logprob", "entropy", "verified", "weight", "numbers")


class Replay(NamedTuple):
    """Which rollouts of earlier steps are learnt from again. The state is those that are kept.

    Attributes:
        draw: ``(kept, rollouts, step) -> (again, kept)``: which of the kept rows join the step's rollouts, and what is
            kept for the next step. ``step`` = steps done. Rewards and advantages see the rows that join; budgets,
            history and allocator do not.
    """

    draw: Callable[[Kept, Rollouts, int], tuple[Kept, Kept]]


def mixed(rollouts: Rollouts, kept: Kept, prompts: Mapping[str, tuple[int, ...]]) -> Rollouts:
    """The rollouts with the kept rows behind them; rows of a prompt are one group.

    Args:
        prompts: key -> token ids, of all kept rows.
    """
    if not len(kept):
        return rollouts
    keys = tuple(dict.fromkeys(kept.keys))
    number = {key: i for i, key in enumerate(keys)}
    told = dict(zip(kept.names, kept.numbers.T, strict=True))
    reward = told.pop("reward")
    within = np.arange(kept.tokens.shape[1]) < kept.length[:, None]
    rows = Rollouts(
        keys=keys,
        prompts=tuple(prompts[key] for key in keys),
        group=np.array([number[key] for key in kept.keys], np.int64),
        tokens=kept.tokens,
        length=kept.length,
        cap=kept.cap,
        logprob=kept.logprob.astype(np.float32),
        role=np.where(within, Role.CARRIED, Role.NONE).astype(np.int8),
        version=kept.version.astype(np.int32),
        status=kept.status.astype(np.int8),
        closed=kept.closed,
        answered=kept.answered,
        verified=kept.verified,
        reward=reward,
        weight=kept.weight,
        prefill_tokens=0,
        entropy=None if rollouts.entropy is None else kept.entropy.astype(np.float32),
        more=told,
    )
    # what is no number of a row is for rewards, with which no replay goes
    return Rollouts.concatenate([replace(rollouts, more={name: rollouts.more[name] for name in told}), rows])


def success_pool() -> Replay:
    """A prompt all of whose rollouts fail gets its latest success of an earlier step beside them.

    From DART (arXiv 2509.23866). The pool holds one success a prompt. Helps where prompts are solved now and then:
    their failures get something to be compared with. Does nothing for prompts that were never solved; the paper begins
    with successes that were collected before.
    """

    def draw(kept: Kept, rollouts: Rollouts, step: int) -> tuple[Kept, Kept]:
        good = right(rollouts.verified)
        solved = {rollouts.keys[g] for g in rollouts.group[good].tolist()}
        failed = {rollouts.keys[g] for g in rollouts.group.tolist()} - solved
        again = kept.take(np.array([key in failed for key in kept.keys], np.bool_))
        _, last = np.unique(rollouts.group[good][::-1], return_index=True)
        new = Kept.of(rollouts, np.flatnonzero(good)[::-1][last])
        old = kept.take(np.array([key not in solved for key in kept.keys], np.bool_))
        return again, old.joined(new)

    return Replay(draw)


def recent(age: int = 1) -> Replay:
    """Groups with right and wrong rollouts are learnt from again in the ``age`` steps after their own.

    An update then averages over more rollouts for the same tokens. Helps where tokens are scarce and an update is
    noisy; does not where the policy moves far in a step, so that old rows are clipped.

    Args:
        age: in steps, 1 or more.

    Raises:
        InvalidInput: an age below 1.
    """
    if age < 1:
        raise InvalidInput(f"recent(age={age}); give at least 1 step")

    def draw(kept: Kept, rollouts: Rollouts, step: int) -> tuple[Kept, Kept]:
        good = right(rollouts.verified)
        count = rollouts.counts
        rights = np.bincount(rollouts.group[good], minlength=len(count))
        both = ((rights > 0) & (rights < count))[rollouts.group] & ~rollouts.short
        first = np.where(kept.version >= 0, kept.version, step).min(axis=1, initial=step)
        young = kept.take(step + 1 - first <= age)
        return kept, young.joined(Kept.of(rollouts, both))

    return Replay(draw)
