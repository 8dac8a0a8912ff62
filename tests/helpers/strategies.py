"""Strategies of the tests' own: one sample, and a vote over several."""

from __future__ import annotations

import asyncio
from collections import Counter

from budgeteer.core.errors import BudgetExceeded, ModelError
from budgeteer.models.model import INTERNALS, Request
from budgeteer.solve import Answer, StoppedBy, Strategy, Task, derive


def once(tokens: int = 60) -> Strategy:
    """One sample."""
    return vote(n=1, tokens=tokens)


def vote(n: int = 4, tokens: int = 60) -> Strategy:
    """The most frequent answer of n samples, one call each, one after the other."""

    async def solve(task: Task) -> Answer:
        prompt = task.style.prompt(task.question.text)
        traces, answers, stopped, failure = [], Counter[str](), StoppedBy.DONE, ""
        for i in range(n):
            request_tokens = task.model.afford(prompt, most=tokens)
            if not request_tokens:
                stopped = StoppedBy.BUDGET
                break
            request = Request(prompt, request_tokens, stop=task.style.stop, seed=derive(task.seed, i))
            try:
                response = await task.model.generate(request)
            except BudgetExceeded:
                stopped = StoppedBy.BUDGET
                break
            except ModelError as error:
                stopped, failure = StoppedBy.ERROR, str(error)
                continue
            traces.append(response.choices[0].text)
            answer = task.style.read(traces[-1])
            if answer is not None:
                answers[answer] += 1
        if not answers:
            return Answer(None, stopped, tuple(traces), error=failure)
        return Answer(answers.most_common(1)[0][0], stopped, tuple(traces), error=failure)

    return Strategy(solve)


def inside() -> Strategy:
    """One that needs internals."""
    return once()._replace(needs=frozenset({INTERNALS}))


def together(n: int = 4, tokens: int = 60) -> Strategy:
    """All samples at once."""

    async def solve(task: Task) -> Answer:
        prompt = task.style.prompt(task.question.text)
        size = task.model.afford(prompt, most=tokens)
        if not size:
            return Answer(None, StoppedBy.BUDGET)
        calls = [task.model.generate(Request(prompt, size, seed=derive(task.seed, i))) for i in range(n)]
        responses = await asyncio.gather(*calls, return_exceptions=True)
        good = [response for response in responses if not isinstance(response, BaseException)]
        read = [task.style.read(response.choices[0].text) for response in good]
        answers = [answer for answer in read if answer is not None]
        if not answers:
            return Answer(None, StoppedBy.DONE)
        return Answer(max(answers, key=answers.count), StoppedBy.DONE)

    return Strategy(solve)
