"""What all strategies that look inside the model promise: their budget, any budget, the same answer again."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("torch")

from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.core.registry import make
from helpers.insides import ask, reasoner

NAMES = ("budget-guidance", "switch-thinking", "mirostat", "diffadapt-probe", "zip-rc")


@pytest.fixture(scope="module")
def model():
    made = reasoner()
    yield made
    asyncio.run(made.aclose())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("output", [0, 1, 4, 7, 23, 60, 300])
def test_any_budget_is_kept_and_has_a_reason(model, name, output):
    answer, budgeted = ask(make("strategy", name), model, output=output)
    assert budgeted.spend.usage.output <= output
    assert answer.answer is not None or answer.stopped_by in ("budget", "done")
    if output == 0:
        assert (answer.answer, answer.stopped_by) == (None, "budget")
    if output >= 7:  # room for the closing marker and an answer
        assert answer.answer is not None


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_answer(model, name):
    first, other = (ask(make("strategy", name), model, output=120, seed=7)[0] for _ in range(2))
    assert first == other
    assert any(ask(make("strategy", name), model, output=120, seed=seed)[0].traces != first.traces for seed in range(6))


@pytest.mark.parametrize("name", NAMES)
def test_a_black_box_is_refused(name):
    # one that has a head of its own to look for does not find it
    with pytest.raises((InvalidInput, CheckpointError), match=r"black box|could have a head beside it"):
        ask(make("strategy", name), Scripted(lambda prompt, rng: "1</think>1\n"), output=100)
