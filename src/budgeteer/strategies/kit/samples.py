"""Samples of one question, as many as the budget allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from budgeteer.core.errors import BudgetExceeded, InvalidInput, ModelError
from budgeteer.models.chat import Prompt
from budgeteer.models.model import Choice, Finish, Request
from budgeteer.solve import Answer, StoppedBy, Style, Task, derive
from budgeteer.strategies.aggregator import Ranked

MAX_TOKENS = 512
"""Default cap of one sample, in tokens."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One trace, or the beginning of one.

    Attributes:
        text: as sampled, from the end of the prompt on.
        answer: in the style's normal form; None if there is none, or it was cut before it was complete.
        tokens: number of generated tokens.
        logprob: mean log-probability of its tokens, if it was asked for.
    """

    text: str
    answer: str | None
    tokens: int
    logprob: float | None = None


def read(style: Style, text: str, finish: Finish) -> str | None:
    """The answer of a trace, given how it ended; None if it has none or was cut before the answer was complete."""
    rest = style.split(text)[1]
    return style.read(text) if rest is not None and (finish == Finish.STOP or style.complete(rest)) else None


def mean_logprob(choice: Choice) -> float | None:
    """Mean log-probability of a choice's tokens; None if it has none."""
    return sum(choice.logprobs) / len(choice.logprobs) if choice.logprobs else None


def most_that_fit(task: Task, prompt: Prompt, n: int, cap: int) -> int:
    """The largest number of choices up to n, each of up to ``cap`` tokens, for which the budget has room."""
    low, high, middle = 0, n, n  # usually all of them fit
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
        drawn: the samples so far, in order.
        stopped: why no more are drawn: BUDGET once the next sample does not fit, ERROR once a call failed finally;
            None before.
        error: of that call.
    """

    def __init__(self, task: Task, *, max_tokens: int, temperature: float, logprobs: bool = False) -> None:
        if max_tokens < 1 or not temperature >= 0:
            raise InvalidInput(f"max_tokens={max_tokens}, temperature={temperature}; at least 1, and 0 or more")
        self.task, self.max_tokens, self.temperature, self.logprobs = task, max_tokens, temperature, logprobs
        self.prompt = task.style.prompt(task.question.text)
        if task.model.context is not None:
            self.max_tokens = max(1, min(max_tokens, task.model.context - task.model.count(self.prompt)))
        self.drawn: list[Sample] = []
        self.stopped: StoppedBy | None = None
        self.error = ""

    @property
    def answers(self) -> list[str | None]:
        """The answers of all samples drawn so far."""
        return [sample.answer for sample in self.drawn]

    async def more(self, n: int, *, share: float = 1.0) -> list[Sample]:
        """Draw up to n more samples, fewer if the budget ends; returns the new ones.

        A request reserves its worst case, so samples that do not fit at once are drawn when earlier ones have settled.
        If not even one sample of full length fits, a last one may use what is left, unless that is less than the
        shortest complete sample took.

        Args:
            n: samples.
            share: if it is below 1, one request only, of at most this share of the samples that fit (but at least one):
                the rest of the budget is kept, for example to score them.
        """
        new: list[Sample] = []
        while len(new) < n and not self.stopped:
            count, cap = most_that_fit(self.task, self.prompt, n - len(new), self.max_tokens), self.max_tokens
            if count == 0:
                count, cap = 1, self.task.model.afford(self.prompt, most=self.max_tokens)
                if cap < min((s.tokens for s in self.drawn if s.answer is not None), default=1):
                    self.stopped = StoppedBy.BUDGET
                    break
            try:
                new += await self._ask(max(1, int(count * share)), cap)
            except BudgetExceeded:  # somebody else on the same allowance was faster
                self.stopped = StoppedBy.BUDGET
            except ModelError as error:
                self.stopped, self.error = StoppedBy.ERROR, str(error)
            if share < 1:
                break
        return new

    async def once(self, n: int, most: int = 0) -> int:
        """Draw up to n samples of full length in one request, as many as fit now; returns how many came.

        Args:
            n: samples.
            most: tokens of each, if that is below the full length; 0 = the full length.

        Several questions that share an allowance call this at the same time: all reservations are made in the order of
        the calls, before any of them settles, so the result does not depend on the speed of the answers.
        """
        cap = min(self.max_tokens, most or self.max_tokens)
        count = most_that_fit(self.task, self.prompt, n, cap)
        if count == 0 or self.stopped:
            return 0
        try:
            return len(await self._ask(count, cap))
        except BudgetExceeded:
            return 0
        except ModelError as error:
            self.stopped, self.error = StoppedBy.ERROR, str(error)
            return 0

    async def _ask(self, count: int, cap: int) -> list[Sample]:
        seed = derive(self.task.seed, "sample", len(self.drawn))
        stop = self.task.style.stop
        request = Request(self.prompt, cap, count, self.temperature, stop, seed=seed, logprobs=self.logprobs)
        response = await self.task.model.generate(request)
        each = (response.usage.output or 0) // max(1, len(response.choices))
        new = [
            Sample(
                choice.text,
                read(self.task.style, choice.text, choice.finish),
                each if choice.tokens is None else choice.tokens,
                mean_logprob(choice),
            )
            for choice in response.choices
        ]
        self.drawn += new
        return new

    def answer(
        self, answer: str | None, stopped_by: StoppedBy = StoppedBy.DONE, confidence: float | None = None
    ) -> Answer:
        """An Answer with the traces of all samples; if drawing ended early, that reason replaces ``stopped_by``."""
        return Answer(answer, self.stopped or stopped_by, traces_of(self.drawn), confidence, self.error)

    def best(self, ranked: Sequence[Ranked], stopped_by: StoppedBy = StoppedBy.DONE) -> Answer:
        """An Answer with the first of the ranked answers and all of them as candidates; without one if there is none.

        The confidence is the first one's weight, where that is in [0, 1], else the nearer end.
        """
        if not ranked:
            return self.answer(None, stopped_by)
        first = ranked[0]
        answer = self.answer(first.answer, stopped_by, min(1.0, max(0.0, first.weight)))
        return replace(answer, candidates=tuple(entry.answer for entry in ranked))


def traces_of(samples: Sequence[Sample]) -> tuple[str, ...]:
    """The texts of samples."""
    return tuple(sample.text for sample in samples)
