"""Settings, progress and result of a run of many questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from budgeteer.core.meter import Prices
from budgeteer.models.model import Model
from budgeteer.solve.strategy import Answer, Question, Strategy, Style, Task
from budgeteer.solve.tool import Tool

Row = dict[str, Any]
"""The line of one question in the output; docs/solve.md lists its fields."""
Grade = Callable[[Question, str | None], float | None]
"""(question, its answer or None) -> score in [0, 1]; None = there is no reference."""
Weigh = Callable[[Sequence[Question], Sequence[Row]], Sequence[float]]
"""(questions that wait, rows so far) -> weights >= 0, in proportion to which the rest of a total budget is split."""
Together = Callable[[Sequence[Task]], AsyncIterator[tuple[int, Answer]]]
"""Answers many questions from one allowance, as (position, answer), such as :func:`budgeteer.strategies.split`."""

TIMEOUT = 600.0
"""Default time limit of a question, in seconds."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run.

    Attributes:
        done, total: number of questions that have ended, and of all.
        correct, graded: number of right answers, and of questions with a reference.
        answered: number of questions with an answer.
        tokens: input, output and reasoning so far.
        units, limit: units spent and allowed, per kind.
        cost: dollars; None without prices.
        seconds: since the start.
        left: estimate of the seconds still to come; None = unknown.
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
    """The result of a run.

    Attributes:
        rows: of the questions that have ended, in the order in which they were given.
        limit, spent: units per kind, of all processes that ran with this output.
        overshoot: units per kind that calls used above what was reserved for them.
        paused: whether some questions have not ended.
        seconds: that this process ran.
    """

    rows: tuple[Row, ...]
    limit: Mapping[str, int]
    spent: Mapping[str, int]
    overshoot: Mapping[str, int]
    paused: bool
    seconds: float


@dataclass(slots=True)
class Pause:
    """Events that ask a run to pause: ``soft`` starts no more questions; ``hard`` also interrupts those under way."""

    soft: asyncio.Event = field(default_factory=asyncio.Event)
    hard: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a run; every field has a default.

    Attributes:
        per_question: True: every question may use the whole budget. False: the budget is one total, and a question gets
            an equal share (or one by ``weigh``) of what is left when it starts.
        seed: question q is asked with the seed ``derive(seed, q.id)``.
        concurrency: most questions at once.
        timeout: seconds for each question; None: no limit.
        grade: scores answers for the column ``correct``; the strategy never sees it.
        pass_at: k of Pass@k: ``correct`` says whether one of the first k candidates of an Answer is right.
        check: a verifier that strategies may use.
        tools: question -> tools that strategies may call for it; None: there are none.
        weigh: weights of the shares of a total budget; None: equal shares.
        prices: for money, and to report costs.
        out: file for the rows; None: no file.
        durable: whether the calls are billed, so that a killed run must pay for no answered call twice; see
            :func:`budgeteer.solve.runner.run`. None: yes, unless the model declares INTERNALS, since it runs here then.
        about: further settings that have to be the same when a run is resumed, such as the strategy's name.
        traces: whether to write the strategy's traces to ``OUT.run/traces.jsonl``.
        on_row: called with every new row.
        pause: events that pause the run; None: it cannot be paused. A Together has begun all its questions, so ``soft``
            lets it finish.
    """

    per_question: bool = True
    seed: int = 0
    concurrency: int = 8
    timeout: float | None = TIMEOUT
    grade: Grade | None = None
    pass_at: int = 1
    check: Callable[[Question, str], float] | None = None
    tools: Callable[[Question], Sequence[Tool]] | None = None
    weigh: Weigh | None = None
    prices: Prices | None = None
    out: Path | None = None
    durable: bool | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    traces: bool = False
    on_row: Callable[[Row, Progress], None] | None = None
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a run has to do: questions, strategy, model, style, and the budget in units.

    Attributes:
        amounts: units per kind of one question, or of all.
        limit: units per kind of the whole run.
    """

    questions: Sequence[Question]
    strategy: Strategy | Together
    model: Model
    style: Style
    amounts: Mapping[str, int]
    limit: Mapping[str, int]
    settings: Settings
