"""The check of reducers: each rule against one that breaks it."""

from __future__ import annotations

import numpy as np
import pytest

from budgeteer.check import CheckFailed, check_reducer
from budgeteer.context import recency
from budgeteer.context.pieces import talk_of

RNG = np.random.default_rng(0)


def then(change):
    """The newest pieces, and what ``change`` makes of the result."""
    return lambda messages, budget, count: change(recency()(messages, budget, count))


def editing(messages, budget, count):
    messages[0]["content"] = "Mine."
    return recency()(messages, budget, count)


def nothing(messages, budget, count):
    talk = talk_of(messages)
    talk.bare(budget, count)
    return talk.keep(())


def lenient(accepts):
    """Takes what ``accepts`` names, and else is as it has to be."""

    def reduce(messages, budget, count):
        if accepts(messages, budget):
            return list(messages)
        return recency()(messages, budget, count)

    return reduce


def over(messages, budget, count):
    recency()(messages, budget, count)
    return list(messages)


def unlucky(messages, budget, count):
    kept = recency()(messages, budget, count)
    return (
        recency()(messages, max(count(nothing(messages, budget, count)), budget - int(RNG.integers(40))), count) or kept
    )


BROKEN = {
    "and the budget is": over,
    "were changed": editing,
    "another result": unlucky,
    "the system message 'Be brief.' is not there": then(lambda kept: [m for m in kept if m["role"] != "system"]),
    "the question 'Which cats like bees.. is not there": then(lambda kept: kept[:-1]),
    "changed their order": then(lambda kept: [kept[-1], *kept[:-1]]),
    "without its call before it": then(lambda kept: [m for m in kept if "tool_calls" not in m]),
    "lost its result": then(lambda kept: [m for m in kept if m["role"] != "tool"]),
    "kept no more than what has to stay": nothing,
    "a question without context": lambda messages, budget, count: (
        messages[1:] if len(messages) == 2 else recency()(messages, budget, count)
    ),
    "a budget of 0": lenient(lambda messages, budget: budget == 0),
    "a budget of 2.5": lenient(lambda messages, budget: budget == 2.5),
    "a budget of True": lenient(lambda messages, budget: budget is True),
    "no messages": lenient(lambda messages, budget: not messages),
    "a result without its call is refused": lenient(
        lambda messages, budget: messages and messages[0]["role"] == "tool"
    ),
}


def test_check_reducer_accepts_the_newest_pieces():
    check_reducer(recency())


@pytest.mark.parametrize("rule", list(BROKEN))
def test_check_reducer_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_reducer(BROKEN[rule])
