"""Best-of-Majority: of the answers that are frequent enough, those with the best scores are submitted."""

from __future__ import annotations

from budgeteer.core.errors import InvalidInput
from budgeteer.models.model import LOGPROBS
from budgeteer.solve import Answer, Strategy, Task
from budgeteer.strategies.aggregator import frequent, majority, majority_filter
from budgeteer.strategies.kit.samples import MAX_TOKENS, Sampler
from budgeteer.strategies.scorer import Scorer, scorer_of


def best_of_majority(
    scorer: Scorer | str = "self-evaluation",
    n: int = 32,
    *,
    alpha: float = 0.1,
    judged: int = 4,
    max_tokens: int = MAX_TOKENS,
    temperature: float = 1.0,
) -> Strategy:
    """n samples; the answers with at least a share ``alpha`` of them are candidates, best mean score first.

    A run that is scored by Pass@k submits the first k candidates, fewer if fewer are frequent enough; any other run the
    first one. If no answer has the share, all are candidates. Scoring comes after counting, so a scorer that calls the
    model is asked only about answers that can still win, and about ``judged`` samples of each; drawing leaves half of
    the budget for that. Answers without a score rank below those with one, the more frequent ones first.

    The paper: with C* = 1 / P(right answer), ``alpha = 3 / (4 C*)``; what the scorer's errors cost falls as 1 / sqrt(k)
    and does not grow with n, while that of best of n does once rare wrong answers are scored too high. C* is not known:
    alpha is to be tuned, and below 1 / n it filters nothing.

    When it helps: a scorer with errors, and many samples. When not: the scorer is right (best of n finds answers that
    are rarer than alpha), or the most frequent answers are right anyway: compare with ``self-consistency``, whose
    first k candidates are the k most frequent answers.

    "Best-of-Majority: Minimax-Optimal Strategy for Pass@k Inference Scaling", arXiv 2510.03199. The paper scores
    answers; here an answer's score is the mean over its samples, since their traces differ.

    Args:
        scorer: a scorer or its name; see :mod:`budgeteer.strategies.scorer`.
        n: most samples.
        alpha: least share of the samples with an answer.
        judged: samples of an answer that a charged scorer is asked about; other scorers score all.
        max_tokens: cap of one sample.
        temperature: of the samples.

    Raises (when solving):
        InvalidInput: the scorer cannot score this task; nothing was spent.
    """
    if n < 1 or judged < 1:
        raise InvalidInput(f"best_of_majority(n={n}, judged={judged}); give at least one of each")
    rank = majority_filter(alpha)

    scores_by = scorer_of(scorer)

    async def solve(task: Task) -> Answer:
        score = scores_by.bind(task)
        logprobs = LOGPROBS in scores_by.needs
        samples = Sampler(task, max_tokens=max_tokens, temperature=temperature, logprobs=logprobs)
        if scores_by.charged:
            await _draw_and_keep(samples, n, task)
        else:
            await samples.more(n)
        kept = frequent(samples.answers, alpha)
        asked: dict[str, int] = {}
        rows = []
        for i, answer in enumerate(samples.answers):
            if answer is not None and answer in kept and (not scores_by.charged or asked.get(answer, 0) < judged):
                asked[answer] = asked.get(answer, 0) + 1
                rows.append(i)
        scores = [float("nan")] * len(samples.drawn)
        if len(kept) > 1:
            for i, value in zip(rows, await score([samples.drawn[i] for i in rows]), strict=True):
                scores[i] = value
        scored = rank(samples.answers, scores) if any(value == value for value in scores) else []
        known = {entry.answer for entry in scored}
        rest = [entry for entry in majority()(samples.answers, scores) if entry.answer not in known]
        return samples.best([entry for entry in (*scored, *rest) if entry.answer in kept])

    return Strategy(solve, scores_by.needs)


async def _draw_and_keep(samples: Sampler, n: int, task: Task) -> None:
    """Draw until half of the budget is spent."""
    start = task.model.remaining
    while len(samples.drawn) < n and not samples.stopped:
        if samples.drawn and any(2 * units <= start[kind] for kind, units in task.model.remaining.items()):
            break
        await samples.more(n - len(samples.drawn), share=0.5)
