"""Actions of several hooks on one batch are merged row by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from budgeteer.models.hook import Action, Internals, Row, call_hooks  # noqa: E402
from budgeteer.models.model import Request  # noqa: E402

INSIDE = Internals(torch.eye(3), ("a", "b", "c"), 0, lambda text: ["abc".index(c) for c in text])


@dataclass(frozen=True)
class Shift:
    """Adds to the logits of rows that have an even choice; forces, ends and feeds by its fields."""

    by: float
    force: int = -1
    end: bool = False
    soft: bool = False
    hidden: bool = False

    def step(self, inside, rows, logits, hidden):
        assert (hidden is not None) == self.hidden
        m = len(rows)
        even = np.array([row.choice % 2 == 0 for row in rows])
        return Action(
            logits=logits + self.by,
            drawn=even,
            force=np.full(m, self.force),
            end=np.full(m, self.end),
            embeddings=torch.full((m, 3), self.by) if self.soft else None,
            soft=even,
        )


@dataclass(frozen=True)
class Broken:
    hidden: bool = False

    def step(self, inside, rows, logits, hidden):
        raise ValueError("broken on purpose")


def row(hook, choice=0):
    return Row(Request("p", max_tokens=4, n=8, hook=hook), choice, [0])


def test_rows_without_a_hook_are_left_alone_and_nothing_is_written_to():
    logits = torch.arange(6.0).view(2, 3)
    effect = call_hooks(INSIDE, [row(None), row(Shift(1.0))], logits, None)
    assert effect.logits.tolist() == [[0, 1, 2], [4, 5, 6]]
    assert effect.tempered.tolist() == [False, True]
    assert logits.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_each_hook_acts_on_its_own_rows():
    rows = [row(Shift(1.0), 0), row(Shift(2.0, force=2, soft=True), 0), row(Shift(1.0), 1), row(Shift(3.0, end=True))]
    effect = call_hooks(INSIDE, rows, torch.zeros(4, 3), None)
    assert effect.logits[:, 0].tolist() == [1, 2, 0, 3]
    assert effect.tempered.tolist() == [True, True, False, True]
    assert effect.force.tolist() == [-1, 2, -1, -1]
    assert effect.end.tolist() == [False, False, False, True]
    assert effect.soft.tolist() == [False, True, False, False]
    assert effect.embeddings.tolist()[1] == [2, 2, 2]


def test_equal_hooks_are_called_once():
    calls = []

    @dataclass(frozen=True)
    class Counting:
        hidden: bool = True

        def step(self, inside, rows, logits, hidden):
            calls.append((len(rows), tuple(hidden.shape)))

    call_hooks(INSIDE, [row(Counting()), row(Counting()), row(None)], torch.zeros(3, 3), torch.zeros(3, 2, 5))
    assert calls == [(2, (2, 2, 5))]


def test_an_error_fails_its_own_rows_only():
    effect = call_hooks(INSIDE, [row(Shift(1.0)), row(Broken())], torch.zeros(2, 3), None)
    assert list(effect.failed) == [1]
    assert effect.logits[0].tolist() == [1, 1, 1]


def test_fingerprints_tell_weights_apart():
    other = Internals(torch.eye(3) * 2, INSIDE.pieces, 0, INSIDE.encode)
    assert other.fingerprint != INSIDE.fingerprint == Internals(torch.eye(3), (), 0, INSIDE.encode).fingerprint
