"""BATS: an agent that plans with its budget in view, checks its answers, and goes on or turns elsewhere.

Paper: "Budget-Aware Tool-Use Enables Effective Agent Scaling", arXiv 2511.17006; only its abstract and notes of others
were to be had, so the texts of the prompts and the limits of the levels are chosen here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from budgeteer.agent.track import HABITS, tracker
from budgeteer.agent.turns import Agent, Turn, Turns, Walk, answered, limits_of, walk
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.solve.strategy import TOOLS
from budgeteer.strategies.kit.trace import aside, ask

PLAN = """List what has to be found out to answer the question, one item a line, each beginning with "- ".
{budget}
Question: {question}
Plan:"""
VERIFY = """Check an answer against the plan. For each item write one line "NUMBER: satisfied", "NUMBER: contradicted" \
or "NUMBER: unverifiable". Then write one last line "decision: success", "decision: continue" (dig deeper on the same \
lead) or "decision: pivot" (leave this lead).
{budget}
Question: {question}
Plan:
{plan}
Work:
{work}
Proposed answer: {answer}
Check:"""
SUMMARY = """Sum up in a few words what this work found and which leads failed.
Question: {question}
Work:
{work}
Summary:"""
_ITEM = re.compile(r"^\s*(?:[-*]|\d+[.)])\s+(.+?)\s*$", re.MULTILINE)
_STATUS = re.compile(r"(\d+)\s*[:.)]\s*(satisfied|contradicted|unverifiable)", re.IGNORECASE)
_DECISION = re.compile(r"decision\s*:\s*(success|continue|pivot)", re.IGNORECASE)


class Decision(StrEnum):
    """What follows a check."""

    SUCCESS = "success"
    CONTINUE = "continue"
    PIVOT = "pivot"


@dataclass(frozen=True, slots=True)
class Check:
    """What a check of an answer says.

    Attributes:
        decision: what follows.
        status: number of an item of the plan, from 1 -> its status.
    """

    decision: Decision
    status: dict[int, str]


def bats(
    plan: bool = True,
    verify: bool = True,
    tracked: bool = True,
    turns: int = 20,
    attempts: int = 4,
    plan_tokens: int = 128,
    verify_tokens: int = 96,
    step_tokens: int = 256,
    result: int = 2000,
    temperature: float = 0.0,
) -> Strategy:
    """Plan, act with the budget in the prompt, check each answer, and go on until one holds or the budget ends.

    1. The model lists what has to be found out (``plan``), told its budget.
    2. ReAct; behind each result stands a block with the used and remaining units of every kind and a level: high above
       70 %, medium above 30 %, low above 10 %, critical (``tracked``).
    3. When an answer is proposed, the model checks it against each item of the plan, knowing the budget that is left
       (``verify``), and decides: success ends; continue goes on with the items that do not hold as a note; pivot
       replaces the trajectory by a summary of it.
    4. The answer is the one that held, else the most frequent proposal, the latest of equals. A proposal whose check
       does not fit the budget or cannot be read stands, without being called verified.

    Unified cost is a budget of ``money``: tokens at their prices (cached input at its own) and calls of tools at
    theirs, in one hard limit. With ``plan=false,verify=false`` it is the paper's Budget Tracker on ReAct.

    Differences from the paper: all budgets are hard, tokens too; plan and check cost is charged as everything else.

    Helps when a question needs several leads and the model heeds what it is told. Does not where the model reads the
    block over, or a budget is so small that plan and check eat it.

    Args:
        plan: whether to plan.
        verify: whether to check answers; without it the first answer counts.
        tracked: whether the budget stands behind each result.
        turns: most turns of all attempts together.
        attempts: most proposals.
        plan_tokens: most tokens of a plan or a summary.
        verify_tokens: most tokens of a check.
        step_tokens: most tokens of output of a turn.
        result: most characters of a tool's result.
        temperature: 0 is greedy.
    """
    limits = limits_of(step_tokens, result, temperature)
    if min(turns, attempts, plan_tokens, verify_tokens) < 1:
        raise InvalidInput(
            f"bats:turns={turns},attempts={attempts},plan_tokens={plan_tokens},verify_tokens={verify_tokens}; each is "
            "at least 1"
        )

    async def solve(task: Task) -> Answer:
        start = task.model.remaining
        habits = [HABITS] if tracked else []
        items = await planned(task, tracker(task, start), plan_tokens) if plan else ()
        agent = Agent(task, limits, about="\n".join([*habits, *listed(items, {})]))

        def note(before: Turns, turn: Turn) -> str:
            return tracker(task, start) if tracked else ""

        trajectory: Turns = ()
        proposals: list[str] = []
        traces: list[str] = []
        error, done = "", Walk((), None, StoppedBy.CAP)
        left = turns
        for number in range(attempts):
            made = len(trajectory)
            done = await walk(agent, trajectory, left, note, again=bool(proposals))
            left -= len(done.turns) - made
            if done.answer is None:
                error = done.error
                break
            proposals.append(done.answer)
            traces.append(agent.text(done.turns))
            if not verify or left < 1:
                break
            try:
                check = await checked(task, agent, done, items, tracker(task, start), verify_tokens, number)
                if check is None or check.decision == Decision.SUCCESS:
                    return Answer(done.answer, StoppedBy.VERIFIED if check else StoppedBy.DONE, tuple(traces))
                agent = replaced(agent, "\n".join([*habits, *listed(items, check.status)]))
                if check.decision == Decision.PIVOT:
                    trajectory = await pivoted(task, agent, done, plan_tokens, number)
                else:
                    end = replace(done.turns[-1], note=doubts(items, check), answer=None)
                    trajectory = (*done.turns[:-1], end)
            except ModelError as failure:
                error = str(failure)
                break
        if proposals:
            stopped = StoppedBy.ERROR if error else StoppedBy.DONE if done.answer is not None else done.stopped_by
            return Answer(settled(proposals), stopped, tuple(traces), error=error)
        return await answered(agent, done)

    return Strategy(solve, frozenset({TOOLS}))


def replaced(agent: Agent, about: str) -> Agent:
    """The same agent with another text behind its question; its steps go on being counted."""
    other = Agent(agent.task, agent.limits, about=about)
    other.made = agent.made
    return other


async def planned(task: Task, budget: str, most: int) -> tuple[str, ...]:
    """The items of a plan; () where it cannot be read or does not fit the budget."""
    text = PLAN.format(budget=budget, question=task.question.text)
    piece = await ask(
        task, aside(task, text), most=most, keep=task.style.answer_tokens, stop=(), temperature=0.0, stage="plan"
    )
    return items_of(piece.text)


def items_of(text: str, most: int = 8) -> tuple[str, ...]:
    """The items of a plan.

    >>> items_of("Sure:\\n- who made it\\n2. where she was born\\nDone")
    ('who made it', 'where she was born')
    """
    return tuple(_ITEM.findall(text))[:most]


def listed(items: Sequence[str], status: dict[int, str]) -> list[str]:
    """The plan with the status of each item, as lines; nothing without a plan.

    >>> listed(("who", "where"), {1: "satisfied"})
    ['Plan:', '1. [satisfied] who', '2. [open] where']
    """
    lines = [f"{i}. [{status.get(i, 'open')}] {item}" for i, item in enumerate(items, 1)]
    return ["Plan:", *lines] if lines else []


async def checked(
    task: Task, agent: Agent, done: Walk, items: Sequence[str], budget: str, most: int, number: int
) -> Check | None:
    """The model's check of a proposal; None where it does not fit the budget, or cannot be read."""
    text = VERIFY.format(
        budget=budget,
        question=task.question.text,
        plan="\n".join(f"{i}. {item}" for i, item in enumerate(items or ("the whole question",), 1)),
        work=agent.text(done.turns[:-1]),
        answer=done.answer,
    )
    prompt = aside(task, text)
    if not agent.fits(prompt, most, done.turns):
        return None
    piece = await ask(task, prompt, most=most, stop=(), temperature=0.0, stage="verify", at=number)
    return check_of(piece.text)


