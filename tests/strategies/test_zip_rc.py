"""ZIP-RC: the table by hand, and what the controller does at the ends of its range."""

from __future__ import annotations

import random

import pytest

from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput
from budgeteer.steer._zip_rc import Costs
from budgeteer.strategies import zip_rc
from budgeteer.strategies._zip_rc import Table
from helpers.insides import STYLE, ask


def test_the_table_by_hand():
    table = Table.fit([4, 4, 20, 20], [1, 1, 0, 1], ["a"] * 4, lengths=(0, 8, 16), every=8)
    assert table.predict("a", 0)[:, 0].round(2).tolist() == [0.0, 0.5]
    assert table.predict("a", 0)[:, 2].round(2).tolist() == [0.25, 0.25]
    assert table.predict("a", 500)[:, 0].round(2).tolist() == [0.5, 0.5]  # 4 tokens left, both alike
    assert table.value("a", 4) == 1.0
    assert table.value("a", 20) == 0.5
    with pytest.raises(InvalidInput, match="no class 'b'"):
        table.predict("b", 0)


def write(prompt, rng):
    """A quick right answer or a long wrong one."""
    return "ab</think>5\n" if rng.random() < 0.5 else "a" * 60 + "</think>7\n"


def of(costs, **options):
    rng = random.Random(0)
    traces = [write("", rng) for _ in range(400)]
    table = Table.fit([len(t) for t in traces], ["5" in t for t in traces], ["all"] * 400, every=8)
    return zip_rc(table, costs=costs, samples=4, **options)


def test_a_black_box_is_asked_in_streams_and_late_samples_are_closed():
    careful, free = (ask(of(costs), Scripted(write), output=4000, seed=3) for costs in (Costs(0.05, 0.0), Costs(0, 0)))
    assert careful[0].answer == "5"
    assert careful[1].spend.usage.output < free[1].spend.usage.output / 2
    # with no costs, no sample is closed before its end
    assert len(free[0].traces) == 4
    assert free[1].spend.estimated == 0


@pytest.mark.parametrize("output", [0, 1, 5, 12, 40, 150])
def test_a_black_box_and_any_budget(output):
    answer, budgeted = ask(of(Costs(0.05, 0.05)), Scripted(write), output=output, seed=1)
    assert budgeted.spend.units["output"] <= output
    if output == 0:
        assert (answer.answer, answer.stopped_by) == (None, "budget")
    assert answer == ask(of(Costs(0.05, 0.05)), Scripted(write), output=output, seed=1)[0]


def test_a_verifier_has_the_last_word():
    """Wrong answers are more frequent, but the check knows."""
    from budgeteer.strategies._zip_rc import Pool

    class Ask:
        style, check = STYLE, staticmethod(lambda answer: float(answer == "5"))

    pool = Pool(Ask)
    for text in ("x</think>7\n", "x</think>7\n", "x</think>5\n", "x"):
        pool.add(text, 3, 0.4)
    assert pool.answer("done").answer == "5"
    assert pool.known == [(0.0, 3), (0.0, 3), (1.0, 3), (0.0, 3)]


def test_bad_settings_are_refused():
    with pytest.raises(InvalidInput, match="samples=0"):
        zip_rc(samples=0)
    with pytest.raises(InvalidInput, match="one of each"):
        Table.fit([1, 2], [1.0], ["a"])
