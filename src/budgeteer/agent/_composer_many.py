"""A team of tools that is bought once, by tests on some of the questions, and answers all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from budgeteer.agent._composer import TOKENS, check_prices, component, skills_needed, tried
from budgeteer.agent._react import react
from budgeteer.agent.composition import Skill, Verdict, compose, retrieved
from budgeteer.agent.turns import limits_of
from budgeteer.context.encode import words
from budgeteer.context.protocol import Encode
from budgeteer.core.errors import BudgetExceeded, InvalidInput, ModelError
from budgeteer.solve import Answer, StoppedBy, Strategy, Task

_AT_ONCE = 8
"""Questions that are answered at the same time; the next ones share what these left."""


async def composer_many(
    tasks: Sequence[Task],
    *,
    room: float = 300,
    paid_in: str = TOKENS,
    tests: bool = True,
    encode: Encode = words,
    skills: int = 4,
    candidates: int = 8,
    pilot: int = 3,
    share: float = 0.25,
    turns: int = 10,
    skill_tokens: int = 192,
    judge_tokens: int = 8,
    step_tokens: int = 256,
    result: int = 2000,
) -> AsyncIterator[tuple[int, Answer]]:
    """Compose once and answer all questions with what was bought; yields (position, answer).

    ``pilot`` questions, evenly spread, are asked which skills they need and for tests of them; skills of one name are
    one, with the mean of their weights and all of their tests, and those named most often come first. Each test runs
    with the tools of the question that it came from, since tools may differ in what they know. What passes more than
    half of its tests is bought by :func:`budgeteer.agent.composition.compose`, and every question is answered by ReAct
    with these tools alone; where nothing was bought, with all of them, since one wrong answer here would cost every
    question its tools. Composing takes at most ``share`` of the budget, and stands in the rows of the pilot's
    questions; what is left is shared equally, and what a question does not use goes to later ones.

    Helps when many questions need the same few of many tools. Does not with a few tools, or where each question needs
    others: a tool that no pilot question needs is not there for the others.

    Paper: "Automated Composition of Agents: A Knapsack Approach for Agentic Component Selection", arXiv 2510.16499,
    whose composer reads a description of the benchmark where this one reads some of its questions.

    Args:
        tasks: one for each question, on one allowance, with tools.
        room: most that all bought tools may cost together, above 0.
        paid_in: ``tokens`` of a tool's description, or ``dollars`` of a call; tools that cost nothing are then kept.
        tests: whether tools are tried before they are bought; without, for each skill the likest is.
        encode: texts -> vectors, by which candidates are found.
        skills: most skills.
        candidates: tools that are tried for a skill; more than ``composer`` tries, since its tests are paid once.
        pilot: questions that are looked at.
        share: of the budget, the most for composing, in (0, 1).
        turns: most turns of a question.
        skill_tokens: most tokens of a list of skills.
        judge_tokens: most tokens of a verdict.
        step_tokens: most tokens of output of a turn, in tests, too.
        result: most characters of a tool's result.

    Raises:
        InvalidInput: numbers out of range, a question without tools, or questions on several allowances.
    """
    limits = limits_of(step_tokens, result, 0.0)
    check_prices("composer-many", room, paid_in)
    if min(skills, candidates, pilot, skill_tokens, judge_tokens) < 1 or not 0 < share < 1:
        raise InvalidInput(
            f"composer-many:skills={skills},candidates={candidates},pilot={pilot},share={share},"
            f"skill_tokens={skill_tokens},judge_tokens={judge_tokens}; share is between 0 and 1, the rest at least 1"
        )
    run = react(turns, 1, step_tokens, result)
    without = [task.question.id for task in tasks if not task.tools]
    if without:
        raise InvalidInput(
            f"composer-many chooses among tools, and question {without[0]} has none; take a task with tools, such as "
            "lookups"
        )
    if len({id(task.model.allowance) for task in tasks}) > 1:
        raise InvalidInput("the questions have different allowances; give all of them one")
    if not tasks:
        return
    asked = [tasks[i * len(tasks) // pilot] for i in range(pilot)] if pilot < len(tasks) else list(tasks)
    most = {kind: int(max(0, units) * share) // len(asked) for kind, units in tasks[0].model.remaining.items()}
    with ExitStack() as parts:
        asked = [replace(task, model=parts.enter_context(task.model.part(most))) for task in asked]
        needed, source = await _needed(asked, skills, skill_tokens)
        by_name = {tool.name: component(task, tool, paid_in) for task in reversed(asked) for tool in task.tools}
        number = 0

        async def trial(name: str, skill: Skill, query: str) -> Verdict:
            nonlocal number
            number += 1
            task = source[skill.name, query]
            for tool in task.tools:
                if tool.name == name:
                    try:
                        return await tried(task, limits, tool, skill, query, judge_tokens, number)
                    except ModelError:  # says nothing of the tool, and others are left
                        break
            return Verdict.USELESS

        free = [name for name, one in by_name.items() if not one.price]
        components = [one for one in by_name.values() if one.price]
        if tests:
            found = await compose(needed, components, room, trial, candidates, encode)
        else:
            found = retrieved(needed, components, room, encode)
    chosen = [*free, *found.chosen] or list(dict.fromkeys(tool.name for task in tasks for tool in task.tools))
    for begin in range(0, len(tasks), _AT_ONCE):
        left = tasks[begin].model.remaining
        each = {kind: max(0, units) // (len(tasks) - begin) for kind, units in left.items()}
        wave = tasks[begin : begin + _AT_ONCE]
        answers = await asyncio.gather(*(_answered(run, task, chosen, each) for task in wave))
        for i, answer in enumerate(answers, begin):
            yield i, answer


async def _needed(
    asked: Sequence[Task], most: int, tokens: int
) -> tuple[tuple[Skill, ...], dict[tuple[str, str], Task]]:
    """The skills that these questions need, those named most often first, and the question of each of their tests."""
    named: dict[str, list[Skill]] = {}
    source: dict[tuple[str, str], Task] = {}
    for task in asked:
        try:
            own = await skills_needed(task, most, tokens)
        except ModelError:
            continue
        for skill in own:
            name = skill.name.lower()
            named.setdefault(name, []).append(skill)
            for query in skill.queries:
                source.setdefault((name, query), task)
    merged = [
        Skill(
            name,
            sum(skill.weight for skill in own) / len(own),
            tuple(dict.fromkeys(query for skill in own for query in skill.queries)),
        )
        for name, own in named.items()
    ]
    merged.sort(key=lambda skill: (-len(named[skill.name]), -skill.weight))
    return tuple(merged[:most]), source


async def _answered(run: Strategy, task: Task, chosen: Sequence[str], amounts: Mapping[str, int]) -> Answer:
    """The answer of one question with the chosen of its tools, from a part of the budget."""
    by_name = {tool.name: tool for tool in task.tools}
    tools = tuple(by_name[name] for name in chosen if name in by_name)
    try:
        with task.model.part(amounts) as model:
            return await run.solve(replace(task, model=model, tools=tools))
    except BudgetExceeded:
        return Answer(None, StoppedBy.BUDGET)
    except ModelError as error:
        return Answer(None, StoppedBy.ERROR, error=str(error))
