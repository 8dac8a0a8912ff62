"""Soft landing by hand: rank of the closing token, and where the last part of the budget begins."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from budgeteer.core.errors import InvalidInput
from budgeteer.core.steer import CONTINUE, FINISH, Snapshot
from budgeteer.steer import soft_landing

# token 2 closes; it is the 1st, 2nd and 4th likeliest
FIRST, SECOND, FOURTH = [0.0, 1.0, 5.0, 2.0], [0.0, 1.0, 5.0, 6.0], [3.0, 4.0, 2.0, 6.0]


def decided(length: int, logits: list[float], **options: Any) -> int:
    now = Snapshot.of([length], logits=torch.tensor([logits]), close=lambda i: (2, 3))
    action, _ = soft_landing(**{"most": 10, "share": 0.3, "likely": 2, **options}).step((), now)
    assert action.decision is not None
    return int(action.decision[0])


@pytest.mark.parametrize(
    ("length", "logits", "want"),
    [
        (6, FIRST, CONTINUE),  # before the last 3 of 10 tokens nothing is done
        (7, FIRST, FINISH),
        (7, SECOND, FINISH),
        (7, FOURTH, CONTINUE),
        (9, FOURTH, CONTINUE),
        (10, FOURTH, FINISH),  # the budget is hard
    ],
)
def test_it_lands_where_the_marker_is_likely(length: int, logits: list[float], want: int) -> None:
    assert decided(length, logits) == want


def test_options_move_the_place() -> None:
    assert decided(9, FIRST, share=0.0) == CONTINUE
    assert decided(0, SECOND, share=1.0) == FINISH
    assert decided(7, SECOND, likely=1) == CONTINUE
    assert decided(7, FOURTH, likely=4) == FINISH


def test_rows_that_do_not_think_are_left_alone() -> None:
    for columns in ({"closed": 3}, {"closed": 0}, {"forced": True}):
        now = Snapshot.of([12], logits=torch.tensor([FIRST]), close=lambda i: (2,), **columns)
        action, _ = soft_landing(10).step((), now)
        assert action.decision is not None
        assert int(action.decision[0]) == CONTINUE


@pytest.mark.parametrize("options", [{"most": 0}, {"share": 1.5}, {"likely": 0}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="soft_landing"):
        soft_landing(**{"most": 10, **options})
