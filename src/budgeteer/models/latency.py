"""How long a call of a model takes on one machine: curves of prefill and decode time, fitted to timed calls.

With I tokens of prompt, O sampled tokens a choice and k choices at once:

    prefill(I)       = a p^2 + b p + c,  p = I rounded up to a multiple of ``pad``
    step_k(context)  = n_k + m_k context
    seconds(I, O, k) = prefill(I) + n_k (O - 1) + m_k (I (O - 1) + O (O - 1) / 2)

The first token comes at the end of the prefill, so O tokens take O - 1 steps; the sum over their contexts I + 1, ...,
I + O - 1 is the last bracket.

Source: EdgeReasoning: Characterizing Reasoning LLM Deployment on Edge GPUs (arXiv 2511.01866), which fits the prefill
with p a multiple of 128 (blocks of tensor cores) and the decode with k = 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from budgeteer.core.bisection import largest
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64

PADS = (1, 64, 128)
"""Paddings of the prompt that a fit tries."""


class Timed(NamedTuple):
    """A call that was timed.

    Attributes:
        prompt: tokens of the prompt.
        tokens: of the longest choice, >= 1.
        parallel: number of choices.
        seconds: from the request to its last token.
    """

    prompt: int
    tokens: int
    parallel: int
    seconds: float


class Decode(NamedTuple):
    """Seconds of a decoding step with ``parallel`` choices: ``step + context * grows``."""

    parallel: int
    step: float
    grows: float


@dataclass(frozen=True, slots=True)
class Latency:
    """The fitted curves.

    Attributes:
        prefill: (a, b, c): seconds a token squared, a token, and a call.
        pad: the prompt counts in multiples of so many tokens.
        decode: one entry for each number of choices that was timed, the smallest first.
        error: largest relative error of a prediction below what was timed, on calls that the fit did not see.
    """

    prefill: tuple[float, float, float]
    pad: int
    decode: tuple[Decode, ...]
    error: float = 0.0

    def first(self, prompt: int) -> float:
        """Seconds until the first token.

        >>> round(Latency((1e-6, 1e-4, 0.01), 128, (Decode(1, 0.02, 0.0),)).first(100), 9)  # as 128 tokens
        0.039184
        """
        a, b, c = self.prefill
        padded = -(-prompt // self.pad) * self.pad
        return a * padded**2 + b * padded + c

    def seconds(self, prompt: int, tokens: int, parallel: int = 1) -> float:
        """Seconds of a call.

        Args:
            prompt: tokens of the prompt.
            tokens: of each choice, >= 1.
            parallel: number of choices; one of those that were timed.
        """
        _, step, grows = self.decode_of(parallel)
        steps = tokens - 1
        return self.first(prompt) + step * steps + grows * (prompt * steps + tokens * steps / 2)

    def decode_of(self, parallel: int) -> Decode:
        """The curve for so many choices.

        Raises:
            InvalidInput: that number was not timed.
        """
        for entry in self.decode:
            if entry.parallel == parallel:
                return entry
        timed = ", ".join(str(entry.parallel) for entry in self.decode)
        raise InvalidInput(f"{parallel} choices at once were not timed; timed: {timed}")

    def most_tokens(self, prompt: int, seconds: float, parallel: int = 1, most: int = 1_000_000) -> int:
        """The largest number of tokens up to ``most`` whose predicted time is within ``seconds``; 0 = not even one.

        >>> orin = Latency((1.56e-7, 2.31e-6, 0.046), 128, (Decode(1, 0.024, 0.0),))  # 1.5B, as published
        >>> orin.most_tokens(128, 2.0)  # 1 + floor((2 - 0.04885) / 0.024)
        82
        """
        return largest(lambda tokens: self.seconds(prompt, tokens, parallel) <= seconds, most)


def fit(calls: Sequence[Timed]) -> Latency:
    """Fit the curves by least squares of relative errors, no coefficient below 0.

    Calls of one token give the prefill curve and its padding; each number of choices then has a curve of what longer
    calls take beyond it. Every third length of prompt and of answer is first held out for :attr:`Latency.error`, then
    all calls are used.

    Raises:
        InvalidInput: too few calls for the curves.
    """
    lengths = sorted({call.prompt for call in calls if call.tokens == 1})
    longer = [call for call in calls if call.tokens > 1]
    if len(lengths) < 3 or not longer:
        raise InvalidInput("give calls of one token with at least 3 lengths of prompt, and calls of several tokens")
    held = {(call.prompt, call.tokens, call.parallel) for call in sorted(calls)[1:-1:3]}
    for parallel in {call.parallel for call in longer}:  # each curve keeps two calls at least
        same = sorted(call[:3] for call in longer if call.parallel == parallel)
        if len(set(same) - held) < 2:
            held -= set(same)
    if len({call.prompt for call in calls if call.tokens == 1 and call[:3] not in held}) < 3:
        held -= {call[:3] for call in calls if call.tokens == 1}
    latency = _fit([call for call in calls if call[:3] not in held])
    tested = [call for call in calls if call[:3] in held]
    missed = [1 - latency.seconds(call.prompt, call.tokens, call.parallel) / call.seconds for call in tested]
    whole = _fit(calls)
    return Latency(whole.prefill, whole.pad, whole.decode, max([0.0, *missed]))


def mean_error(latency: Latency, calls: Sequence[Timed]) -> float:
    """Mean of ``|predicted - timed| / timed`` over calls."""
    predicted = np.array([latency.seconds(call.prompt, call.tokens, call.parallel) for call in calls])
    timed = np.array([call.seconds for call in calls])
    return float((np.abs(predicted - timed) / timed).mean())


def _fit(calls: Sequence[Timed]) -> Latency:
    short = [call for call in calls if call.tokens == 1 and call.parallel == 1]
    prompt = np.array([call.prompt for call in short], np.float64)
    timed = np.array([call.seconds for call in short])

    def at(pad: int) -> tuple[float, F64]:
        padded = np.ceil(prompt / pad) * pad
        return nonnegative(np.stack([padded**2, padded, np.ones(len(padded))], 1) / timed[:, None], np.ones(len(timed)))

    pad = min(PADS, key=lambda pad: at(pad)[0])
    a, b, c = at(pad)[1].tolist()
    prefill = Latency((a, b, c), pad, ())
    decode = []
    for parallel in sorted({call.parallel for call in calls if call.tokens > 1}):
        same = [call for call in calls if call.parallel == parallel and call.tokens > 1]
        steps = np.array([call.tokens - 1 for call in same], np.float64)
        contexts = np.array([call.prompt * (call.tokens - 1) + call.tokens * (call.tokens - 1) / 2 for call in same])
        beyond = np.array([call.seconds - prefill.first(call.prompt) for call in same])
        whole = np.array([call.seconds for call in same])
        _, coefficients = nonnegative(np.stack([steps, contexts], 1) / whole[:, None], beyond / whole)
        decode.append(Decode(parallel, *coefficients.tolist()))
    return Latency((a, b, c), pad, tuple(decode))


def nonnegative(matrix: F64, target: F64) -> tuple[float, F64]:
    """The x >= 0 with the least ``|matrix x - target|^2``, for few columns: the best of all sets of columns.

    Returns:
        The squared error and x.

    >>> nonnegative(np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([2.0, 1.0]))[1].round(9).tolist()
    [1.5, 0.0]
    """
    best, columns = (math.inf, np.zeros(matrix.shape[1])), range(matrix.shape[1])
    for size in range(matrix.shape[1] + 1):
        for chosen in itertools.combinations(columns, size):
            x = np.zeros(matrix.shape[1])
            if chosen:
                scale = np.abs(matrix[:, chosen]).max(axis=0)  # columns of tokens squared and of ones side by side
                scale[scale == 0] = 1
                x[list(chosen)] = np.linalg.lstsq(matrix[:, chosen] / scale, target, rcond=None)[0] / scale
            error = float(((matrix @ x - target) ** 2).sum())
            if (x >= 0).all() and error < best[0]:
                best = error, x
    return best
