"""An interview that plans ahead: what a path is worth, which one is gone, what is taken off and put on the agenda."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from budgeteer.agent import interview
from budgeteer.agent._interview import Agenda, Weights, judged, paths_of, utility
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.solve import Answer, Budgeted, Question, StoppedBy, Style, Task
from budgeteer.solve.tool import Tool

RAW = Style(lambda text: f"{text}\n", lambda text: text.strip().split("\n")[0] or None, "", answer_tokens=10)
GUIDE = "Find out about\n1. work\n2. tools\n3. pay\n4. pets"
KNOWN = {"work": "I paint.", "tools": "Brushes.", "pay": "Little.", "pets": "A dog.", "travel": "To Oslo by train."}
WORDS = {"paint": "work", "Brushes": "tools", "Little": "pay", "dog": "pets", "Oslo": "travel"}


class Interview:
    """A person who answers what is asked, and a model that says which topics a text is about.

    Attributes:
        asked: questions that the person heard.
    """

    def __init__(self, drafts: list[str], budget: Mapping[str, int], emerges: str = "", fails: bool = False) -> None:
        self.asked: list[str] = []
        self.drafts = 0

        async def ask(arguments: Mapping[str, Any]) -> str:
            self.asked.append(arguments["question"])
            if fails:
                raise ValueError("gone")
            return " ".join(said for topic, said in KNOWN.items() if topic in arguments["question"])

        def numbers(prompt: str, topics: set[str]) -> str:
            lines = [line.split(". ") for line in prompt.split("Open topics:\n")[1].splitlines() if ". " in line[:4]]
            return ", ".join(number for number, topic in lines if topic in topics) or "none"

        def write(prompt: str, rng: Any) -> str:
            if prompt.endswith("A:"):
                self.drafts += 1
                return drafts[min(self.drafts, len(drafts)) - 1]
            if "how likely do they bring up" in prompt:
                path = prompt.split("Questions of an interview:\n")[1].split("Which open")[0]
                return f" {numbers(prompt, {topic for topic in KNOWN if topic in path})}\nnew: 0.5\n"
            if "of its own" in prompt:
                said = prompt.split("Answer: ")[1].split("Which open")[0]
                topics = {topic for word, topic in WORDS.items() if word in said}
                return f" {numbers(prompt, topics)}\ntopic: {emerges if 'paint' in said and emerges else 'none'}\n"
            return "A painter with a dog.\n"

        tool = Tool("ask", "Asks.", {"question": {"type": "string"}}, ask)
        ledger = MemoryLedger()
        ledger.open("q", [Limit(kind, units) for kind, units in budget.items()])
        budgeted = Budgeted(Scripted(write), Allowance(ledger, "q", dict(budget)))
        self.task = Task(Question("q", GUIDE), budgeted, RAW, 0, tools=(tool,))

    def held(self, **options: Any) -> Answer:
        return asyncio.run(interview(**options).solve(self.task))


MUCH = {"all": 200_000}


def test_a_path_is_worth_what_it_covers_less_its_turns() -> None:
    assert utility(2, 1, 0.5, Weights()) == pytest.approx(0.5 * 2 - 0.3 * 1 + 0.2 * 0.5)
    assert utility(1, 3, 0, Weights(1, 0.5, 9)) == pytest.approx(-0.5)


def test_the_best_path_is_gone_and_planned_anew_until_all_is_covered() -> None:
    # of three ways: 1 topic in 1 turn (0.5 - 0.3 + 0.1), 4 topics in 2 turns (2 - 0.6 + 0.1), nothing in 1 turn
    draft = " And work?\nB: work and tools?\nB: pay and pets?\nC: The weather?"
    case = Interview([draft], MUCH)
    answer = case.held()
    assert case.asked == ["work and tools?", "pay and pets?"]
    assert case.drafts == 1
    assert (answer.answer, answer.stopped_by) == ("A painter with a dog.", StoppedBy.DONE)
    again = Interview([draft], MUCH)
    again.held(every=1)  # the second plan sees that only pay and pets are open: B is 2 topics in 2 turns
    assert again.asked[0] == "work and tools?"
    assert again.drafts >= 2


def test_it_ends_when_no_path_is_worth_its_turns() -> None:
    draft = " What about work?\nA: Really?"  # 0.5 - 0.6 + 0.1 = 0
    assert Interview([draft], MUCH).held().stopped_by == StoppedBy.DECIDED
    patient = Interview([draft], MUCH)
    assert patient.held(cost=0, turns=5).stopped_by == StoppedBy.CAP  # without a cost it asks on
    assert len(patient.asked) == 5


def test_a_topic_that_comes_up_is_asked_for() -> None:
    drafts = [" work and tools and pay and pets?", " And travel?"]
    case = Interview(drafts, MUCH, emerges="travel")
    assert case.held().stopped_by == StoppedBy.DONE
    assert case.asked == ["work and tools and pay and pets?", "And travel?"]


def test_turns_budgets_and_a_person_that_is_gone_end_it_with_an_answer() -> None:
    draft = " work?\nA: tools?\nA: pay?"
    capped = Interview([draft], MUCH)
    assert capped.held(cost=0.1, turns=2).stopped_by == StoppedBy.CAP
    assert capped.asked == ["work?", "tools?"]
    spent = Interview([draft], {"all": 200_000, "tool:ask": 1})
    answer = spent.held(cost=0.1)
    assert (len(spent.asked), answer.answer) == (1, "A painter with a dog.")
    gone = Interview([draft], MUCH, fails=True)
    assert gone.held(cost=0.1).answer == "A painter with a dog."
    assert len(gone.asked) == 1
    poor = Interview([draft], {"all": 120})
    assert poor.held().stopped_by == StoppedBy.BUDGET
    assert poor.asked == []


def test_without_a_person_or_a_readable_draft_it_answers_at_once() -> None:
    silent = Interview([" "], MUCH)
    assert silent.held().stopped_by == StoppedBy.DECIDED
    assert silent.asked == []
    alone = Interview([" work?"], MUCH)
    task = Task(alone.task.question, alone.task.model, RAW, 0)
    assert asyncio.run(interview().solve(task)).answer == "A painter with a dog."


def test_thinking_is_no_question() -> None:
    case = Interview([" Hm: B: the weather?</think> work and tools and pay and pets?"], MUCH)
    thinking = replace(RAW, close="</think>", answer=lambda text: text.strip() or None)
    asyncio.run(interview().solve(replace(case.task, style=thinking)))
    assert case.asked == ["work and tools and pay and pets?"]


def test_what_is_read_of_drafts_and_judgements() -> None:
    assert paths_of("A: a?\nB1. b?\n- A: c?\nC: d?\nnothing", 2, 9) == [["a?", "c?"], ["b?"]]
    agenda = Agenda(["a", "b"], {2})
    assert judged("Covers: 1, 2\nNew: 7\nTopic: 'cats'.", agenda) == ({2}, 1.0, "cats")
    assert judged("covers: none\nnew: 30 %", agenda) == (set(), 0.3, "")
    assert judged("nothing of that kind", agenda) == (set(), 0.0, "")


@pytest.mark.parametrize("options", [{"paths": 0}, {"turns": 0}, {"cost": -1}, {"emergence": float("nan")}])
def test_bad_options(options) -> None:
    with pytest.raises(InvalidInput, match="interview:paths="):
        interview(**options)
