"""A team of tools that is bought under a budget: each is tested before, and only what helped is kept in the prompt.

Paper: "Automated Composition of Agents: A Knapsack Approach for Agentic Component Selection", arXiv 2510.16499; its
abstract and detailed notes of others were to be had.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

from budgeteer.agent._react import react
from budgeteer.agent._tree_planner import described
from budgeteer.agent.composition import Component, Skill, Verdict, compose, retrieved
from budgeteer.agent.turns import Agent, Limits, limits_of
from budgeteer.context.encode import words
from budgeteer.context.protocol import Encode
from budgeteer.core.amounts import PICO
from budgeteer.core.errors import InvalidInput
from budgeteer.solve import Answer, Question, Strategy, Task
from budgeteer.solve.strategy import TOOLS
from budgeteer.solve.tool import Tool
from budgeteer.strategies.kit.trace import aside, ask

TOKENS, DOLLARS = "tokens", "dollars"
"""What prices of tools are counted in."""
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


_VERDICTS = {"helpful": Verdict.HELPFUL, "broken": Verdict.BROKEN}


def composer(
    room: float = 300,
    paid_in: str = TOKENS,
    tests: bool = True,
    encode: Encode = words,
    skills: int = 4,
    candidates: int = 4,
    turns: int = 10,
    skill_tokens: int = 192,
    judge_tokens: int = 8,
    step_tokens: int = 256,
    result: int = 2000,
) -> Strategy:
    """Find out which tools help, keep those whose prices fit ``room`` together, and answer with them by ReAct.

    A tool costs its description in every prompt: its price is the tokens of its schema or, with ``paid_in=dollars``,
    what a call of it costs, which is what tells sub-agents apart (:mod:`budgeteer.agent.pool`); tools that cost
    nothing are then kept without a test. The model names the skills that the question needs, with tests; each tool
    that may have one is tried, by one step of an agent that has this tool alone; the model judges what came. What
    passes is bought by :func:`budgeteer.agent.composition.compose`. Tests are paid from the question's budget, as
    everything else; without a tool that helps, the question is answered without any.

    With ``tests=false`` nothing is tried, and for each skill the likest tool is bought: the paper's retrieval baseline.

    Differences from the paper: it composes once for a whole benchmark, with large models; here this is done
    for each question, so that the tests have to pay at once. ``composer_many`` composes once for many questions.

    Helps when there are many tools with long or false descriptions, and the run is long. Does not with a few tools: the
    tests cost more than their descriptions. The purchase is careful: of 20 tools of random worth and price it buys 47
    to 77 % of what the best one would, and buying whatever helps and fits, in a random order, 53 to 88 %
    (``tests/agent/test_composer.py``).

    Args:
        room: most that all bought tools may cost together, above 0.
        paid_in: ``tokens`` of a tool's description, or ``dollars`` of a call.
        tests: whether tools are tried before they are bought.
        encode: texts -> vectors, by which candidates are found.
        skills: most skills.
        candidates: tools that are tried for a skill.
        turns: most turns of the run.
        skill_tokens: most tokens of the list of skills.
        judge_tokens: most tokens of a verdict.
        step_tokens: most tokens of output of a turn, in tests, too.
        result: most characters of a tool's result.
    """
    limits = limits_of(step_tokens, result, 0.0)
    check_prices("composer", room, paid_in)
    if min(skills, candidates, skill_tokens, judge_tokens) < 1:
        raise InvalidInput(
            f"composer:skills={skills},candidates={candidates},skill_tokens={skill_tokens},"
            f"judge_tokens={judge_tokens}; each is at least 1"
        )
    run = react(turns, 1, step_tokens, result)

    async def solve(task: Task) -> Answer:
        by_name = {tool.name: tool for tool in task.tools}
        needed = await skills_needed(task, skills, skill_tokens)
        components = [component(task, tool, paid_in) for tool in task.tools]
        free = [one.name for one in components if not one.price]
        components = [one for one in components if one.price]
        number = 0

        async def trial(name: str, skill: Skill, query: str) -> Verdict:
            nonlocal number
            number += 1
            return await tried(task, limits, by_name[name], skill, query, judge_tokens, number)

        if tests:
            found = await compose(needed, components, room, trial, candidates, encode)
        else:
            found = retrieved(needed, components, room, encode)
        return await run.solve(replace(task, tools=tuple(by_name[name] for name in (*free, *found.chosen))))

    return Strategy(solve, frozenset({TOOLS}))


async def skills_needed(task: Task, most: int, tokens: int) -> tuple[Skill, ...]:
    """The skills that the model says its question needs, at most so many, in a text of at most ``tokens`` tokens."""
    text = SKILLS.format(most=most, question=task.question.text)
    keep = task.style.answer_tokens
    piece = await ask(task, aside(task, text), most=tokens, keep=keep, stop=(), temperature=0.0, stage="skills")
    return skills_of(piece.text, most)


def check_prices(method: str, room: float, paid_in: str) -> None:
    """Refuse a unit that there is not, and a room that buys nothing."""
    if paid_in not in (TOKENS, DOLLARS) or not 0 < room < math.inf:
        raise InvalidInput(
            f"{method}:room={room},paid_in={paid_in}; give a finite room above 0, and {TOKENS} or {DOLLARS}"
        )


def component(task: Task, tool: Tool, paid_in: str = TOKENS) -> Component:
    """A tool as what may be bought: its price is the tokens of its schema, which every prompt has, or the dollars of a
    call."""
    price = tool.cost / PICO if paid_in == DOLLARS else task.model.count(json.dumps(tool.schema()))
    return Component(tool.name, described(tool), price)


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
