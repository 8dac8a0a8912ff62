"""Codified plans: the language that they are written in, what is run, and what the next plan reads of a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from budgeteer.agent import code_agents
from budgeteer.agent._code_agents import PlanError, functions, program_of
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.solve import Answer, Budgeted, Question, StoppedBy, Style, Task
from budgeteer.solve.tool import Tool

RAW = Style(lambda text: f"Question: {text}\n", lambda text: text.strip().split("\n")[0] or None, "", answer_tokens=10)
PLACES = {"a": "see b", "b": "see d", "d": "the end"}


class Case:
    """A question whose programs are given; ``made`` has the places that were looked at."""

    def __init__(self, *programs: str, budget: Mapping[str, int] | None = None) -> None:
        self.made: list[str] = []
        self.plans: list[str] = []
        self.asked, self.last = 0, ""

        async def look(arguments: Mapping[str, Any]) -> str:
            self.made.append(arguments["at"])
            return PLACES[arguments["at"]]

        def write(prompt: str, rng: Any) -> str:
            if prompt.endswith("Program:\n"):
                self.plans.append(prompt)
                return programs[min(len(self.plans), len(programs)) - 1]
            if prompt.endswith("Answer in a few words:"):
                self.asked += 1
                return prompt.split("see ")[1][0] if "see " in prompt else "n" * 90
            self.last = prompt
            return "4\n"

        tool = Tool("look", "Looks.", {"at": {"type": "string"}}, look)
        ledger, given = MemoryLedger(), dict(budget or {"all": 90_000})
        ledger.open("q", [Limit(kind, units) for kind, units in given.items()])
        self.model = Scripted(write)
        self.task = Task(
            Question("q", "Where?"), Budgeted(self.model, Allowance(ledger, "q", given)), RAW, 0, tools=(tool,)
        )

    def solved(self, **options: Any) -> Answer:
        return asyncio.run(code_agents(**options).solve(self.task))


def test_a_call_uses_the_result_of_one_before_it_and_the_model_is_not_asked_again() -> None:
    case = Case('first = look(at="a")\nplace = ask(f"Where does this lead? {first}")\nlook(place)\n')
    answer = case.solved()
    assert (answer.answer, answer.stopped_by) == ("4", StoppedBy.DONE)
    assert case.made == ["a", "b"]
    assert case.task.model.spend.calls == 3  # the program, one question, the answer
    assert "see b" in case.last
    assert "see d" in case.last
    assert "def look(at: str) -> str:  # Looks." in case.plans[0]


@pytest.mark.parametrize(
    ("program", "made"),
    [
        ('for at in ["a", "b"]:\n    look(at)', ["a", "b"]),
        ('x = look(at="a")\nif "b" in x and not "d" in x:\n    look("b")\nelse:\n    look("d")', ["a", "b"]),
        ('x = look(at="a")\nif "d" in x or x == "no":\n    look("b")\nelif x != "no":\n    look("d")', ["a", "d"]),
        ('if "z" not in ["a"]:\n    look("" + "d")\nreturn_ = 1', ["d"]),
        ('look("a")\nreturn\nlook("b")', ["a"]),
        ("```python\nlook('b')\n```\nThat is all.", ["b"]),
    ],
)
def test_the_language(program: str, made: list[str]) -> None:
    case = Case(program)
    assert case.solved(plans=1).answer == "4"
    assert case.made == made


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("look(where)", "error(kind=\"name\", line=1, text='where has no value')"),
        ('hear(at="a")', "kind=\"name\", line=1, text='there is no function hear'"),
        ('\nlook("a", "b")', 'kind="arguments", line=1'),
        ("look(at=7)", "kind=\"arguments\", line=1, text='look: at is 7, no string'"),
        ('look("z")', 'kind="tool", line=1'),
        ("import os", "kind=\"syntax\", line=1, text='Import is not allowed'"),
        ('x = (1).__class__\nlook("a")', 'kind="syntax"'),
        ("open('x').read()", 'kind="syntax"'),
        ("while True:\n    pass", 'kind="syntax"'),
        ("So I would look.", 'kind="syntax"'),
        ("", "kind=\"syntax\", line=0, text='the program is empty'"),
        ("for x in 3:\n    look(x)", 'kind="type"'),
        ("x = 'xxxxxxxx'\n" + "x = x + x\n" * 40, 'kind="limit", line=15'),
        ("x = ['a']\n" + "x = [x, x]\n" * 40, 'kind="limit", line=10'),
        ("x = " + "not " * 99 + "1", 'kind="limit"'),
        ('x = f"{0x' + "f" * 4000 + '}"', 'kind="value"'),
        ("look(1e999)", 'kind="value"'),
        ('look("\\ud800")', 'kind="value"'),
        ('look("a", at="d")', "look: at is given twice"),
        ("x = [1, 1, 1, 1, 1, 1, 1, 1]\nfor a in x:\n for b in x:\n  for c in x:\n   y = a", 'kind="limit"'),
    ],
)
def test_what_is_wrong_is_one_line_for_the_next_program(program: str, error: str) -> None:
    case = Case(program, 'look("d")')
    assert case.solved(plan_tokens=9000).answer == "4"
    assert len(case.plans) == 2
    assert error in case.plans[1]
    assert case.made[-1] == "d"


def test_what_was_found_before_a_failure_is_kept_and_read() -> None:
    case = Case('look("a")\nlook("z")', 'look("d")')
    case.solved()
    assert case.made == ["a", "z", "d"]
    assert "see b" in case.plans[1]
    assert "see b" in case.last
    assert "the end" in case.last
    hopeless = Case("look(1)")
    assert hopeless.solved(plans=2).stopped_by == StoppedBy.CAP
    assert len(hopeless.plans) == 2


def test_calls_are_bounded_and_a_small_budget_is_never_exceeded() -> None:
    many = 'for a in ["a", "b", "d"]:\n    for b in ["a", "b", "d"]:\n        look(b)'
    case = Case(many)
    assert case.solved(steps=4).stopped_by == StoppedBy.CAP
    assert len(case.made) == 4
    for tokens in (60, 700, 1200, 1600):
        small = Case(many, budget={"all": tokens, "tool:look": 3})
        answer = small.solved(plan_tokens=120)
        assert small.task.model.spend.units["all"] <= tokens
        assert len(small.made) <= 3
        assert answer.answer == "4" or tokens == 60
    with pytest.raises(InvalidInput, match="steps=0"):
        code_agents(steps=0)


def test_what_ask_adds_is_left_for_the_last_answer_to_read() -> None:
    program = 'for x in ["1", "2", "3", "4", "5", "6"]:\n    ask(x)'
    asked = set()
    for tokens in range(600, 2600, 7):
        case = Case(program, budget={"all": tokens})
        answer = case.solved(plan_tokens=90, ask_tokens=80)
        assert case.task.model.spend.units["all"] <= tokens
        assert answer.answer == "4" or not case.plans
        assert case.last.count("ask at line 2") == case.asked
        asked.add(case.asked)
    assert asked == set(range(7))


def test_a_program_is_read_without_running_anything() -> None:
    assert len(program_of("x = 1\ny = 2")) == 2
    with pytest.raises(PlanError, match="syntax"):
        program_of("x = (")
    with pytest.raises(PlanError):
        program_of("(" * 100_000)


def test_tools_whose_names_are_no_names_of_python_can_be_called() -> None:
    async def found(arguments: Mapping[str, Any]) -> str:
        return str(arguments)

    case = Case('x = web_search("a", page_size=2)\nask_(x)')
    size = {"query": {"type": "string"}, "page-size": {"type": "integer"}}
    tools = Tool("web-search", "", size, found), Tool("ask", "", {"text": {"type": "string"}}, found)
    case.task = replace(case.task, tools=tools)
    case.solved()
    assert list(functions(tools)) == ["web_search", "ask_"]
    assert "def web_search(query: str, page_size: int)" in case.plans[0]
    assert "'page-size': 2" in case.last
    assert "ask_" not in case.last
