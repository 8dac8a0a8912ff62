"""Scorers: how good a trace is, or the beginning of one.

A scorer is first bound to a task; it may refuse the task before anything is spent. Binding returns a coroutine function
that takes samples and returns a number for each; larger is better, NaN is unknown.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, cast

from budgeteer.core import registry
from budgeteer.core.errors import BudgetExceeded, InvalidInput, ModelError
from budgeteer.models.model import LOGPROBS, Request
from budgeteer.solve import Task, derive
from budgeteer.solve.strategy import CHECK
from budgeteer.strategies.kit.samples import Sample
from budgeteer.strategies.kit.trace import aside

Score = Callable[[Sequence[Sample]], Awaitable[list[float]]]

YES_OR_NO = """Question: {question}

Proposed solution:
{trace}

Is the proposed solution correct? Answer Yes or No.
Answer:"""
PROGRESS = """Question: {question}

Work so far:
{trace}

How much closer to the answer did the last step come? Rate it from -5 (it did harm) over 0 (nothing new) to 5.
Rating:"""


class Scorer(NamedTuple):
    """How traces are scored.

    Attributes:
        bind: task -> coroutine function (samples) -> scores.
        needs: see :class:`budgeteer.solve.strategy.Strategy`.
        charged: whether it calls the model, so that a strategy has to leave budget for it.
    """

    bind: Callable[[Task], Score]
    needs: frozenset[str] = frozenset()
    charged: bool = False


def scorer_of(scorer: Scorer | str) -> Scorer:
    """The scorer itself, or the registered scorer of this name, with its default options."""
    return cast("Scorer", registry.part_of("scorer", scorer))


def verifier() -> Scorer:
    """Score by the task's verifier, ``task.check``; 0 for a sample without an answer.

    Raises (when bound):
        InvalidInput: the task has no verifier.
    """

    def bind(task: Task) -> Score:
        check = task.check
        if check is None:
            raise InvalidInput(f"question {task.question.id!r} has no verifier; give one, or choose another scorer")

        async def score(samples: Sequence[Sample]) -> list[float]:
            return [0.0 if sample.answer is None else float(check(sample.answer)) for sample in samples]

        return score

    return Scorer(bind, needs=frozenset({CHECK}))


def mean_logprob() -> Scorer:
    """Score by the geometric mean probability of a sample's tokens, ``exp(mean log p)`` in (0, 1]: how sure the model
    was."""

    async def score(samples: Sequence[Sample]) -> list[float]:
        return [math.nan if sample.logprob is None else math.exp(sample.logprob) for sample in samples]

    return Scorer(lambda task: score, needs=frozenset({LOGPROBS}))


def programmatic(check: Callable[[str, str], float]) -> Scorer:
    """Score by a function of question and trace: whether it compiles, for example, or whether every step is right.

    Args:
        check: (question text, trace) -> score.

    >>> shorter = programmatic(lambda question, trace: 1 / (1 + len(trace)))
    """

    def bind(task: Task) -> Score:
        async def score(samples: Sequence[Sample]) -> list[float]:
            return [float(check(task.question.text, sample.text)) for sample in samples]

        return score

    return Scorer(bind)


def self_evaluation(
    template: str = YES_OR_NO, *, votes: int = 1, max_tokens: int = 4, temperature: float = 0.0
) -> Scorer:
    """Score by the model's own judgement: the share of ``votes`` judgements that say yes. Charged, stage "judge".

    The model is asked in a message if the style asks in messages, else in raw text. A judgement that says neither yes
    nor no does not count; the score is NaN if none counts, or none fits the budget.

    Args:
        template: with ``{question}`` and ``{trace}``.
        votes: judgements of each sample; more than one needs a temperature above 0.
        max_tokens: cap of a judgement.
        temperature: of the judgements.
    """
    return _judge(template, _yes, votes, max_tokens, temperature)


def progress(template: str = PROGRESS, *, votes: int = 1, max_tokens: int = 4, temperature: float = 0.0) -> Scorer:
    """Score by the model's rating of how much the last step helped, in [-1, 1]: the residual critic of a value tree.

    Charged, stage "judge". Arguments as in :func:`self_evaluation`; ratings are whole numbers from -5 to 5.
    """
    return _judge(template, _rating, votes, max_tokens, temperature)


def _yes(text: str) -> float:
    word = re.search(r"\b(yes|no)\b", text, re.IGNORECASE)
    return math.nan if word is None else float(word[1].lower() == "yes")


def _rating(text: str) -> float:
    number = re.search(r"[-+]?\d+", text)
    return math.nan if number is None else max(-5, min(5, int(number[0]))) / 5


def _judge(template: str, parse: Callable[[str], float], votes: int, max_tokens: int, temperature: float) -> Scorer:
    if "{question}" not in template or "{trace}" not in template:
        raise InvalidInput("a judge's template needs {question} and {trace}")
    if votes < 1 or max_tokens < 1 or (votes > 1 and temperature == 0):
        raise InvalidInput(
            f"votes={votes}, max_tokens={max_tokens}, temperature={temperature}; give at least one vote of one token,"
            " and a temperature above 0 for several, which would all be the same"
        )

    def bind(task: Task) -> Score:
        async def judged(sample: Sample) -> float:
            # not str.format: a trace may hold braces
            text = template.replace("{question}", task.question.text).replace("{trace}", sample.text)
            prompt = aside(task, text)
            seed = derive(task.seed, "judge", text)
            try:
                response = await task.model.generate(
                    Request(prompt, max_tokens, votes, temperature, seed=seed), stage="judge"
                )
            except (BudgetExceeded, ModelError):
                return math.nan  # without a judgement
            ratings = [value for choice in response.choices if not math.isnan(value := parse(choice.text))]
            return sum(ratings) / len(ratings) if ratings else math.nan

        async def score(samples: Sequence[Sample]) -> list[float]:
            return list(await asyncio.gather(*map(judged, samples)))

        return score

    return Scorer(bind, charged=True)
