"""A team of tools that is bought under a budget: each is tested before, and only what helped is kept in the prompt.

Paper: "Automated Composition of Agents: A Knapsack Approach for Agentic Component Selection", arXiv 2510.16499; its
abstract and detailed notes of others were to be had.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np

from budgeteer.agent._react import react
from budgeteer.agent._tree_planner import described
from budgeteer.agent.turns import Agent, Limits, limits_of
from budgeteer.context.encode import cosine, words
from budgeteer.core.errors import InvalidInput
from budgeteer.online import online_knapsack
from budgeteer.solve import Answer, Question, Strategy, Task
from budgeteer.solve.strategy import TOOLS
from budgeteer.solve.tool import Tool
from budgeteer.strategies.kit.trace import aside, ask

SKILLS = """Which skills does the question need? Write at most {most}, one a line, each as
NAME | WEIGHT | a test request that needs this skill alone | another one
The weight is a number from 1 to 5.
Question: {question}
Skills:
"""
JUDGE = """A tool was tried for the skill "{skill}".
Request: {query}
It returned: {answer}
Was that helpful, useless, or is the tool broken? Write one word.
Verdict:"""
_WORD = re.compile(r"helpful|useless|not helpful|broken", re.IGNORECASE)


class Verdict(IntEnum):
    """What a test says of a component."""

    BROKEN = -1
    USELESS = 0
    HELPFUL = 1


_VERDICTS = {"helpful": Verdict.HELPFUL, "broken": Verdict.BROKEN}


@dataclass(frozen=True, slots=True)
class Skill:
    """What is needed: a name, its weight, and requests that need this skill alone."""

    name: str
    weight: float
    queries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Component:
    """What may be bought.

    Attributes:
        name: of the tool or agent.
        about: what it says of itself.
        price: > 0, in the units of the budget.
    """

    name: str
    about: str
    price: float


@dataclass(slots=True)
class Composition:
    """What was bought.

    Attributes:
        chosen: names of components, in the order of their purchase.
        spent: price of all of them.
        covered: skills that a chosen one passed.
        verdicts: (component, skill) -> verdict of each test, in their order.
    """

    chosen: list[str] = field(default_factory=list)
    spent: float = 0.0
    covered: list[str] = field(default_factory=list)
    verdicts: dict[tuple[str, str], list[Verdict]] = field(default_factory=dict)


Trial = Callable[[str, Skill, str], Awaitable[Verdict]]
"""(component, skill, request) -> verdict of one test."""


async def compose(
    skills: Sequence[Skill], components: Sequence[Component], budget: float, trial: Trial, candidates: int = 5
) -> Composition:
    """Buy components one at a time, each after its tests, by the threshold of the online knapsack.

    For each skill in turn the ``candidates`` components come that are likest to its name with each of its requests, in
    the mean over requests; each is decided on once, when it
    comes first. It is tested for all skills that are not covered yet and that it came for; v = sum of the weights of
    those of which it passed more than half of the tests. It is bought if v / price >= (U e / L)^z (L / e), with z the
    part of the budget that is spent, L = min weight / max price and U = sum of weights / min price, and if the rest
    covers it. One that is broken is never tried again.

    Args:
        skills: what is needed.
        components: what there is.
        budget: for prices, > 0.
        trial: tests one component.
        candidates: components that come for a skill.

    Difference from the paper: L has the smallest weight where the paper has 1, which is its smallest.
    """
    found = Composition()
    if not skills or not components:
        return found
    prices, weights = [one.price for one in components], [skill.weight for skill in skills]
    if min(prices) <= 0 or min(weights) <= 0 or candidates < 1:
        raise InvalidInput("prices and weights are above 0, and at least 1 candidate comes for a skill")
    buyer = online_knapsack(budget, min(weights) / max(prices), sum(weights) / min(prices))
    state, likest, about = buyer.init(), cosine(words), [one.about for one in components]
    ranks = {}
    for skill in skills:  # each request by itself: joined, what they share, such as "the", outweighs the skill's name
        alike = sum(likest(f"{skill.name} {query}", about) for query in skill.queries)
        ranks[skill.name] = np.argsort(-alike, kind="stable")[:candidates]
    seen: set[int] = set()
    for skill in skills:
        for index in ranks[skill.name].tolist():
            if index in seen or skill.name in found.covered:
                continue
            seen.add(index)
            one = components[index]
            wanted = [other for other in skills if other.name not in found.covered and index in ranks[other.name]]
            passed = await _passed(one, wanted, trial, found)
            value = sum(other.weight for other in passed)
            choice, state = buyer.step(state, (value,), ((one.price,),))
            if choice == 0:
                found.chosen.append(one.name)
                found.spent += one.price
                found.covered += [other.name for other in passed]
    return found


async def _passed(one: Component, wanted: Sequence[Skill], trial: Trial, found: Composition) -> list[Skill]:
    """The skills whose tests a component passes; none if it is broken."""
    passed = []
    for skill in wanted:
        verdicts = found.verdicts.setdefault((one.name, skill.name), [])
        for query in skill.queries:
            verdicts.append(await trial(one.name, skill, query))
            if verdicts[-1] == Verdict.BROKEN:
                return []
        if 2 * sum(verdicts) > len(verdicts):
            passed.append(skill)
    return passed


def composer(
    room: int = 300,
    skills: int = 4,
    candidates: int = 4,
    turns: int = 10,
    skill_tokens: int = 192,
    judge_tokens: int = 8,
    step_tokens: int = 256,
    result: int = 2000,
) -> Strategy:
    """Find out which tools help, keep those whose descriptions fit ``room`` tokens, and answer with them by ReAct.

    A tool costs its description in every prompt; ``room`` is what all of them may cost together, and the price of a
    tool is the tokens of its schema. The model names the skills that the question needs, with tests; each tool that may
    have one is tried, by one step of an agent that has this tool alone; the model judges what came. What passes is
    bought by :func:`compose`. Tests are paid from the question's budget, as everything else; without a tool that helps,
    the question is answered without any.

    Differences from the paper: it composes once for a whole benchmark, in dollars, with large models; here this is done
    for each question, so that the tests have to pay at once. ``composer_many`` composes once for many questions.

    Helps when there are many tools with long or false descriptions, and the run is long. Does not with a few tools: the
    tests cost more than their descriptions. The purchase is careful: of 20 tools of random worth and price it buys 47
    to 77 % of what the best one would, and buying whatever helps and fits, in a random order, 53 to 88 %
    (``tests/agent/test_composer.py``).

    Args:
        room: most tokens of all descriptions together.
        skills: most skills.
        candidates: tools that are tried for a skill.
        turns: most turns of the run.
        skill_tokens: most tokens of the list of skills.
        judge_tokens: most tokens of a verdict.
        step_tokens: most tokens of output of a turn, in tests, too.
        result: most characters of a tool's result.
    """
    limits = limits_of(step_tokens, result, 0.0)
    if min(room, skills, candidates, skill_tokens, judge_tokens) < 1:
        raise InvalidInput(
            f"composer:room={room},skills={skills},candidates={candidates},skill_tokens={skill_tokens},"
            f"judge_tokens={judge_tokens}; each is at least 1"
        )
    run = react(turns, 1, step_tokens, result)

    async def solve(task: Task) -> Answer:
        by_name = {tool.name: tool for tool in task.tools}
        needed = await skills_needed(task, skills, skill_tokens)
        components = [component(task, tool) for tool in task.tools]
        number = 0

        async def trial(name: str, skill: Skill, query: str) -> Verdict:
            nonlocal number
            number += 1
            return await tried(task, limits, by_name[name], skill, query, judge_tokens, number)

        found = await compose(needed, components, room, trial, candidates)
        return await run.solve(replace(task, tools=tuple(by_name[name] for name in found.chosen)))

    return Strategy(solve, frozenset({TOOLS}))


async def skills_needed(task: Task, most: int, tokens: int) -> tuple[Skill, ...]:
    """The skills that the model says its question needs, at most so many, in a text of at most ``tokens`` tokens."""
    text = SKILLS.format(most=most, question=task.question.text)
    keep = task.style.answer_tokens
    piece = await ask(task, aside(task, text), most=tokens, keep=keep, stop=(), temperature=0.0, stage="skills")
    return skills_of(piece.text, most)


def component(task: Task, tool: Tool) -> Component:
    """A tool as what may be bought: its price is the tokens of its schema, which every prompt has."""
    return Component(tool.name, described(tool), task.model.count(json.dumps(tool.schema())))


async def tried(task: Task, limits: Limits, tool: Tool, skill: Skill, query: str, most: int, at: int) -> Verdict:
    """The model's verdict on one step of an agent that has this tool alone; USELESS without a call, or without room."""
    alone = replace(task, question=Question(f"{task.question.id}-test-{at}", query), tools=(tool,))
    after = Agent(task, limits)
    turn = await Agent(alone, limits).step((), keep=after.reads(()))
    if turn is None or not turn.calls:
        return Verdict.USELESS
    prompt = aside(task, JUDGE.format(skill=skill.name, query=query, answer="\n".join(turn.results)))
    if not after.fits(prompt, most, ()):
        return Verdict.USELESS
    return verdict_of((await ask(task, prompt, most=most, stop=(), temperature=0.0, stage="judge", at=at)).text)


