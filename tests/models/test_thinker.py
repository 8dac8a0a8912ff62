"""The embedded thinking model: small, loaded by the auto classes, better with more thinking."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from budgeteer.lab.thinker.conversations import problem
from budgeteer.lab.thinker.evaluate import Asker
from budgeteer.models.thinker import THINKER, thinker

if not THINKER.is_dir():
    pytest.skip("the weights are not in this tree yet", allow_module_level=True)


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in thinker().iterdir()) <= 8_000_000
    assert 1_000_000 <= sum(w.numel() for w in Asker(THINKER).model.parameters()) <= 3_000_000


@pytest.mark.slow
def test_more_thinking_is_right_more_often() -> None:
    asker, asked = Asker(THINKER), [problem(3, i, "test", "words", 3) for i in range(48)]
    cut, low, high = (
        sum(one.right for one in asker.ask(asked, effort=effort, budget=budget))
        for effort, budget in (("low", 8), ("low", None), ("high", None))
    )
    assert cut < low < high