def check_of(text: str) -> Check | None:
    """A check as it is written; None where nothing can be read.

    Without a decision it follows from the statuses: pivot where an item is contradicted, success where all that are
    named are satisfied, else continue.

    >>> check_of("1: satisfied\\n2: unverifiable\\ndecision: pivot").decision.value
    'pivot'
    >>> [check_of(text).decision.value for text in ("1: satisfied 2: contradicted", "1: unverifiable", "1: satisfied")]
    ['pivot', 'continue', 'success']
    >>> check_of("Hm") is None
    True
    """
    status = {int(number): word.lower() for number, word in _STATUS.findall(text)}
    said = _DECISION.findall(text)
    if said:
        return Check(Decision(said[-1].lower()), status)
    words = set(status.values())
    if not words:
        return None
    if "contradicted" in words:
        return Check(Decision.PIVOT, status)
    return Check(Decision.SUCCESS if words <= {"satisfied"} else Decision.CONTINUE, status)


def doubts(items: Sequence[str], check: Check) -> str:
    """What the model is told of a check that did not hold."""
    open_ = [
        f"{items[i - 1]}: {word}" for i, word in check.status.items() if word != "satisfied" and 0 < i <= len(items)
    ]
    return "[the answer was checked and does not hold yet" + "".join(f"; {line}" for line in open_) + "; go on]"


async def pivoted(task: Task, agent: Agent, done: Walk, most: int, number: int) -> Turns:
    """A trajectory of one turn: a summary of the one that is left, and what was wrong with its answer."""
    text = SUMMARY.format(question=task.question.text, work=agent.text(done.turns))
    prompt = aside(task, text)
    said = ""
    if agent.fits(prompt, most, ()):
        piece = await ask(task, prompt, most=most, stop=(), temperature=0.0, stage="summary", at=number)
        said = piece.text.strip()
    return (Turn(said, note=f"[the answer {done.answer} was checked and does not hold; take another lead]"),)


def settled(proposals: Sequence[str]) -> str:
    """The most frequent proposal, the latest of equals.

    >>> settled(["a", "b", "a"]), settled(["a", "b"])
    ('a', 'b')
    """
    counts = Counter(proposals)
    return max(enumerate(proposals), key=lambda pair: (counts[pair[1]], pair[0]))[1]
