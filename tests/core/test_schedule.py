"""Schedules by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgeteer.core.errors import InvalidInput
from budgeteer.core.schedule import constant, cosine, linear, piecewise


def test_schedules_by_hand():
    assert [linear(4.0, 1.0)(s) for s in (-1, 0, 0.5, 1, 2)] == [4.0, 4.0, 2.5, 1.0, 1.0]
    assert [cosine(0.0, 1.0)(s) for s in (0, 0.5, 1)] == pytest.approx([0, 0.5, 1])
    assert cosine(0.0, 1.0)(1 / 3) == pytest.approx((1 - math.cos(math.pi / 3)) / 2)
    assert [piecewise([(0.0, 8), (0.25, 4), (1.0, 2)])(s) for s in (-1, 0.2, 0.25, 0.99, 1, 2)] == [8, 8, 4, 4, 2, 2]
    assert constant(3)(0.7) == 3


@given(st.integers(-50, 50), st.integers(-50, 50), st.floats(0, 1))
def test_whole_ends_give_whole_values_between_them(start, end, spent):
    for schedule in (linear(start, end), cosine(start, end)):
        value = schedule(spent)
        assert isinstance(value, int)
        assert min(start, end) <= value <= max(start, end)


@pytest.mark.parametrize("starts", [[], [0.1], [0.0, 0.0], [0.0, 0.6, 0.5], [0.0, 1.5]])
def test_piecewise_refuses_starts_out_of_order(starts):
    with pytest.raises(InvalidInput, match="rise from 0"):
        piecewise([(start, 1.0) for start in starts])
