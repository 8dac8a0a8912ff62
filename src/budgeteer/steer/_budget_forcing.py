"""Budget forcing: thinking that reaches its cap is closed by force; thinking that would close too early goes on.

Paper: "s1: Simple test-time scaling", arXiv 2501.19393.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import I64, MOST
from budgeteer.core.steer import Action, Mask, Need, Snapshot, State, Steer, shared
from budgeteer.steer.kit import decisions, room, thinking


@shared
def budget_forcing(most: int | None = None, *, reserve: int = 0, minimum: int = 0, wait: str = "\nWait") -> Steer:
    """FINISH a row that still thinks after ``min(most, cap - reserve)`` tokens, so that an answer is always asked for.

    With a minimum, the marker that closes the thinking cannot be taken before so many tokens, and neither can the end
    of the sequence: where one of them is the likeliest next token, ``wait`` is forced instead; elsewhere the two are
    excluded. Tokens of ``wait`` count as thinking.

    Helps where an unfinished trace already says something about the answer (``minimum``: where longer thinking is
    better thinking). Does not where what is decided last decides the answer, so that a forced one is a guess.

    Args:
        most: tokens of thinking; None = only the row's cap counts.
        reserve: tokens of the row's cap that are kept for the marker and the answer.
        minimum: tokens of thinking before it may close.
        wait: what is said instead.

    Raises:
        InvalidInput: a negative number, or a minimum above ``most``.

    >>> from budgeteer.core.steer import Snapshot
    >>> now = Snapshot.of([12, 12, 12], cap=[20, 16, 16], closed=[-1, -1, 9])
    >>> budget_forcing(reserve=4).step((), now)[0].decision.tolist()
    [0, 1, 0]
    """
    longest = MOST if most is None else most
    if not 0 <= minimum <= longest or reserve < 0:
        raise InvalidInput(
            f"budget_forcing(most={most}, reserve={reserve}, minimum={minimum}); 0 <= minimum <= most and reserve >= 0"
        )

    def full(now: Snapshot) -> Mask:
        return np.asarray((now.closed < 0) & (now.length >= np.minimum(room(now.cap, reserve), longest)))

    def cap(state: State, now: Snapshot) -> tuple[Action, State]:
        return Action(decisions(full(now))), state

    if not minimum:
        return Steer(lambda rows: (), cap, frozenset({Need.TOKENS, Need.MARKERS}))

    def step(state: Waiting, now: Snapshot) -> tuple[Action, Waiting]:
        over = full(now)
        said = now.model.encode(wait)
        left, force = state.left.copy(), np.full(len(now.row), -1)
        logits, drawn = None, np.zeros(len(now.row), np.bool_)
        left[now.row[over]] = 0
        for i in np.flatnonzero(thinking(now) & ~over & ((now.length < minimum) | (left[now.row] > 0))).tolist():
            row = int(now.row[i])
            if not left[row]:
                barred = ends(now, i)
                if int(now.logits[i].argmax()) not in barred:
                    if logits is None:
                        warm = np.where(now.temperature > 0, now.temperature, 1.0).tolist()
                        logits = now.logits / now.logits.new_tensor(warm)[:, None]
                    logits[i, barred], drawn[i] = -math.inf, True
                    continue
                left[row] = len(said)
            if left[row]:
                force[i] = said[-left[row]]
                left[row] -= 1
        return Action(decisions(over), force, logits, drawn if logits is not None else None), Waiting(left)

    return Steer(
        lambda rows: Waiting(np.zeros(len(rows.keys), np.int64)),
        step,
        frozenset({Need.TOKENS, Need.MARKERS, Need.LOGITS, Need.TEXT}),
    )


@dataclass(frozen=True, slots=True)
class Waiting:
    """Tokens of ``wait`` still to be forced in each row."""

    left: I64


def ends(now: Snapshot, i: int) -> list[int]:
    """Tokens that would end the thinking of row i: the end of the sequence, and the last one of the marker where the
    others have been said."""
    marker = now.close(i)
    begun = len(marker) > 0 and tuple(now.tokens(i)[len(now.tokens(i)) - len(marker) + 1 :].tolist()) == marker[:-1]
    barred = [marker[-1]] if begun else []
    return [*barred, now.model.eos] if now.model.eos >= 0 else barred