def skills_of(text: str, most: int) -> tuple[Skill, ...]:
    """The skills that a model named; lines that cannot be read are left out, and weights are cut to 1 to 5.

    >>> skills_of("search | 3 | Who wrote Emma? | Where is Oslo?\\nSo:\\nsums | 9 | 2 + 2?", 4)[1]
    Skill(name='sums', weight=5.0, queries=('2 + 2?',))
    """
    found: dict[str, Skill] = {}
    for line in text.splitlines():
        name, *more = (part.strip(" -*") for part in line.split("|"))
        weight = re.match(r"\d+(?:\.\d+)?", more[0]) if more else None
        queries = tuple(filter(None, more[1:]))[:3]
        if name and weight and queries:
            found.setdefault(name, Skill(name, min(5.0, max(1.0, float(weight[0]))), queries))
    return tuple(found.values())[:most]


def verdict_of(text: str) -> Verdict:
    """The verdict as it is written; one that cannot be read is no help.

    >>> [verdict_of(text).name for text in ("Helpful.", "not helpful", "it is BROKEN", "hm")]
    ['HELPFUL', 'USELESS', 'BROKEN', 'USELESS']
    """
    said = _WORD.search(text)
    return _VERDICTS.get(said[0].lower() if said else "", Verdict.USELESS)
