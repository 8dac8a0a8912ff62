"""One question of a run, or all of them at once: from its share of the budget to its row."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from budgeteer.core.errors import BudgetExceeded, EndpointDown, InvalidInput, LedgerUnavailable
from budgeteer.ledger import Allowance, Limit
from budgeteer.solve.books import Books, path_of, scope_of
from budgeteer.solve.record import Named, NamedAllowance
from budgeteer.solve.settings import Row, Together, Work
from budgeteer.solve.strategy import Answer, Question, StoppedBy, Strategy, Task, derive


class Answering:
    """Answers the questions of a run.

    Args:
        work: what the run has to do.
        books: what it has spent and written.
        written: called with every new row.
    """

    def __init__(self, work: Work, books: Books, written: Callable[[Question, Row], None]) -> None:
        self._work, self._books, self._written = work, books, written
        self._prices = work.settings.prices
        self._under_way: set[Named] = set()

    def _named(self, question: Question, allowance: Allowance | NamedAllowance, gone: Mapping[str, int]) -> Named:
        """The budgeted model for one question, whose calls have names."""
        books = self._books
        return Named(
            self._work.model,
            allowance,
            prices=self._prices,
            calls=books.calls,
            scope=scope_of(question.id),
            used=books.used,
            gone=gone,
        )

    async def single(self, question: Question, share: Mapping[str, int]) -> None:
        """Answer one question and write its row."""
        books = self._books
        scope, path = scope_of(question.id), path_of(question)
        if path in books.shares:
            share = books.shares[path]
        elif books.calls.recording:  # an account of its own, to go on from after a kill
            share = books.within(share)
            await books.ledger.aio.open(path, [Limit(kind, units) for kind, units in share.items()])
        share = books.within(share)  # again: others may have overshot meanwhile
        child = books.root.share({scope: share})[scope] if books.calls.recording else books.root.share([share])[0]
        gone = books.gone.get(path, Counter())
        with child as allowance:
            begin = time.monotonic()
            model = self._named(question, allowance, gone)
            self._under_way.add(model)
            try:
                answer = await self._solve(question, model)
            finally:
                self._under_way.discard(model)
            seconds = time.monotonic() - begin
        self._write(question, answer, model, share, gone, seconds)

    async def together(self, strategy: Together) -> None:
        """Answer all questions that have no row with one strategy, from one allowance."""
        waiting = [question for question in self._work.questions if question.id not in self._books.rows]
        if not waiting:
            return
        held, begin = NamedAllowance(self._books.root, named=False), time.monotonic()
        share, gone = self._books.root.remaining, Counter[str]()
        models = [self._named(question, held, gone) for question in waiting]
        open_ = dict(enumerate(waiting))
        failure = "the strategy gave no answer"
        try:
            pairs = zip(waiting, models, strict=True)
            async for i, answer in strategy([self._task(question, model) for question, model in pairs]):
                self._write(open_.pop(i), answer, models[i], share, gone, time.monotonic() - begin)
        except (LedgerUnavailable, InvalidInput):
            raise
        except Exception as error:
            failure = _text(error)
        unanswered = Answer(None, StoppedBy.ERROR, error=failure)
        for i, question in open_.items():
            self._write(question, unanswered, models[i], share, gone, time.monotonic() - begin)

    def _write(
        self,
        question: Question,
        answer: Answer,
        model: Named,
        share: Mapping[str, int],
        gone: Mapping[str, int],
        seconds: float,
    ) -> None:
        """Make the row of a question and write it."""
        spend = model.spend
        row: Row = {
            "id": question.id,
            "answer": answer.answer,
            "correct": self._correct(question, answer),
            "tokens": {"input": spend.input, "output": spend.output, "reasoning": spend.reasoning},
            "calls": spend.calls,
            "stopped_by": answer.reason,
            "seconds": round(seconds, 3),
            "units": {kind: spend.units[kind] + gone.get(kind, 0) for kind in self._books.limit},
            "budget": dict(share),
            "wasted": model.wasted,
            "estimated": spend.estimated,
            "confidence": answer.confidence,
        }
        if self._work.settings.tools is not None:
            row["tools"] = dict(spend.tools)
        if self._work.settings.pass_at > 1:
            row["submitted"] = list(answer.submitted(self._work.settings.pass_at))
        if self._prices is not None:
            row["cost"] = model.cost / 10**12
        self._books.keep(question, row, answer)
        self._written(question, row)

    async def _solve(self, question: Question, model: Named) -> Answer:
        """The strategy's answer. An error inside the strategy becomes an Answer that tells it."""
        strategy, timeout = self._work.strategy, self._work.settings.timeout
        assert isinstance(strategy, Strategy)
        try:
            async with asyncio.timeout(timeout) as clock:
                answer = await strategy.solve(self._task(question, model))
            if not isinstance(answer, Answer) or not isinstance(answer.answer, str | None):
                raise InvalidInput(f"the strategy returned {str(answer)[:80]!r}, no Answer")
            return _blamed(answer, model)
        except LedgerUnavailable:
            raise
        except BudgetExceeded:
            return _blamed(Answer(None, StoppedBy.BUDGET), model)
        except EndpointDown as error:
            if not self._books.total["calls"] and not any(running.spend.calls for running in self._under_way):
                raise  # it never answered: no other question will fare better
            return Answer(None, StoppedBy.ERROR, error=_text(error))
        except TimeoutError as error:
            if clock.expired():
                return Answer(None, StoppedBy.ERROR, error=f"no answer within {timeout:g} s")
            return Answer(None, StoppedBy.ERROR, error=_text(error))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # a pause
                raise
            return Answer(None, StoppedBy.ERROR, error="what the strategy waited for cancelled itself")
        except Exception as error:
            return Answer(None, StoppedBy.ERROR, error=_text(error))

    def _task(self, question: Question, model: Named) -> Task:
        settings = self._work.settings
        check = settings.check
        verify = None if check is None else lambda answer: check(question, answer)
        tools = () if settings.tools is None else tuple(settings.tools(question) or ())
        return Task(question, model, self._work.style, derive(settings.seed, question.id), verify, tools)

    def _correct(self, question: Question, answer: Answer) -> bool | None:
        """Whether one of the answers that count is right; None without a reference."""
        grade, k = self._work.settings.grade, self._work.settings.pass_at
        if grade is None or grade(question, None) is None:
            return None
        return any((grade(question, text) or 0.0) >= 1 for text in answer.submitted(k))


def _blamed(answer: Answer, model: Named) -> Answer:
    """The answer; where there is none, since the last call failed and the budget had no room for another, with that."""
    if answer.answer is not None or answer.stopped_by != StoppedBy.BUDGET or model.failure is None:
        return answer
    error = f"{_text(model.failure)}; the budget has no room for another attempt"
    return replace(answer, stopped_by=StoppedBy.ERROR, error=error)


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
