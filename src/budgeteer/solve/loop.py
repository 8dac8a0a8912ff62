"""The loop over the questions of a run: bounded concurrency, shares of a total budget, pauses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from budgeteer.core.errors import InvalidInput
from budgeteer.solve.books import ROOT, Books
from budgeteer.solve.question import Answering
from budgeteer.solve.settings import Pause, Progress, Row, Run, Work
from budgeteer.solve.strategy import Question, Strategy


class Loop:
    """Runs the questions of a run that have no row yet.

    Args:
        work: what the run has to do.
        books: what it has spent and written.
    """

    def __init__(self, work: Work, books: Books) -> None:
        self._work, self._books = work, books
        self._pause = work.settings.pause or Pause()
        self._answering = Answering(work, books, self._written)
        self._ended: dict[str, asyncio.Event] = {}
        self._begin, self._before = 0.0, 0

    def _written(self, question: Question, row: Row) -> None:
        self._ended[question.id].set()
        if self._work.settings.on_row is not None:
            self._work.settings.on_row(row, self._progress())

    async def run(self) -> Run:
        """Start questions in order, as many at once as allowed, until all have ended or a pause is asked for."""
        self._begin, self._before = time.monotonic(), len(self._books.rows)
        self._ended = {question.id: asyncio.Event() for question in self._work.questions}
        for name in self._books.rows:
            self._ended[name].set()
        slots = asyncio.Semaphore(self._work.settings.concurrency)
        tasks: set[asyncio.Task[None]] = set()
        failed: list[BaseException] = []

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            slots.release()
            if not task.cancelled() and (error := task.exception()) is not None:
                failed.append(error)  # of the ledger or the disk: nothing more may be spent
                self._pause.soft.set()

        answering = (
            self._start_all(slots, tasks, ended)
            if isinstance(self._work.strategy, Strategy)
            else self._answering.together(self._work.strategy)
        )
        starter = asyncio.ensure_future(answering)
        soft = asyncio.ensure_future(self._pause.soft.wait())
        hard = asyncio.ensure_future(self._pause.hard.wait())
        try:
            await asyncio.wait({starter, soft, hard}, return_when=asyncio.FIRST_COMPLETED)
            if not isinstance(self._work.strategy, Strategy):  # all its questions are under way
                await asyncio.wait({starter, hard}, return_when=asyncio.FIRST_COMPLETED)
            if not starter.done():
                starter.cancel()
            while tasks and not hard.done():
                await asyncio.wait({*tasks, hard}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._books.calls.pausing = True
            for task in [starter, soft, hard, *tasks]:
                task.cancel()
            await asyncio.gather(starter, soft, hard, *tasks, return_exceptions=True)
        if starter.done() and not starter.cancelled() and (error := starter.exception()) is not None:
            failed.append(error)
        if failed:
            raise failed[0]
        _, state = self._books.ledger.snapshot()
        books = state.accounts[ROOT].books
        return Run(
            tuple(self._books.rows[q.id] for q in self._work.questions if q.id in self._books.rows),
            self._books.limit,
            {kind: books[kind].spent for kind in self._books.limit},
            {kind: books[kind].over for kind in self._books.limit},
            len(self._books.rows) < len(self._work.questions),
            time.monotonic() - self._begin,
        )

    async def _start_all(
        self,
        slots: asyncio.Semaphore,
        tasks: set[asyncio.Task[None]],
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        shares: list[Mapping[str, int]] = []
        lag = 1 if self._work.settings.concurrency == 1 else 2 * self._work.settings.concurrency
        for i, question in enumerate(self._work.questions):
            if self._work.settings.per_question:
                share = self._work.amounts
            else:
                if i >= lag:
                    await self._ended[self._work.questions[i - lag].id].wait()
                share = self._share(i, shares, lag)
                shares.append(share)
            if question.id in self._books.rows:
                continue
            await slots.acquire()
            task = asyncio.ensure_future(self._answering.single(question, share))
            tasks.add(task)
            task.add_done_callback(ended)

    def _share(self, i: int, shares: Sequence[Mapping[str, int]], lag: int) -> dict[str, int]:
        """Question i's part of a total budget, from what questions up to i - lag used and the later ones were given."""
        weigh = self._work.settings.weigh
        seen = [self._books.rows[q.id] for q in self._work.questions[: max(0, i - lag + 1)]]
        used = self._books.spent(seen)
        free = {
            kind: max(0, units - used[kind] - sum(share[kind] for share in shares[len(seen) :]))
            for kind, units in self._books.limit.items()
        }
        waiting = self._work.questions[i:]
        if weigh is None:
            return {kind: units // len(waiting) for kind, units in free.items()}
        weights = [float(weight) for weight in weigh(waiting, seen)]
        if len(weights) != len(waiting) or not all(0 <= weight < float("inf") for weight in weights):
            raise InvalidInput(f"weigh gave {weights[:5]}... for {len(waiting)} questions; give a finite weight each")
        part = weights[0] / sum(weights) if sum(weights) else 1 / len(waiting)
        return {kind: int(units * part) for kind, units in free.items()}

    def _progress(self) -> Progress:
        total, rows, limit = self._books.total, self._books.rows, self._books.limit
        seconds, fresh = time.monotonic() - self._begin, len(rows) - self._before
        return Progress(
            len(rows),
            len(self._work.questions),
            total["correct"],
            total["graded"],
            total["answered"],
            {name: total[name] for name in ("input", "output", "reasoning")},
            {kind: total[f"units {kind}"] for kind in limit},
            limit,
            None if self._work.settings.prices is None else total["cost"] / 10**12,
            seconds,
            seconds * (len(self._work.questions) - len(rows)) / fresh if fresh else None,
        )
