"""Metrics of accuracy against tokens: their doctests are worked by hand; here brute force and bad input."""

from __future__ import annotations

import doctest

import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.lab import metrics


def test_the_examples_hold() -> None:
    assert doctest.testmod(metrics).failed == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.efficiency([1.0], [1.0, 2.0]),
        lambda: metrics.efficiency([1.0], [0.0]),
        lambda: metrics.csr([], 3),
        lambda: metrics.ecdf([float("nan")]),
        lambda: metrics.accuracy_per_token([0.0], [0.0]),
    ],
)
def test_bad_input_says_so(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInput):
        call()
