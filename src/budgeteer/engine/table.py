"""What is kept of every row that is decoded, and what its tokens mean for it: one table, whatever engine fills it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import CUT, ENDED, I64, RUNNING
from budgeteer.core.steer import Internals, Mask
from budgeteer.engine.text import until

ENDS, CLOSES, MAY_CLOSE, ANSWERS, WATCHED, MAY_ANSWER = 1, 2, 4, 8, 16, 32
"""Bits of a token: it ends the sequence; it closes the thinking; it may be the last one of a text that does; it
completes an answer; it may complete a stop text; it may be the last one of an answer."""
LOOKS_BACK = 256
"""Tokens at the end of a row among which an answer is looked for."""
ANSWER = r"\\boxed\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}|</answer>"
"""A complete answer, as in DUET's code: a box with two levels of braces in it, or the end of an answer tag."""


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """The structure of a row's text.

    Attributes:
        codes: [V] uint8, the bits of each token.
        close: tokens that close the thinking when they are forced; ``()`` = there is no thinking.
        text: that closes the thinking; ``""`` = single tokens do.
        answer: pattern of a complete answer, behind the thinking; None = single tokens complete it.
    """

    codes: NDArray[np.uint8]
    close: tuple[int, ...]
    text: str = ""
    answer: re.Pattern[str] | None = None


def marks_of_tokens(vocab: int, eos: int, think_end: int, answer_end: int) -> Marks:
    """The marks of a policy whose thinking and answer are each ended by a token of its own."""
    codes = np.zeros(vocab, np.uint8)
    codes[eos] |= ENDS
    codes[think_end] |= CLOSES
    codes[answer_end] |= ANSWERS
    return Marks(codes, (think_end,))


def marks_of_text(model: Internals, ends: Sequence[int], close: str, stop: Sequence[str], answer: str = "") -> Marks:
    """The marks of a request: a text closes the thinking, a line is the answer, and texts end the row.

    Args:
        model: with the texts of its tokens.
        ends: ids of the tokens that end the sequence.
        close: ``""`` = there is no thinking.
        stop: the stop texts.
        answer: regular expression of a complete answer; ``""`` = a line is one.

    Raises:
        InvalidInput: an empty stop text, or ``answer`` is no regular expression.
    """
    try:
        pattern = re.compile(answer) if answer else None
    except re.error as error:
        raise InvalidInput(f"the pattern of an answer, {answer!r}, is no regular expression: {error}") from error
    if not all(stop):
        raise InvalidInput("a stop text is empty; leave it out")
    last = {text[-1] for text in stop}
    codes = np.zeros(len(model.pieces), np.uint8)
    for i, piece in enumerate(model.pieces):
        if last and ("\ufffd" in piece or not last.isdisjoint(piece)):
            codes[i] |= WATCHED
        if pattern is not None:
            codes[i] |= MAY_ANSWER
        elif "\n" in piece:
            codes[i] |= ANSWERS
        if close and close in piece:
            codes[i] |= CLOSES
        elif close and close[-1] in piece:
            codes[i] |= MAY_CLOSE
    codes[list(ends)] |= ENDS
    return Marks(codes, tuple(model.encode(close)) if close else (), close, pattern)


