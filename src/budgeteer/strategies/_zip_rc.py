"""ZIP-RC: which of several samples go on, by their predicted value and remaining length together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64
from budgeteer.models.model import PREFIX, Choice, Chunk, Finish, Request, Response
from budgeteer.solve import Answer, StoppedBy, Strategy, Task, derive
from budgeteer.steer import zip_rc as steer_samples
from budgeteer.steer._zip_rc import COSTS, Costs, decide, middles, start
from budgeteer.strategies.kit.inside import NEEDS, with_answer

if TYPE_CHECKING:
    from budgeteer.engine.head import Head


@dataclass(frozen=True, eq=False)
class Table:
    """p(value, remaining length | tokens so far, class of prompt), as counted on finished traces.

    Attributes:
        values: [v] grid, ascending from 0.
        lengths: [l] left edges of bins of remaining length, tokens; the last is open-ended.
        every: tokens between two rows of the table.
        joint: class -> [t, v, l] with row t for samples that are still running after t * every tokens; the last row
            also stands for all later ones.
        finished: class -> [t] mean value of traces that ended within [t * every, (t + 1) * every) tokens.
    """

    values: tuple[float, ...]
    lengths: tuple[int, ...]
    every: int
    joint: dict[str, F64]
    finished: dict[str, F64]

    @classmethod
    def fit(
        cls,
        length: Sequence[int] | I64,
        value: Sequence[float] | F64,
        kind: Sequence[str],
        *,
        values: tuple[float, ...] = (0.0, 1.0),
        lengths: tuple[int, ...] = (0, 8, 16, 32, 64, 128),
        every: int = 8,
    ) -> Table:
        """Count finished traces.

        A share of 1e-3 of the uniform distribution is added to every row, so that no length is impossible.

        Args:
            length: [n] tokens of each trace.
            value: [n] of each trace, in [0, 1].
            kind: [n] class of each trace's prompt.
            values, lengths, every: as the attributes.

        Raises:
            InvalidInput: no traces, or not as many lengths as values and classes.

        >>> table = Table.fit([4, 4, 20, 20], [1, 1, 0, 1], ["a"] * 4, lengths=(0, 8, 16), every=8)
        >>> table.joint["a"][1].round(2)[:, 1].tolist()  # after 8 tokens: two run on for 12, half of them right
        [0.5, 0.5]
        """
        length, value = np.asarray(length, np.int64), np.asarray(value, np.float64)
        if not len(length) or not len(length) == len(value) == len(kind):
            raise InvalidInput(
                f"{len(length)} lengths, {len(value)} values and {len(kind)} classes; give one of each a trace"
            )
        grid = np.asarray(values)
        value_bin = np.abs(value[:, None] - grid).argmin(1)
        joint, finished = {}, {}
        for name in sorted(set(kind)):
            own = np.array([k == name for k in kind])
            rows, means = [], []
            for t in range(int(length[own].max()) // every + 1):
                running = own & (length > t * every)
                counts = np.full((len(values), len(lengths)), 1e-3 * max(running.sum(), 1) / grid.size / len(lengths))
                left = np.searchsorted(lengths, length[running] - t * every, side="right") - 1
                np.add.at(counts, (value_bin[running], left), 1.0)
                rows.append(counts / counts.sum())
                ended = own & (length // every == t)
                means.append(float(value[ended].mean()) if ended.any() else float(value[own].mean()))
            joint[name], finished[name] = np.array(rows), np.array(means)
        return cls(tuple(values), tuple(lengths), every, joint, finished)

    def predict(self, kind: str, tokens: int) -> F64:
        """[v, l] p(value, remaining length) of a sample of class ``kind`` that still runs after ``tokens`` tokens."""
        rows = self._of(self.joint, kind)
        return np.asarray(rows[min(tokens // self.every, len(rows) - 1)])

    def value(self, kind: str, tokens: int) -> float:
        """Expected value of a sample of class ``kind`` that ended with an answer after ``tokens`` tokens."""
        means = self._of(self.finished, kind)
        return float(means[min(tokens // self.every, len(means) - 1)])

    def _of(self, by_class: dict[str, F64], kind: str) -> F64:
        if kind not in by_class:
            raise InvalidInput(f"the table has no class {kind!r}, only {', '.join(sorted(by_class))}; fit one with it")
        return by_class[kind]


def zip_rc(
    table: Table | None = None,
    *,
    head: Head | None = None,
    classify: Callable[[str], str] = lambda text: "all",
    samples: int = 8,
    costs: Costs = COSTS,
    every: int = 8,
    trace_tokens: int = 128,
    temperature: float = 1.0,
) -> Strategy:
    """Parallel samples; every few tokens, samples whose part in the best answer is not worth their tokens are ended.

    Which samples go on, and how many are started, maximises the utility that the steer
    :func:`budgeteer.steer.zip_rc` states: expected best value of the samples, less the costs of the tokens and of the
    longest sample. It needs p(v, l), the joint distribution of a sample's value and remaining tokens. The answer is the
    one whose samples have the largest sum of values.

    p(v, l) comes from a table or from a head. With a table, the model may be a black box that continues text in
    parallel streams. With a head on the hidden states, all samples run in one call. If the task has a verifier, it
    gives finished samples their values.

    Helps where predictions tell samples apart early; where they do not, it is best-of-n with a rule for the number of
    samples.

    Args:
        table: of this very model and kind of prompt; None = use a head.
        head: of this very model, if there is no table; None = the one that lies beside it (``budgeteer heads train``).
        classify: question text -> class in the table.
        samples: most samples.
        costs: of tokens, in units of value per average sample; both 0 keeps everything.
        every: tokens between two decisions.
        trace_tokens: cap of one sample in tokens, answer included.
        temperature: of the draws, > 0.

    Source: Zero-Overhead Introspection for Adaptive Test-Time Compute (arXiv 2512.01457).

    >>> sorted(zip_rc().needs)
    ['internals']
    """
    if samples < 1 or every < 1 or trace_tokens < 1 or not temperature > 0:
        raise InvalidInput(
            f"samples={samples}, every={every}, trace_tokens={trace_tokens}, temperature={temperature}; "
            "give at least 1 of each and a temperature above 0"
        )

    async def inside(task: Task) -> Answer:
        from budgeteer.engine.head import own_head

        return await _inside(
            task, head or own_head(task.model, "zip_rc"), samples, costs, every, trace_tokens, temperature
        )

    async def outside(task: Task) -> Answer:
        assert table is not None
        kind = classify(task.question.text)
        return await _outside(task, table, kind, samples, costs, every, trace_tokens, temperature)

    return Strategy(inside, NEEDS) if table is None else Strategy(outside, frozenset({PREFIX}))


@dataclass(slots=True)
class Pool:
    """Samples that have ended, and the answers that they voted for.

    Attributes:
        task: the question.
        votes: answer -> sum of the values of its samples.
        known: (value, tokens) of each sample.
        traces: text of each sample.
    """

    task: Task
    votes: dict[str, float] = field(default_factory=dict)
    known: list[tuple[float, int]] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)

    def add(self, text: str, tokens: int, value: float) -> None:
        """Add one sample; if the task has a verifier, it replaces ``value``."""
        self.traces.append(text)
        answer = self.task.style.read(text)
        if answer is None:
            value = 0.0
        else:
            value = value if self.task.check is None else self.task.check(answer)
            self.votes[answer] = self.votes.get(answer, 0.0) + value
        self.known.append((value, tokens))

    def answer(self, stopped_by: StoppedBy) -> Answer:
        """The answer with the most votes; the one seen first if several have the same."""
        if not self.votes:
            return Answer(None, stopped_by, tuple(self.traces))
        best = max(self.votes, key=lambda answer: self.votes[answer])
        total = sum(self.votes.values())
        return Answer(best, stopped_by, tuple(self.traces), self.votes[best] / total if total else None)


async def _inside(
    task: Task, head: Head, samples: int, costs: Costs, every: int, trace_tokens: int, temperature: float
) -> Answer:
    """Waves of one call each, as large as the budget covers, until no new sample is worth its tokens."""
    prompt, style, pool = task.style.prompt(task.question.text), task.style, Pool(task)
    values, tokens = np.array(head.settings["values"]), middles(head.settings["lengths"])
    prior: F64 | None = None
    left, wave = samples, 0
    while left:
        cap = task.model.afford(prompt, most=trace_tokens)
        if not cap:
            return pool.answer(StoppedBy.BUDGET)
        n = max(k for k in range(1, left + 1) if k == 1 or task.model.afford(prompt, n=k, most=cap) == cap)
        if prior is not None:
            n = start(prior, n, np.array([v for v, _ in pool.known]), values, tokens, costs)
        if not n:
            break
        steer = with_answer(task, steer_samples(head, costs=costs, every=every, known=tuple(pool.known)))
        request = Request(
            prompt, cap, n, temperature, style.stop, derive(task.seed, "zip-rc", wave), steer=steer, close=style.close
        )
        response = await task.model.generate(request)
        for choice in response.choices:
            if choice.notes is not None and not choice.notes["ended"]:
                pool.add(choice.text, choice.tokens or 0, choice.notes["value"])
        prior = np.array(response.choices[0].notes["prior"]) if prior is None else prior
        left, wave = left - sum(bool(choice.tokens) for choice in response.choices), wave + 1
    return pool.answer(StoppedBy.DONE)


async def _outside(
    task: Task, table: Table, kind: str, samples: int, costs: Costs, every: int, trace_tokens: int, temperature: float
) -> Answer:
    """Streams that are read ``every`` tokens at a time, and closed when they are not worth their tokens."""
    prompt, pool = task.style.prompt(task.question.text), Pool(task)
    values, tokens = np.array(table.values), middles(table.lengths)
    first = table.predict(kind, 0)
    left, begun, short = samples, 0, False
    while left and not short:
        n = start(first, left, np.array([v for v, _ in pool.known]), values, tokens, costs)
        if not n:
            break
        left -= n
        going: list[Reading] = []
        for _ in range(n):
            cap = task.model.afford(prompt, most=trace_tokens)
            if not cap:
                short = True
                break
            request = Request(prompt, cap, 1, temperature, task.style.stop, derive(task.seed, "zip-rc", begun))
            reading = Reading(task.model.stream(request))
            begun += 1
            await reading.read(1)  # reserves; a later stream sees what is left
            going.append(reading)
        until = every
        while going:
            await asyncio.gather(*(reading.read(until) for reading in going))
            for reading in going:
                if (choice := reading.choice) is not None:
                    spent = choice.tokens or reading.tokens
                    pool.add(choice.text, spent, table.value(kind, spent) if choice.finish == Finish.STOP else 0.0)
            going = [reading for reading in going if reading.choice is None]
            if going:
                known = np.array(pool.known, np.float64).reshape(-1, 2)
                joint = np.array([table.predict(kind, reading.tokens) for reading in going])
                so_far = np.array([reading.tokens for reading in going], np.float64)
                keep = decide(joint, so_far, known[:, 0], known[:, 1], values, tokens, costs)
                for reading, kept in zip(going, keep.tolist(), strict=True):
                    if not kept:
                        await reading.close()
                going = [reading for reading, kept in zip(going, keep.tolist(), strict=True) if kept]
            until += every
    return pool.answer(StoppedBy.BUDGET if short else StoppedBy.DONE)


class Reading:
    """A stream of one choice that is read in pieces.

    Attributes:
        tokens: read so far.
        choice: the whole choice, once the stream has ended; None before.
    """

    def __init__(self, stream: AsyncIterator[Chunk | Response]) -> None:
        self.stream, self.tokens = cast("AsyncGenerator[Chunk | Response]", stream), 0
        self.choice: Choice | None = None

    async def read(self, until: int) -> None:
        """Read until ``until`` tokens were read in all, or the stream ends."""
        while self.choice is None and self.tokens < until:
            piece = await anext(self.stream)
            if isinstance(piece, Response):
                self.choice = piece.choices[0]
            else:
                self.tokens += piece.tokens

    async def close(self) -> None:
        """End the stream here; what was read is charged."""
        await self.stream.aclose()
