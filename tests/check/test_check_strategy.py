"""check_strategy: what keeps the rules passes, and every rule rejects a strategy that breaks it."""

from __future__ import annotations

import asyncio
import random

import pytest

from budgeteer.check import CheckFailed, check_strategy
from budgeteer.core.errors import BudgetExceeded, ModelError
from budgeteer.models.model import INTERNALS, PREFIX, Request
from budgeteer.solve import Answer, Strategy, Task
from helpers.strategies import inside, once, together, vote


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("factory", [once, vote, together])
def test_a_good_strategy_passes(factory, seed):
    check_strategy(factory, seed=seed)


def test_one_with_needs_passes_and_is_refused_on_a_black_box():
    check_strategy(lambda: vote()._replace(needs=frozenset({PREFIX})))


def test_internals_ask_for_a_model():
    with pytest.raises(CheckFailed, match="give one as model"):
        check_strategy(inside)


async def _ask(task: Task, **more):
    prompt = task.style.prompt(task.question.text)
    size = task.model.afford(prompt, most=60)
    if not size:
        return None
    try:
        return await task.model.generate(Request(prompt, size, **more))
    except (BudgetExceeded, ModelError):
        return None


async def careless(task):
    """Asks without looking at the budget."""
    found = await task.model.generate(Request(task.style.prompt(task.question.text), 60))
    return Answer(task.style.read(found.choices[0].text) or "?", "done")


async def fragile(task):
    """Minds the budget, not the failures: the second one loses what the first brought."""
    prompt = task.style.prompt(task.question.text)
    found = None
    for i in range(2):
        size = task.model.afford(prompt, most=60)
        if not size:
            break
        found = await task.model.generate(Request(prompt, size, seed=task.seed + i))
    return Answer(None if found is None else task.style.read(found.choices[0].text), "budget")


async def past(task):
    """Asks the model inside."""
    found = await task.model.model.generate(Request(task.style.prompt(task.question.text), 60))
    return Answer(task.style.read(found.choices[0].text), "done")


async def moody(task):
    await _ask(task, seed=random.randrange(10**9))
    return Answer("4", "done")


async def raw(task):
    found = await _ask(task, seed=task.seed)
    return Answer(None if found is None else " 4", "done")


async def silent(task):
    await _ask(task, seed=task.seed)
    return Answer(None, "done")


async def dumb(task):
    return Answer(None, "")


async def guessing(task):
    await _ask(task, seed=task.seed)
    return Answer("4", "done")


async def texts(task):
    prompt = task.style.prompt(task.question.text) + ""
    size = task.model.afford(prompt, most=60)
    try:
        found = await task.model.generate(Request(prompt, size, seed=task.seed)) if size else None
    except (BudgetExceeded, ModelError):
        found = None
    return Answer(task.style.read(found.choices[0].text) if found else None, "done")


TASKS = []


async def keeping(task):
    """Keeps its call alive, so that the garbage collector does not hide it."""
    TASKS.append(asyncio.ensure_future(_ask(task)))
    await asyncio.sleep(0)
    return Answer(None, "done")


BROKEN = {
    "it raised BudgetExceeded": careless,
    "lost the answers": fragile,
    "calls under way": keeping,
    "calls went past": past,
    "asked other things": moody,
    "normal form": raw,
    "no answer with": silent,
    "stopped_by is ''; choose one of done, budget, cap": dumb,
    "every call of the model failed": guessing,
    "it raised TypeError": texts,
}


@pytest.mark.parametrize("rule", list(BROKEN))
def test_each_rule_rejects_what_breaks_it(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_strategy(lambda: Strategy(BROKEN[rule]))


def test_needs_are_capabilities():
    with pytest.raises(CheckFailed, match="has more than"):
        check_strategy(lambda: Strategy(dumb, frozenset({"telepathy"})))
    assert INTERNALS in inside().needs
