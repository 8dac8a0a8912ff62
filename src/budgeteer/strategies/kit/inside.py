"""What the strategies that look inside the model share: one guarded trace, and when its thinking is closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from budgeteer.core.plan import I64
from budgeteer.engine.hook import Internals, Mask, Row
from budgeteer.models.model import INTERNALS, STOP, Request
from budgeteer.solve import Answer, Task, derive

NEEDS = frozenset({INTERNALS})
MOST = 4096
"""Tokens of a trace where the budget allows more."""


@dataclass(slots=True)
class Watch:
    """Where one row is: state of the hooks below.

    Attributes:
        closed: the thinking is over.
        queue: tokens still to be forced, first one first.
        own: what the method keeps for the row.
    """

    closed: bool = False
    queue: list[int] = field(default_factory=list)
    own: Any = None


@dataclass(frozen=True)
class Closing:
    """Base of hooks over one trace: closes the thinking when only the room for the answer is left.

    Thinking of T = max_tokens - reserve tokens is followed by ``close`` whatever the model says, so the cap that the
    request has is kept and an answer is always asked for.

    Attributes:
        close: the style's; ``""`` = there is no thinking, every row is closed from the start.
        reserve: tokens kept for ``close`` and the answer.
        record: what is to be known afterwards (choice -> "cut"); of one request, so no part of the hook's identity.
    """

    close: str
    reserve: int
    record: dict[Any, Any] = field(default_factory=dict, compare=False)

    def watch(self, inside: Internals, rows: Sequence[Row]) -> tuple[list[Watch], I64, Mask]:
        """State, forced token (-1: none) and whether the thinking is still open, for each of m rows."""
        states, force, thinking = [], np.full(len(rows), -1, np.int64), np.zeros(len(rows), np.bool_)
        for i, row in enumerate(rows):
            state: Watch = row.state
            if state is None:
                state = row.state = Watch(closed=not self.close)
            elif not state.closed:
                # pieces are at least one character long, save for special tokens
                tail = "".join(inside.pieces[token] for token in row.tokens[-len(self.close) :])
                state.closed = self.close in tail
            if not state.closed and not state.queue and len(row.tokens) >= room(row, self.reserve):
                self.cut(inside, row)
            if state.queue:
                force[i] = state.queue.pop(0)
            thinking[i] = not state.closed and force[i] < 0
            states.append(state)
        return states, force, thinking

    def cut(self, inside: Internals, row: Row) -> None:
        """Force ``close`` from the next token on, and note that the thinking did not end by itself."""
        row.state.queue = inside.encode(self.close)
        row.request.hook.record[row.choice] = "cut"


def room(row: Row, reserve: int) -> int:
    """Tokens of thinking that fit before the answer's."""
    return max(row.request.max_tokens - reserve, 0)


async def one_trace(task: Task, hook: Closing, *, max_tokens: int, temperature: float) -> Answer:
    """Sample one trace with a hook, as long as the budget allows, and read it."""
    prompt = task.style.prompt(task.question.text)
    most = task.model.afford(prompt, most=max_tokens)
    if not most:
        return Answer(None, "budget")
    request = Request(
        prompt, most, temperature=temperature, stop=task.style.stop, seed=derive(task.seed, "trace"), hook=hook
    )
    choice = (await task.model.generate(request)).choices[0]
    whole = choice.finish == STOP and hook.record.get(0) != "cut"
    return Answer(task.style.read(choice.text), "done" if whole else "budget", (choice.text,))
