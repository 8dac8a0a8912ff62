"""Many questions under one hard budget: bounded concurrency, one line a question, resumable after kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from budgeteer.core.budget import Budgets
from budgeteer.core.errors import BudgeteerError, BudgetExceeded, EndpointDown, InvalidInput, LedgerUnavailable
from budgeteer.core.meter import MONEY, Prices
from budgeteer.core.usage import Usage
from budgeteer.ledger import Allowance, Ledger, Limit, MemoryLedger, SqliteLedger, core, journal
from budgeteer.ledger.protocol import MAX_SECONDS
from budgeteer.models.model import INTERNALS, PREFIX, Model
from budgeteer.solve.lines import Lines
from budgeteer.solve.record import Calls, Held, Named, numbered
from budgeteer.solve.strategy import CHECK, Answer, Question, Strategy, Style, Task, derive

Row = dict[str, Any]
"""One question's line; its fields are in docs/solve.md."""
Grade = Callable[[Question, str | None], float | None]
"""Score in [0, 1] of an answer; None = there is no reference."""
Weigh = Callable[[Sequence[Question], Sequence[Row]], Sequence[float]]
"""(questions that wait, rows so far) -> weights >= 0, by which what is left of a total budget is split."""
Together = Callable[[Sequence[Task]], AsyncIterator[tuple[int, Answer]]]
"""Answers many questions from one allowance, as (position, answer), such as :func:`budgeteer.strategies.split`."""

ROOT = "run"
TIMEOUT = 600.0
"""Seconds after which a question is given up, unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run stands.

    Attributes:
        done, total: questions.
        correct, graded: right ones, and those with a reference.
        answered: questions with an answer.
        tokens: input, output and reasoning so far.
        units, limit: spent and allowed, per kind.
        cost: dollars, or None without prices.
        seconds: since the start; left: estimate of what is to come, None = unknown.
    """

    done: int
    total: int
    correct: int
    graded: int
    answered: int
    tokens: Mapping[str, int]
    units: Mapping[str, int]
    limit: Mapping[str, int]
    cost: float | None
    seconds: float
    left: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """What came out.

    Attributes:
        rows: of the questions that have one, in the order asked.
        limit, spent: units per kind, over all that ran on this output.
        overshoot: units per kind that calls used above what was reserved for them.
        paused: not all questions are through.
        seconds: of this process.
    """

    rows: tuple[Row, ...]
    limit: Mapping[str, int]
    spent: Mapping[str, int]
    overshoot: Mapping[str, int]
    paused: bool
    seconds: float


@dataclass(slots=True)
class Pause:
    """Asks a run to pause: ``soft`` starts no more questions; ``hard`` also breaks off those under way."""

    soft: asyncio.Event = field(default_factory=asyncio.Event)
    hard: asyncio.Event = field(default_factory=asyncio.Event)


