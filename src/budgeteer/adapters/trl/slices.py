"""Rollouts by an engine that runs whole requests: each row goes on in slices, between which budget and steer decide.

A request to such an engine ends at its own ``max_tokens`` or at the end of the sequence, and nothing can be decided
while it runs. So a row is asked for in slices: the next request is its prompt and what it has so far, which the
engine's cache of prefixes makes cheap, and whose tokens have the same distribution. No slice may cost more than the
budget pays for. A steer is asked about every token of a slice, as if the tokens came one by one; what the engine has
generated behind the place where the steer ends the row or forces a token is lost, and on the bill.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from budgeteer.adapters.transformers import Part
from budgeteer.core.errors import ModelError
from budgeteer.core.plan import CUT, ENDED, F64, I64, RUNNING
from budgeteer.core.steer import Internals, Steer
from budgeteer.engine.steering import Steering, Ticket
from budgeteer.engine.table import Marks, Table

PAUSES, SHORTEST = 32, 16
"""With a steer a row of full length has so many slices, of at least so many tokens."""


class Told(NamedTuple):
    """A steer and what it is told.

    Attributes:
        steer: needs neither logits nor hidden states.
        inside: the model.
        part: the rows among all that the steer knows.
    """

    steer: Steer
    inside: Internals
    part: Part


class Wave(NamedTuple):
    """Requests that the engine runs at once.

    Attributes:
        rows: [m] numbers of the rows.
        prompts: token ids of each: the prompt, and what the row has so far.
        most: [m] most tokens of each.
    """

    rows: I64
    prompts: list[list[int]]
    most: I64


class Slices:
    """n rows that an engine generates in waves.

    Args:
        prompts: token ids of each.
        caps: [n] most tokens of each.
        marks: what tokens mean for a row.
        temperature: of the draws.
        budget: of all rows together, at least one token for each; None = no limit.
        steered: what ends rows and forces tokens; None = nothing does.

    Attributes:
        table: what is known of each row.
        lost: [n] tokens that the engine generated behind the end of a row, or behind a forced token.
        pause: most tokens of a slice beside cap and budget, so that a steer is asked in time; None = no limit.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        caps: I64,
        marks: Marks,
        temperature: float,
        budget: int | None,
        steered: Told | None = None,
    ) -> None:
        n = len(prompts)
        self._prompts, self._budget, self.lost = prompts, budget, np.zeros(n, np.int64)
        self.table = Table(n, int(caps.max(initial=1)), [marks], steered.inside.pieces if steered else ())
        self.table.reset(np.arange(n), caps, temperature)
        self._steering: tuple[Steering, Ticket, Steer] | None = None
        self.pause: int | None = None
        if steered is not None:
            self.pause = max(SHORTEST, -(-int(caps.max(initial=1)) // PAUSES))
            steering = Steering(self.table, steered.inside, False)
            ticket = steering.join(steered.steer, steered.part.rows, steered.part.group)
            steering.start(ticket, steered.part.first, np.arange(n))
            self._steering = steering, ticket, steered.steer
            self._decide(np.arange(n))

    @property
    def length(self) -> I64:
        """[n] tokens of each row."""
        return self.table.length

    @property
    def weight(self) -> F64:
        """[n] importance weight of each row, 1 unless the steer kept it by chance."""
        if self._steering is None or self._steering[2].kept_weight is None:
            return np.ones(len(self.table.length))
        steering, ticket, steer = self._steering
        assert steer.kept_weight is not None
        return steer.kept_weight(ticket.group.state)[steering.place]

    def _left(self) -> int | None:
        return None if self._budget is None else self._budget - int(self.table.length.sum() + self.lost.sum())

    def next(self) -> Wave | None:
        """The next requests, None when all rows have ended, as they do when the budget does not pay one more token for
        each."""
        t, left = self.table, self._left()
        rows = np.flatnonzero(t.status == RUNNING)
        if left is not None and left < len(rows):
            t.status[rows] = CUT
            rows = rows[:0]
        if not len(rows):
            return None
        most = t.cap[rows] - t.length[rows]
        if self.pause is not None:
            most = np.minimum(most, self.pause)
        if left is not None and most.sum() > left:
            most = np.minimum(most, left // len(rows))
        asked = [[*self._prompts[i], *t.tokens[i, : t.length[i]].tolist()] for i in rows.tolist()]
        return Wave(rows, asked, most)

    def add(
        self,
        wave: Wave,
        tokens: Sequence[Sequence[int]],
        logprobs: Sequence[Sequence[float]],
        margins: Sequence[Sequence[float]] | None = None,
        ended: Sequence[bool] | None = None,
    ) -> None:
        """Take what the engine generated.

        A request that is shorter than asked although its sequence goes on was cut by the engine, such as at its own
        context or where it was aborted, perhaps before the first token. Its row is cut there, too.

        Args:
            wave: that was asked for.
            tokens: [m] of each request.
            logprobs: of these tokens.
            margins: p(1st) - p(2nd) of the distribution of each token, for steers that read it.
            ended: [m] whether the engine says that the sequence has ended; None = it does not say, and the tokens that
                end one do.

        Raises:
            ModelError: the engine gave more than it was asked for, or did not answer each request.
        """
        if len(tokens) != len(wave.rows):
            raise ModelError(f"the engine gave {len(tokens)} answers to {len(wave.rows)} requests", billed=True)
        t, given = self.table, np.array([len(row) for row in tokens], np.int64)
        if (given > wave.most).any():
            i = int(np.argmax(given - wave.most))
            raise ModelError(
                f"the engine generated {given[i]} tokens for a request with max_tokens={wave.most[i]}, so that no "
                "budget holds; look for a setting of the engine that overrides max_tokens",
                billed=True,
            )
        before = self.lost[wave.rows]
        self.lost[wave.rows] += given
        live = np.ones(len(given), np.bool_)
        for k in range(int(given.max(initial=0))):
            at = np.flatnonzero(live & (given > k))
            if not len(at):
                break
            rows = wave.rows[at]
            margin = None if margins is None else _column(margins, at, k).astype(np.float32)
            t.record(rows, _column(tokens, at, k), _column(logprobs, at, k).astype(np.float32), margin, None)
            self.lost[rows] -= 1
            size = t.length[rows]
            self._decide(rows)
            live[at] = (t.status[rows] == RUNNING) & (t.length[rows] == size)
        if ended is not None:  # such as by a token that the marks do not know, perhaps at the cap
            over = np.array(ended, np.bool_) & (live | (t.status[wave.rows] == CUT)) & (self.lost[wave.rows] == before)
            t.status[wave.rows[over]] = ENDED
            live &= ~over
        t.status[wave.rows[live & (given < wave.most)]] = CUT

    def _decide(self, rows: I64) -> None:
        """Let the steer end these rows, or force their next tokens, as many as it wants to."""
        if self._steering is None:
            return
        t, steering = self.table, self._steering[0]
        while len(rows := rows[t.status[rows] == RUNNING]):
            steering.before(rows)
            for error, _ in steering.failures:
                raise error
            rows = rows[(t.status[rows] == RUNNING) & t.will_be_forced(rows)]
            left = self._left()
            if left is not None and left < len(rows):
                t.status[rows] = CUT
                return
            forced = t.next_forced(rows)
            if forced is not None:
                t.record(rows, forced, np.zeros(len(rows), np.float32), None, np.ones(len(rows), np.bool_))


def _column(rows: Sequence[Sequence[Any]], at: I64, k: int) -> Any:
    """[m] entry k of some of the rows."""
    return np.array([rows[i][k] for i in at.tolist()])
