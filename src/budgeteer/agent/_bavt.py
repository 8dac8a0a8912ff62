"""BAVT: a tree of an agent's steps, explored while the budget is large, followed along its best path as it runs out.

Paper: "Spend Less, Reason Better: Budget-Aware Value Tree Search for LLM Agents", arXiv 2603.12634; its abstract and
notes of others were read, so the texts of the prompts, the scale of values and how they add up are chosen here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from budgeteer.agent._bats import listed, planned, replaced
from budgeteer.agent.track import ratio, tracker
from budgeteer.agent.turns import Agent, Turns, limits_of
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.solve import Answer, StoppedBy, Strategy, Task, derive
from budgeteer.solve.strategy import TOOLS
from budgeteer.strategies.aggregator import weighted_majority
from budgeteer.strategies.kit.nodes import chances
from budgeteer.strategies.kit.trace import aside, ask

CRITIC = """How much nearer to the answer did the last step of this work bring us? Write one whole number from -5 \
(farther away) over 0 (nothing new) to 5 (much nearer).
Question: {question}
Work:
{work}
Change:"""
_CHANGE = re.compile(r"[-+]?\d+")
_SCALE = 5


class Node(NamedTuple):
    """A trajectory and its value, above 0."""

    turns: Turns
    value: float


def bavt(
    plan: bool = True,
    expansions: int = 24,
    answers: int = 1,
    floor: float = 0.05,
    horizon: int | None = None,
    plan_tokens: int = 128,
    critic_tokens: int = 8,
    step_tokens: int = 256,
    result: int = 2000,
    temperature: float = 0.8,
) -> Strategy:
    """Grow a tree of turns; node i is chosen with probability ~ ``V_i ** (1 / r)``, r the share of the budget left.

    r is the smallest share over the kinds of the budget, tokens and calls of tools, and over the expansions: at first
    nodes are drawn in proportion to their value, at the end the best one is taken. A plan of hops is drafted first. A
    turn is a call of the model with its calls of tools; then the model as critic rates the change that the turn made,
    -5 to 5: ``V(child) = V(parent) + rating / 5``, at least ``floor``, with V(root) = 1. A turn whose results its path
    had already, and one at the floor, is pruned. A node that answers is terminal; the search ends at ``answers`` of
    them, weighted by value, or when the budget leaves nothing but the last answer of the best path, for which room is
    kept.

    Differences from the paper: how values are scaled and kept positive is chosen here. It is ``value-tree`` with tools,
    observations and budgets of their calls.

    Helps when some searches lead nowhere and the critic sees it. Does not when the critic is noise, or each turn's
    prompt is dear: every branch sends its path again.

    Args:
        plan: whether hops are planned first.
        expansions: most expansions.
        answers: nodes with an answer at which the search ends.
        floor: least value, above 0.
        horizon: expansions over which r falls to 0; None = ``expansions``.
        plan_tokens: most tokens of the plan.
        critic_tokens: most tokens of a rating.
        step_tokens: most tokens of output of a turn.
        result: most characters of a tool's result.
        temperature: of the turns.
    """
    limits = limits_of(step_tokens, result, temperature)
    span = expansions if horizon is None else horizon
    if min(expansions, answers, plan_tokens, critic_tokens, span) < 1 or not floor > 0:
        raise InvalidInput(
            f"bavt:expansions={expansions},answers={answers},horizon={horizon},plan_tokens={plan_tokens},"
            f"critic_tokens={critic_tokens},floor={floor}; floor is above 0, the others are at least 1"
        )

    async def solve(task: Task) -> Answer:
        start, rng = task.model.remaining, np.random.default_rng(derive(task.seed, "bavt"))
        agent = Agent(task, limits)
        if plan:
            items = await planned(task, tracker(task, start), plan_tokens)
            agent = replaced(agent, "\n".join(listed(items, {})))
        nodes = [Node((), 1.0)]
        found: list[Node] = []
        stopped, error = StoppedBy.CAP, ""
        for number in range(expansions):
            best = max(nodes, key=lambda node: node.value)
            share = min(1 - number / span, ratio(task, start))
            node = nodes[int(rng.choice(len(nodes), p=chances(np.array([n.value for n in nodes]), share)))]
            try:
                turn = await agent.step(node.turns, keep=agent.reads(best.turns))
                if turn is None:
                    stopped = StoppedBy.BUDGET
                    break
                child = (*node.turns, turn)
                known = {result for before in node.turns for result in before.results}
                if turn.calls and known.issuperset(turn.results):
                    continue  # nothing new
                if not turn.calls and turn.answer is None:
                    continue  # cut in the middle
                change = await rated(task, agent, child, best, critic_tokens, number)
            except ModelError as failure:
                stopped, error = StoppedBy.ERROR, str(failure)
                break
            value = max(floor, node.value + change)
            if turn.answer is not None:
                found.append(Node(child, value))
                if len(found) >= answers:
                    stopped = StoppedBy.DONE
                    break
            elif value > floor:
                nodes.append(Node(child, value))
        traces = tuple(agent.text(node.turns) for node in found)
        ranked = weighted_majority()([node.turns[-1].answer for node in found], [node.value for node in found])
        if not ranked:
            if error and len(nodes) == 1:
                raise ModelError(error, billed=True)
            return await agent.conclude(max(nodes, key=lambda node: node.value).turns, stopped)
        return Answer(ranked[0].answer, stopped, traces, ranked[0].weight, error, tuple(r.answer for r in ranked))

    return Strategy(solve, frozenset({TOOLS}))


async def rated(task: Task, agent: Agent, turns: Turns, best: Node, most: int, number: int) -> float:
    """The critic's rating of the last turn, -1 to 1; 0 where it cannot be read, or its call does not fit."""
    prompt = aside(task, CRITIC.format(question=task.question.text, work=agent.text(turns)))
    longest = max(turns, best.turns, key=agent.reads)
    if not agent.fits(prompt, most, longest):
        return 0.0
    piece = await ask(task, prompt, most=most, stop=("\n",), temperature=0.0, stage="critic", at=number)
    return change_of(piece.text)


def change_of(text: str) -> float:
    """A rating as it is written, -1 to 1; 0 without a number.

    >>> change_of("+4"), change_of("-2: worse"), change_of("99"), change_of("none")
    (0.8, -0.4, 1.0, 0.0)
    """
    number = _CHANGE.search(text)
    return 0.0 if number is None else max(-1.0, min(1.0, float(number[0]) / _SCALE))
