"""DiffAdapt's probe: how warm and how long to think, from the state after the question.

Paper: "DiffAdapt: Difficulty-Adaptive Reasoning for Token-Efficient LLM Inference", arXiv 2510.19669.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import I64
from budgeteer.core.steer import STOP, Action, Need, Rows, Snapshot, Steer, shared
from budgeteer.steer.kit import Head, decisions, read_by, room, thinking


@dataclass(frozen=True)
class Bundle:
    """What a class of questions gets.

    Attributes:
        temperature: of the draws, > 0.
        share: of the thinking tokens that the budget allows, in (0, 1].
    """

    temperature: float
    share: float


BUNDLES = (Bundle(0.5, 0.4), Bundle(0.8, 1.0), Bundle(0.4, 0.5))
"""Easy, normal and hard, as published."""


@dataclass(frozen=True, slots=True)
class Classes:
    """The class of each row, -1 before its first token."""

    kind: I64


@shared
def diffadapt_probe(head: Head, *, reserve: int = 0, bundles: tuple[Bundle, Bundle, Bundle] = BUNDLES) -> Steer:
    """Draw at the temperature, and FINISH at the share of the thinking, of the row's class.

    A probe ``softmax(W2 gelu(W1 h + b1) + b2)`` on the last layer's state h after the question says easy, normal or
    hard, once, before the first token; no token is spent on it. Its report holds the ``"class"``.

    Fewer tokens for hard questions is a bet that they are beyond the model: wrong where more thinking solves them.

    Args:
        head: of this very model.
        reserve: tokens of the row's cap that are kept for the marker and the answer.
        bundles: of easy, normal and hard questions.
    """
    if any(not (bundle.temperature > 0 and 0 < bundle.share <= 1) for bundle in bundles):
        raise InvalidInput(f"bundles are {bundles}; give temperatures above 0 and shares in (0, 1]")
    heat, share = (np.array([getattr(bundle, name) for bundle in bundles]) for name in ("temperature", "share"))

    def step(state: Classes, now: Snapshot) -> tuple[Action, Classes]:
        state = _seen(head, state, now)
        mine = state.kind[now.row]
        finish = thinking(now) & (now.length >= share[mine] * room(now.cap, reserve))
        temperature = now.logits.new_tensor(heat[mine].tolist())
        return Action(decisions(finish), logits=now.logits / temperature[:, None]), state

    return Steer(_begin, step, frozenset({Need.TOKENS, Need.MARKERS, Need.LOGITS, head.reads}), report=_report)


@shared
def class_alone(head: Head) -> Steer:
    """STOP every row before its first token, and report its ``"class"``: what a question is, before it is asked."""

    def step(state: Classes, now: Snapshot) -> tuple[Action, Classes]:
        return Action(np.full(len(now.row), STOP, np.int8)), _seen(head, state, now)

    return Steer(_begin, step, frozenset({Need.TOKENS, Need.LOGITS, head.reads}), report=_report)


def _begin(rows: Rows) -> Classes:
    return Classes(np.full(len(rows.keys), -1))


def _seen(head: Head, state: Classes, now: Snapshot) -> Classes:
    """The state with the classes of the rows that have none yet."""
    head.check(now.model)
    new = np.flatnonzero(state.kind[now.row] < 0)
    if not len(new):
        return state
    kind = state.kind.copy()
    kind[now.row[new]] = head(read_by(head, now, new, slice(-1, None))).argmax(-1).tolist()
    return Classes(kind)


def _report(state: Classes) -> list[Any]:
    return [{"class": kind} for kind in state.kind.tolist()]
