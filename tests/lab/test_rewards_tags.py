"""benchmarks/rewards_tags.py: the control in which tags say nothing of their rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from budgeteer.core.allocator import dump_state, load_state
from budgeteer.rl.reward import Columns, adactrl

ROOT = Path(__file__).parents[2]


def rows_of(texts):
    """As many prompts of one right row each, so that all deserve [Easy]."""
    n = len(texts)
    return Columns([1.0] * n, [10] * n, list(range(n)), [99] * n, [1] * n, text=texts)


@pytest.fixture
def shuffled_tags(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import rewards_tags

    return rewards_tags.shuffled_tags


def test_as_many_rows_are_paid_for_a_tag_and_others_than_wrote_it(shuffled_tags) -> None:
    texts = ["[Easy] 7"] * 5 + ["[Hard] 7"] * 3 + ["7"] * 2
    rows, plain = rows_of(texts), adactrl(length=0)
    control = shuffled_tags(plain)
    state, seen = control.init(), []
    for _ in range(40):
        scores = control.score(state, rows)
        assert sorted(scores.tolist()) == sorted(plain.score((), rows).tolist()) == [0.5] * 2 + [1.0] * 3 + [1.5] * 5
        assert scores.tolist() == control.score(state, rows).tolist()  # pure
        seen.append(scores)
        state = load_state(control.init(), json.loads(json.dumps(dump_state(control.observe(state, rows)))))
    assert state == ((), 40)
    # each row's mean over the steps is that of all, 1.15, with a standard error of 0.06
    assert np.abs(np.mean(seen, axis=0) - 1.15).max() < 0.25


def test_a_row_keeps_what_it_says_behind_its_tag(shuffled_tags) -> None:
    from budgeteer.rl.reward import Reward

    told = []
    spy = Reward(lambda state, rows: told.extend(rows.column("text", "spy")) or np.zeros(len(rows)), needs=("text",))
    control = shuffled_tags(spy)
    control.score(control.init(), rows_of(["[Easy] one", "[Hard] two", "six"]))
    assert [text.removeprefix("[Easy]").removeprefix("[Hard]") for text in told] == [" one", " two", "six"]
    assert sorted(text[0] for text in told).count("[") == 2
    assert control.score(control.init(), rows_of([])).tolist() == []
