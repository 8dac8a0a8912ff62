"""Traces without their least attended steps, as beginnings of further rollouts (TRAAC, arXiv 2510.01581). NumPy only.

A thinking is cut into steps at words of control. How much a step counts is the mean attention that its tokens get from
the end of the thinking, where a text asks for a summary; the steps that count least are left out, more of them on easy
prompts. The policy answers behind what is left, and learns from both.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64, I64, right
from budgeteer.models.chat import KNOWN_TAGS
from budgeteer.rl.branch import CUT_AT, CUTS, TRACE, branched
from budgeteer.rl.reward._traac import difficulty

if TYPE_CHECKING:
    from budgeteer.rl.asked import RoundRequests
    from budgeteer.rl.rollouts import Rollouts

__all__ = ["ATTENTION", "STEP", "Compression", "evicted", "importance", "kept", "read", "steps_in", "uniformity"]

ATTENTION, STEP = "attention", "step_of_token"
"""Columns of rollouts, [n, t]: the attention that each token gets from the end of the thinking; its step, -1 = none."""
CONTROL = (
    "Wait", "Alternatively", "Another angle", "Another approach", "But wait", "Hold on", "Hmm", "Maybe",
    "Looking back", "Okay", "Let me", "First", "Then", "Alright", "Compute", "Correct", "Good", "Got it",
    "I don't see any errors", "I think", "Let me double-check", "Let's see", "Now", "Remember", "Seems solid",
    "Similarly", "So", "Starting", "That's correct", "That seems right", "Therefore", "Thus",
)  # fmt: skip
"""Words at which a step begins, as in the paper's code."""
PROBE = "\nTime is up. I should stop thinking now and sum up in one sentence what the answer rests on."
"""Stands between the thinking and its end while attention is measured. The paper has a sentence of this kind."""
UNIFORM, MOST = 0.8, 0.8
"""Uniformity above which nothing is left out, and the largest share of steps that ever is."""
_OPENED = re.compile(rf"\s*(?:{'|'.join(re.escape(tags.open) for tags in KNOWN_TAGS)})\s*")
_ENDS = (re.compile(r"\n+"), re.compile(r";\s*|[.!?]\s+"))
_CONTROL = re.compile("|".join(rf"(?<!\w){re.escape(w)}(?!\w)" for w in sorted(CONTROL, key=len, reverse=True)))


@dataclass(frozen=True, slots=True)
class Compression:
    """After the rounds of a step, each right rollout goes on from its own thinking without its least attended steps.

    A branch of a recipe, like :class:`budgeteer.rl.branch.Branch`. What is left of the thinking, with its end, is the
    head of a row of its own, which is trained on at the probabilities that the policy gives it there; only the answer
    behind it is sampled and on the bill. History and allocator see the traces alone.

    Attributes:
        rates: most that is left out of easy, medium and hard prompts, as a share of the steps; each in [0, 1].
        probe: text behind the thinking while attention is measured.
    """

    rates: tuple[float, float, float] = (0.75, 0.5, 0.25)
    probe: str = PROBE

    def __post_init__(self) -> None:
        if len(self.rates) != 3 or not all(0 <= rate <= 1 for rate in self.rates):
            raise InvalidInput(f"rates={self.rates}; give three shares from 0 to 1, for easy, medium and hard prompts")

    @property
    def needs(self) -> tuple[str, ...]:
        """What the trainer must give of the traces."""
        return (ATTENTION,)

    @property
    def text(self) -> str:
        """Text that the trainer's tokenizer has to write."""
        return self.probe

    def cuts(self, cap: int) -> I64:
        """[1] the cap: a trace has one branch."""
        return np.array([cap])

    def caps(self, asked: RoundRequests, cap: int) -> I64:
        """[k] most tokens of each answer: what the head leaves of the cap, one at least."""
        return np.array([max(cap - len(head), 1) for head in asked.heads], np.int64)

    def requests(self, traces: Rollouts, cap: int, written: Sequence[int]) -> RoundRequests:
        """The requests for answers behind compressed traces; none where nothing is left out.

        Args:
            traces: n rollouts, numbered, with the columns :data:`ATTENTION` and :data:`STEP`.
            cap, written: not used.
        """
        from budgeteer.rl.asked import RoundRequests

        level, of, heads, versions, number = difficulty(traces.verified, traces.group), [], [], [], []
        for i in np.argsort(traces.group, kind="stable").tolist():
            end = int(traces.closed[i])
            if end <= 0 or not right(traces.verified[i]):
                continue
            step, attention = (traces.more[name][i, :end] for name in (STEP, ATTENTION))
            left = kept(attention, step, self.rates[level[i]])
            if left.all():
                continue
            of.append(int(traces.group[i]))
            heads.append(traces.tokens[i, :end][left])
            # what a steer forced is read again, and no more learnt than before
            versions.append(np.where(traces.sampled[i, :end], traces.version[i, :end], -1)[left].astype(np.int64))
            number.append(int(traces.more[TRACE][i]))
        k = len(of)
        columns = {TRACE: np.array(number, np.int64), CUT_AT: np.zeros(k, np.int64), CUTS: np.ones(k, np.int64)}
        ones = np.ones(k, np.int64)
        return RoundRequests(np.array(of, np.int64), ones, [None] * k, heads, versions, columns, learnt=True)