class Table:
    """R rows of at most T tokens each. What an attribute holds of a row that has not been reset means nothing.

    Attributes:
        tokens, logprob, forced: [R, T] the tokens taken, their log-probabilities, and whether they were forced.
        uniform: [R, T] float32 in [0, 1), the row's own random numbers.
        length, cap: [R] tokens so far, and most of them.
        status: [R] a :class:`budgeteer.core.plan.Status`.
        closed, answered: [R] length at which the thinking was closed / the answer complete, -1 = not yet.
        last: [R] the last token, -1 = none yet.
        margin: [R] p(1st) - p(2nd) of the last token's distribution.
        temperature: [R] of the draws, 0 is greedy; ``divisor`` is the same with 1 for 0.
        scored: [R] whether ``logprob`` is the model's own, at temperature 1, instead of that of the draws.
        closing: [R] tokens of the marker that closes the thinking still to be forced.
        force: [R] the token to take next instead of a draw, -1 = draw.
        marks: K structures; ``kind`` [R] says which one a row has.
        forcing: whether ``closing`` or ``force`` may hold something; ``any_greedy`` and ``any_scored`` alike.
    """

    def __init__(self, rows: int, width: int, marks: Sequence[Marks], pieces: Sequence[str] = ()) -> None:
        self.tokens = np.zeros((rows, width), np.int64)
        self.logprob = np.zeros((rows, width), np.float32)
        self.forced = np.zeros((rows, width), np.bool_)
        self.uniform: NDArray[np.float32] = np.zeros((rows, 0), np.float32)
        self.length, self.cap, self.kind = (np.zeros(rows, np.int64) for _ in range(3))
        self.status = np.full(rows, RUNNING, np.int8)
        self.closed, self.answered, self.last, self.force = (np.full(rows, -1, np.int64) for _ in range(4))
        self.closing = np.zeros(rows, np.int64)
        self.margin = np.full(rows, np.nan, np.float32)
        self.temperature, self.divisor = np.ones(rows), np.ones(rows)
        self.greedy, self.scored = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
        self.marks, self.pieces = list(marks), pieces
        self.codes = np.stack([structure.codes for structure in marks])
        self.forcing = self.any_greedy = self.any_scored = False

    def reset(
        self,
        rows: I64,
        cap: int | I64,
        temperature: float,
        uniform: NDArray[np.float32] | None = None,
        *,
        scored: bool = False,
    ) -> None:
        """Begin these rows [k]; with ``uniform`` [k, t] their random numbers are set, too.

        A row's ``kind`` is to be set before.
        """
        self.length[rows], self.cap[rows], self.status[rows] = 0, cap, RUNNING
        self.answered[rows], self.last[rows], self.force[rows], self.closing[rows] = -1, -1, -1, 0
        self.closed[rows] = [-1 if self.marks[kind].close else 0 for kind in self.kind[rows].tolist()]
        self.margin[rows], self.forced[rows] = np.nan, False
        self.temperature[rows], self.divisor[rows] = temperature, temperature or 1.0
        self.greedy[rows], self.scored[rows] = temperature == 0, scored
        self.any_greedy, self.any_scored = self.any_greedy or temperature == 0, self.any_scored or scored
        if uniform is not None:
            self.uniform[rows, : uniform.shape[1]] = uniform

    def close_of(self, row: int) -> tuple[int, ...]:
        """Tokens that close the thinking of a row."""
        structure: Marks = self.marks[self.kind[row]]
        return structure.close

    def next_forced(self, rows: I64) -> I64 | None:
        """[m] token that each row has to take now, -1 = none; None = no row has one."""
        if not self.forcing:
            return None
        forced = self.force[rows]
        self.force[rows] = -1
        for i in np.flatnonzero(self.closing[rows]).tolist():
            row = int(rows[i])
            forced[i] = self.close_of(row)[-int(self.closing[row])]
            self.closing[row] -= 1
        self.forcing = bool(self.force.max(initial=-1) >= 0 or self.closing.any())
        return forced

    def will_be_forced(self, rows: I64) -> Mask:
        """[m] whether the next token of a row is known already."""
        if not self.forcing:
            return np.zeros(len(rows), np.bool_)
        return (self.force[rows] >= 0) | (self.closing[rows] > 0)

    def record(
        self,
        rows: I64,
        token: I64,
        logprob: NDArray[np.float32],
        margin: NDArray[np.float32] | None,
        forced: Mask | None,
    ) -> None:
        """Add a token [m] to each of these rows, and see what it means for them."""
        at = self.length[rows]
        self.tokens[rows, at], self.logprob[rows, at] = token, logprob
        self.last[rows] = token
        if forced is not None:
            self.forced[rows, at] = forced
        if margin is not None:
            self.margin[rows] = margin
        at += 1
        self.length[rows] = at
        over = at >= self.cap[rows]
        if over.any():
            self.status[rows[over]] = CUT
        code = self.codes[0][token] if len(self.codes) == 1 else self.codes[self.kind[rows], token]
        some = code.nonzero()[0]
        if len(some):
            self._mark(rows[some], code[some], at[some])

    def before_stop(self, row: int, text: str, stops: Sequence[str]) -> str:
        """The text of a row up to its first stop text; a row that has one ends there, as if by itself."""
        text, stopped = until(text, stops)
        if stopped:
            self.status[row] = ENDED
        return text

    def _mark(self, rows: I64, code: NDArray[np.uint8], at: I64) -> None:
        """What the tokens that were added to these rows [k], now ``at`` [k] long, mean for them."""
        closed = self.closed[rows]
        ended = (code & ENDS) > 0
        open_ = (closed >= 0) & (self.answered[rows] < 0)
        complete = open_ & ((code & (ENDS | ANSWERS)) > 0)
        for i in (open_ & ~complete & ((code & MAY_ANSWER) > 0)).nonzero()[0].tolist():
            complete[i] = self._answers(int(rows[i]))
        self.answered[rows[complete]] = at[complete]
        newly = ((code & (CLOSES | MAY_CLOSE)) > 0) & (closed < 0)
        for i in (newly & ((code & CLOSES) == 0)).nonzero()[0].tolist():
            newly[i] = self._closes(int(rows[i]))
        self.closed[rows[newly]] = at[newly]
        self.status[rows[ended]] = ENDED

    def _closes(self, row: int) -> bool:
        """Whether the last tokens of a row hold the text that closes its thinking."""
        text = self.marks[self.kind[row]].text
        # pieces are at least one character long, save for special tokens
        tail = self.tokens[row, max(0, int(self.length[row]) - len(text)) : self.length[row]]
        return text in "".join(self.pieces[token] for token in tail.tolist())

    def _answers(self, row: int) -> bool:
        """Whether the row holds a complete answer behind its thinking."""
        pattern, end = self.marks[self.kind[row]].answer, int(self.length[row])
        tail = self.tokens[row, max(int(self.closed[row]), end - LOOKS_BACK) : end]
        text = "".join(self.pieces[token] for token in tail.tolist())
        return pattern is not None and pattern.search(text) is not None


def marked(tokens: I64, length: I64, marks: Marks, pieces: Sequence[str] = ()) -> tuple[I64, I64]:
    """[n] lengths at which the thinking of whole rows closed, and [n] at which their answers were complete, -1 = never.

    Args:
        tokens: [n, t]; length: [n] of each row.
        marks: what the tokens mean.
        pieces: texts of the tokens, for marks that are texts.
    """
    n, width = tokens.shape
    table = Table(n, max(width, 1), [marks], pieces)
    table.reset(np.arange(n), width + 1, 1.0)
    for t in range(width):
        at = np.flatnonzero(length > t)
        table.record(at, tokens[at, t], np.zeros(len(at), np.float32), None, None)
    return table.closed, table.answered
