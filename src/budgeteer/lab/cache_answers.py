"""What a model says to a question behind a prompt that budgeted caches hold, by itself or with several as a batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from budgeteer.cache import BudgetedCache
from budgeteer.cache.account import Account
from budgeteer.cache.prefill import Prefill
from budgeteer.cache.together import Together
from budgeteer.lab.cache_places import places
from budgeteer.models.inside import argument_of

LONG = 32
"""Tokens of an answer above which it is read one after the other, as it would be generated."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One sample with one cache.

    Attributes:
        task, method, budget: of it.
        known: whether the question was known when the choice was made.
        right: the whole answer is what the model would write.
        logprob: of the answer, nats a token.
        kept: entries that were held when the answer began, of those of a full cache.
        bytes: that were held then.
        peak: of the bytes while the prompt was read.
        cold: bytes in cold memory, beside ``bytes``. Where entries are retrieved, all of these are of the answer's end.
        parts: whether each part of the answer is right, commas apart, given those before it; none = it is one part.
        heads: for each layer and head, entries that were held when the answer began, of those of a full cache.
        end: entries that were held at the answer's end, of those of a full cache; None where it was read at once.
        prompt: time of reading the prompt and choosing, over that with the full cache.
        token: time of a token behind the prompt, over that with the full cache; None where all came at once.
        places: for each layer and part of the text, entries that were held, as :func:`.cache_places.places` has them.
    """

    task: str
    method: str
    budget: str
    known: bool
    right: bool
    logprob: float
    kept: float
    bytes: int
    peak: int
    cold: int = 0
    parts: tuple[bool, ...] = ()
    heads: Sequence[Sequence[float]] = ()
    end: float | None = None
    prompt: float | None = None
    token: float | None = None
    places: Sequence[Sequence[float]] = ()

    @property
    def found(self) -> float:
        """Share of the answer's parts that are right."""
        return sum(self.parts) / len(self.parts) if self.parts else float(self.right)


def now(device: torch.device) -> float:
    """Seconds of a clock, when the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Arm(NamedTuple):
    """A cache that has read a prompt.

    Attributes:
        cache: it.
        seconds: of reading and choosing.
        held: what it holds behind the prompt, with the places of each head and part.
    """

    cache: BudgetedCache
    seconds: float
    held: _Held

    @classmethod
    def of(cls, read: Prefill, cache: BudgetedCache, reading: float) -> Arm:
        """Fill a cache from what was ``read`` in ``reading`` seconds."""
        device = read.logits.device
        began = now(device)
        read.into(cache)
        whole = 0.0 if cache.selected.score.depth is not None else reading  # else it was read anew
        return cls(cache, whole + now(device) - began + read.saved, _Held.of(cache))


class _Held(NamedTuple):
    """What a cache holds: in all, of each head, and of each part of the text."""

    account: Account
    heads: Sequence[Sequence[float]]
    places: Sequence[Sequence[float]]

    @classmethod
    def of(cls, cache: BudgetedCache) -> _Held:
        return cls(cache.account(), cache.heads(), places(cache))


def answered_by(
    task: str,
    method: str,
    budget: str,
    known: bool,
    arm: Arm,
    said: _Said,
    full: tuple[float, float | None],
    pieces: list[list[int]],
) -> Answered:
    """The row of an answer; ``full`` = seconds of the prompt and of a token with the full cache."""
    retrieves = arm.cache.selected.rest.renew is not None
    held, heads, where = _Held.of(arm.cache) if retrieves else arm.held
    return Answered(
        task,
        method,
        budget,
        known,
        all(said.first),
        said.logprob / sum(map(len, pieces)),
        held.share,
        held.bytes,
        held.peak_bytes,
        held.cold_bytes,
        _parts(pieces, said.first),
        heads,
        said.end,
        arm.seconds / full[0],
        said.token / full[1] if said.token and full[1] else None,
        where,
    )


def _parts(pieces: list[list[int]], first: list[bool]) -> tuple[bool, ...]:
    """Whether each part of an answer is right; none where it is one part."""
    ends = list(accumulate((len(piece) for piece in pieces), initial=0))
    return tuple(all(first[start:stop]) for start, stop in list(pairwise(ends))[::2]) if len(pieces) > 1 else ()


class _Said(NamedTuple):
    """How a model likes an answer.

    Attributes:
        logprob: sum of its log-probabilities.
        first: whether each token is the first choice.
        token: median seconds of the calls of one token; None where there was none.
        end: entries that are held behind it, of those of a full cache; None where it was read at once.
    """

    logprob: float
    first: list[bool]
    token: float | None
    end: float | None


def answers(
    model: Any, arms: Sequence[Arm], rest: list[int], pieces: list[list[int]], device: torch.device
) -> list[_Said]:
    """Read what comes before an answer, and the answer itself, with one cache, or with several of a method as a batch.

    A short one is read at once, where that gives the same as one token after the other does.
    """
    selected, answer = arms[0].cache.selected, [token for piece in pieces for token in piece]
    apart = selected.score.every or selected.rest.renew is not None or selected.score.depth is not None
    apart = apart or len(answer) > LONG
    given = [rest, *([[token] for token in answer[:-1]] if apart else [answer[:-1]] if len(answer) > 1 else [])]
    logits, seconds = [], []
    batch = Together(model, [arm.cache for arm in arms]) if len(arms) > 1 else None
    for ids in given:
        began = now(device)
        rows = _read(model, arms[0].cache, ids, device) if batch is None else batch.read(ids)
        logits.append(rows[:, -1 if ids is rest else 0 :])
        if len(ids) == 1 and batch is None:
            seconds.append(now(device) - began)
    wanted = torch.tensor(answer, device=device)
    found = []
    for arm, row in zip(arms, torch.cat(logits, dim=1).float(), strict=True):
        logprobs = row.log_softmax(-1).gather(1, wanted[:, None])
        first: list[bool] = (row.argmax(-1) == wanted).tolist()
        end = arm.cache.account().share if apart else None
        found.append(_Said(float(logprobs.sum()), first, median(seconds) if seconds else None, end))
    return found


def _read(model: Any, cache: BudgetedCache, ids: list[int], device: Any) -> Tensor:
    """[1, q, vocabulary] logits after tokens that go through the cache."""
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([ids], device=device), **{argument_of(model): cache}).logits
    return logits
