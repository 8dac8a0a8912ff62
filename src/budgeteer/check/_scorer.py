"""The rules of scorers."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence

from budgeteer.check._common import CheckFailed, refuses
from budgeteer.check._toy import CLOSE, QUESTION, ToyModel, text_of, toy_style
from budgeteer.check.scripted import ALL
from budgeteer.core.errors import InvalidInput
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import CAPABILITIES, Choice, Finish, Request
from budgeteer.solve import Budgeted, Task
from budgeteer.solve.strategy import CHECK
from budgeteer.strategies.kit.samples import Sample
from budgeteer.strategies.scorer import Scorer

ENOUGH = 100_000
VERDICTS = ("Yes", "No", "3", "-2", "Well")
SAMPLES = (
    Sample(f"2 and 2;{CLOSE}4", "4", 17, -0.2),
    Sample(f"2 and 3;{CLOSE}5", "5", 17, -1.5),
    Sample("it has {braces} and no ans", None, 20, -0.7),
    Sample(f"{CLOSE}4", "4", 9, None),
)


class Judge(ToyModel):
    """A model for checks that answers every request with a judgement or a rating."""

    def _choice(self, request: Request, i: int) -> Choice:
        text = random.Random(f"{request.seed} {i} {text_of(request.prompt)}").choice(VERDICTS)[: request.max_tokens]
        return Choice(text, len(text), Finish.STOP, (-0.5,) * len(text) if request.logprobs else None)


def check_scorer(scorer: Scorer, *, seed: int = 0) -> None:
    """Score samples of one question on a scripted model, and raise :class:`CheckFailed` at the first broken rule.

    Rules: ``needs`` are known capabilities; bound to a task, the scorer gives a list of one number per sample, NaN if
    the score is unknown and never infinite, also for samples without an answer; no samples give no scores; a score
    depends on its sample and not on its position; the same seed gives the same scores; a scorer that is not ``charged``
    calls no model; a charged one calls the task's model only, and if a call fails or does not fit the budget, its score
    is NaN and nothing is raised; a scorer that needs a verifier refuses, when it is bound, a task without one.

    Args:
        scorer: the scorer to check.
        seed: of the task.
    """
    if not isinstance(scorer, Scorer):
        raise CheckFailed(f"the factory made {scorer!r}, no Scorer")
    if not scorer.needs <= CAPABILITIES | {CHECK}:
        raise CheckFailed(f"Scorer.needs has {sorted(scorer.needs - CAPABILITIES - {CHECK})}, which nobody declares")
    scores = _scores(scorer, SAMPLES, Judge(ALL), ENOUGH, seed)
    _scores(scorer, (), Judge(ALL), ENOUGH, seed)
    if repr(_scores(scorer, SAMPLES, Judge(ALL), ENOUGH, seed)) != repr(scores):
        raise CheckFailed("the same samples and seed were scored otherwise; draw from Task.seed only")
    turned = _scores(scorer, SAMPLES[::-1], Judge(ALL), ENOUGH, seed)
    if repr(turned[::-1]) != repr(scores):
        raise CheckFailed(
            f"scores are {scores}, and {turned} in the opposite order: a score goes with its sample, not with its place"
        )
    for budget in (0, 1, 50, 400):
        _scores(scorer, SAMPLES, Judge(ALL), budget, seed)
    for fail in (0.5, 1.0):
        _scores(scorer, SAMPLES, Judge(ALL, fail=fail), ENOUGH, seed)
    if CHECK in scorer.needs:
        rule = "a task without a verifier is refused when the scorer is bound"
        refuses(InvalidInput, rule, scorer.bind, _task(scorer, Judge(ALL), 0, seed, check=False))


def _task(scorer: Scorer, model: ToyModel, budget: int, seed: int, *, check: bool = True) -> Task:
    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", budget)])
    wanted = check and CHECK in scorer.needs
    verify = (lambda answer: float(answer == "4")) if wanted else None
    return Task(QUESTION, Budgeted(model, Allowance(ledger, "q", {"all": budget})), toy_style(), seed, verify)


def _scores(scorer: Scorer, samples: Sequence[Sample], model: Judge, budget: int, seed: int) -> list[float]:
    """The scores, within the rules that hold for every budget and model."""
    given = f"with a budget of {budget:,} tokens and {model.fail:.0%} of the calls failing"
    task = _task(scorer, model, budget, seed)
    try:
        scored = asyncio.run(_awaited(scorer, task, samples))
    except Exception as error:
        raise CheckFailed(f"{given} it raised {type(error).__name__}: {error}; a score nobody knows is NaN") from error
    if not isinstance(scored, list) or len(scored) != len(samples):
        raise CheckFailed(f"{given} it returned {scored!r} for {len(samples)} samples; return a list, one number each")
    if not all(isinstance(score, float | int) and not math.isinf(score) for score in scored):
        raise CheckFailed(f"{given} the scores are {scored}; numbers, and NaN where nobody knows")
    if not scorer.charged and model.requests:
        raise CheckFailed(f"it asked the model {len(model.requests)} times and is not charged; set Scorer.charged")
    seen = task.model.spend.usage
    if model.used > (seen.input or 0) + (seen.output or 0):
        raise CheckFailed(f"{given} calls went past the task's model; ask task.model, not the model inside")
    return scored


async def _awaited(scorer: Scorer, task: Task, samples: Sequence[Sample]) -> list[float]:
    return await scorer.bind(task)(samples)