async def run(
    questions: Sequence[Question],
    strategy: Strategy | Together,
    model: Model,
    style: Style,
    budget: Budgets | str,
    *,
    per_question: bool = True,
    seed: int = 0,
    concurrency: int = 8,
    timeout: float | None = TIMEOUT,
    grade: Grade | None = None,
    check: Callable[[Question, str], float] | None = None,
    weigh: Weigh | None = None,
    prices: Prices | None = None,
    out: Path | None = None,
    durable: bool | None = None,
    about: Mapping[str, str] | None = None,
    traces: bool = False,
    on_row: Callable[[Row, Progress], None] | None = None,
    pause: Pause | None = None,
) -> Run:
    """Answer questions; the units reserved and spent never exceed the budget, whatever strategy and model do.

    ``per_question``: every question may use the budget. Else it is one total: a question gets an equal share (or one
    by ``weigh``) of what is left when it starts. So that the same seed gives the same shares, what is left is read off
    the questions that began ``2 * concurrency`` earlier (or 1, one at a time), and a question waits for those.

    With ``out``, every question that ends is one line there, written at once. Running again with the same arguments
    goes on where it stopped, also after kill -9. Beside it, ``OUT.run`` holds the settings and, for a run that is
    ``durable``, a ledger and a record of calls (:mod:`budgeteer.solve.record`): no answered call is paid twice, and
    what was under way at a kill counts as spent. Other runs simply start their open questions again, since nobody
    bills what a local model did in a process that was killed.

    Args:
        questions: with distinct ids.
        strategy: see :class:`Strategy`. A :data:`Together` answers all questions at once from a total budget; it takes
            care of its own concurrency, has no time limit, and cannot be durable.
        model: of the strategy's needs; the caller closes it.
        style: how to ask.
        budget: absolute, without windows, such as ``"2k"`` or ``"output:500, $0.01"``.
        seed: question q is asked with ``derive(seed, q.id)``.
        concurrency: questions at once.
        timeout: seconds a question; None: no limit.
        grade: tells right from wrong for ``correct``; the strategy never sees it.
        check: a verifier that strategies may use.
        weigh: shares of a total budget.
        prices: for money, and to report costs.
        out: file for the rows.
        durable: somebody bills the calls; see above. None: unless the model declares INTERNALS, so that it runs here.
        about: what else has to be the same when a run is resumed, such as the strategy's name.
        traces: write the strategy's traces to ``OUT.run/traces.jsonl``.
        on_row: called with every new row.
        pause: see :class:`Pause`. A Together has begun all its questions, so that ``soft`` lets it end.

    Raises:
        InvalidInput: before anything is spent: the model lacks what the strategy needs, equal ids, a budget that is no
            amount, an output of other settings.
        EndpointDown: not one call of the output could be sent, since nobody answers at the model's address.
    """
    durable = INTERNALS not in model.capabilities if durable is None else durable
    if isinstance(strategy, Strategy):
        refuse_needs(strategy, model, style, check is not None, (about or {}).get("strategy", ""))
    elif per_question or (durable and out is not None):
        raise InvalidInput(
            "this strategy answers all questions together: give it a total budget, and no output file where the calls "
            "are billed, since it keeps no record of them"
        )
    _check(questions, concurrency, timeout)
    amounts = _amounts(budget)
    if MONEY in amounts and prices is None:
        raise InvalidInput("a money budget needs prices; give a price table, such as budgeteer.prices.genai.load()")
    if prices is not None:
        prices.cost(Usage(input=0, output=0), model.name)  # an unknown price is an error now, not in the middle
    limit = {kind: units * (len(questions) if per_question else 1) for kind, units in amounts.items()}
    settings = {
        "durable": "yes" if durable else "no",
        "questions": _digest(questions), "model": model.name, "budget": str(budget), "seed": str(seed),
        "per": "question" if per_question else "total", **(about or {}),
    }  # fmt: skip
    job = _Job(
        list(questions), strategy, model, style, amounts, limit, per_question, seed, concurrency, timeout, grade, check,
        weigh, prices, on_row, pause or Pause(), traces,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        job.open(out, durable, settings, stack)
        return await job.run()


class _Job:
    """The state of one call of :func:`run`."""

    def __init__(
        self,
        questions: list[Question],
        strategy: Strategy | Together,
        model: Model,
        style: Style,
        amounts: dict[str, int],
        limit: dict[str, int],
        per_question: bool,
        seed: int,
        concurrency: int,
        timeout: float | None,
        grade: Grade | None,
        check: Callable[[Question, str], float] | None,
        weigh: Weigh | None,
        prices: Prices | None,
        on_row: Callable[[Row, Progress], None] | None,
        pause: Pause,
        traces: bool,
    ) -> None:
        self.questions, self.strategy, self.model, self.style = questions, strategy, model, style
        self.amounts, self.limit, self.per_question, self.seed = amounts, limit, per_question, seed
        self.concurrency, self.timeout, self.grade, self.check = concurrency, timeout, grade, check
        self.weigh, self.prices, self.on_row, self.pause, self.traces = weigh, prices, on_row, pause, traces
        self.rows: dict[str, Row] = {}
        self.output: Lines | None = None
        self.trace_file: Lines | None = None
        self.calls = Calls(None)
        self.ledger: Ledger
        self.shares: dict[str, dict[str, int]] = {}
        """Scope -> share, of questions that an earlier process began."""
        self.used: dict[str, int] = {}
        self.gone: dict[str, Counter[str]] = {}
        self.total: Counter[str] = Counter()
        self.under_way: set[Named] = set()

    def open(self, out: Path | None, durable: bool, settings: Mapping[str, str], stack: contextlib.ExitStack) -> None:
        """Files and ledger, and what an earlier process left there."""
        limits = [Limit(kind, units) for kind, units in self.limit.items()]
        if out is not None:
            folder = out.with_name(out.name + ".run")
            _lock(folder, stack)
            _same(folder / "settings.json", settings, out)  # first: opening cuts off a torn last line
            self.output = Lines(out, sync=True)
            stack.callback(self.output.close)
            known = {question.id for question in self.questions}
            for row in reversed(self.output.found):  # the first of two counts
                if not isinstance(row.get("id"), str) or "units" not in row:
                    raise InvalidInput(f"{out} holds {str(row)[:80]}, which is no row of a run; choose another output")
                if row["id"] in known:
                    self.rows[row["id"]] = self._counted(row, out)
            if self.traces:
                self.trace_file = Lines(folder / "traces.jsonl", sync=False)
                stack.callback(self.trace_file.close)
        if out is not None and durable:
            self.calls = Calls(folder / "calls.jsonl")
            stack.callback(self.calls.close)
            self.ledger = stack.enter_context(SqliteLedger(folder / "ledger.db", remember=MAX_SECONDS))
            self.ledger.open(ROOT, limits)
            self.calls.begin({_scope(name) for name in self.rows})
            self._recover()
        else:
            self.ledger = stack.enter_context(MemoryLedger())
            self.ledger.open(ROOT, limits)
            spent = self._spent(self.rows.values())
            if any(spent.values()):
                before = self.ledger.reserve(ROOT, {kind: min(n, self.limit[kind]) for kind, n in spent.items()})
                self.ledger.settle(before.id, spent)
        self.root = Allowance(self.ledger, ROOT, self._free())
        stack.callback(self.root.close)

    def _recover(self) -> None:
        """What was under way at a kill, or is not on record after a power cut, counts as spent in full."""
        _, state = self.ledger.snapshot()
        for name in state.reservations:
            if self.calls.get(name) is None:
                self.ledger.settle(name)
        for path, account in state.accounts.items():
            if path != ROOT:
                self.shares[path] = {
                    kind: book.limit for kind, book in account.books.items() if book.limit != core.UNLIMITED
                }
        for line, _ in self.ledger.lines():
            _, (name, path, _, _, status, _, actual, _, _, _) = journal.decode(line)
            if status == core.SETTLED:
                stem, number = numbered(name)
                self.used[stem] = max(self.used.get(stem, 0), number + 1)
                if self.calls.get(name) is None:
                    self.gone.setdefault(path, Counter()).update(dict(actual))

    def _counted(self, row: Row, out: Path) -> Row:
        try:
            self._add(row)
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(f"{out}: the line of {row['id']!r} is not of a run ({error!r}); remove it") from error
        return row

    def _add(self, row: Row) -> None:
        """Count a row towards the progress; cost in pico-dollars."""
        total = self.total
        for name in ("input", "output", "reasoning"):
            total[name] += row["tokens"][name]
        for kind, units in row["units"].items():
            total[f"units {kind}"] += units
        total["correct"] += bool(row["correct"])
        total["calls"] += row["calls"]
        total["graded"] += row["correct"] is not None
        total["answered"] += row["answer"] is not None
        total["cost"] += round(row.get("cost", 0.0) * 10**12)

    def _spent(self, rows: Any) -> dict[str, int]:
        return {kind: sum(row["units"][kind] for row in rows) for kind in self.limit}

    def _free(self) -> dict[str, int]:
        """What this process may use: all but what finished questions used; an open one's calls are within its share."""
        free = dict(self.limit)
        _, state = self.ledger.snapshot()
        open_scopes = {self._path(q) for q in self.questions if q.id not in self.rows}
        held = dict.fromkeys(free, 0)
        for path in open_scopes & state.accounts.keys():
            for kind, book in state.accounts[path].books.items():
                held[kind] += book.spent + book.held
        for kind, book in state.accounts[ROOT].books.items():
            free[kind] = max(0, free[kind] - (book.spent + book.held - held[kind]))
        return free

    def _path(self, question: Question) -> str:
        return f"{ROOT}/{_scope(question.id)}"

    async def run(self) -> Run:
        """Start questions in order, as many at once as allowed, until all are through or a pause is asked for."""
        self.begin, self.before = time.monotonic(), len(self.rows)
        self.ended = {question.id: asyncio.Event() for question in self.questions}
        for name in self.rows:
            self.ended[name].set()
        slots = asyncio.Semaphore(self.concurrency)
        tasks: set[asyncio.Task[None]] = set()
        failed: list[BaseException] = []

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            slots.release()
            if not task.cancelled() and (error := task.exception()) is not None:
                failed.append(error)  # of the ledger or the disk: nobody may spend any more
                self.pause.soft.set()

        all_of_them = (
            self._start_all(slots, tasks, ended)
            if isinstance(self.strategy, Strategy)
            else self._together(self.strategy)
        )
        starter = asyncio.ensure_future(all_of_them)
        soft = asyncio.ensure_future(self.pause.soft.wait())
        hard = asyncio.ensure_future(self.pause.hard.wait())
        try:
            await asyncio.wait({starter, soft, hard}, return_when=asyncio.FIRST_COMPLETED)
            if not isinstance(self.strategy, Strategy):  # all its questions are under way
                await asyncio.wait({starter, hard}, return_when=asyncio.FIRST_COMPLETED)
            if not starter.done():
                starter.cancel()
            while tasks and not hard.done():
                await asyncio.wait({*tasks, hard}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.calls.pausing = True
            for task in [starter, soft, hard, *tasks]:
                task.cancel()
            await asyncio.gather(starter, soft, hard, *tasks, return_exceptions=True)
        if starter.done() and not starter.cancelled() and (error := starter.exception()) is not None:
            failed.append(error)
        if failed:
            raise failed[0]
        _, state = self.ledger.snapshot()
        books = state.accounts[ROOT].books
        return Run(
            tuple(self.rows[q.id] for q in self.questions if q.id in self.rows),
            self.limit,
            {kind: books[kind].spent for kind in self.limit},
            {kind: books[kind].over for kind in self.limit},
            len(self.rows) < len(self.questions),
            time.monotonic() - self.begin,
        )

    async def _start_all(
        self,
        slots: asyncio.Semaphore,
        tasks: set[asyncio.Task[None]],
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        shares: list[dict[str, int]] = []
        lag = 1 if self.concurrency == 1 else 2 * self.concurrency
        for i, question in enumerate(self.questions):
            if self.per_question:
                share = self.amounts
            else:
                if i >= lag:
                    await self.ended[self.questions[i - lag].id].wait()
                share = self._share(i, shares, lag)
                shares.append(share)
            if question.id in self.rows:
                continue
            await slots.acquire()
            task = asyncio.ensure_future(self._one(question, share))
            tasks.add(task)
            task.add_done_callback(ended)

    def _share(self, i: int, shares: Sequence[Mapping[str, int]], lag: int) -> dict[str, int]:
        """Question i's part of a total budget, from what questions up to i - lag used and the later ones were given."""
        seen = [self.rows[q.id] for q in self.questions[: max(0, i - lag + 1)]]
        used = self._spent(seen)
        free = {
            kind: max(0, units - used[kind] - sum(share[kind] for share in shares[len(seen) :]))
            for kind, units in self.limit.items()
        }
        waiting = self.questions[i:]
        if self.weigh is None:
            return {kind: units // len(waiting) for kind, units in free.items()}
        weights = [float(weight) for weight in self.weigh(waiting, seen)]
        if len(weights) != len(waiting) or not all(0 <= weight < float("inf") for weight in weights):
            raise InvalidInput(f"weigh gave {weights[:5]}... for {len(waiting)} questions; give a finite weight each")
        part = weights[0] / sum(weights) if sum(weights) else 1 / len(waiting)
        return {kind: int(units * part) for kind, units in free.items()}

    def _within(self, share: Mapping[str, int]) -> dict[str, int]:
        """As much of a share as is left of the whole."""
        left = self.root.remaining
        return {kind: max(0, min(units, left[kind])) for kind, units in share.items()}

    async def _one(self, question: Question, share: Mapping[str, int]) -> None:
        """Answer one question and write its row."""
        scope, path = _scope(question.id), self._path(question)
        if path in self.shares:
            share = self.shares[path]
        elif self.calls.recording:  # an account of its own, to go on from after a kill
            share = self._within(share)
            await self.ledger.aio.open(path, [Limit(kind, units) for kind, units in share.items()])
        share = self._within(share)  # again: others may have overshot meanwhile
        child = self.root.share({scope: share})[scope] if self.calls.recording else self.root.share([share])[0]
        gone = self.gone.get(path, Counter())
        with child as allowance:
            begin = time.monotonic()
            model = Named(
                self.model, allowance, prices=self.prices, calls=self.calls, scope=scope, used=self.used, gone=gone
            )
            self.under_way.add(model)
            try:
                answer = await self._solve(question, model)
            finally:
                self.under_way.discard(model)
            seconds = time.monotonic() - begin
        self._write(question, answer, model, share, gone, seconds)

    async def _together(self, strategy: Together) -> None:
        """Answer all questions that wait by one strategy, from one allowance."""
        waiting = [question for question in self.questions if question.id not in self.rows]
        if not waiting:
            return
        held, begin = Held(self.root, named=False), time.monotonic()
        share, gone = self.root.remaining, Counter[str]()
        models = [
            Named(
                self.model, held, prices=self.prices, calls=self.calls, scope=_scope(question.id), used=self.used,
                gone=gone,
            )
            for question in waiting
        ]  # fmt: skip
        open_ = dict(enumerate(waiting))
        reason = "error: the strategy gave no answer"
        try:
            pairs = zip(waiting, models, strict=True)
            async for i, answer in strategy([self._task(question, model) for question, model in pairs]):
                self._write(open_.pop(i), answer, models[i], share, gone, time.monotonic() - begin)
        except (LedgerUnavailable, InvalidInput):
            raise
        except Exception as error:
            reason = _reason(error)
        for i, question in open_.items():
            self._write(question, Answer(None, reason), models[i], share, gone, time.monotonic() - begin)

    def _write(
        self,
        question: Question,
        answer: Answer,
        model: Named,
        share: Mapping[str, int],
        gone: Mapping[str, int],
        seconds: float,
    ) -> None:
        """Make and keep a question's row."""
        spend = model.spend
        row: Row = {
            "id": question.id,
            "answer": answer.answer,
            "correct": self._correct(question, answer.answer),
            "tokens": {"input": spend.input, "output": spend.output, "reasoning": spend.reasoning},
            "calls": spend.calls,
            "stopped_by": answer.stopped_by,
            "seconds": round(seconds, 3),
            "units": {kind: spend.units[kind] + gone.get(kind, 0) for kind in self.limit},
            "budget": dict(share),
            "wasted": model.wasted,
            "estimated": spend.estimated,
            "confidence": answer.confidence,
        }
        if self.prices is not None:
            row["cost"] = model.cost / 10**12
        if self.trace_file is not None:
            about = {key: row[key] for key in ("id", "answer", "correct", "stopped_by")}
            self.trace_file.append({**about, "question": question.text, "traces": list(answer.traces)})
        if self.calls.recording:
            self.calls.end(_scope(question.id))
        if self.output is not None:
            self.output.append(row)
        self.rows[question.id] = row
        self._add(row)
        self.ended[question.id].set()
        if self.on_row is not None:
            self.on_row(row, self._progress())

    async def _solve(self, question: Question, model: Named) -> Answer:
        """The strategy's answer; what goes wrong inside it is a reason, not a crash."""
        assert isinstance(self.strategy, Strategy)
        try:
            async with asyncio.timeout(self.timeout) as clock:
                answer = await self.strategy.solve(self._task(question, model))
            if not isinstance(answer, Answer) or not isinstance(answer.answer, str | None):
                raise InvalidInput(f"the strategy returned {str(answer)[:80]!r}, no Answer")
            return answer
        except LedgerUnavailable:
            raise
        except BudgetExceeded:
            return Answer(None, "budget")
        except EndpointDown as error:
            if not self.total["calls"] and not any(one.spend.calls for one in self.under_way):
                raise  # it never answered: no other question will fare better
            return Answer(None, _reason(error))
        except TimeoutError as error:
            if clock.expired():
                return Answer(None, f"error: no answer within {self.timeout:g} s")
            return Answer(None, _reason(error))
        except Exception as error:
            return Answer(None, _reason(error))

    def _task(self, question: Question, model: Named) -> Task:
        check = self.check
        verify = None if check is None else lambda answer: check(question, answer)
        return Task(question, model, self.style, derive(self.seed, question.id), verify)

    def _correct(self, question: Question, answer: str | None) -> bool | None:
        if self.grade is None:
            return None
        score = self.grade(question, answer)
        return None if score is None else answer is not None and score >= 1

    def _progress(self) -> Progress:
        total = self.total
        seconds, fresh = time.monotonic() - self.begin, len(self.rows) - self.before
        return Progress(
            len(self.rows),
            len(self.questions),
            total["correct"],
            total["graded"],
            total["answered"],
            {name: total[name] for name in ("input", "output", "reasoning")},
            {kind: total[f"units {kind}"] for kind in self.limit},
            self.limit,
            None if self.prices is None else total["cost"] / 10**12,
            seconds,
            seconds * (len(self.questions) - len(self.rows)) / fresh if fresh else None,
        )


def refuse_needs(strategy: Strategy, model: Model, style: Style, checked: bool, name: str = "") -> None:
    """Refuse what lacks something that a strategy needs; of a model, name strategies that would work.

    Args:
        checked: whether there is a verifier.

    Raises:
        InvalidInput: the model or the style lacks something, or there is no verifier.
    """
    called = name or "given"
    if CHECK in strategy.needs and not checked:
        raise InvalidInput(
            f"the strategy {called} asks a verifier and there is none; give check= (on the command line --oracle)"
        )
    missing = sorted(strategy.needs - model.capabilities - {CHECK})
    if missing:
        works = ", ".join(fitting(model.capabilities)) or "none that is registered"
        raise InvalidInput(
            f"the strategy {called} needs {' and '.join(missing)}, which {model.name} does not have; "
            f"these would work: {works}"
        )
    if PREFIX in strategy.needs and not isinstance(style.prompt("1 + 1"), str):
        raise InvalidInput(
            f"the strategy {called} continues raw text, and the style asks in chat messages; use a style with raw text"
        )


def fitting(capabilities: frozenset[str]) -> list[str]:
    """Names of registered strategies whose needs, as made without arguments, are among these capabilities."""
    from budgeteer.core.registry import load, of

    found = []
    for name, method in of("strategy").items():
        with contextlib.suppress(ImportError, TypeError, BudgeteerError):  # not installed, or needs arguments
            if load(method)().needs <= capabilities:
                found.append(name)
    return found


def _check(questions: Sequence[Question], concurrency: int, timeout: float | None) -> None:
    if timeout is not None and not timeout > 0:
        raise InvalidInput(f"timeout is {timeout}; give seconds above 0, or None for no limit")
    if not questions:
        raise InvalidInput("no questions; give at least one")
    if concurrency < 1:
        raise InvalidInput(f"concurrency is {concurrency}; give at least 1")
    twice = [name for name, n in Counter(question.id for question in questions).items() if n > 1]
    if twice:
        raise InvalidInput(f"{len(twice)} ids are there more than once, such as {twice[0]!r}; make ids distinct")


def _amounts(budget: Budgets | str) -> dict[str, int]:
    found = Budgets.parse(budget) if isinstance(budget, str) else budget
    for one in found:
        if one.amount is None or one.window is not None:
            raise InvalidInput(f"budget {str(one)!r} is no amount; write tokens or money, such as 2k or $0.01")
    return {one.kind: one.amount or 0 for one in found}


def _digest(questions: Sequence[Question]) -> str:
    content = json.dumps([(question.id, question.text) for question in questions])
    return f"{len(questions)} with digest {hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}"


def _scope(name: str) -> str:
    """A question's account: ids may hold anything, scopes may not."""
    return "q-" + hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _reason(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"error: {text[:300]}"


def _lock(folder: Path, stack: contextlib.ExitStack) -> None:
    """One process at a time; the kernel lets go of the lock when a process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context((folder / "lock").open("a"))
    except OSError as error:
        raise InvalidInput(f"cannot write beside the output: {error}") from error
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InvalidInput(f"another process is writing to {folder}; wait for it or stop it") from error


def _same(path: Path, settings: Mapping[str, str], out: Path) -> None:
    """A run is resumed with the settings that it began with."""
    if not path.exists():
        if out.exists() and out.stat().st_size:
            raise InvalidInput(
                f"{out} is not empty, and there is no {path} with its settings and what was spent: choose another "
                f"output, or put that back"
            )
        whole = path.with_suffix(".tmp")
        whole.write_text(json.dumps(dict(settings), indent=1) + "\n", encoding="utf-8")
        os.replace(whole, path)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error
    for name in sorted({*found, *settings}):
        if found.get(name) != settings.get(name):
            raise InvalidInput(
                f"this output was begun with {name} = {found.get(name)!r}, not {settings.get(name)!r}; go on with the "
                f"same settings, or choose another output"
            )
