"""Metrics of accuracy against tokens: their doctests are worked by hand; here brute force and bad input."""

from __future__ import annotations

import doctest
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgeteer.core.errors import InvalidInput
from budgeteer.lab import metrics


def test_the_examples_hold() -> None:
    assert doctest.testmod(metrics).failed == 0


@given(st.integers(1, 7), st.data())
def test_pass_at_k_counts_subsets(n: int, data: st.DataObject) -> None:
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations(range(n), k))
    want = sum(any(i < right for i in subset) for subset in subsets) / len(subsets)
    assert metrics.pass_at_k(n, right, k) == pytest.approx(want)


def test_pass_at_k_is_unbiased() -> None:
    """Over all draws of 5 samples at p = 0.3, the mean is 1 - 0.7^2; the plug-in formula's is not."""
    p, n, k = 0.3, 5, 2
    draws = [(sum(bits), p ** sum(bits) * (1 - p) ** (n - sum(bits))) for bits in itertools.product((0, 1), repeat=n)]
    assert sum(metrics.pass_at_k(n, c, k) * weight for c, weight in draws) == pytest.approx(1 - 0.7**k)
    assert sum((1 - (1 - c / n) ** k) * weight for c, weight in draws) != pytest.approx(1 - 0.7**k, abs=0.01)


@given(st.lists(st.tuples(st.floats(1, 1000), st.floats(0, 1)), min_size=1, max_size=6), st.floats(1, 1000))
def test_another_point_never_lowers_the_area(points: list[tuple[float, float]], more: float) -> None:
    before = metrics.area(*zip(*points, strict=True), 10, 500)
    after = metrics.area(*zip(*points, (more, 0.5), strict=True), 10, 500)
    assert after >= before - 1e-12
    assert 0 <= before <= 1 + 1e-12


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.efficiency([1.0], [1.0, 2.0]),
        lambda: metrics.efficiency([1.0], [0.0]),
        lambda: metrics.csr([], 3),
        lambda: metrics.ecdf([float("nan")]),
        lambda: metrics.pass_at_k(3, 4, 1),
        lambda: metrics.pass_at_k(3, 1, 4),
        lambda: metrics.area([1.0], [1.0], 5, 5),
        lambda: metrics.accuracy_per_token([0.0], [0.0]),
    ],
)
def test_bad_input_says_so(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInput):
        call()
