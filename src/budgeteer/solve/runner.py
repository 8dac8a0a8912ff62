"""Many questions under one hard budget: bounded concurrency, one line per question, resumable after kill -9.

``settings.py`` has the settings of a run, ``books.py`` what it spent and wrote, ``question.py`` how one question is
answered, ``loop.py`` in which order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Sequence

from budgeteer.core.amounts import MONEY
from budgeteer.core.budget import Budgets
from budgeteer.core.errors import BudgeteerError, InvalidInput, ModelError
from budgeteer.core.usage import Usage
from budgeteer.models.model import INTERNALS, PREFIX, Model, continuing
from budgeteer.solve.books import Books
from budgeteer.solve.loop import Loop
from budgeteer.solve.settings import TIMEOUT, Pause, Progress, Row, Run, Settings, Together, Weigh, Work
from budgeteer.solve.strategy import CHECK, GIVEN, TOOLS, Question, Strategy, Style

__all__ = [
    "TIMEOUT",
    "Pause",
    "Progress",
    "Row",
    "Run",
    "Settings",
    "Together",
    "Weigh",
    "fitting",
    "refuse_needs",
    "run",
]
_DEFAULTS = Settings()


async def run(
    questions: Sequence[Question],
    strategy: Strategy | Together,
    model: Model,
    style: Style,
    budget: Budgets | str,
    settings: Settings = _DEFAULTS,
) -> Run:
    """Answer questions; the units reserved and spent never exceed the budget, whatever strategy and model do.

    With ``per_question``, every question may use the whole budget. Otherwise the budget is one total: a question gets
    an equal share (or one by ``weigh``) of what is left when it starts. So that the same seed gives the same shares,
    what is left is computed from the questions that began ``2 * concurrency`` earlier (or 1, with a concurrency of 1),
    and a question waits for those.

    With ``out``, the line of a question is written there as soon as it has ended. Running again with the same arguments
    goes on where the run stopped, also after kill -9. Beside it, the folder ``OUT.run`` holds the settings and, for a
    ``durable`` run, a ledger and a record of calls (:mod:`budgeteer.solve.record`): no answered call is paid twice, and
    calls that were under way at a kill count as spent. Other runs simply start their open questions again, since the
    work of a local model in a killed process is not billed.

    Args:
        questions: with distinct ids.
        strategy: see :class:`Strategy`. A :data:`Together` answers all questions at once from a total budget; it
            controls its own concurrency, has no time limit, and cannot be durable.
        model: with the capabilities that the strategy needs; the caller closes it.
        style: how to ask.
        budget: absolute, without windows, such as ``"2k"`` or ``"output:500, $0.01"``.
        settings: everything else.

    Raises:
        InvalidInput: before anything is spent: the model lacks what the strategy needs, two ids are equal, the budget
            is no amount, or the output was begun with other settings.
        EndpointDown: no call could be sent, since the model's address does not answer.
    """
    about, prices = settings.about, settings.prices
    models = (model, *(strategy.models if isinstance(strategy, Strategy) else ()))
    here = all(INTERNALS in asked.capabilities for asked in models)
    durable = not here if settings.durable is None else settings.durable
    if isinstance(strategy, Strategy):
        tools = settings.tools is not None
        refuse_needs(strategy, model, style, settings.check is not None, about.get("strategy", ""), tools=tools)
    elif settings.per_question or (durable and settings.out is not None):
        raise InvalidInput(
            "this strategy answers all questions together: give it a total budget, and no output file where the calls "
            "are billed, since it keeps no record of them"
        )
    with contextlib.suppress(ModelError):  # a server that is down is found out by the first call
        model.count(style.prompt("1 + 1"))  # how the style asks: what the model cannot do is refused here
    _check(questions, settings)
    amounts = _amounts(budget)
    if MONEY in amounts and prices is None:
        raise InvalidInput("a money budget needs prices; give a price table, such as budgeteer.prices.genai.load()")
    if prices is not None:
        for asked in models:  # an unknown price is an error now, not in the middle
            prices.cost(Usage(input=0, output=0), asked.name)
    limit = {kind: units * (len(questions) if settings.per_question else 1) for kind, units in amounts.items()}
    identity = {
        "durable": "yes" if durable else "no",
        "questions": _digest(questions),
        "model": model.name,
        "budget": str(budget),
        "seed": str(settings.seed),
        "per": "question" if settings.per_question else "total",
        **({"pass at": str(settings.pass_at)} if settings.pass_at > 1 else {}),
        **about,
    }
    work = Work(tuple(questions), strategy, model, style, amounts, limit, settings)
    with contextlib.ExitStack() as stack:
        return await Loop(work, Books(work, durable, identity, stack)).run()


def refuse_needs(
    strategy: Strategy, model: Model, style: Style, checked: bool, name: str = "", *, tools: bool = False
) -> None:
    """Refuse a model, style or task that lacks something that a strategy needs; the error names strategies that fit.

    Args:
        strategy: the strategy.
        model: its capabilities are looked at.
        style: how to ask.
        checked: whether there is a verifier.
        name: of the strategy, for the error.
        tools: whether the task has tools.

    Raises:
        InvalidInput: the model or the style lacks something, or there is no verifier, or there are no tools.
    """
    called = name or "given"
    if CHECK in strategy.needs and not checked:
        raise InvalidInput(
            f"the strategy {called} asks a verifier and there is none; give check= (on the command line --oracle)"
        )
    if TOOLS in strategy.needs and not tools:
        raise InvalidInput(
            f"the strategy {called} calls tools and the task has none; take a task with tools, such as lookups, or an "
            "Environment of yours with a method tools(item)"
        )
    has = model.capabilities
    to_continue = continuing(style.prompt("1 + 1"))  # what PREFIX means with this style
    if to_continue != PREFIX:
        has = has | {PREFIX} if to_continue in has else has - {PREFIX}
    missing = strategy.needs - has - GIVEN
    if missing:
        works = ", ".join(fitting(has | {TOOLS} if tools else has)) or "none that is registered"
        if missing == {PREFIX} and to_continue != PREFIX:
            raise InvalidInput(
                f"the strategy {called} continues what the model wrote, and the style asks in a chat, where "
                f"{model.name} cannot: it does not declare {to_continue!r}. Use a style with raw text (few-shot, "
                f"direct), the dialect of the endpoint if it is one of vLLM, SGLang or llama.cpp, or one of these "
                f"strategies: {works}"
            )
        where = "; a steer acts inside a model that is decoded here: reasoner or hf:FOLDER" * (INTERNALS in missing)
        raise InvalidInput(
            f"the strategy {called} needs {' and '.join(sorted(missing))}, which {model.name} does not have; "
            f"these would work: {works}{where}"
        )


def fitting(capabilities: frozenset[str]) -> list[str]:
    """Names of the registered strategies that, with their default options, need only these capabilities."""
    from budgeteer.core.registry import load, of

    names = []
    for name, method in of("strategy").items():
        with contextlib.suppress(ImportError, TypeError, BudgeteerError):  # not installed, or needs arguments
            if load(method)().needs <= capabilities:
                names.append(name)
    return names


def _check(questions: Sequence[Question], settings: Settings) -> None:
    concurrency, timeout = settings.concurrency, settings.timeout
    if timeout is not None and not timeout > 0:
        raise InvalidInput(f"timeout is {timeout}; give seconds above 0, or None for no limit")
    if not questions:
        raise InvalidInput("no questions; give at least one")
    if concurrency < 1 or settings.pass_at < 1:
        raise InvalidInput(f"concurrency is {concurrency}, pass_at is {settings.pass_at}; give at least 1 of each")
    twice = [name for name, n in Counter(question.id for question in questions).items() if n > 1]
    if twice:
        raise InvalidInput(f"{len(twice)} ids are there more than once, such as {twice[0]!r}; make ids distinct")


def _amounts(budget: Budgets | str) -> dict[str, int]:
    budgets = Budgets.parse(budget) if isinstance(budget, str) else budget
    for part in budgets:
        if part.amount is None or part.window is not None:
            raise InvalidInput(f"budget {str(part)!r} is no amount; write tokens or money, such as 2k or $0.01")
    return {part.kind: part.amount or 0 for part in budgets}


def _digest(questions: Sequence[Question]) -> str:
    content = json.dumps([(question.id, question.text) for question in questions])
    return f"{len(questions)} with digest {hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}"
