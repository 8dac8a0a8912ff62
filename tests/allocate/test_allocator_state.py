"""States of allocators through JSON, and back only into the allocator that wrote them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.errors import CheckpointError


@dataclasses.dataclass(frozen=True)
class Inner:
    mean: np.ndarray
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Outer:
    step: int
    inner: Inner
    pair: tuple[Inner, float]


def example(values, names):
    inner = Inner(np.array(values), names)
    return Outer(3, inner, (inner, 0.5))


def test_round_trip_keeps_values_dtypes_and_lengths():
    state = example([1.5, float("nan"), -0.0], ("a", "b", "c"))
    like = example([0.0], ())
    back = load_state(like, json.loads(json.dumps(dump_state(state))))
    assert back.step == 3
    assert back.inner.names == ("a", "b", "c")
    assert back.inner.mean.dtype == np.float64
    np.testing.assert_array_equal(back.pair[0].mean, state.inner.mean)


def test_numbers_are_exact():
    values = np.random.default_rng(0).normal(size=100)
    back = load_state(Inner(np.zeros(1), ()), json.loads(json.dumps(dump_state(Inner(values, ())))))
    assert np.array_equal(back.mean, values)


@pytest.mark.parametrize(
    "data", [{"step": 1}, [], {"step": 1, "inner": 3, "pair": []}, {"step": 1, "inner": {}, "pair": []}]
)
def test_data_of_another_allocator_are_refused(data):
    with pytest.raises(CheckpointError):
        load_state(example([0.0], ()), data)
