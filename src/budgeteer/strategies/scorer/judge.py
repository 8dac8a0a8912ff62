"""Scores from the model's own judgement of a trace."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from budgeteer.core.errors import BudgetExceeded, InvalidInput, ModelError
from budgeteer.models.model import Request
from budgeteer.solve import Task, derive
from budgeteer.strategies.kit.samples import Sample
from budgeteer.strategies.kit.trace import aside
from budgeteer.strategies.scorer.protocol import Score, Scorer


def judge(template: str, parse: Callable[[str], float], votes: int, max_tokens: int, temperature: float) -> Scorer:
    """The scorer that asks the model about each trace and averages what it says. Charged, stage "judge".

    The model is asked in a message if the style asks in messages, else in raw text. The score is NaN where no
    judgement can be read, or where none fits the budget.

    Args:
        template: with ``{question}`` and ``{trace}``.
        parse: text of a judgement -> number; NaN = it does not count.
        votes: judgements of each sample; more than one needs a temperature above 0.
        max_tokens: cap of a judgement.
        temperature: of the judgements.

    Raises:
        InvalidInput: the template lacks a field, or the numbers do not fit each other.
    """
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