def steps_in(pieces: Sequence[str]) -> I64:
    """[t] step of each token of a thinking, from 0 on; -1 for the tokens of the tags around it.

    A step begins at a word of control; in a thinking without any, at each line; in one line without any, behind each
    semicolon or sentence. A token belongs to the step of its last letter.

    Args:
        pieces: texts of the tokens, the last of which ends the thinking.

    >>> steps_in(["<think>", "2+2=4", " Wait", ", no", ". Maybe", " 5", "</think>"]).tolist()
    [-1, 0, 1, 1, 2, 2, -1]
    >>> steps_in(["2+2", "=4\\n", "4+1=", "5", "</think>"]).tolist()
    [0, 0, 1, 1, -1]
    """
    text = "".join(pieces)
    begin, end = _inside(text, len(text) - len(pieces[-1]) if pieces else 0)
    starts = [found.start() for found in _CONTROL.finditer(text, begin, end)]
    for pattern in _ENDS:
        starts = starts or [found.end() for found in pattern.finditer(text, begin, end)]
    made, at = np.full(len(pieces), -1, np.int64), 0
    for i, piece in enumerate(pieces):
        first, at = at, at + len(piece)
        if first >= begin and at <= end and i < len(pieces) - 1:
            made[i] = bisect_left(starts, at)
    inside = made >= 0
    made[inside] = np.unique(made[inside], return_inverse=True)[1]
    return made


def _inside(text: str, last: int) -> tuple[int, int]:
    """Where the thinking begins and ends in a text with tags around it; ``last`` = where its last token begins."""
    opened = _OPENED.match(text)
    end = max(text.rfind(tags.close) for tags in KNOWN_TAGS)
    return opened.end() if opened else 0, end if end >= 0 else last


def importance(attention: NDArray[np.floating], step: I64) -> F64:
    """[m] mean attention of the tokens of each step; tokens of no step (-1) do not count.

    >>> importance(np.array([0.9, 0.1, 0.3, 0.2]), np.array([-1, 0, 0, 1])).tolist()
    [0.2, 0.2]
    """
    inside = step >= 0
    count = np.bincount(step[inside])
    return np.asarray(np.bincount(step[inside], attention[inside]) / np.maximum(count, 1), np.float64)


def uniformity(scores: F64) -> float:
    """Entropy of the scores as shares of their sum, over the largest that it may be: 1 = all are alike, as are none,
    one, and scores that are not known.

    >>> round(uniformity(np.array([3.0, 1.0])), 4)
    0.8113
    """
    total = float(scores.sum())
    if len(scores) < 2 or not total > 0:
        return 1.0
    share = scores / total
    known = share[share > 0]
    return float(-(known * np.log(known)).sum() / np.log(len(scores)))


def evicted(scores: F64, rate: float) -> NDArray[np.bool_]:
    """[m] steps that are left out: those of the least scores, the earlier of equals first.

    With U their uniformity it is ``floor(m * min(rate * (1 - U), 0.8))`` of them, and none if U is above 0.8: where
    attention does not tell the steps apart, there is nothing to choose by.

    >>> evicted(np.array([0.9, 0.0, 0.0, 0.02, 0.0]), 0.5).tolist()
    [False, True, True, False, False]
    """
    alike = uniformity(scores)
    share = 0.0 if alike > UNIFORM else min(rate * (1 - alike), MOST)
    out = np.zeros(len(scores), np.bool_)
    out[np.argsort(scores, kind="stable")[: int(len(scores) * share + 1e-9)]] = True
    return out


def kept(attention: NDArray[np.floating], step: I64, rate: float) -> NDArray[np.bool_]:
    """[t] tokens of a thinking that are left of it.

    Args:
        attention: [t] that each token gets.
        step: [t] of each token, as :func:`steps_in` has it.
        rate: as in :func:`evicted`.
    """
    if not (step >= 0).any():
        return np.ones(len(step), np.bool_)
    out = evicted(importance(attention, step), rate)
    left: NDArray[np.bool_] = (step < 0) | ~out[np.maximum(step, 0)]
    return left


def read(
    rollouts: Rollouts,
    decode: Callable[[list[list[int]]], list[str]],
    attend: Callable[[Sequence[int], Sequence[int]], NDArray[np.floating]],
    probe: Sequence[int],
) -> Rollouts:
    """The rollouts with the columns :data:`ATTENTION` and :data:`STEP`, of right ones that closed their thinking.

    Args:
        rollouts: verified.
        decode: token ids -> texts, special tokens included.
        attend: (token ids before, token ids) -> [t] what the last of the latter gives each of them, over all layers
            and heads; one more forward pass.
        probe: token ids that stand between the thinking and its end.
    """
    step = np.full(rollouts.tokens.shape, -1, np.int64)
    attention = np.zeros(rollouts.tokens.shape, np.float32)
    wanted = right(rollouts.verified) & (rollouts.closed > 0) & ~branched(rollouts)
    for i in np.flatnonzero(wanted).tolist():
        row = rollouts.tokens[i, : rollouts.closed[i]].tolist()
        step[i, : len(row)] = own = steps_in(pieces_of(decode, row))
        if own.max(initial=-1) < 1:
            continue  # one step: there is nothing to choose among
        last = int(np.flatnonzero(own >= 0)[-1]) + 1
        (prompt,) = rollouts.prompts_of(np.array([i]))
        attention[i, :last] = attend(prompt, [*row[:last], *probe, *row[last:]])[:last]
    return replace(rollouts, more={**rollouts.more, ATTENTION: attention, STEP: step})


def pieces_of(decode: Callable[[list[list[int]]], list[str]], row: Sequence[int]) -> list[str]:
    """The texts of the tokens of a row, each as it reads behind the token before it."""
    alone = decode([[token] for token in row])
    pairs = decode([list(pair) for pair in pairwise(row)])
    return [*alone[:1], *(pair[len(before) :] for before, pair in zip(alone, pairs, strict=False))]
