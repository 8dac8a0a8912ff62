"""Samples of one question, as many as the budget allows: what the strategies of this folder draw with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from budgeteer.core.errors import BudgetExceeded, InvalidInput, ModelError
from budgeteer.models.model import STOP, Choice, Message, Request
from budgeteer.solve import Answer, Style, Task, derive

MAX_TOKENS = 512
"""Cap of one sample where a strategy is not given another."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One trace, or the beginning of one.

    Attributes:
        text: as sampled, from the end of the prompt on.
        answer: in the style's normal form, None when it has none or was cut before it was complete.
        tokens: sampled.
        logprob: mean log-probability of a token, if it was asked for.
    """

    text: str
    answer: str | None
    tokens: int
    logprob: float | None = None


def read(style: Style, text: str, finish: str) -> str | None:
    """The answer of a trace; None if the trace was cut in the middle of it."""
    rest = style.split(text)[1]
    return style.read(text) if rest is not None and (finish == STOP or style.complete(rest)) else None


def mean_logprob(choice: Choice) -> float | None:
    """Of a choice's tokens; None without any."""
    return sum(choice.logprobs) / len(choice.logprobs) if choice.logprobs else None


def most_that_fit(task: Task, prompt: str | tuple[Message, ...], n: int, cap: int) -> int:
    """The largest number of choices up to n, each of up to ``cap`` tokens, for which the budget has room."""
    low, high, middle = 0, n, n  # all of them fit more often than not
    while low < high:
        if task.model.afford(prompt, n=middle, most=cap) == cap:
            low = middle
        else:
            high = middle - 1
        middle = (low + high + 1) // 2
    return low


class Sampler:
    """Draws samples of one question until its budget ends.

    Sample i is a function of the task's seed and of the sizes of the requests before it, so the first request of two
    strategies holds the same samples.

    Attributes:
        drawn: in order.
        stopped: ``""``; ``"budget"`` once the next sample does not fit; ``"error: ..."`` once a call failed for good.
    """

    def __init__(self, task: Task, *, max_tokens: int, temperature: float, logprobs: bool = False) -> None:
        if max_tokens < 1 or not temperature >= 0:
            raise InvalidInput(f"max_tokens={max_tokens}, temperature={temperature}; at least 1, and 0 or more")
        self.task, self.max_tokens, self.temperature, self.logprobs = task, max_tokens, temperature, logprobs
        self.prompt = task.style.prompt(task.question.text)
        if task.model.context is not None:
            self.max_tokens = max(1, min(max_tokens, task.model.context - task.model.count(self.prompt)))
        self.drawn: list[Sample] = []
        self.stopped = ""

    @property
    def answers(self) -> list[str | None]:
        """Of all samples drawn."""
        return [sample.answer for sample in self.drawn]

    async def more(self, n: int, *, share: float = 1.0) -> list[Sample]:
        """Up to n more samples; fewer once the budget ends.

        A request reserves its worst case, so what does not fit at once is asked for as earlier samples settle. When
        not even one sample of full length fits, a last one may use what is left, unless that is less than the
        shortest complete one took.

        Args:
            share: below 1, one request only, of at most this share of what fits (but at least one sample): the rest
                of the budget is for something else that has to be done with each.
        """
        new: list[Sample] = []
        while len(new) < n and not self.stopped:
            count, cap = most_that_fit(self.task, self.prompt, n - len(new), self.max_tokens), self.max_tokens
            if count == 0:
                count, cap = 1, self.task.model.afford(self.prompt, most=self.max_tokens)
                if cap < min((s.tokens for s in self.drawn if s.answer is not None), default=1):
                    self.stopped = "budget"
                    break
            try:
                new += await self._ask(max(1, int(count * share)), cap)
            except BudgetExceeded:  # somebody else on the same allowance was faster
                self.stopped = "budget"
            except ModelError as error:
                self.stopped = f"error: {error}"
            if share < 1:
                break
        return new

    async def once(self, n: int) -> int:
        """One request of up to n samples of full length, as many as fit now; returns how many came.

        Several questions that share an allowance call this at the same time: all reservations are made in the order
        of the calls, before anything settles, so the outcome does not depend on the speed of the answers.
        """
        count = most_that_fit(self.task, self.prompt, n, self.max_tokens)
        if count == 0 or self.stopped:
            return 0
        try:
            return len(await self._ask(count, self.max_tokens))
        except BudgetExceeded:
            return 0
        except ModelError as error:
            self.stopped = f"error: {error}"
            return 0

    async def _ask(self, count: int, cap: int) -> list[Sample]:
        seed = derive(self.task.seed, "sample", len(self.drawn))
        stop = self.task.style.stop
        request = Request(self.prompt, cap, count, self.temperature, stop, seed=seed, logprobs=self.logprobs)
        response = await self.task.model.generate(request)
        each = (response.usage.output or 0) // max(1, len(response.choices))
        found = [
            Sample(
                choice.text,
                read(self.task.style, choice.text, choice.finish),
                each if choice.tokens is None else choice.tokens,
                mean_logprob(choice),
            )
            for choice in response.choices
        ]
        self.drawn += found
        return found

    def answer(self, answer: str | None, stopped_by: str = "done", confidence: float | None = None) -> Answer:
        """The Answer with all traces; what ended the drawing early goes before ``stopped_by``."""
        return Answer(answer, self.stopped or stopped_by, traces_of(self.drawn), confidence)


def traces_of(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Their texts."""
    return tuple(sample.text for sample in samples)
