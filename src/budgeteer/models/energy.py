"""Joules per token of prefill and of decoding, fitted to readings, and a meter and a budget made of them.

Paper: "Position: LLM Inference Should Be Evaluated as Energy-to-Token Production", arXiv 2605.11733; its abstract
and the formula of its page were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from budgeteer.core.errors import InvalidInput
from budgeteer.core.meter import Meter, canonical, meter
from budgeteer.core.plan import F64
from budgeteer.models.device import Device

FEWEST = 3
"""Readings that a fit needs."""


class Reading(NamedTuple):
    """A call, or many calls together, whose energy was read from a counter (RAPL, NVML, a wall plug).

    Attributes:
        fresh: tokens of input that were computed, those from a cache left out.
        output: tokens that were sampled.
        joules: above what the machine uses idle, or in all; the fit is of what is given.
    """

    fresh: float
    output: float
    joules: float


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy by token.

    Attributes:
        prefill: joules of a token of fresh input, 0 or more.
        decode: joules of a token of output, 0 or more.
        error: mean of |predicted / read - 1| over readings, each predicted from the others.
        alike: the same of a fit with one rate for all tokens, for comparison.
    """

    prefill: float
    decode: float
    error: float
    alike: float

    @property
    def kind(self) -> str:
        """The kind of a budget in joules: a formula over tokens. A call counts in whole joules, rounded up.

        >>> Energy(0.05, 0.5, 0.0, 0.0).kind
        'input*0.05+output*0.5-cached*0.05'
        """
        return canonical(f"(input-cached)*{self.prefill:.9f}+output*{self.decode:.9f}")

    def meter(self) -> Meter:
        """The meter of that kind."""
        return meter(self.kind)


def fit(readings: Sequence[Reading]) -> Energy:
    """Fit both rates.

    Formula: minimise the sum of ((prefill fresh + decode output) / joules - 1)^2 with both rates 0 or more: relative
    errors, since calls differ by orders of magnitude.

    Raises:
        InvalidInput: too few readings, numbers that cannot be, or all with the same ratio of input and output, which
            tell nothing of the two rates.
    """
    table = np.array(readings, dtype=np.float64).reshape(-1, 3)
    if len(table) < FEWEST or not np.isfinite(table).all() or (table[:, :2] < 0).any() or not (table[:, 2] > 0).all():
        raise InvalidInput(f"{len(table)} readings; give {FEWEST} or more, with tokens from 0 and joules above 0")
    x = table[:, :2] / table[:, 2:]
    if np.linalg.matrix_rank(x, tol=1e-6 * float(np.abs(x).max())) < 2:
        raise InvalidInput(
            "all readings have the same ratio of input to output; vary the length of prompts and of answers"
        )
    left = [np.delete(x, i, axis=0) for i in range(len(x))]
    error = np.mean([abs(float(row @ _rates(rest)) - 1) for row, rest in zip(x, left, strict=True)])
    total = x.sum(axis=1, keepdims=True)
    rest_of = [np.delete(total, i, axis=0) for i in range(len(total))]
    alike = np.mean([abs(float(row @ _one(rest)) - 1) for row, rest in zip(total, rest_of, strict=True)])
    prefill, decode = _rates(x).tolist()
    return Energy(prefill, decode, float(error), float(alike))


def _rates(x: F64) -> F64:
    """The least squares of x rates = 1 with both rates 0 or more."""
    found = np.linalg.lstsq(x, np.ones(len(x)), rcond=None)[0]
    if (found >= 0).all():
        return np.asarray(found)
    edges = [np.array([_one(x[:, :1])[0], 0.0]), np.array([0.0, _one(x[:, 1:])[0]])]
    return min(edges, key=lambda rates: float(np.sum((x @ rates - 1) ** 2)))


def _one(column: F64) -> F64:
    return np.array([max(0.0, float(column[:, 0].sum()) / max(float(column[:, 0] @ column[:, 0]), 1e-300))])


def readings_of(device: Device, prompts: Sequence[int], tokens: Sequence[int]) -> list[Reading]:
    """What a profile predicts for calls of these lengths, as readings.

    Raises:
        InvalidInput: the profile does not know its power.
    """
    if device.watts is None:
        raise InvalidInput(
            f"the profile of {device.model} does not know its power; profile it with --watts or --energy"
        )
    return [Reading(p, t, device.joules(p, t)) for p in prompts for t in tokens]


class Rate(NamedTuple):
    """Tokens per second, and what bounds them: ``"compute"`` or ``"energy"``."""

    tokens: float
    bound: str


def token_rate(
    *,
    flops: float,
    flops_a_token: float,
    watts: float,
    joules_a_token: float,
    efficiency: float = 1.0,
    used: float = 1.0,
) -> Rate:
    """Most tokens per second of a machine: min(flops / flops_a_token, watts / joules_a_token) * efficiency * used.

    Args:
        flops: effective compute, in operations per second.
        flops_a_token: operations of a token.
        watts: power that reaches the machine.
        joules_a_token: energy of a token.
        efficiency: of the system beyond what is in the numbers above already.
        used: share of the time in which it works.

    >>> token_rate(flops=1e15, flops_a_token=2e10, watts=1024, joules_a_token=0.0625)
    Rate(tokens=16384.0, bound='energy')
    """
    if not min(flops, flops_a_token, watts, joules_a_token) > 0 or not 0 < used <= 1 or not efficiency > 0:
        raise InvalidInput("a token rate needs numbers above 0, and a share of time from 0 to 1")
    compute, energy = flops / flops_a_token, watts / joules_a_token
    return Rate(min(compute, energy) * efficiency * used, "energy" if energy < compute else "compute")
