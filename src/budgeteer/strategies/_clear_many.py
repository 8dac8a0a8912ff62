"""CLEAR over questions: each gets the length that its answer needs, or nothing, from one budget."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

import numpy as np

from budgeteer.allocate import clear
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, Items
from budgeteer.solve import Answer, StoppedBy, Task, derive
from budgeteer.strategies._split import scarcest
from budgeteer.strategies.kit.samples import MAX_TOKENS, Sampler

_LEAST = 8.0
"""Tokens of the narrowest surge, where the pilot's lengths lie on a line."""


async def clear_many(
    tasks: Sequence[Task], *, pilot: int = 8, rounds: int = 3, max_tokens: int = MAX_TOKENS
) -> AsyncIterator[tuple[int, Answer]]:
    """Answer many questions from one allowance with one greedy trace each; yields (position, answer).

    ``pilot`` questions, spread over the shorter half of the prompts, are answered first, with half of the budget at
    most. A line through (tokens of the
    prompt, tokens of the trace) of those that were answered predicts the length of every other trace, with s the
    standard deviation around it. The allocator :func:`budgeteer.allocate._clear.clear` then splits what is left, with
    thresholds at the predicted length less s and the surge ``2 s`` wide: traces are cut at their units, and questions
    that do not pay the market's price get none. What traces leave unused is split again over those without an answer,
    for a trace that was cut with a threshold at its cut, since it has to be begun anew; what the last round leaves
    goes to whoever can have a whole trace, shortest prediction first.

    When it helps: the budget is too small for all, and length can be seen in the question. When not: it is not, since
    then a plain greedy trace for each is the same. Who is abandoned has no answer.

    Paper: "The Shadow Price of Reasoning: Economic Perspective on Optimal Budget Allocation for LLMs",
    arXiv 2606.03092, where a text encoder (DeBERTa-v3) trained on other questions predicts the thresholds.

    Args:
        tasks: one for each question, on one allowance.
        pilot: questions that are answered first, >= 2; at most a quarter of all, but 2.
        rounds: of allocation, >= 1.
        max_tokens: cap of a trace.

    Raises:
        InvalidInput: numbers out of range, or tasks on several allowances.
    """
    if pilot < 2 or rounds < 1 or max_tokens < 1:
        raise InvalidInput(f"clear(pilot={pilot}, rounds={rounds}, max_tokens={max_tokens}); pilot >= 2, the rest >= 1")
    if len({id(task.model.allowance) for task in tasks}) > 1:
        raise InvalidInput("the questions have different allowances; give all of them one")
    if not tasks:
        return
    samplers = [Sampler(task, max_tokens=max_tokens, temperature=0.0) for task in tasks]
    prompt = np.array([task.model.count(sampler.prompt) for task, sampler in zip(tasks, samplers, strict=True)], float)
    tried: dict[int, int] = {}

    async def ask(caps: dict[int, int]) -> None:
        """One trace each, in waves of as many as fit at once."""
        while caps:
            came = await asyncio.gather(*(samplers[i].once(1, cap) for i, cap in caps.items()))
            done = [i for i, got in zip(list(caps), came, strict=True) if got or samplers[i].stopped]
            for i in done:
                tried[i] = caps.pop(i)
            if not done:
                break

    def open_ones() -> list[int]:
        return [i for i, sampler in enumerate(samplers) if not _answer(sampler) and not sampler.stopped]

    short = np.argsort(prompt, kind="stable")[: max(2, (len(tasks) + 1) // 2)]
    count = min(len(short), max(2, min(pilot, len(tasks) // 4)))
    first = sorted(set(short[np.linspace(0, len(short) - 1, count).astype(int)].tolist()))
    kind, left = scarcest(tasks)
    each = left // (2 * len(first))
    caps = {i: min(max_tokens, each - (int(prompt[i]) if kind == "all" else 0)) for i in first}
    await ask({i: cap for i, cap in caps.items() if cap > 0})
    seen = [i for i in tried if _answer(samplers[i])]
    length = np.array([samplers[i].drawn[-1].tokens for i in seen], float)
    predicted, width = _line(prompt[seen], length, prompt) if seen else (np.full(len(tasks), 1.0), _LEAST)
    for number in range(rounds):
        rows, (kind, left) = open_ones(), scarcest(tasks)
        if not rows or left < 1:
            break
        fixed = prompt[rows] if kind == "all" else np.zeros(len(rows))
        below = np.array([max(predicted[i] - width / 2, tried.get(i, 0), 0.0) for i in rows])
        items = Items(tuple(tasks[i].question.id for i in rows), np.ones(len(rows)), threshold=below + fixed)
        rng = np.random.default_rng(derive(tasks[0].seed, "clear", number))
        method = clear(width)
        plan = method.allocate(left, items, method.init(items), rng=rng)
        units = (plan.units - np.ceil(fixed)).astype(int)
        caps = {i: min(int(n), max_tokens) for i, n in zip(rows, units.tolist(), strict=True) if n > tried.get(i, 0)}
        if not caps:
            break
        await ask(caps)
    for i in sorted(open_ones(), key=lambda i: (predicted[i], i)):
        if tried.get(i, 0) < max_tokens:
            await ask({i: max_tokens})
    for i, sampler in enumerate(samplers):
        yield i, sampler.answer(_answer(sampler), StoppedBy.DONE if _answer(sampler) else StoppedBy.BUDGET)


def _answer(sampler: Sampler) -> str | None:
    """The answer of the last trace that has one."""
    return next((answer for answer in reversed(sampler.answers) if answer is not None), None)


def _line(x: F64, y: F64, at: F64) -> tuple[F64, float]:
    """The least-squares line through (x, y) at other points, 1 or more, and twice the standard deviation around it."""
    slope = 0.0 if np.ptp(x) == 0 else float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    fitted = y.mean() + slope * (x - x.mean())
    free = max(1, len(x) - 2)
    deviation = math.sqrt(float(((y - fitted) ** 2).sum()) / free)
    return np.maximum(y.mean() + slope * (at - x.mean()), 1.0), max(2 * deviation, _LEAST)
