"""The rules of builders of training examples."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

from budgeteer.check._common import CheckFailed
from budgeteer.check._toy import CLOSE, QUESTION, ToyModel, toy_style
from budgeteer.check.scripted import ALL
from budgeteer.core.errors import BudgetExceeded, InvalidInput, ModelError
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import CAPABILITIES
from budgeteer.solve import Budgeted, Task
from budgeteer.solve.strategy import CHECK
from budgeteer.tuning.protocol import FIELDS, Builder, Built, refuse_example

ENOUGH = 1_000_000


def check_tuning(builder: Builder, *, seed: int = 0, budgets: int = 8) -> None:
    """Run a builder on a scripted model, and raise :class:`CheckFailed` at the first broken rule.

    Rules: whatever the budget, from 0 up, it returns a :class:`Built` and spends no more; with a large budget some of
    several questions have examples; an example survives JSON and has the fields of its kind as TRL reads them, in raw
    text and in messages; what is to be learnt, the completion or the chosen answer, ends with a right answer; a pair is
    of two different answers; the same seed gives the same examples. A call that fails may raise a ModelError.

    Args:
        builder: the builder to check.
        seed: of the budgets and the model.
        budgets: how many random budgets.
    """
    if not isinstance(builder, Builder):
        raise CheckFailed(f"the factory made {builder!r}, no Builder")
    if builder.kind not in FIELDS:
        raise CheckFailed(f"kind is {builder.kind!r}; it is one of {', '.join(FIELDS)}")
    if not builder.needs <= CAPABILITIES | {CHECK}:
        raise CheckFailed(f"Builder.needs {sorted(builder.needs)} has more than {', '.join(sorted(CAPABILITIES))}")
    rng = random.Random(seed)
    for budget in (0, 1, *(int(10 ** rng.uniform(0, 3.5)) for _ in range(budgets))):
        _built(builder, budget, seed)
    for chat in (False, True):
        made = [_built(builder, ENOUGH, seed + turn, chat=chat) for turn in range(6)]
        if made[0] != _built(builder, ENOUGH, seed, chat=chat):
            raise CheckFailed("the same seed gave other examples")
        if not any(built.examples for built in made):
            raise CheckFailed("no question had an example, with a large budget and a model that is mostly right")
        for built in made:
            for one in built.examples:
                _example(builder.kind, one)
    for turn in range(4):
        _built(builder, ENOUGH, seed + turn, fail=0.5)


def _built(builder: Builder, budget: int, seed: int, *, fail: float = 0.0, chat: bool = False) -> Built:
    model, ledger = ToyModel(ALL | CAPABILITIES, seed=seed, fail=fail), MemoryLedger()
    model.write = _think
    ledger.open("check", [Limit("all", budget)])
    with Allowance(ledger, "check", {"all": budget}) as allowance:
        budgeted = Budgeted(model, allowance)
        task = Task(QUESTION, budgeted, toy_style(chat=chat), seed, lambda answer: float(answer == "4"))
        try:
            built = asyncio.run(builder.build(task))
        except (ModelError, BudgetExceeded):
            if not fail and budget:
                raise
            built = Built(())
    if model.used > budget:
        raise CheckFailed(f"{model.used} tokens were used of a budget of {budget}")
    if not isinstance(built, Built):
        raise CheckFailed(f"build returned {str(built)[:80]!r}, no Built")
    return built


def _think(prompt: str, rng: random.Random) -> str:
    """Some steps, their end, and mostly the right answer; the answer alone behind a thinking that is closed."""
    closed = CLOSE in prompt.rpartition(QUESTION.text)[2]
    steps = "" if closed else "one more step\n" * rng.randint(1, 9) + CLOSE
    return f"{steps}{rng.choice('44445')}\n"


def _example(kind: str, one: Any) -> None:
    try:
        same = json.loads(json.dumps(one)) == one
        refuse_example(kind, one)
    except (TypeError, ValueError, InvalidInput) as error:
        raise CheckFailed(f"an example of kind {kind} is not as TRL reads it: {error}") from error
    if not same:
        raise CheckFailed(f"an example did not survive JSON: {str(one)[:80]}")
    learnt = one[FIELDS[kind][1]]
    text = learnt if isinstance(learnt, str) else learnt[-1]["content"]
    if toy_style().read(text) != "4":
        raise CheckFailed(f"an example teaches {text[-40:]!r}, whose answer is not the reference")
    if kind == "preference" and one["chosen"] == one["rejected"]:
        raise CheckFailed("a pair prefers an answer to itself")
    if CLOSE not in text:
        raise CheckFailed(f"an example teaches {text[-40:]!r}, whose thinking has no end")
