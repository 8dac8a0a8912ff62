"""The rules of strategies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from budgeteer.check._common import CheckFailed
from budgeteer.check._toy import QUESTION, CallingModel, ToyModel, toy_style, toy_tools
from budgeteer.check.scripted import ALL
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.model import (
    CAPABILITIES,
    INTERNALS,
    Model,
)
from budgeteer.solve import Answer, Budgeted, Question, StoppedBy, Strategy, Style, Task
from budgeteer.solve.runner import Settings, run
from budgeteer.solve.strategy import CHECK, GIVEN, TOOLS

SECONDS = 60
"""After which a strategy hangs."""
ENOUGH = 100_000


def check_strategy(
    factory: Callable[[], Strategy], *, seed: int = 0, model: Callable[[], Model] | None = None, budgets: int = 12
) -> None:
    """Run a strategy on a scripted model, and raise :class:`CheckFailed` at the first broken rule.

    Rules: whatever the budget, from 0 up, it returns an Answer and does not raise; an answer is in the style's normal
    form, and an Answer without one has a reason; every call goes through the task's model, and none is left under way;
    the units spent are within the budget; with a large budget on a model that answers, there is an answer; the same
    seed gives the same answer by the same calls. On a model that fails or cuts off half of its calls, no answer that
    came is lost: a ModelError may pass only if nothing was answered (the runner makes it the reason). On a model that
    always fails there is no answer. A strategy without needs works with messages on a black box, which declares no
    capability; a strategy with needs is refused there by the runner, before any call. One that calls tools keeps within
    a budget of calls on a model that calls without end.

    Args:
        factory: makes the strategy; called for every run.
        seed: of the budgets and the model.
        model: a model with what the strategy needs, for strategies that need internals; the rules about failures and
            large budgets are then left out, since nothing is known of it.
        budgets: how many random budgets of each kind.
    """
    strategy = factory()
    if not isinstance(strategy, Strategy):
        raise CheckFailed(f"the factory made {strategy!r}, no Strategy")
    known = CAPABILITIES | GIVEN
    if not strategy.needs <= known:
        raise CheckFailed(f"Strategy.needs {sorted(strategy.needs)} has more than {', '.join(sorted(known))}")
    if INTERNALS in strategy.needs and model is None:
        raise CheckFailed("the strategy needs internals, which no scripted model has; give one as model=")

    def toy(fail: float = 0.0, capabilities: frozenset[str] = ALL, turn: int = 0) -> ToyModel:
        return ToyModel(capabilities, seed=seed + turn, fail=fail)

    rng = random.Random(seed)
    random_budgets = [int(10 ** rng.uniform(0, 3.5)) for _ in range(budgets)]
    for kind in ("all", "output"):
        for budget in (0, 1, 2, *random_budgets):
            _solve(factory, toy() if model is None else model(), {kind: budget}, seed)
    _same(factory, toy if model is None else model, {"all": sorted(random_budgets)[len(random_budgets) // 2]}, seed)
    if model is None:
        answer = _solve(factory, toy(), {"all": ENOUGH}, seed)
        if answer.answer is None:
            raise CheckFailed(f"no answer with {ENOUGH:,} tokens on a model that answers; it says {answer.reason!r}")
        _same(factory, toy, {"all": ENOUGH}, seed)
        for turn, budget in enumerate((*random_budgets, *[ENOUGH] * 8)):  # other calls fail in every turn
            _solve(factory, toy(0.5, turn=turn), {"all": budget}, seed)
        answer = _solve(factory, toy(1.0), {"all": ENOUGH}, seed)
        if answer.answer is not None:
            raise CheckFailed(f"answered {answer.answer!r}, and every call of the model failed")
    if TOOLS in strategy.needs and model is None:
        for budget in (*random_budgets, ENOUGH):
            caller = CallingModel(ALL, seed=seed)
            _solve(factory, caller, {"all": budget, "tool:look": 3}, seed)
    box = toy(capabilities=frozenset())
    if not strategy.needs - GIVEN:
        for budget in (0, *random_budgets):
            _solve(factory, box, {"all": budget}, seed, style=toy_style(chat=True))
        answer = _solve(factory, box, {"all": ENOUGH}, seed, style=toy_style(chat=True))
        if answer.answer is None:
            raise CheckFailed(f"no answer with {ENOUGH:,} tokens on a chat model; it says {answer.reason!r}")
        return
    try:
        tools = (lambda question: toy_tools()) if TOOLS in strategy.needs else None
        settings = Settings(check=_checked(strategy), tools=tools)
        asyncio.run(run([QUESTION], strategy, box, toy_style(), str(ENOUGH), settings))
    except InvalidInput:
        if box.requests:
            raise CheckFailed("the runner asked a black box before it refused it") from None
    else:
        raise CheckFailed(f"a black box was not refused, though the strategy needs {', '.join(sorted(strategy.needs))}")


def _same(factory: Callable[[], Strategy], make: Callable[[], Model], budget: dict[str, int], seed: int) -> None:
    first, second = make(), make()
    answers = [_solve(factory, model, budget, seed) for model in (first, second)]
    if answers[0] != answers[1]:
        raise CheckFailed(f"the same seed gave {answers[0]!r} and {answers[1]!r}; draw from Task.seed only")
    asked: list[Any] = [getattr(model, "requests", None) for model in (first, second)]
    if asked[0] != asked[1]:
        raise CheckFailed("the same seed asked other things of the model; draw from Task.seed only")


def _solve(
    factory: Callable[[], Strategy], model: Model, budget: dict[str, int], seed: int, *, style: Style | None = None
) -> Answer:
    """One question, with every rule that holds for all of them."""
    if isinstance(model, ToyModel):
        model.used = model.answers = 0
    ledger = MemoryLedger()
    ledger.open("q", [Limit(kind, units) for kind, units in budget.items()])
    given = f"with a budget of {', '.join(f'{units:,} {kind}' for kind, units in budget.items())}"
    style = style or toy_style()

    async def solve() -> tuple[Answer, Budgeted, int]:
        wrapped = Budgeted(model, Allowance(ledger, "q", budget))
        async with asyncio.timeout(SECONDS):
            strategy = factory()
            verify = _checked(strategy)
            check = None if verify is None else (lambda answer: verify(QUESTION, answer))
            tools = toy_tools() if TOOLS in strategy.needs else ()
            answer = await strategy.solve(Task(QUESTION, wrapped, style, seed, check, tools))
        return answer, wrapped, len(asyncio.all_tasks()) - 1

    try:
        answer, wrapped, tasks = asyncio.run(solve())
    except TimeoutError as error:
        raise CheckFailed(f"{given} it did not end within {SECONDS} s") from error
    except ModelError as error:
        if not isinstance(model, ToyModel) or model.answers:
            raise CheckFailed(
                f"{given} it raised {error!r} and lost the answers that it had; return the best"
            ) from error
        return Answer(None, StoppedBy.ERROR, error=str(error))  # nothing to show: the runner makes it the reason
    except Exception as error:
        raise CheckFailed(
            f"{given} it raised {type(error).__name__}: {error}; return the best answer so far"
        ) from error
    answer_rules(answer, style, given)
    _, state = ledger.snapshot()
    if tasks or state.reservations:
        raise CheckFailed(f"{given} it returned with {max(tasks, len(state.reservations))} calls under way; await them")
    for kind, book in state.accounts["q"].books.items():
        if book.spent > budget[kind]:
            raise CheckFailed(f"{given} it spent {book.spent:,} {kind}")
    if isinstance(model, ToyModel):
        seen = wrapped.spend.usage
        if model.used > (seen.input or 0) + (seen.output or 0):
            raise CheckFailed(f"{given} calls went past the task's model; ask task.model, not the model inside")
    return answer


def answer_rules(answer: Answer, style: Style, given: str) -> None:
    """The rules that hold for every answer; ``given`` begins the message."""
    if not isinstance(answer, Answer) or not isinstance(answer.answer, str | None):
        raise CheckFailed(f"{given} it returned {answer!r}, no Answer")
    if answer.answer is not None and style.normal(answer.answer) != answer.answer:
        raise CheckFailed(f"{given} the answer {answer.answer!r} is not in the style's normal form")
    if answer.confidence is not None and not 0 <= answer.confidence <= 1:
        raise CheckFailed(f"{given} the confidence is {answer.confidence}, not in [0, 1]")
    if not isinstance(answer.traces, tuple) or not all(isinstance(trace, str) for trace in answer.traces):
        raise CheckFailed(f"{given} the traces are no tuple of texts")


def _checked(strategy: Strategy) -> Callable[[Question, str], float] | None:
    """A verifier for a strategy that needs one."""
    return (lambda question, answer: float(answer == "4")) if CHECK in strategy.needs else None
