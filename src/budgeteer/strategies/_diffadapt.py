"""DiffAdapt for black boxes: a few short probes, whose agreement and length choose one of three ways to think.

Paper: "DiffAdapt: Difficulty-Adaptive Reasoning for Token-Efficient LLM Inference", arXiv 2510.19669.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.strategies._direct import direct
from budgeteer.strategies.kit.trace import ask_many

Level = Literal["easy", "normal", "hard"]


class Bundle(NamedTuple):
    """How a question of one level is solved.

    Attributes:
        temperature: of the trace.
        share: of ``max_tokens`` that its trace may have, in (0, 1].
        reminder: text that is added after the question.
    """

    temperature: float
    share: float
    reminder: str = ""


class Thresholds(NamedTuple):
    """Easy: agreement >= sure and length <= short. Hard: agreement < unsure. Normal: all others.

    ``agreement`` is the share of the probes with the most common answer; ``length`` is their mean length divided by
    their cap.
    """

    sure: float = 0.75
    unsure: float = 0.3
    short: float = 1.0


class Record(NamedTuple):
    """An earlier question that was solved with all three bundles.

    Attributes:
        agreement, length: of its probes, as in :class:`Thresholds`.
        score, tokens: with the easy, the normal and the hard bundle.
    """

    agreement: float
    length: float
    score: tuple[float, float, float]
    tokens: tuple[float, float, float]


EASY = Bundle(0.5, 0.4, "Solve it directly, then verify.")
NORMAL = Bundle(0.8, 1.0, "Think step by step.")
HARD = Bundle(0.4, 0.5, "Mind your resources: if no way works out soon, give your best guess.")


def diffadapt(
    thresholds: Thresholds = Thresholds(),  # noqa: B008 - immutable
    bundles: tuple[Bundle, Bundle, Bundle] = (EASY, NORMAL, HARD),
    probes: int = 4,
    probe_tokens: int = 64,
    max_tokens: int = 1024,
    inner: Callable[[int, float], Strategy] = direct,
) -> Strategy:
    """Choose temperature, cap and reminder by the question's level: easy, normal or hard.

    Easy questions get a low temperature and a short cap, normal ones the whole cap, hard ones half of it: more thinking
    would hardly solve them, so they fail fast.

    The paper reads the level from the hidden state after the prompt with a trained probe. Here ``probes`` samples of at
    most ``probe_tokens`` tokens each, in one call, replace it: difficulty shows in whether they finish and agree. They
    are charged; their most common answer is used if the bundle's trace has none. If the budget does not cover all
    probes, the level is normal.

    When it helps: many easy questions, and hard ones that more thinking does not solve. When not: accuracy on hard
    questions keeps rising with tokens, then failing fast fails; or questions are alike, then the probes are a loss.

    Paper: "DiffAdapt: Difficulty-Adaptive Reasoning for Token-Efficient LLM Inference", arXiv 2510.19669.

    Args:
        thresholds: from :func:`calibrate`.
        bundles: easy, normal, hard.
        probes, probe_tokens: number of probes, and cap of each.
        max_tokens: cap of a bundle with share 1.
        inner: (max_tokens, temperature) -> strategy that solves the question.
    """
    if probes < 2 or probe_tokens < 1 or max_tokens < 1:
        raise InvalidInput(
            f"diffadapt: {probes} probes of {probe_tokens} tokens, {max_tokens} at most; give >= 2, 1, 1"
        )

    async def solve(task: Task) -> Answer:
        style = task.style
        prompt = style.prompt(task.question.text)
        probed: list[str | None] = []
        level: Level = "normal"
        if task.model.afford(prompt, n=probes, most=probe_tokens, keep=style.answer_tokens) == probe_tokens:
            pieces = await ask_many(
                task,
                prompt,
                probes,
                most=probe_tokens,
                keep=style.answer_tokens,
                stop=style.stop,
                temperature=1.0,
                stage="probe",
            )
            probed = [style.read(piece.text) if piece.ended else None for piece in pieces]
            length = sum(piece.tokens for piece in pieces) / (probes * probe_tokens)
            level = choose(agreement(probed), length, thresholds)
        bundle = bundles[("easy", "normal", "hard").index(level)]
        asked = replace(style, prompt=lambda q: style.prompt(f"{q} {bundle.reminder}" if bundle.reminder else q))
        strategy = inner(max(1, round(bundle.share * max_tokens)), bundle.temperature)
        votes = Counter(answer for answer in probed if answer is not None)
        try:
            answer = await strategy.solve(replace(task, style=asked))
        except ModelError as error:
            if not votes:
                raise
            answer = Answer(None, StoppedBy.ERROR, error=str(error))
        if answer.answer is None and votes:
            return replace(answer, answer=votes.most_common(1)[0][0])
        return answer

    return Strategy(solve, inner(max_tokens, NORMAL.temperature).needs)


def agreement(answers: Sequence[str | None]) -> float:
    """Share of the most common answer; None agrees with no answer.

    >>> agreement(["7", "7", None, "3"]), agreement([None, None])
    (0.5, 0.0)
    """
    votes = Counter(answer for answer in answers if answer is not None)
    return max(votes.values(), default=0) / max(len(answers), 1)


def choose(agreement: float, length: float, thresholds: Thresholds) -> Level:
    """The level of a question, by the agreement and the relative length of its probes.

    >>> choose(1.0, 0.4, Thresholds()), choose(0.5, 0.4, Thresholds()), choose(0.25, 1.0, Thresholds())
    ('easy', 'normal', 'hard')
    """
    if agreement < thresholds.unsure:
        return "hard"
    return "easy" if agreement >= thresholds.sure and length <= thresholds.short else "normal"


def calibrate(records: Iterable[Record], tolerance: float = 0.01) -> Thresholds:
    """The thresholds that use the fewest tokens on these records without losing score.

    Their mean score is at least that of the normal bundle for all questions, less ``tolerance``. They are searched
    among the values that occur; ties go to the higher score. Without records, the defaults are returned. The tokens of
    the probes are the same for all thresholds and are not counted; so it does not say whether probing pays at all.

    Raises:
        InvalidInput: the tolerance is negative.
    """
    rows = list(records)
    if tolerance < 0:
        raise InvalidInput(f"tolerance is {tolerance}; give 0 or more")
    if not rows:
        return Thresholds()
    agree, length = np.array([r.agreement for r in rows]), np.array([r.length for r in rows])
    score, tokens = np.array([r.score for r in rows]), np.array([r.tokens for r in rows])
    least = score[:, 1].mean() - tolerance - 1e-12
    levels = sorted({*agree.tolist(), 0.0, 2.0})  # agreement is at most 1: 2 = never sure, 0 = never unsure
    cuts = np.unique(np.quantile(length, np.linspace(0, 1, 9)))
    best, chosen = (float("inf"), 0.0), Thresholds(2.0, 0.0, 1.0)
    at = np.arange(len(rows))
    for unsure, sure, short in itertools.product(levels, levels, cuts.tolist()):
        if unsure > sure:
            continue
        which = np.where(agree < unsure, 2, np.where((agree >= sure) & (length <= short), 0, 1))
        mean = float(score[at, which].mean())
        key = (float(tokens[at, which].mean()), -mean)
        if mean >= least and key < best:
            best, chosen = key, Thresholds(sure, unsure, short)
    return chosen
