"""Accuracy by length and by number of samples, from one draw of samples a question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64
from budgeteer.lab.questions import QuestionSet
from budgeteer.lab.stats import mean_ci
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.device import Accuracy
from budgeteer.models.model import Model
from budgeteer.solve import Budgeted, Question, Style, Task, derive
from budgeteer.strategies.aggregator import majority
from budgeteer.strategies.kit.samples import Sample, Sampler


class Drawn(NamedTuple):
    """The samples of one question.

    Attributes:
        question: that was asked.
        prompt: its tokens, as it was asked.
        greedy: one greedy trace.
        warm: the traces at the temperature.
    """

    question: Question
    prompt: int
    greedy: tuple[Sample, ...]
    warm: tuple[Sample, ...]


async def draw(
    model: Model,
    style: Style,
    asked: QuestionSet,
    *,
    tokens: int,
    samples: int,
    temperature: float = 1.0,
    seed: int = 0,
    concurrency: int = 8,
    on_question: Callable[[int], object] = lambda done: None,
) -> list[Drawn]:
    """Sample one greedy trace and ``samples`` others of every question.

    Args:
        model, style: who is asked, and how.
        asked: the questions.
        tokens: cap of each trace.
        samples: traces of a question at the temperature, >= 0.
        temperature: of these.
        seed: of the draws.
        concurrency: questions at the same time.
        on_question: called with the number of questions that are done.

    Raises:
        InvalidInput: the model failed on a question.
    """
    gate, done = asyncio.Semaphore(concurrency), 0

    async def draw_question(question: Question) -> Drawn:
        nonlocal done
        async with gate:
            most = 2 * (samples + 1) * (tokens + model.count(style.prompt(question.text)))
            ledger = MemoryLedger()
            ledger.open("question", [Limit("all", most)])
            charged = Budgeted(model, Allowance(ledger, "question", {"all": most}))
            task = Task(question, charged, style, derive(seed, question.id))
            sets = []
            for number, heat in ((1, 0.0), (samples, temperature)):
                sampler = Sampler(task, max_tokens=tokens, temperature=heat)
                if number:
                    await sampler.more(number)
                if sampler.error:
                    raise InvalidInput(f"the model failed on question {question.id!r}: {sampler.error}")
                sets.append(tuple(sampler.drawn))
            done += 1
            on_question(done)
            return Drawn(question, model.count(sampler.prompt), sets[0], sets[1])

    return list(await asyncio.gather(*map(draw_question, asked.questions)))


def curves(
    drawn: Sequence[Drawn],
    lengths: Sequence[int],
    parallel: Sequence[int],
    grade: Callable[[Question, str | None], float],
) -> tuple[Accuracy, ...]:
    """Accuracy at each length for each number of samples.

    A sample counts at a length if it was complete by then, as if it had been cut there: with the same seed the
    beginning of a trace does not depend on its cap. With k samples the answer is the vote of k; the samples drawn are
    split into as many groups of k as there are, and their scores averaged. k = 1 is the greedy trace. Intervals are
    over questions.

    Args:
        drawn: one entry a question.
        lengths: caps of a sample.
        parallel: numbers of samples, no more than were drawn.
        grade: question, answer -> score in [0, 1].

    Raises:
        InvalidInput: no questions, or too few samples were drawn.
    """
    if not drawn or max(parallel, default=0) > max(1, min(len(samples.warm) for samples in drawn)):
        raise InvalidInput(f"votes of {max(parallel, default=0)} samples need as many of every question")
    points = []
    for k in parallel:
        for most in lengths:
            per = np.array([_question(samples, most, k, grade) for samples in drawn])
            right = mean_ci(per[:, 0])
            low, high = (right.mean, right.mean) if right.n == 1 else (right.low, right.high)
            points.append(
                Accuracy(most, k, right.mean, max(0.0, low), min(1.0, high), *per[:, 1:].mean(axis=0).tolist())
            )
    return tuple(points)


def _question(drawn: Drawn, most: int, k: int, grade: Callable[[Question, str | None], float]) -> F64:
    """Score, tokens and longest sample of one question: means over its groups of k samples."""
    pool = drawn.greedy if k == 1 else drawn.warm
    groups = [pool[at : at + k] for at in range(0, len(pool) - k + 1, k)]
    rank, rows = majority(), []
    for group in groups:
        answers = [sample.answer if sample.tokens <= most else None for sample in group]
        ranked = rank(answers, [float("nan")] * len(group))
        used = [min(sample.tokens, most) for sample in group]
        rows.append([grade(drawn.question, ranked[0].answer if ranked else None), sum(used), max(used)])
    return np.asarray(np.mean(rows, axis=0))
