"""What a run of many questions is told, how it stands while it runs, and what comes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from budgeteer.core.meter import Prices
from budgeteer.models.model import Model
from budgeteer.solve.strategy import Answer, Question, Strategy, Style, Task

Row = dict[str, Any]
"""One question's line; its fields are in docs/solve.md."""
Grade = Callable[[Question, str | None], float | None]
"""Score in [0, 1] of an answer; None = there is no reference."""
Weigh = Callable[[Sequence[Question], Sequence[Row]], Sequence[float]]
"""(questions that wait, rows so far) -> weights >= 0, by which what is left of a total budget is split."""
Together = Callable[[Sequence[Task]], AsyncIterator[tuple[int, Answer]]]
"""Answers many questions from one allowance, as (position, answer), such as :func:`budgeteer.strategies.split`."""

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


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run goes; every field has a default.

    Attributes:
        per_question: every question may use the budget. Else it is one total: a question gets an equal share (or one by
            ``weigh``) of what is left when it starts.
        seed: question q is asked with ``derive(seed, q.id)``.
        concurrency: questions at once.
        timeout: seconds a question; None: no limit.
        grade: tells right from wrong for ``correct``; the strategy never sees it.
        check: a verifier that strategies may use.
        weigh: shares of a total budget.
        prices: for money, and to report costs.
        out: file for the rows.
        durable: somebody bills the calls, so that a killed run pays for no answered call twice; see
            :func:`budgeteer.solve.runner.run`. None: unless the model declares INTERNALS, so that it runs here.
        about: what else has to be the same when a run is resumed, such as the strategy's name.
        traces: write the strategy's traces to ``OUT.run/traces.jsonl``.
        on_row: called with every new row.
        pause: None: nobody asks for a pause. A Together has begun all its questions, so that ``soft`` lets it end.
    """

    per_question: bool = True
    seed: int = 0
    concurrency: int = 8
    timeout: float | None = TIMEOUT
    grade: Grade | None = None
    check: Callable[[Question, str], float] | None = None
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
    """What there is to do: questions, who answers them, and the budget in units.

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
