"""SCALE: split a question into sub-problems and think only about the difficult ones."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from budgeteer.core.errors import BudgetExceeded, InvalidInput, ModelError
from budgeteer.models.chat import Prompt, continued
from budgeteer.models.model import PREFIX, Finish, Request
from budgeteer.solve import Answer, StoppedBy, Strategy, Task, derive
from budgeteer.strategies.kit.samples import MAX_TOKENS, read
from budgeteer.strategies.kit.trace import aside

OUTLINE = """Question: {question}

List the sub-problems to solve in order, one a line, without solving them.
1."""
RATING = """Question: {question}

Sub-problem: {part}

How difficult is this sub-problem, from 0 (trivial) to 10 (very hard)?
Rating:"""

Plan = Callable[[str], Sequence[str]]
"""Question -> texts of its sub-problems, in order; the last one asks for the answer."""
Difficulty = Callable[[str, str], float]
"""(question, sub-problem) -> 0 (trivial) to 1."""
Ask = Callable[[str, Sequence[tuple[str, str]], str], str]
"""(question, (sub-problem, answer) pairs so far, sub-problem) -> the text that asks for it."""


@dataclass(frozen=True, slots=True)
class _Budget(Exception):
    """An intermediate call exceeded the budget, or its answer could not be read."""

    reason: StoppedBy


Beside = Callable[[str, int, str, str, str], Awaitable[str]]
"""(text, cap, stage, what it is about, stop text) -> what the model writes."""


def scale(
    threshold: float = 0.2,
    *,
    plan: Plan | None = None,
    difficulty: Difficulty | None = None,
    ask: Ask | None = None,
    max_tokens: int = MAX_TOKENS,
    plan_tokens: int = 256,
    temperature: float = 0.6,
) -> Strategy:
    """Split a question into sub-problems; think about one only if its difficulty exceeds ``threshold``.

    Sub-problems are solved in order, and each sees the answers of all before it. To answer without thinking, the
    thinking is closed before it begins. The last sub-problem always thinks, as in the official code. Outline and
    ratings are charged, with the stages "plan" and "judge". The answer of the last sub-problem is the answer of the
    question. If the budget ends before, the whole question is answered without thinking; tokens are kept for that.

    When it helps: questions have easy parts on which thinking is wasted, and difficulty can be told beforehand. When
    not: a wrong early answer is never revised, so a threshold that is too high spoils the rest; at the paper's best
    threshold the model thinks about three quarters of the parts.

    "SCALE: Selective Resource Allocation for Overcoming Performance Bottlenecks in Mathematical Test-time Scaling",
    AAAI 2026 (one outline instead of the best of 8).

    Args:
        threshold: in [0, 1].
        plan: None = the model lists the sub-problems.
        difficulty: None = the model rates each.
        ask: None = the earlier answers are listed before the sub-problem.
        max_tokens: cap of the trace of one sub-problem that is thought about.
        plan_tokens: cap of the outline.
        temperature: of all traces.
    """
    if not 0 <= threshold <= 1:
        raise InvalidInput(f"scale(threshold={threshold}); difficulties are 0 to 1")
    question_of = listed if ask is None else ask

    async def solve(task: Task) -> Answer:
        whole = task.question.text
        # the answer of last resort
        kept = task.model.count(task.style.prompt(whole)) + task.model.count(task.style.closing) + _answer(task)

        async def call(prompt: Prompt, cap: int, stage: str, about: str, *, stop: tuple[str, ...], last: bool) -> str:
            room = task.model.afford(prompt, most=cap, keep=0 if last else kept)
            if room < min(cap, _answer(task)):
                raise _Budget(StoppedBy.BUDGET)
            seed = derive(task.seed, stage, about)
            try:
                response = await task.model.generate(
                    Request(prompt, room, temperature=temperature, stop=stop, seed=seed), stage=stage
                )
            except BudgetExceeded as error:
                raise _Budget(StoppedBy.BUDGET) from error
            choice = response.choices[0]
            finish[0] = choice.finish
            return choice.text

        async def beside(text: str, cap: int, stage: str, about: str, stop: str) -> str:
            return await call(aside(task, text), cap, stage, about, stop=(stop,), last=False)

        async def answer(text: str, thinks: bool, *, last: bool = False) -> tuple[str, str | None]:
            prompt = task.style.prompt(text)
            start = "" if thinks else task.style.closed("")
            cap = max_tokens if thinks else _answer(task)
            trace = start + await call(continued(prompt, start), cap, "sample", text, stop=task.style.stop, last=last)
            return trace, read(task.style, trace, finish[0])

        finish = [Finish.CUT]
        traces: list[str] = []
        known: list[tuple[str, str]] = []
        try:
            parts = list(plan(whole)) if plan is not None else await _outline(beside, whole, plan_tokens)
            parts = parts or [whole]
            rates = [
                difficulty(whole, part) if difficulty is not None else await _rate(beside, whole, part)
                for part in parts[:-1]
            ]
            for part, rate in zip(parts, [*rates, 1.0], strict=True):
                trace, solved = await answer(question_of(whole, known, part), rate > threshold)
                traces.append(trace)
                if solved is None:
                    raise _Budget(StoppedBy.UNANSWERED)
                known.append((part, solved))
            return Answer(known[-1][1], StoppedBy.DONE, tuple(traces))
        except _Budget as end:
            stopped, failure = end.reason, ""
        except ModelError as error:
            stopped, failure = StoppedBy.ERROR, str(error)
        try:
            trace, guess = await answer(whole, False, last=True)
        except _Budget:
            return Answer(None, StoppedBy.BUDGET, tuple(traces))
        except ModelError as error:
            return Answer(None, StoppedBy.ERROR, tuple(traces), error=str(error))
        return Answer(guess, stopped, (*traces, trace), error=failure)

    return Strategy(solve, frozenset({PREFIX}))


def listed(question: str, known: Sequence[tuple[str, str]], part: str) -> str:
    """The text that asks for a sub-problem: the question, the earlier sub-problems with answers, and ``part``."""
    lines = [f"{done} -> {answer}" for done, answer in known]
    return "\n".join([question, *lines, part]) if part != question or known else question


async def _outline(call: Beside, question: str, cap: int) -> list[str]:
    text = await call(OUTLINE.replace("{question}", question), cap, "plan", "", "\n\n")
    lines = [re.sub(r"^\s*\d+[.)]\s*", "", line).strip() for line in text.splitlines()]
    return [*[line for line in lines if line][:-1], question]  # the last one is the question itself


async def _rate(call: Beside, question: str, part: str) -> float:
    prompt = RATING.replace("{question}", question).replace("{part}", part)
    rating = re.search(r"\d+", await call(prompt, 4, "judge", part, "\n"))
    return 0.5 if rating is None else min(int(rating[0]), 10) / 10


def _answer(task: Task) -> int:
    return task.style.answer_tokens
