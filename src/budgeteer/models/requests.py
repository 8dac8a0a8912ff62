"""Requests that run at the same time in one decode batch: which wait, which run, and what each is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from budgeteer.core.plan import RUNNING
from budgeteer.core.steer import Internals, Rows, State
from budgeteer.core.usage import Usage
from budgeteer.engine.decoder import compiles
from budgeteer.engine.loop import Batch, Turn
from budgeteer.engine.steering import Ticket
from budgeteer.engine.table import ENDS, WATCHED, Marks, Table
from budgeteer.engine.text import whole
from budgeteer.models.model import Choice, Chunk, Request, Response, finish_of
from budgeteer.models.policy import LlamaPolicy


@dataclass(slots=True, eq=False)
class Job:
    """A request that waits or runs.

    Attributes:
        request: the request itself.
        prompt: token ids of its prompt.
        seed: of the request, or drawn for it.
        uniform: [n, max_tokens] random numbers of its choices.
        marks: what each token means for its rows.
        streamed: whether each token is told as a Chunk.
        tell: called in the batch's thread with each Chunk of a stream, then with the Response or the error.
        choices: [n] its choices; None = not ended yet.
        place: index of its prompt in the decoder; -1 = not prefilled yet.
        first: logits [1, V] after its prompt, and the hidden states there.
        started: number of choices that were given a row.
        over: whether it was answered, has failed or was dropped.
        ticket: names its rows among those of its steer; None = it has no steer, or has not begun.
    """

    request: Request
    prompt: list[int]
    seed: int
    uniform: NDArray[np.float32]
    marks: Marks
    streamed: bool
    tell: Callable[[Chunk | Response | Exception], None]
    choices: list[Choice | None]
    place: int = -1
    first: tuple[Tensor, Tensor] | None = None
    started: int = 0
    over: bool = False
    ticket: Ticket | None = None


@dataclass(slots=True, eq=False)
class Running:
    """A choice that is decoded in a row of the batch.

    Attributes:
        job: the request that it belongs to.
        choice: its index among the request's choices.
        tokens: tokens so far, kept here only if the request is streamed.
        text: text of ``tokens[:read]``; its first ``shown`` characters were told.
        since: ``tokens[:since]`` are not needed to decode ``tokens[read:]``.
    """

    job: Job
    choice: int
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    shown: int = 0
    since: int = 0
    read: int = 0


class Requests:
    """The requests that are decoded now, and those that wait for a slot. Used by one thread only.

    Args:
        policy: model and tokenizer.
        slots: rows decoded at once; rounded up to a multiple of 4.
        inside: what steers are told about the model.
    """

    def __init__(self, policy: LlamaPolicy, slots: int, inside: Internals) -> None:
        self.policy, model = policy, policy.model
        positions = model.config.max_position_embeddings
        granule = 16  # with few rows (3, or 10, by processor) the BLAS takes other paths, whose last bits differ
        self.slots = slots = -(-slots // granule) * granule
        plain = Marks(np.zeros(model.config.vocab_size, np.uint8), ())
        self.table = Table(slots, positions, [plain] * slots, inside.pieces)
        self.table.kind = np.arange(slots)
        self.table.uniform = np.zeros((slots, positions), np.float32)
        # no row is older than the model has positions, so 64 steps at least lie between two shifts of the cache
        self.batch = Batch(model, slots, positions + 64, self.table, inside, compiled=compiles(model), granule=granule)
        self.waiting: deque[Job] = deque()
        self.rows: list[Running | None] = [None] * slots
        self.streamed = np.zeros(slots, np.bool_)
        self.free, self.places, self.place_count = list(range(slots)), list[int](), 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.batch.live.any()

    def jobs(self) -> list[Job]:
        """The jobs that wait or run."""
        rows = (row.job for row in self.rows if row is not None)
        return list({id(job): job for job in (*self.waiting, *rows)}.values())

    def drop(self, job: Job) -> None:
        """Stop a job: its rows leave the batch at once."""
        if job.over:
            return
        if job in self.waiting:
            self.waiting.remove(job)
        slots = {int(self.batch.record[slot]): int(slot) for slot in np.flatnonzero(self.batch.live)}
        for record, row in enumerate(self.rows):
            if row is not None and row.job is job:
                if record in slots:
                    self.batch.live[slots[record]] = False
                self._free(record)
        self._over(job)

    def step(self) -> None:
        """Start waiting choices as long as slots are free, then take a token for every row that runs."""
        while self.waiting and self.free:
            self._look(self._admit())
        self._look(self.batch.step())

    def _admit(self) -> Turn:
        """Start choices of the first job that waits."""
        job, steering = self.waiting[0], self.batch.steering
        request = job.request
        if job.place < 0:
            if not self.places:
                self.places.append(self.place_count)
                self.place_count += 1
            job.place = self.places.pop()
            job.first = self.batch.decoder.insert(job.place, job.prompt)
            if request.steer is not None:
                keys, caps = tuple(map(str, range(request.n))), np.full(request.n, request.max_tokens)
                try:
                    job.ticket = steering.join(request.steer, Rows(keys, caps, job.seed))
                except Exception as error:  # whatever somebody else's steer raises
                    self.drop(job)
                    job.tell(error)
                    return Turn(np.zeros(0, np.int64), np.zeros(0, np.int64))
        assert job.first is not None
        count, first = min(request.n - job.started, len(self.free)), job.started
        records = np.array([self.free.pop() for _ in range(count)])
        for choice, record in enumerate(records.tolist(), first):
            self.rows[record] = Running(job, choice)
            self.table.marks[record] = job.marks
        self.table.codes[records] = job.marks.codes
        uniform = job.uniform[first : first + count]
        self.table.reset(records, request.max_tokens, request.temperature, uniform, scored=request.logprobs)
        self.streamed[records] = job.streamed
        if job.ticket is not None:
            steering.start(job.ticket, first, records)
        job.started += count
        if job.started == request.n:
            self.waiting.popleft()
        logits, states = job.first
        return self.batch.admit(
            records, len(job.prompt), job.place, logits.expand(count, -1), states.expand(count, -1, -1)
        )

    def _look(self, turn: Turn) -> None:
        """Fail the jobs of steers that raised; end rows at their end, and show what is new of streamed ones."""
        table, batch = self.table, self.batch
        for error, records in batch.steering.failures:
            for job in {id(row.job): row.job for r in records.tolist() if (row := self.rows[r]) is not None}.values():
                self.drop(job)
                job.tell(error)
        batch.steering.failures.clear()
        for record in batch.record[turn.ended].tolist():
            row, tokens = self.rows[record], table.tokens[record, : table.length[record]].tolist()
            if row is not None:  # its job was not dropped
                text = table.before_stop(record, self.policy.decode([tokens])[0], row.job.request.stop)
                self._end(record, text, 0)
        record = batch.record[turn.taken]
        watched = (table.codes[record, table.last[record]] & (WATCHED | ENDS)) > 0
        looked = watched | (table.status[record] != RUNNING)
        for i in np.flatnonzero(looked | self.streamed[record]).tolist():
            self._advance(int(turn.taken[i]), int(record[i]), bool(looked[i]))

    def _advance(self, slot: int, record: int, may_end: bool) -> None:
        """Show what is new of a row that took a token, and end it if it is at its end."""
        row, n = self.rows[record], int(self.table.length[record])
        if row is None:  # its job was dropped
            return
        if may_end:
            text = self.policy.decode([self.table.tokens[record, :n].tolist()])[0]
            text = self.table.before_stop(record, text, row.job.request.stop)
            if self.table.status[record] != RUNNING:
                self.batch.live[slot] = False
                self._end(record, text, 1)
                return
        if row.job.streamed:
            row.tokens.append(int(self.table.last[record]))
            row.job.tell(Chunk(row.choice, self._news(row)))

    def _end(self, record: int, text: str, tokens: int) -> None:
        """Keep the choice of a row that ended, and free the row; ``tokens`` of its tokens were not told yet."""
        row, n, table = self.rows[record], int(self.table.length[record]), self.table
        assert row is not None
        job = row.job
        if job.streamed:
            job.tell(Chunk(row.choice, text[row.shown :], tokens))
        logprobs = tuple(table.logprob[record, :n].tolist()) if job.request.logprobs else None
        forced = int(table.forced[record, :n].sum()) if job.ticket is not None else 0
        job.choices[row.choice] = Choice(text, n, finish_of(int(table.status[record])), logprobs, forced)
        self._free(record)
        self._complete(job)

    def _news(self, row: Running) -> str:
        """Text of a row that can be shown now: whole characters that cannot be the beginning of a stop text."""
        before, after = self.policy.decode([row.tokens[row.since : row.read], row.tokens[row.since :]])
        if not after.endswith("\ufffd"):
            row.text += after[len(before) :]
            row.since, row.read = row.read, len(row.tokens)
        end = max(row.shown, whole(row.text, row.job.request.stop))
        new = row.text[row.shown : end]
        row.shown = end
        return new

    def _free(self, record: int) -> None:
        self.batch.steering.stop(record)
        self.rows[record] = None
        self.free.append(record)

    def _complete(self, job: Job) -> None:
        """Answer a job if all of its choices have ended."""
        choices = [choice for choice in job.choices if choice is not None]
        if len(choices) < job.request.n:
            return
        state = self._over(job)
        if job.request.steer is not None and job.request.steer.report is not None:
            notes = job.request.steer.report(state)
            choices = [replace(choice, notes=note) for choice, note in zip(choices, notes, strict=True)]
        output = sum(choice.tokens or 0 for choice in choices)
        job.tell(Response(tuple(choices), Usage(input=len(job.prompt), output=output)))

    def _over(self, job: Job) -> State:
        """Release what a job holds; returns the state of its steer."""
        job.over = True
        if job.place >= 0:
            self.places.append(job.place)
        return () if job.ticket is None else self.batch.steering.leave(job.ticket)
