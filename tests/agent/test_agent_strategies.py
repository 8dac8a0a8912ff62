"""Strategies of agents: what each is told, what it decides, and what it pays for."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from budgeteer.agent import bats, bavt, one_prompt, react, turn_control, voi
from budgeteer.agent._bats import Decision, check_of, settled
from budgeteer.agent._turn_control import progressed, turn_caps
from budgeteer.agent._voi import Action, Weights, chosen, refined
from budgeteer.agent.track import shown, tracker
from budgeteer.agent.turns import Agent, Turn
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.chat import call_of
from budgeteer.models.model import Request, Response
from budgeteer.solve import Answer, Budgeted, Question, StoppedBy, Strategy, Style, Task
from budgeteer.solve.tool import Tool

RAW = Style(lambda text: f"Question: {text}\n", lambda text: text.strip().split("\n")[0] or None, "", answer_tokens=10)
LAST = "without calling tools"


def look(at: str) -> str:
    return call_of("look", f'{{"at": "{at}"}}')


async def found(arguments: Mapping[str, Any]) -> str:
    return f"<{arguments['at']}>"


TOOL = Tool("look", "Looks.", {"at": {"type": "string"}}, found, everything="all that there is")


def task(
    write: Callable[[str], str], budget: Mapping[str, int], tool: Tool = TOOL, model: type[Scripted] = Scripted
) -> Task:
    ledger = MemoryLedger()
    ledger.open("q", [Limit(kind, units) for kind, units in budget.items()])
    scripted = model(lambda prompt, rng: write(prompt))
    return Task(
        Question("q", "2 + 2 ="), Budgeted(scripted, Allowance(ledger, "q", dict(budget))), RAW, 0, tools=(tool,)
    )


def prompts(asked: Task) -> list[str]:
    return [str(request.prompt) for request in asked.model.model.requests]  # type: ignore[attr-defined]


def solved(strategy: Strategy, asked: Task) -> Answer:
    return asyncio.run(strategy.solve(asked))


def by_turns(*texts: str) -> Callable[[str], str]:
    """Writes the texts in turn, by the results in the prompt; the last one for the last answer."""
    return lambda prompt: texts[-1 if LAST in prompt else min(prompt.count("</tool_response>"), len(texts) - 1)]


# turn control


def test_a_fixed_cap_ends_the_turns_and_reminds_of_them() -> None:
    asked = task(by_turns(look("a"), look("b"), look("c"), look("d"), "4\n"), {"all": 90_000})
    answer = solved(turn_control(turns=3), asked)
    assert (answer.answer, answer.stopped_by) == ("4", StoppedBy.CAP)
    assert asked.model.spend.tools["look"] == 3
    assert "[turn 1 of 3; 2 left]" in prompts(asked)[1]
    assert "[turn 3 of 3; 0 left]" in prompts(asked)[3]
    silent = task(by_turns(look("a"), "4\n"), {"all": 90_000})
    solved(turn_control(turns=3, remind=False), silent)
    assert "left]" not in prompts(silent)[1]


@pytest.mark.parametrize(("third", "calls"), [("new", 5), ("b", 2)])
def test_an_extension_is_granted_for_something_new_only(third: str, calls: int) -> None:
    second = "a" if third == "b" else "b"
    asked = task(by_turns(look("a"), look(second), look("c"), look("d"), look("e"), "4\n"), {"all": 90_000})
    answer = solved(turn_control(turns=2, control="dynamic", most=5), asked)
    assert answer.answer == "4"
    assert asked.model.spend.tools["look"] == calls


def test_caps_are_percentiles_of_a_pilot() -> None:
    assert turn_caps([1, 2, 3, 4]) == (1, 2, 3)
    assert turn_caps([5], (90,)) == (5,)
    assert not progressed(())
    with pytest.raises(InvalidInput, match="at least one run"):
        turn_caps([])


# one prompt


def test_one_prompt_reads_everything_and_calls_nothing() -> None:
    asked = task(lambda prompt: "4\n" if "all that there is" in prompt else "?", {"all": 90_000})
    assert solved(one_prompt(), asked).answer == "4"
    assert asked.model.spend.calls == 1
    assert not asked.model.spend.tools


def test_one_prompt_is_cut_to_what_the_budget_reads() -> None:
    large = Tool("look", "", {}, found, everything="x" * 50_000)
    asked = task(lambda prompt: "4\n", {"all": 1000}, large)
    assert solved(one_prompt(), asked).answer == "4"
    assert 800 < prompts(asked)[0].count("x") < 1000  # one call: room for a second reading is not kept
    assert asked.model.spend.calls == 1
    nothing = Tool("look", "", {}, found)
    with pytest.raises(InvalidInput, match="everything"):
        solved(one_prompt(), task(lambda prompt: "4\n", {"all": 1000}, nothing))


# BATS


def test_the_tracker_tells_used_and_left_of_every_kind_and_the_level() -> None:
    asked = task(by_turns(look("a"), "4\n"), {"all": 10_000, "tool:look": 4})
    start = asked.model.remaining
    assert tracker(asked, start).splitlines()[1:4] == [
        "all: used 0, left 10,000",
        "tool:look: used 0, left 4",
        "level: high",
    ]
    asyncio.run(asked.model.use(TOOL, {"at": "a"}))
    asyncio.run(asked.model.use(TOOL, {"at": "b"}))
    assert tracker(asked, start).splitlines()[2:4] == ["tool:look: used 2, left 2", "level: medium"]
    free = task(by_turns("4\n"), {"all": 50})
    assert "all: used 0, left 50\ntool:look: used 0\nlevel" in tracker(free, free.model.remaining)
    assert shown("money", 3 * 10**9) == "$0.003"


def test_the_tracker_alone_is_react_with_the_block_behind_results() -> None:
    asked = task(by_turns(look("a"), "4\n"), {"all": 10_000, "tool:look": 2})
    answer = solved(bats(plan=False, verify=False), asked)
    assert answer.answer == "4"
    assert len(prompts(asked)) == 2
    assert re.search(
        r"</tool_response>\n<budget>\nall: used [\d,]+, left [\d,]+\ntool:look: used 1, left 1\n", prompts(asked)[1]
    )


class Lead:
    """Plans two items, answers 3 and then 4, and is checked with the decisions in turn."""

    def __init__(self, *decisions: str) -> None:
        self.decisions, self.answers = list(decisions), ["3\n", "4\n", "4\n"]

    def __call__(self, prompt: str) -> str:
        if prompt.startswith("List what"):
            return "- who\n- where"
        if prompt.startswith("Check an"):
            return f"1: satisfied\n2: unverifiable\ndecision: {self.decisions.pop(0)}"
        if prompt.startswith("Sum up"):
            return "a led nowhere"
        if LAST in prompt or "</tool_response>" in prompt or "led nowhere" in prompt:
            return self.answers.pop(0)
        return look("a")


def test_continue_goes_on_with_the_doubts_and_the_checklist() -> None:
    asked = task(Lead("continue", "success"), {"all": 90_000})
    answer = solved(bats(), asked)
    assert (answer.answer, answer.stopped_by) == ("4", StoppedBy.VERIFIED)
    plan, first, _, check, again, _ = prompts(asked)
    assert "all: used 0, left 90,000" in plan
    assert "1. [open] who\n2. [open] where" in first
    assert "Proposed answer: 3" in check
    assert "1. [satisfied] who\n2. [unverifiable] where" in again
    assert "3\n\n[the answer was checked and does not hold yet; where: unverifiable; go on]" in again


def test_pivot_replaces_the_work_by_a_summary() -> None:
    asked = task(Lead("pivot", "success"), {"all": 90_000})
    answer = solved(bats(), asked)
    assert (answer.answer, answer.stopped_by) == ("4", StoppedBy.VERIFIED)
    after = prompts(asked)[5]
    assert "a led nowhere" in after
    assert "<tool_response>" not in after


def test_without_success_the_most_frequent_proposal_counts() -> None:
    asked = task(Lead("pivot", "pivot", "pivot"), {"all": 90_000})
    answer = solved(bats(attempts=3), asked)
    assert (answer.answer, answer.stopped_by) == ("4", StoppedBy.DONE)
    assert settled(["3", "4", "3"]) == "3"
    assert check_of("2. contradicted").decision == Decision.PIVOT


@pytest.mark.parametrize(
    ("check", "stopped"),
    [("decision: success", StoppedBy.VERIFIED), ("1: satisfied", StoppedBy.VERIFIED), ("Hm.", StoppedBy.DONE)],
)
def test_only_a_check_that_was_read_verifies(check: str, stopped: StoppedBy) -> None:
    asked = task(lambda prompt: check if prompt.startswith("Check an") else "4\n", {"all": 90_000})
    answer = solved(bats(plan=False), asked)
    assert (answer.answer, answer.stopped_by) == ("4", stopped)


def test_a_check_that_does_not_fit_verifies_nothing() -> None:
    asked = task(by_turns("4\n"), {"all": 950})
    answer = solved(bats(plan=False, tracked=False, verify_tokens=2000), asked)
    assert (answer.answer, answer.stopped_by) == ("4", StoppedBy.DONE)
    assert len(prompts(asked)) == 1


def test_a_proposal_survives_a_model_that_fails_afterwards() -> None:
    class Fails(Scripted):
        async def generate(self, request: Request) -> Response:
            if str(request.prompt).startswith("Check an"):
                raise ModelError("down", billed=False)
            return await super().generate(request)

    answer = solved(bats(), task(Lead("success"), {"all": 90_000}, model=Fails))
    assert (answer.answer, answer.stopped_by, answer.error) == ("3", StoppedBy.ERROR, "down")


# parallel sampling


def test_samples_go_on_after_one_that_reached_its_cap_of_turns() -> None:
    def write(prompt: str) -> str:
        return "4\n" if LAST in prompt else look(f"{len(prompts(asked))}")

    asked = task(write, {"all": 90_000})
    answer = solved(react(turns=1, samples=3, temperature=0.8), asked)
    assert (answer.answer, answer.stopped_by, len(answer.traces)) == ("4", StoppedBy.CAP, 3)
    assert len(prompts(asked)) == 6


# BAVT


def test_a_search_without_an_answer_ends_at_its_cap() -> None:
    asked = task(lambda prompt: "4\n" if LAST in prompt else look(str(len(prompts(asked)))), {"all": 90_000})
    answer = solved(bavt(plan=False, expansions=2), asked)
    assert (answer.answer, answer.stopped_by) == ("4", StoppedBy.CAP)


class Maze:
    """Door a leads on, other doors lead nowhere; two doors further there is the answer. The critic sees which."""

    def __init__(self, rng: random.Random, critic: bool = True) -> None:
        self.rng, self.critic = rng, critic

    def __call__(self, prompt: str) -> str:
        doors = re.findall(r"<([a-h])>", prompt)
        if prompt.startswith("List what"):
            return "- the way"
        if prompt.startswith("How much nearer"):
            return ("3" if doors[-1:] == ["a"] else "-4") if self.critic else str(self.rng.randint(-4, 4))
        good = doors == ["a"] * len(doors)
        if LAST in prompt or (good and len(doors) >= 2):
            return "4\n" if good and doors else "wrong\n"
        return look("a" if self.rng.random() < 0.4 else self.rng.choice("bcdefgh"))


async def numbered(arguments: Mapping[str, Any]) -> str:
    numbered_calls.append(arguments["at"])
    return f"<{arguments['at']}> {len(numbered_calls)}"


numbered_calls: list[str] = []


def test_a_critic_that_sees_dead_ends_finds_the_way_that_chance_does_not() -> None:
    tool = Tool("look", "", TOOL.parameters, numbered)
    right = {}
    for name, critic in (("sees", True), ("blind", False)):
        answers = [
            solved(
                bavt(plan=False, expansions=12, step_tokens=128),
                task(Maze(random.Random(seed), critic), {"all": 20_000}, tool),
            )
            for seed in range(24)
        ]
        right[name] = np.mean([answer.answer == "4" for answer in answers])
    assert right["sees"] > 0.7
    assert right["blind"] < right["sees"] - 0.3


def test_turns_that_bring_nothing_new_are_pruned_and_cost_no_critic() -> None:
    asked = task(by_turns(look("a"), look("a"), look("a"), "4\n"), {"all": 90_000})
    solved(bavt(plan=False, expansions=6, temperature=0.0), asked)
    critics = [prompt for prompt in prompts(asked) if prompt.startswith("How much nearer")]
    repeated = [prompt for prompt in critics if prompt.count("<a>") > 1]
    assert critics
    assert not repeated


@pytest.mark.parametrize("budget", range(200, 4000, 190))
def test_the_best_path_can_always_answer(budget: int) -> None:
    asked = task(Maze(random.Random(budget)), {"all": budget, "tool:look": 5})
    answer = solved(bavt(step_tokens=128, plan_tokens=16), asked)
    assert min(asked.model.remaining.values()) >= 0
    assert asked.model.spend.tools["look"] <= 5
    if asked.model.spend.calls > 1:
        assert answer.answer is not None


# VOI


def choose(
    asked: Task, gains: Mapping[Action, float], *, left: float = 1.0, split: int = 0, penalty: float = 1.0
) -> Action:
    return chosen(asked, Agent(asked), (), gains, split, left, Weights(penalty))


def test_the_action_with_the_best_gain_for_its_share_is_chosen() -> None:
    asked = task(by_turns("4\n"), {"all": 10_000, "tool:look": 10})
    assert choose(asked, {Action.SEARCH: 0.8, Action.ANSWER: 0.1}) == Action.SEARCH
    assert choose(asked, {Action.SEARCH: 0.1, Action.ANSWER: 0.9}) == Action.ANSWER
    assert choose(asked, {Action.SEARCH: 0.1, Action.DECOMPOSE: 0.9}) == Action.DECOMPOSE
    assert choose(asked, {Action.SEARCH: 0.1, Action.DECOMPOSE: 0.9}, split=2) == Action.SEARCH
    assert choose(asked, {Action.SEARCH: 0.0}) == Action.ANSWER  # nothing promises anything
    assert choose(asked, {}) == Action.SEARCH


def test_the_penalty_counts_as_the_budget_runs_out_and_guards_come_first() -> None:
    dear = task(by_turns("4\n"), {"all": 700, "tool:look": 10})  # a search takes more than half of it
    gains = {Action.SEARCH: 0.4}
    assert choose(dear, gains, left=1.0) == Action.SEARCH
    assert choose(dear, gains, left=0.1) == Action.ANSWER
    assert choose(dear, gains, left=0.1, penalty=0.0) == Action.SEARCH
    spent = task(by_turns("4\n"), {"all": 10_000, "tool:look": 0})
    assert choose(spent, {Action.SEARCH: 1.0}) == Action.ANSWER


def test_voi_searches_until_its_critic_is_sure() -> None:
    def write(prompt: str) -> str:
        seen = prompt.count("</tool_response>")
        if prompt.startswith("Rate three"):
            return "search: 8\nanswer: 0" if seen < 2 else "search: 1\nanswer: 9"
        return "4\n" if LAST in prompt else look("abc"[seen])

    asked = task(write, {"all": 50_000, "tool:look": 9})
    answer = solved(voi(), asked)
    assert (answer.answer, answer.stopped_by) == ("4", StoppedBy.DECIDED)
    assert asked.model.spend.tools["look"] == 2


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("answer: Oslo\nsupport: 9\nharm: 1", "Oslo"),
        ("answer: Oslo\nsupport: 9\nharm: 8", "It is Oslo"),
        ("answer: Rome\nsupport: 10\nharm: 0", "It is Oslo"),  # another answer, not another form
        ("Oslo", "It is Oslo"),
    ],
)
def test_the_form_of_an_answer_is_rewritten_if_that_gains_more_than_it_may_harm(written: str, answer: str) -> None:
    asked = task(lambda prompt: written, {"all": 50_000})
    before = Answer("It is Oslo", StoppedBy.DONE)
    after = asyncio.run(refined(asked, Agent(asked), (Turn("It is Oslo"),), before, 1.0, 0.3, 64))
    assert after.answer == answer


def test_options_out_of_range_are_refused() -> None:
    for make in (
        lambda: react(turns=0),
        lambda: react(samples=0),
        lambda: react(step_tokens=0),
        lambda: turn_control(turns=4, control="dynamic", most=2),
        lambda: turn_control(control="sometimes"),  # type: ignore[arg-type]
        lambda: bats(attempts=0),
        lambda: bavt(floor=0.0),
        lambda: voi(penalty=-1.0),
        lambda: one_prompt(temperature=float("nan")),
    ):
        with pytest.raises(InvalidInput):
            make()
