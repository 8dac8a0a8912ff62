"""Best of n: sample many traces, score them, take the answer of the best."""

from __future__ import annotations

import math

from budgeteer.core.errors import InvalidInput
from budgeteer.models.model import LOGPROBS
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.strategies.aggregator import Aggregator, max_score
from budgeteer.strategies.kit.samples import MAX_TOKENS, Sampler
from budgeteer.strategies.scorer import Scorer, scorer_of


def best_of_n(
    scorer: Scorer | str = "self-evaluation",
    n: int = 32,
    *,
    max_tokens: int = MAX_TOKENS,
    temperature: float = 1.0,
    aggregate: Aggregator | None = None,
    enough: float = float("inf"),
) -> Strategy:
    """n samples, as many as the budget allows, each scored; the answer with the best score, or another aggregator's.

    With a scorer that calls the model, samples are drawn in rounds, each of half of what fits, so that budget is left
    to judge them. A sample without a score counts only if no sample has one (stopped by UNJUDGED).

    When it helps: the scorer tells right from wrong (a verifier). When not: it is a learnt reward with errors: the
    more samples, the likelier that one of them fools it (:mod:`budgeteer.strategies._best_of_majority`).

    Args:
        scorer: a scorer or its name; see :mod:`budgeteer.strategies.scorer`.
        n: most samples.
        max_tokens: cap of one sample.
        temperature: of the samples.
        aggregate: None = the best score.
        enough: score at which drawing stops; if it is finite, samples are drawn in rounds of 1, 1, 2, 4, 8...

    Raises (when solving):
        InvalidInput: the scorer cannot score this task; nothing was spent.
    """
    if n < 1:
        raise InvalidInput(f"best_of_n(n={n}); give at least one sample")
    rank = max_score() if aggregate is None else aggregate
    rounds = enough < float("inf")

    scores_by = scorer_of(scorer)

    async def solve(task: Task) -> Answer:
        score = scores_by.bind(task)
        logprobs = LOGPROBS in scores_by.needs
        samples = Sampler(task, max_tokens=max_tokens, temperature=temperature, logprobs=logprobs)
        scores: list[float] = []
        stopped = StoppedBy.DONE
        while (left := n - len(samples.drawn)) and not samples.stopped:
            size = min(left, max(1, len(samples.drawn))) if rounds else left
            scores += await score(await samples.more(size, share=0.5 if scores_by.charged else 1.0))
            if any(value >= enough for value in scores):
                stopped = StoppedBy.DECIDED
                break
        if scores and all(math.isnan(value) for value in scores):
            stopped = StoppedBy.UNJUDGED  # a vote of all samples, then
        return samples.best(rank(samples.answers, scores), stopped)

    return Strategy(solve, scores_by.needs)
