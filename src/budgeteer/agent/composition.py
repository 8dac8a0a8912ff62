"""What a team of tools or agents is made of: components, bought one at a time after their tests, for the skills needed.

Paper: "Automated Composition of Agents: A Knapsack Approach for Agentic Component Selection", arXiv 2510.16499; its
abstract and detailed notes of others were to be had.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from budgeteer.context.encode import cosine, words
from budgeteer.context.protocol import Encode
from budgeteer.core.errors import InvalidInput
from budgeteer.online import online_knapsack


class Verdict(IntEnum):
    """What a test says of a component."""

    BROKEN = -1
    USELESS = 0
    HELPFUL = 1


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
    skills: Sequence[Skill],
    components: Sequence[Component],
    budget: float,
    trial: Trial,
    candidates: int = 5,
    encode: Encode = words,
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
        encode: texts -> vectors, by whose cosine a component is like a request.

    Difference from the paper: L has the smallest weight where the paper has 1, which is its smallest.
    """
    found = Composition()
    if not skills or not components:
        return found
    prices, weights = [one.price for one in components], [skill.weight for skill in skills]
    if min(prices) <= 0 or min(weights) <= 0 or candidates < 1:
        raise InvalidInput("prices and weights are above 0, and at least 1 candidate comes for a skill")
    buyer = online_knapsack(budget, min(weights) / max(prices), sum(weights) / min(prices))
    state = buyer.init()
    ranks = {skill.name: likest(skill, components, encode)[:candidates] for skill in skills}
    seen: set[int] = set()
    for skill in skills:
        for index in ranks[skill.name]:
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


def retrieved(
    skills: Sequence[Skill], components: Sequence[Component], budget: float, encode: Encode = words
) -> Composition:
    """Buy for each skill in turn the component that is likest to it, without a test, if the rest of the budget covers
    it: the paper's composer by retrieval, which believes what components say of themselves.

    Args:
        skills, components, budget, encode: as in :func:`compose`.
    """
    found = Composition()
    for skill in skills if components else ():
        one = components[likest(skill, components, encode)[0]]
        if one.name in found.chosen or one.price <= budget - found.spent:
            found.covered.append(skill.name)
            if one.name not in found.chosen:
                found.chosen.append(one.name)
                found.spent += one.price
    return found


def likest(skill: Skill, components: Sequence[Component], encode: Encode) -> list[int]:
    """Numbers of components, those first that are likest to a skill's name with each of its requests, in the mean."""
    alike, about = cosine(encode), [one.about for one in components]
    # each request by itself: joined, what they share, such as "the", outweighs the skill's name
    total = sum(alike(f"{skill.name} {query}", about) for query in skill.queries)
    ranked: list[int] = np.argsort(-np.asarray(total), kind="stable").tolist()
    return ranked


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
