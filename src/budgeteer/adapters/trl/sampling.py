"""Rollouts by ``model.generate`` as TRL calls it, with caps by row, a hard budget and steers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from budgeteer.adapters.transformers import Part, Steered
from budgeteer.adapters.trl.slices import Slices, Told
from budgeteer.core.plan import CUT, ENDED, I64, RUNNING
from budgeteer.core.steer import Internals, Need, Rows
from budgeteer.engine.table import ENDS, Marks, marked, marks_of_text
from budgeteer.models.inside import inside_of
from budgeteer.rl.rollouts import Role, Rollouts
from budgeteer.rl.step import Round

OFFERED = frozenset({Need.TOKENS, Need.MARKERS, Need.TEXT, Need.MARGIN, Need.LOGITS})
"""What a steer may need in training with TRL: nothing that depends on weights, which change."""
OFFERED_BY_VLLM = OFFERED - {Need.LOGITS}
"""What it may need where vLLM generates, which tells of tokens when they are drawn."""


class Row(NamedTuple):
    """One rollout as it comes out of ``generate``.

    Attributes:
        number: of the row among all rows of the round.
        tokens, logprob, forced: [length]; ``logprob`` is None where the engine does not tell.
        status: how it ended, a :class:`budgeteer.core.plan.Status`.
        closed, answered: length at which the thinking was closed and the answer complete, -1 = never.
        weight: importance weight, 1 unless a gate kept the row by chance.
        lost: tokens that were generated behind its end.
        read: [length] which tokens the model was given between its turns or as a hint; ``()`` = none.
    """

    number: int
    tokens: list[int]
    status: int
    closed: int
    answered: int
    logprob: list[float] | None
    forced: list[bool]
    weight: float
    lost: int = 0
    read: Sequence[bool] = ()

    @property
    def mask(self) -> list[int]:
        """[length] 1 for tokens that may carry gradient, 0 for those that were forced or read."""
        return [int(not (forced or read)) for forced, read in zip(self.forced, self.given, strict=True)]

    @property
    def given(self) -> Sequence[bool]:
        """[length] as ``read``, of any row."""
        return self.read or [False] * len(self.tokens)


class Capped(StoppingCriteria):  # type: ignore[misc, unused-ignore]
    """Ends rows at their caps, and all rows when the budget does not pay one more token for each.

    Args:
        caps: [rows] most tokens of each.
        ends: ids of the tokens that end a sequence.
        budget: of all rows together, at least one token for each; None = no limit.
    """

    def __init__(self, caps: I64, ends: Sequence[int], budget: int | None) -> None:
        self.caps, self.ends, self.budget = caps, np.asarray(ends), budget
        self.length = np.zeros(len(caps), np.int64)
        self.status = np.full(len(caps), RUNNING, np.int8)
        self.kwargs = {"stopping_criteria": StoppingCriteriaList([self])}

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        running = self.status == RUNNING
        self.length += running
        ended = running & np.isin(input_ids[:, -1].cpu().numpy(), self.ends)
        self.status[running & (self.length >= self.caps)] = CUT
        self.status[ended] = ENDED
        running = self.status == RUNNING
        if self.budget is not None and int(self.length.sum() + running.sum()) > self.budget:
            self.status[running] = CUT
        return torch.from_numpy(self.status != RUNNING).to(input_ids.device)


class Sampling:
    """How the rows of a round are generated.

    Args:
        tokenizer: of the model.
        vocabulary: rows of the model's embedding.
        ends: ids of the tokens that end a sequence.
        close: text that closes the thinking, ``""`` = there is none.
        answer: regular expression of a complete answer.
        temperature: of the draws.
    """

    def __init__(
        self, tokenizer: Any, vocabulary: int, ends: Sequence[int], close: str, answer: str, temperature: float
    ) -> None:
        self.ends, self.temperature = list(ends), temperature
        self._made: tuple[Internals, Marks] | None = None
        self._of = tokenizer, vocabulary, close, answer
        marks_of_text(Internals(None, (), -1, lambda text: []), (), "", (), answer)  # refuses what is no pattern

    def inside(self) -> tuple[Internals, Marks]:
        """What a steer knows of the model and what tokens mean; every token is decoded for it, once."""
        if self._made is None:
            tokenizer, vocabulary, close, answer = self._of
            self._made = inside_of(tokenizer, vocabulary, self.ends, close, answer)
        return self._made

    def slices(self, prompts: list[list[int]], work: Round, group: I64, rows: I64, budget: int | None) -> Slices:
        """The same for an engine that runs whole requests.

        Args:
            prompts: token ids of the rows' prompts.
            work, group, rows, budget: as in :meth:`watch`.
        """
        caps = work.max_tokens[group[rows]]
        if work.steer is None:
            return self.plain(prompts, caps, budget)
        inside, marks = self.inside()
        told = Told(work.steer, inside, _part(work, group, rows))
        return Slices(prompts, caps, marks, self.temperature, budget, told)

    def plain(self, prompts: list[list[int]], caps: I64, budget: int | None) -> Slices:
        """The same without a steer.

        Args:
            prompts, budget: as in :meth:`slices`.
            caps: [n] most tokens of each row.
        """
        ends = np.zeros(self._of[1], np.uint8)
        ends[self.ends] = ENDS
        return Slices(prompts, caps, Marks(ends, ()), self.temperature, budget)

    def watch(self, model: Any, work: Round, group: I64, rows: I64, budget: int | None) -> Capped | Steered:
        """What ends the rows of one call of ``generate``.

        Args:
            model: that generates.
            work: the round.
            group: [n] of all its rows, indices of their prompts.
            rows: consecutive ones of these, which the call generates.
            budget: of the call; None = no limit.
        """
        caps = work.max_tokens[group]
        if work.steer is None:
            return Capped(caps[rows], self.ends, budget)
        return Steered(
            model, work.steer, *self.inside(), caps=caps[rows], temperature=self.temperature, seed=work.seed,
            budget=budget, part=_part(work, group, rows),
        )  # fmt: skip

    def rows(self, watch: Capped | Steered | Slices, numbers: I64, tokens: list[list[int]]) -> list[Row]:
        """The rows of a call of ``generate``, or of an engine.

        Args:
            watch: of the call.
            numbers: of the rows in their round.
            tokens: as TRL cut them, at the first end of sequence; padding may stand behind a row that ended otherwise.
                They are read where ``watch`` has none.
        """
        if isinstance(watch, Capped):
            return [
                Row(number, tokens[i][:n], int(watch.status[i]), -1, -1, None, [False] * n, 1.0)
                for i, (number, n) in enumerate(zip(numbers.tolist(), watch.length.tolist(), strict=True))
            ]
        t, weight = watch.table, watch.weight
        lost = watch.lost if isinstance(watch, Slices) else np.zeros(len(numbers), np.int64)
        return [
            Row(
                number, t.tokens[i, :n].tolist(), int(t.status[i]), int(t.closed[i]), int(t.answered[i]),
                t.logprob[i, :n].tolist(), t.forced[i, :n].tolist(), float(weight[i]), int(lost[i]),
            )
            for i, (number, n) in enumerate(zip(numbers.tolist(), watch.length.tolist(), strict=True))
        ]  # fmt: skip

    def marked(self, rows: list[Row]) -> list[Row]:
        """The rows with the lengths at which thinking and answer were complete; plain generation does not tell."""
        inside, marks = self.inside()
        tokens, length = _padded([row.tokens for row in rows], 0, np.int64), [len(row.tokens) for row in rows]
        closed, answered = marked(tokens, np.array(length, np.int64), marks, inside.pieces)
        return [row._replace(closed=int(closed[i]), answered=int(answered[i])) for i, row in enumerate(rows)]


def _part(work: Round, group: I64, rows: I64) -> Part:
    """The rows of one call among those that the steer of a round knows."""
    of = group if work.asked is None else work.asked.of[group]
    keys = tuple(work.view.items.keys[g] for g in of.tolist())
    return Part(Rows(keys, work.max_tokens[group], work.seed), group, int(rows[0]))


def rollouts_of(rows: list[Row], work: Round, group: I64, prompts: Sequence[Sequence[int]]) -> Rollouts:
    """Rows of a round as rollouts, not scored yet, with the hints that they go on from.

    Args:
        rows: those that were started.
        work: the round.
        group: [n] of all rows of the round, indices of its requests.
        prompts: token ids of all training prompts.
    """
    prompt_index = group[np.array([row.number for row in rows], np.int64)]
    length = np.array([len(row.tokens) for row in rows], np.int64)
    tokens = _padded([row.tokens for row in rows], 0, np.int64)
    within = np.arange(tokens.shape[1]) < length[:, None]
    forced = _padded([row.forced for row in rows], False, np.bool_)
    known = [row.logprob if row.logprob is not None else [float("nan")] * len(row.tokens) for row in rows]
    read = _padded([row.given for row in rows], False, np.bool_)
    of_tokens = np.where(read, Role.HINT, np.where(forced, Role.FORCED, Role.SAMPLED))
    role = np.where(within, of_tokens, Role.NONE).astype(np.int8)
    keys, asked, _ = work.requests(prompts)
    ones = np.ones(len(rows))

    def of_rows(name: str, dtype: Any) -> NDArray[Any]:
        return np.array([getattr(row, name) for row in rows], dtype)

    made = Rollouts(
        keys=tuple(keys),
        prompts=tuple(asked),
        group=prompt_index,
        tokens=tokens,
        length=length,
        cap=work.max_tokens[prompt_index],
        logprob=np.where(role == Role.SAMPLED, _padded(known, np.nan, np.float32), np.float32(np.nan)),
        role=role,
        version=np.full(role.shape, -1, np.int32),
        status=of_rows("status", np.int8),
        closed=of_rows("closed", np.int64),
        answered=of_rows("answered", np.int64),
        verified=np.nan * ones,
        reward=np.nan * ones,
        weight=of_rows("weight", np.float64),
        prefill_tokens=sum(len(asked[g]) for g in np.unique(prompt_index).tolist()),
    )
    return work.whole(made)


def hinted(rows: list[Row], work: Round, group: I64) -> list[Row]:
    """The rows with what they go on from at their heads: hints, which were read and not generated, or tokens of other
    rollouts that are trained on.

    Args:
        rows, work, group: as in :func:`rollouts_of`.
    """
    if work.asked is None:
        return rows
    asked, more = group[[row.number for row in rows]].tolist(), work.asked
    known = [(when >= 0) & more.learnt for when in more.versions]
    if more.logprobs is not None:
        known = [np.isfinite(logprob) for logprob in more.logprobs]
    return [
        row._replace(
            tokens=[*head.tolist(), *row.tokens],
            logprob=None if row.logprob is None else [*[0.0] * len(head), *row.logprob],
            forced=[*[False] * len(head), *row.forced],
            read=[*(~known[g]).tolist(), *row.given],
        )
        for row, g in zip(rows, asked, strict=True)
        for head in [more.heads[g]]
    ]


@contextmanager
def generating_with(model: Any, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Within the block ``model.generate`` is called with these arguments, too."""
    own = model.__dict__.get("generate")
    model.generate = partial(model.generate, **kwargs)
    try:
        yield
    finally:
        del model.generate
        if own is not None:
            model.generate = own


@contextmanager
def setting(target: Any, **values: Any) -> Iterator[None]:
    """Attributes with these values within the block."""
    before = {name: getattr(target, name) for name in values}
    for name, value in values.items():
        setattr(target, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)


def chunks(first: int, last: int, size: int) -> Iterator[I64]:
    """The numbers from ``first`` to ``last - 1``, at most ``size`` at a time."""
    for start in range(first, last, size):
        yield np.arange(start, min(start + size, last))


def _padded(rows: Sequence[Sequence[Any]], fill: Any, dtype: Any) -> NDArray[Any]:
    width = max((len(row) for row in rows), default=1)
    made = np.full((len(rows), max(width, 1)), fill, dtype)
    for i, row in enumerate(rows):
        made[i, : len(row)] = row
    return made
