"""Parallel search step by step: dora, rebase and beam are this loop, with different numbers of rollouts for each path.

"Every Rollout Counts: Optimal Resource Allocation for Efficient Test-Time Scaling", arXiv 2506.15707, section 2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from budgeteer.core.errors import BudgetExceeded, InvalidInput, ModelError
from budgeteer.core.plan import F64, I64
from budgeteer.models.chat import Prompt, continued
from budgeteer.models.model import LOGPROBS, PREFIX, Finish, Request
from budgeteer.solve import Answer, StoppedBy, Strategy, Task, derive
from budgeteer.strategies.aggregator import weighted_majority
from budgeteer.strategies.kit.samples import Sample, mean_logprob, most_that_fit, read, traces_of
from budgeteer.strategies.scorer import Scorer

Copies = Callable[[F64, Sequence[str], int], I64]
"""(scores [k], texts [k], n) -> how many rollouts continue each of the k paths: [k], n in sum."""


@dataclass(frozen=True, slots=True)
class Path:
    """A partial trace, and whether it has ended."""

    sample: Sample
    ended: bool = False


async def extend(
    task: Task,
    prompt: Prompt,
    path: Sample,
    n: int,
    *,
    step: str,
    step_tokens: int,
    temperature: float,
    seed: int,
    logprobs: bool = False,
) -> list[Path]:
    """Continue a path by one step n times, or fewer if the budget ends; tokens are kept to force an answer.

    A step ends at the text ``step``, which stays part of the path. A path has ended when its answer is complete or the
    model ended it. A path that is cut by the cap goes on with the next step. An answer, once the thinking is closed, is
    not made of steps: it may have several lines.

    Args:
        task: the question.
        prompt: of the question.
        path: the trace so far.
        n: continuations.
        step: the text that ends a step.
        step_tokens: cap of one step.
        temperature: of the draws.
        seed: of the request.
        logprobs: whether to ask for log-probabilities.

    Raises:
        ModelError: the call failed finally.
    """
    style, text = task.style, continued(prompt, path.text)
    count = most_that_fit(task, text, n, step_tokens)
    while count and task.model.afford(text, n=count, most=step_tokens, keep=_closing(task)) < step_tokens:
        count -= 1
    if not count:
        return []
    answers = style.close != "" and style.split(path.text)[1] is not None
    stops = style.stop if answers else tuple(dict.fromkeys((step, *style.stop)))
    try:
        response = await task.model.generate(
            Request(text, step_tokens, count, temperature, stops, seed=seed, logprobs=logprobs)
        )
    except BudgetExceeded:
        return []
    paths = []
    each = (response.usage.output or 0) // max(1, len(response.choices))
    for choice in response.choices:
        tokens = each if choice.tokens is None else choice.tokens
        whole = path.text + choice.text
        rest = style.split(whole)[1]
        closed = rest is not None and (style.complete(rest) or (choice.finish == Finish.STOP and rest.strip() != ""))
        empty = choice.finish == Finish.STOP and not choice.text  # it ended by itself before it wrote anything
        if not closed and choice.finish == Finish.STOP:
            whole += step
        logprob = mean_logprob(choice)
        if logprob is not None and path.logprob is not None and tokens + path.tokens:
            logprob = (logprob * tokens + path.logprob * path.tokens) / (tokens + path.tokens)
        answer = read(style, whole, choice.finish) if closed else None
        paths.append(Path(Sample(whole, answer, path.tokens + tokens, logprob), closed or empty))
    return paths


async def force(task: Task, prompt: Prompt, path: Sample) -> Sample:
    """The path with its thinking closed and its answer sampled; unchanged if the budget does not allow that."""
    style = task.style
    closed = path.text if style.split(path.text)[1] is not None else style.closed(path.text)
    text = continued(prompt, closed)
    room = task.model.afford(text, most=style.answer_tokens)
    if not room:
        return path
    request = Request(text, room, temperature=0.0, stop=style.stop, seed=derive(task.seed, "answer", closed))
    try:
        response = await task.model.generate(request, stage="answer")
    except (BudgetExceeded, ModelError):
        return path
    choice = response.choices[0]
    trace = closed + choice.text
    return replace(
        path, text=trace, answer=read(style, trace, choice.finish), tokens=path.tokens + (choice.tokens or 0)
    )


def _closing(task: Task) -> int:
    return task.model.count(task.style.closing) + task.style.answer_tokens if task.style.close else 0


def step_search(
    copies: Copies, scorer: Scorer, n: int, *, step: str, step_tokens: int, depth: int, temperature: float
) -> Strategy:
    """A strategy with n rollouts: each round continues every open path by one step, scores it, and copies or drops it.

    Paths that have ended go to a pool with their score. The search stops when the pool holds n paths, when no path is
    open, after ``depth`` rounds or when the budget ends. The answer is the majority of the pool weighted by score. If
    no path in the pool has an answer, the thinking of the best path is closed and its answer asked for; tokens are kept
    for that.

    Args:
        copies: how many rollouts continue each path.
        scorer: of partial traces; NaN counts as 0.
        n: rollouts in each round.
        step: the text that ends a step.
        step_tokens: cap of one step.
        depth: most rounds.
        temperature: of the steps.
    """
    if n < 1 or step_tokens < 1 or depth < 1 or not step:
        raise InvalidInput(f"n={n}, step_tokens={step_tokens}, depth={depth}, step={step!r}; all are at least 1 long")
    logprobs = LOGPROBS in scorer.needs

    async def solve(task: Task) -> Answer:
        score, prompt = scorer.bind(task), task.style.prompt(task.question.text)
        active: list[Sample] = [Sample("", None, 0)]
        shares = np.array([n])
        pool: list[Sample] = []
        weights: list[float] = []
        stopped, failure = StoppedBy.DONE, ""
        best = active[0]
        for round in range(depth):
            # equal texts are one request
            wanted: dict[str, int] = {}
            first: dict[str, Sample] = {}
            for sample, share in zip(active, shares.tolist(), strict=True):
                wanted[sample.text] = wanted.get(sample.text, 0) + share
                first.setdefault(sample.text, sample)
            extensions = [
                extend(
                    task,
                    prompt,
                    first[text],
                    count,
                    step=step,
                    step_tokens=step_tokens,
                    temperature=temperature,
                    seed=derive(task.seed, "step", round, text),
                    logprobs=logprobs,
                )
                for text, count in wanted.items()
                if count
            ]
            grown = await asyncio.gather(*extensions, return_exceptions=True)
            paths = [path for result in grown if isinstance(result, list) for path in result]
            failed = [result for result in grown if isinstance(result, BaseException)]
            for error in failed:
                if not isinstance(error, ModelError):
                    raise error
            if len(paths) < int(shares.sum()):
                stopped, failure = (StoppedBy.ERROR, str(failed[0])) if failed else (StoppedBy.BUDGET, "")
            if not paths:
                break
            scores = [0.0 if s != s else s for s in await score([path.sample for path in paths])]
            for path, s in zip(paths, scores, strict=True):
                if path.ended:
                    pool.append(path.sample)
                    weights.append(max(s, 0.0))
            going = [(path.sample, s) for path, s in zip(paths, scores, strict=True) if not path.ended]
            if not going or len(pool) >= n:
                break
            best = max(going, key=lambda pair: pair[1])[0]
            active = [sample for sample, _ in going]
            shares = copies(np.array([s for _, s in going]), [sample.text for sample in active], n)
        ranked = weighted_majority()([sample.answer for sample in pool], weights)
        if not ranked:
            forced = await force(task, prompt, best)
            return Answer(forced.answer, stopped, traces_of([*pool, forced]), error=failure)
        candidates = tuple(entry.answer for entry in ranked)
        return Answer(candidates[0], stopped, traces_of(pool), ranked[0].weight, failure, candidates)

    return Strategy(solve, scorer.needs | {PREFIX})


def by_share(shares: F64, n: int) -> I64:
    """Split n rollouts in proportion to ``shares`` [k]: [k] by largest remainder, ties to the first.

    >>> by_share(np.array([0.5, 0.25, 0.25]), 5)
    array([3, 1, 1])
    """
    exact = n * shares / shares.sum()
    units: I64 = np.floor(exact + 1e-12).astype(np.int64)
    order = np.lexsort((np.arange(len(units)), -(np.round(exact - units, 12))))
    units[order[: n - int(units.sum())]] += 1
    return units


def softmax(scores: F64, temperature: float) -> F64:
    """exp(scores / temperature) [k], normalised to sum 1."""
    z = np.exp((scores - scores.max()) / temperature)
    return np.asarray(z / z.sum())
