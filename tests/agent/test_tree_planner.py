"""Tree-Planner: the tree of plans, what the model is asked on the way, and what it pays for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from budgeteer.agent import tree_planner
from budgeteer.agent._tree_planner import ANSWER, calls_of, tree_of
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import ToolCall
from budgeteer.solve import Answer, Budgeted, Question, StoppedBy, Style, Task
from budgeteer.solve.tool import Tool

RAW = Style(lambda text: f"Question: {text}\n", lambda text: text.strip().split("\n")[0] or None, "", answer_tokens=10)
A, B, C, D = (ToolCall("look", {"at": at}) for at in "abcd")


class Case:
    """A question whose plans and choices are given.

    Attributes:
        made: places that were looked at, in order.
        choices: prompts of choices.
    """

    def __init__(
        self, plans: list[str], choose: Callable[[str], str], budget: Mapping[str, int], broken: str = ""
    ) -> None:
        self.made: list[str] = []
        self.choices: list[str] = []
        self.plans = 0

        async def look(arguments: Mapping[str, Any]) -> str:
            self.made.append(arguments["at"])
            if arguments["at"] in broken:
                raise ValueError("no such place")
            return f"<{arguments['at']}>"

        def write(prompt: str, rng: Any) -> str:
            if prompt.endswith("Plan:\n"):
                self.plans += 1
                return plans[(self.plans - 1) % len(plans)]
            if prompt.endswith("Number:"):
                self.choices.append(prompt)
                return choose(prompt)
            return "4\n" if "<d>" in prompt else "?\n"

        tool = Tool("look", "Looks.", {"at": {"type": "string"}}, look)
        self.model = Scripted(write)
        ledger = MemoryLedger()
        ledger.open("q", [Limit(kind, units) for kind, units in budget.items()])
        budgeted = Budgeted(self.model, Allowance(ledger, "q", dict(budget)))
        self.task = Task(Question("q", "2 + 2 ="), budgeted, RAW, 0, tools=(tool,))

    def solved(self, **options: Any) -> Answer:
        return asyncio.run(tree_planner(**options).solve(self.task))


def plan(places: str) -> str:
    return "".join(f'look {{"at": "{at}"}}\n' for at in places)


def number_of(prompt: str, wanted: str) -> str:
    """The number of an option."""
    return next(line.split(".")[0] for line in prompt.splitlines() if line.endswith(wanted) and line[0].isdigit())


def test_a_tree_holds_every_plan_and_each_beginning_once() -> None:
    tree = tree_of([(A, B, D), (A, B, C), (A, C), (B,), (B,)])
    first, second = tree.children.values()
    assert (tree.plans, first.plans, first.ends, second.plans, second.ends) == (5, 3, 0, 2, 2)
    assert [child.call for child in first.children.values()] == [B, C]
    (below, _) = first.children.values()
    assert [child.call for child in below.children.values()] == [D, C]


def test_lines_that_are_no_call_are_left_out_of_a_plan() -> None:
    tool = Tool("look", "", {"at": {"type": "string"}}, None)  # type: ignore[arg-type]
    text = 'Plan:\n1. look {"at": "a"}\nlook {"at": 7}\nlook {"at": \nhear {"at": "b"}\n* look {"at": "d"} '
    assert calls_of(text, {"look": tool}) == (A, D)


def test_one_plan_is_followed_without_asking() -> None:
    case = Case([plan("abd")], lambda prompt: "1", {"all": 90_000})
    answer = case.solved(plans=3)
    assert (answer.answer, answer.stopped_by) == ("4", StoppedBy.DONE)
    assert case.made == ["a", "b", "d"]
    assert case.choices == []
    assert case.task.model.spend.calls == 2  # all plans by one request, and the answer
    assert [request.n for request in case.model.requests] == [3, 1]


def test_the_model_is_asked_where_plans_part_and_reads_the_results_before() -> None:
    case = Case([plan("ab"), plan("ad"), plan("ab")], lambda prompt: number_of(prompt, '{"at": "d"}'), {"all": 90_000})
    assert case.solved(plans=3).answer == "4"
    assert case.made == ["a", "d"]
    (asked,) = case.choices
    assert "<a>" in asked
    assert asked.endswith('1. look {"at": "b"}\n2. look {"at": "d"}\nWrite its number.\nNumber:')
    assert "Tools:" not in asked  # the long prompt is paid once


def test_a_call_that_fails_closes_its_branch_and_the_nearest_other_one_is_taken() -> None:
    plans = [plan("abc"), plan("abc"), plan("ad")]
    case = Case(plans, lambda prompt: number_of(prompt, '{"at": "b"}'), {"all": 90_000}, broken="c")
    answer = case.solved(plans=3)
    assert case.made == ["a", "b", "c", "d"]  # c fails, so that b leads nowhere; back to a, where only d is left
    assert answer.answer == "4"
    assert len(case.choices) == 1
    alone = Case([plan("abc")], lambda prompt: "1", {"all": 90_000}, broken="b")
    assert alone.solved(plans=2).answer == "?"  # nothing to go back to
    assert alone.made == ["a", "b"]


def test_where_a_plan_ends_the_model_may_answer_and_without_a_number_most_plans_decide() -> None:
    plans = [plan("a"), plan("ad"), plan("a")]
    asked = Case(plans, lambda prompt: number_of(prompt, ANSWER), {"all": 90_000})
    assert asked.solved(plans=3).answer == "?"
    assert asked.made == ["a"]
    for counts, made in (
        ([plan("a"), plan("ad"), plan("a")], ["a"]),
        ([plan("a"), plan("ad"), plan("ad")], ["a", "d"]),
    ):
        silent = Case(counts, lambda prompt: "hm", {"all": 90_000})
        silent.solved(plans=3)
        assert silent.made == made


@pytest.mark.parametrize("tokens", [40, 150, 400, 700])
def test_a_small_budget_is_never_exceeded_and_the_last_answer_stays_affordable(tokens: int) -> None:
    case = Case([plan("abcd"), plan("abd")], lambda prompt: "1", {"all": tokens, "tool:look": 2})
    answer = case.solved(plans=2)
    assert case.task.model.spend.units["all"] <= tokens
    assert len(case.made) <= 2
    assert answer.answer is not None or tokens == 40


def test_steps_are_bounded_and_bad_options_refused() -> None:
    case = Case([plan("abd")], lambda prompt: "1", {"all": 90_000})
    assert case.solved(plans=1, steps=2).stopped_by == StoppedBy.CAP
    assert case.made == ["a", "b"]
    nothing = Case(["I would look around."], lambda prompt: "1", {"all": 90_000})
    assert (nothing.solved(plans=2).answer, nothing.made) == ("?", [])
    with pytest.raises(InvalidInput, match="plans=0"):
        tree_planner(plans=0)
