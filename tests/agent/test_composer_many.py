"""One composition for many questions: what is tested where, what it costs, and what it leaves for the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from budgeteer.agent import composer_many
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import call_of
from budgeteer.models.model import Request, Response
from budgeteer.prices.price import Price, Rates
from budgeteer.prices.table import of
from budgeteer.solve import Answer, Budgeted, Question, Style, Task
from budgeteer.solve.registered import build
from budgeteer.solve.runner import Settings, run
from budgeteer.solve.tool import Tool

CAPITALS = {"Norway": "Oslo", "Peru": "Lima", "Chad": "N'Djamena", "Oman": "Muscat", "Fiji": "Suva", "Mali": "Bamako"}
STYLE = Style(lambda text: f"{text}\n", lambda text: text.strip().split("\n")[0] or None, "", answer_tokens=12)
USED: list[tuple[str, str]] = []


def tools_for(country: str) -> tuple[Tool, ...]:
    """An atlas that knows the country of its question alone, and a liar that knows nothing."""

    def made(name: str, about: str, known: Mapping[str, str]) -> Tool:
        async def call(arguments: Mapping[str, Any]) -> str:
            USED.append((name, str(arguments["of"])))
            return known.get(str(arguments["of"]), "no idea")

        return Tool(name, about, {"of": {"type": "string"}}, call, cost=10**9)

    atlas = made("atlas", "An atlas.", {country: CAPITALS[country]})
    return made("liar", "Knows every capital of every country, such as that of Norway.", {}), atlas


def write(prompt: str, rng: Any) -> str:
    country = next((name for name in CAPITALS if f"Capital of {name}" in prompt), "Norway")
    if prompt.endswith("Skills:\n"):
        return f"Capitals | 3 | Capital of {country}?\n"
    if prompt.endswith("Verdict:"):
        return "helpful" if CAPITALS[country] in prompt else "useless"
    if "</tool_response>" in prompt or "Answer now" in prompt:
        return (CAPITALS[country] if CAPITALS[country] in prompt else "?") + "\n"
    name = "liar" if '"name": "liar", "description"' in prompt else "atlas" if '"name": "atlas"' in prompt else ""
    return call_of(name, f'{{"of": "{country}"}}') if name else "?\n"


def solved(budget: int, model: Any = None, **options: Any) -> tuple[list[Answer], dict[str, int], list[Task]]:
    """Answers, units that were spent, and tasks."""
    USED.clear()
    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", budget)])
    root, asked = Allowance(ledger, "q", {"all": budget}), model or Scripted(write)
    tasks = [
        Task(Question(name, f"Capital of {name}?"), Budgeted(asked, root), STYLE, 0, tools=tools_for(name))
        for name in CAPITALS
    ]
    found: dict[int, Answer] = {}

    async def collect() -> None:
        async for i, answer in composer_many(tasks, **options):
            assert i not in found
            found[i] = answer

    asyncio.run(collect())
    _, state = ledger.snapshot()
    spent = state.accounts["q"].books["all"].spent
    assert spent <= budget
    assert not state.reservations
    return [found[i] for i in range(len(tasks))], {"all": spent}, tasks


def test_tools_are_tested_once_on_the_pilot_and_the_bought_one_answers_all() -> None:
    answers, spent, tasks = solved(120_000, pilot=2, room=400)
    assert [answer.answer for answer in answers] == list(CAPITALS.values())
    # both tools by the tests of the questions 0 and 3, then the atlas once a question
    tests = [("liar", "Norway"), ("liar", "Oman"), ("atlas", "Norway"), ("atlas", "Oman")]
    assert USED[:4] == tests
    assert sorted(USED[4:]) == sorted(("atlas", name) for name in CAPITALS)
    by = [task.model.spend.units["all"] for task in tasks]
    assert sum(by) == spent["all"]
    assert min(by[0], by[3]) > 2 * max(by[1], by[2], by[4], by[5])  # the pilot's rows hold what composing cost
    assert tasks[0].model.remaining == {"all": 120_000 - spent["all"]}  # parts came back


def test_composing_keeps_to_its_share_and_leaves_the_rest_to_the_questions() -> None:
    for budget in (3_000, 12_000, 40_000):
        _, _, tasks = solved(budget, share=0.1, pilot=2, room=400)
        each = budget * 9 // 10 // len(CAPITALS)
        assert all(task.model.spend.units["all"] <= budget // 20 + each + budget // 10 for task in tasks)
    answers, _, _ = solved(3_000, share=0.1, pilot=2)  # no test fits: nothing is bought, and no tool is asked
    assert (USED, {answer.answer for answer in answers}) == ([], {"?"})


def test_without_tests_what_says_most_of_itself_is_believed_and_dollars_are_prices() -> None:
    answers, _, _ = solved(120_000, pilot=2, room=400, tests=False)
    assert {name for name, _ in USED} == {"liar"}  # whose description is likest, and nothing is tried
    assert len(USED) == len(CAPITALS)
    assert {answer.answer for answer in answers} == {"?"}
    answers, _, _ = solved(120_000, pilot=2, room=0.001, paid_in="dollars")  # a call of the atlas costs $0.001
    assert [answer.answer for answer in answers] == list(CAPITALS.values())
    solved(120_000, pilot=2, room=0.0009, paid_in="dollars")  # none can be bought: all are kept
    assert USED[-1][0] == "liar"
    with pytest.raises(InvalidInput, match="composer-many:room=0,"):
        solved(120_000, room=0)


def test_all_tools_are_kept_where_no_test_is_passed() -> None:
    def useless(prompt: str, rng: Any) -> str:
        return "useless" if prompt.endswith("Verdict:") else write(prompt, rng)

    model = Scripted(useless)
    solved(120_000, model, pilot=1, room=400)
    prompts = [str(request.prompt) for request in model.requests]
    first = next(prompt for prompt in prompts if prompt.startswith("Capital of Mali?"))
    assert all(f'"name": "{name}", "description"' in first for name in ("liar", "atlas"))


def test_skills_of_one_name_are_one_and_those_named_most_often_come_first() -> None:
    from budgeteer.agent._composer_many import _needed

    texts = iter(["Find | 2 | a?\nsums | 5 | 1 + 1?", "find | 4 | b? | a?\ndraw | 1 | c?"])
    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", 9000)])
    root = Allowance(ledger, "q", {"all": 9000})
    model = Scripted(lambda prompt, rng: next(texts))
    tasks = [Task(Question(name, name), Budgeted(model, root), STYLE, 0) for name in "xy"]
    needed, source = asyncio.run(_needed(tasks, 2, 100))
    assert [(skill.name, skill.weight, skill.queries) for skill in needed] == [
        ("find", 3.0, ("a?", "b?")),
        ("sums", 5.0, ("1 + 1?",)),
    ]
    assert [source["find", query].question.id for query in ("a?", "b?")] == ["x", "y"]


def test_calls_that_fail_cost_their_question_an_answer_and_no_other() -> None:
    class Fails(Scripted):
        async def generate(self, request: Request) -> Response:
            if "Peru" in str(request.prompt):
                raise ModelError("the model fails here", billed=False)
            return await super().generate(request)

    answers, _, _ = solved(120_000, Fails(write), pilot=6, room=400)
    assert [answer.answer for answer in answers] == [None if n == "Peru" else c for n, c in CAPITALS.items()]
    assert "fails here" in answers[1].error


def test_the_runner_books_tools_and_dollars_to_the_questions_that_spent_them() -> None:
    prices = of({"scripted": Price(Rates(input=Decimal(1), output=Decimal(4)))}, "test")
    model = Scripted(write)
    model.name = "scripted"
    asked = [Question(name, f"Capital of {name}?") for name in CAPITALS]
    settings = Settings(
        per_question=False,
        tools=lambda question: tools_for(question.id),
        grade=lambda question, answer: float(answer == CAPITALS[question.id]),
        prices=prices,
    )
    done = asyncio.run(run(asked, build("composer-many:pilot=2,room=400"), model, STYLE, "$0.2", settings))
    assert all(row["correct"] for row in done.rows)
    assert [row["tools"] for row in done.rows[:2]] == [{"liar": 1, "atlas": 2}, {"atlas": 1}]
    for row in done.rows:
        assert row["cost"] == pytest.approx(row["units"]["money"] / 1e12)
        assert row["cost"] > 0.001 * sum(row["tools"].values())
    assert done.spent["money"] == sum(row["units"]["money"] for row in done.rows) <= done.limit["money"]


def test_what_cannot_work_is_refused_and_says_why() -> None:
    with pytest.raises(InvalidInput, match=r"share=1\.0"):
        solved(1000, share=1.0)
    with pytest.raises(InvalidInput, match="pilot=0"):
        solved(1000, pilot=0)
    ledger = MemoryLedger()
    ledger.open("q", [Limit("all", 900)])
    roots = [Allowance(ledger, "q", {"all": 400}) for _ in range(2)]
    model = Scripted(write)

    async def first(tasks: list[Task]) -> Any:
        return [answer async for answer in composer_many(tasks)]

    bare = Task(Question("Norway", "?"), Budgeted(model, roots[0]), STYLE, 0)
    with pytest.raises(InvalidInput, match="question Norway has none"):
        asyncio.run(first([bare]))
    two = [
        Task(Question(n, "?"), Budgeted(model, root), STYLE, 0, tools=tools_for("Peru"))
        for n, root in zip("ab", roots, strict=True)
    ]
    with pytest.raises(InvalidInput, match="different allowances"):
        asyncio.run(first(two))
    assert asyncio.run(first([])) == []
