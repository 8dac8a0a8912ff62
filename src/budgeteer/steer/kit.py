"""What steers share: two of them on the same rows, and the room that thinking has."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, MOST
from budgeteer.core.steer import (
    CONTINUE,
    FINISH,
    NOTHING,
    Action,
    Internals,
    Mask,
    Need,
    Rows,
    Snapshot,
    State,
    Steer,
    Tensor,
    shared,
)


class Head(Protocol):
    """A small network on a frozen model, such as :class:`budgeteer.engine.head.Head`.

    Attributes:
        settings: what its method has to know about it.
        reads: :attr:`Need.HIDDEN` or :attr:`Need.LOGITS`: what it is called with.
    """

    @property
    def settings(self) -> dict[str, Any]: ...

    @property
    def reads(self) -> Need: ...

    def __call__(self, states: Tensor) -> Tensor:
        """[m, K] of hidden states [m, layers, hidden], or of logits [m, V]."""
        ...

    def check(self, inside: Internals) -> None:
        """Refuse a model that it was not trained on."""
        ...


def require_settings(head: Head, *names: str) -> None:
    """Refuse a head that was trained for another method.

    Raises:
        InvalidInput: its settings lack one of these names.
    """
    if missing := [name for name in names if name not in head.settings]:
        raise InvalidInput(
            f"the head says nothing of {' and '.join(missing)}, so it was trained for another method; give the one "
            f"that budgeteer heads train wrote for this method"
        )


def read_by(head: Head, now: Snapshot, rows: I64, layers: slice = slice(None)) -> Tensor:
    """What a head is called with for some rows of a snapshot: their logits, or their states of these layers."""
    return now.logits[rows] if head.reads == Need.LOGITS else now.hidden[rows][:, layers]


def room(cap: I64, reserve: int) -> I64:
    """[m] tokens of thinking that fit into caps [m] before the ``reserve`` of marker and answer."""
    return np.maximum(cap - reserve, 0)


def thinking(now: Snapshot) -> Mask:
    """[m] rows whose thinking is open, and whose next token nobody has forced."""
    return (now.closed < 0) & ~now.forced


def decisions(finish: Mask) -> Any:
    """[m] int8: FINISH where the mask says so, else CONTINUE."""
    return finish * np.int8(FINISH.value)  # CONTINUE is 0; a member of the enum costs microseconds at every step


@dataclass(frozen=True, slots=True)
class Both:
    """The states of two steers on the same rows."""

    first: State
    second: State


@shared
def combine(first: Steer, second: Steer) -> Steer:
    """Both steers on the same rows: what the first one forces or ends, the second one is shown as ``forced``.

    Each is asked as often as alone: about rows whose length is a multiple of its own ``every``.
    """
    every = math.gcd(first.every, second.every)

    def init(rows: Rows) -> Both:
        return Both(first.init(rows), second.init(rows))

    def step(state: Both, now: Snapshot) -> tuple[Action, Both]:
        action, first_state = _asked(first, every, state.first, now)
        claimed = now.forced
        if action.force is not None:
            claimed = claimed | (action.force >= 0)
        if action.decision is not None:
            claimed = claimed | ((action.decision != CONTINUE) & ((action.decision != FINISH) | (now.closed < 0)))
        other, second_state = _asked(second, every, state.second, dataclasses.replace(now, forced=claimed))
        return merge(action, other, len(now.row)), Both(first_state, second_state)

    def kept_weight(state: Both) -> F64:
        weights = [s.kept_weight(part) for s, part in ((first, state.first), (second, state.second)) if s.kept_weight]
        return np.asarray(np.prod(weights, axis=0))

    def report(state: Both) -> list[Any]:
        notes = [s.report(part) for s, part in ((first, state.first), (second, state.second)) if s.report]
        # a steer that was never asked about a row has no note about it
        return [
            {key: value for note in row if note is not None for key, value in note.items()} or None
            for row in zip(*notes, strict=True)
        ]

    return Steer(
        init,
        step,
        first.needs | second.needs,
        every,
        kept_weight if first.kept_weight or second.kept_weight else None,
        report if first.report or second.report else None,
    )


def _asked(steer: Steer, every: int, state: State, now: Snapshot) -> tuple[Action, State]:
    """What a steer does to the rows that it is asked about at their lengths, all of them multiples of ``every``."""
    if steer.every == every:
        return steer.step(state, now)
    at = np.flatnonzero(now.length % steer.every == 0)
    if not len(at):
        return NOTHING, state
    action, state = steer.step(state, _some(now, at))
    return _spread(action, at, len(now.row)), state


def _some(now: Snapshot, at: I64) -> Snapshot:
    """Rows ``at`` [k] of a snapshot of m rows."""
    rows = at.tolist()
    own = ("row", "length", "cap", "closed", "answered", "last", "forced", "temperature")
    return dataclasses.replace(
        now,
        **{name: getattr(now, name)[at] for name in own},
        margin=lambda: now.margin()[at],
        tokens=lambda i: now.tokens(rows[i]),
        close=lambda i: now.close(rows[i]),
        logits=None if now.logits is None else now.logits[rows],
        hidden=None if now.hidden is None else now.hidden[rows],
    )


def _spread(action: Action, at: I64, m: int) -> Action:
    """An action on rows ``at`` [k] as one on all m rows."""

    def wide(column: Any, rest: Any) -> Any:
        if column is None:
            return None
        whole = np.full(m, rest, np.asarray(column).dtype)
        whole[at] = column
        return whole

    def tensor(values: Tensor, mask: Mask | None) -> tuple[Tensor, Mask | None]:
        if values is None:
            return None, None
        whole = values.new_zeros((m, *values.shape[1:]))
        whole[at.tolist()] = values
        return whole, np.asarray(wide(np.ones(len(at), np.bool_) if mask is None else mask, False))

    return Action(
        wide(action.decision, CONTINUE.value),
        wide(action.force, -1),
        *tensor(action.logits, action.drawn),
        *tensor(action.embeddings, action.soft),
        wide(action.cap, MOST),
    )


def merge(first: Action, second: Action, m: int) -> Action:
    """Both actions on m rows; where they disagree, the first one's."""
    decision = _either(first.decision, second.decision, lambda values: values != CONTINUE)
    force = _either(first.force, second.force, lambda values: values >= 0)
    logits, drawn = _tensors(first.logits, first.drawn, second.logits, second.drawn, m)
    embeddings, soft = _tensors(first.embeddings, first.soft, second.embeddings, second.soft, m)
    caps = [action.cap for action in (first, second) if action.cap is not None]
    return Action(decision, force, logits, drawn, embeddings, soft, np.minimum.reduce(caps) if caps else None)


def _either(first: Any, second: Any, says: Callable[[Any], Any]) -> Any:
    if first is None or second is None:
        return second if first is None else first
    return np.where(says(first), first, second)


def _tensors(first: Tensor, mine: Any, second: Tensor, other: Any, m: int) -> tuple[Tensor, Any]:
    if first is None or second is None:
        return (second, other) if first is None else (first, mine)
    mine, other = (np.ones(m, np.bool_) if mask is None else mask for mask in (mine, other))
    merged = second.clone()
    merged[mine] = first[mine].to(merged.dtype)
    return merged, mine | other
