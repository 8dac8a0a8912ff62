"""Schedules, allocators that follow them, and chains and partitions with names."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgeteer import Items, Menu, Outcomes, named_chain, partition, scheduled
from budgeteer.allocate import (
    floor,
    greedy_marginal,
    menu_knapsack,
    neyman,
    uniform,
)
from budgeteer.check import check_allocator
from budgeteer.core.errors import InvalidInput
from budgeteer.core.schedule import constant, cosine, linear, piecewise


def variance_left(items, n):
    return -math.fsum(items.std**2 / n)


def units(allocator, budget, items, state=None):
    state = allocator.init(items) if state is None else state
    return allocator.allocate(budget, items, state, rng=np.random.default_rng(0)).units.tolist()


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


def test_scheduled_follows_what_was_spent():
    allocator = scheduled(uniform, 100, units=linear(9, 1))
    items = Items(("a", "b"), np.ones(2))
    state = allocator.init(items)
    assert units(allocator, 50, items, state) == [9, 9]
    outcomes = Outcomes(("a",) * 2, np.array([20, 30]), np.zeros(2), np.zeros(2), np.ones(2, np.int8))
    state = allocator.observe(state, outcomes)
    assert units(allocator, 50, items, state) == [5, 5]
    follows = scheduled(neyman, 1000, min_units=linear(3, 1), max_units=piecewise([(0.0, 8), (0.5, 4)]))
    check_allocator(follows, objective=variance_left)
    with pytest.raises(InvalidInput, match="total of 0"):
        scheduled(uniform, 0)


def test_named_chain_says_which_link_failed():
    items = Items(("a",), menu=Menu.of([[1]], [[1.0]]))
    allocator = named_chain(("split", menu_knapsack()), ("two each", floor(2)))
    with pytest.raises(InvalidInput, match="in link 'two each': plan transforms change counts"):
        units(allocator, 5, items)
    with pytest.raises(InvalidInput, match=r"in link 'split': .*needs Items\.menu"):
        units(allocator, 5, Items(("a",), np.ones(1)))
    with pytest.raises(InvalidInput, match="its own"):
        named_chain(("x", uniform()), ("x", floor(2)))
    as_it_is = named_chain(("split", neyman()), ("cap", lambda plan, budget, items: plan))
    check_allocator(as_it_is, objective=variance_left)


def test_partition_splits_the_budget_and_nothing_crosses():
    items = Items(("m1", "c1", "m2", "c2"), np.ones(4), std=np.array([1.0, 1.0, 3.0, 1.0]))
    both = partition({"m": neyman(), "c": uniform(1)}, lambda key: key[0], {"m": 0.5, "c": 0.5})
    assert units(both, 16, items) == [2, 1, 6, 1]  # c leaves 6 tokens unspent, and they stay so
    equal = partition({"m": neyman(), "c": uniform()}, lambda key: key[0])
    assert units(equal, 16, items) == [2, 4, 6, 4]
    assert sum(units(equal, 17, items)) == 17  # 8.5 each: the odd token goes to one of them, whole
    check_allocator(equal_by_parity := partition({"0": neyman(), "1": uniform()}, lambda key: str(int(key[-1]) % 2)))
    assert equal_by_parity.init(items.take(np.zeros(0, np.int64))) == ((), ())
    check_allocator(
        partition({"0": menu_knapsack(), "1": greedy_marginal()}, lambda key: str(int(key[-1]) % 2)), menu=True
    )


def test_partition_hands_each_allocator_its_own_outcomes():
    halves = {name: scheduled(uniform, 100, units=linear(9, 1)) for name in "mc"}
    both = partition(halves, lambda key: key[0], {"m": 0.5, "c": 0.5})
    items = Items(("m1", "c1"), np.ones(2))
    outcomes = Outcomes(("m1", "c1"), np.array([50, 100]), np.zeros(2), np.zeros(2), np.ones(2, np.int8))
    assert units(both, 40, items, both.observe(both.init(items), outcomes)) == [5, 1]


@pytest.mark.parametrize("shares", [{"m": 1.0}, {"m": 0.8, "c": 0.8}, {"m": -0.1, "c": 0.5}, {"m": math.nan, "c": 0.1}])
def test_partition_refuses_bad_shares(shares):
    with pytest.raises(InvalidInput, match="shares"):
        partition({"m": uniform(), "c": uniform()}, lambda key: key[0], shares)


def test_partition_names_a_key_without_a_group():
    both = partition({"m": uniform()}, lambda key: key[0])
    with pytest.raises(InvalidInput, match="'x1' into 'x'"):
        units(both, 4, Items(("x1",), np.ones(1)))
