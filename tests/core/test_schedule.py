"""Schedules by hand."""

from __future__ import annotations

import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.core.schedule import constant, piecewise


def test_schedules_by_hand():
    assert [piecewise([(0.0, 8), (0.25, 4), (1.0, 2)])(s) for s in (-1, 0.2, 0.25, 0.99, 1, 2)] == [8, 8, 4, 4, 2, 2]
    assert constant(3)(0.7) == 3


@pytest.mark.parametrize("starts", [[], [0.1], [0.0, 0.0], [0.0, 0.6, 0.5], [0.0, 1.5]])
def test_piecewise_refuses_starts_out_of_order(starts):
    with pytest.raises(InvalidInput, match="rise from 0"):
        piecewise([(start, 1.0) for start in starts])
