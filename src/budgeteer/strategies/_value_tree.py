"""Budget-aware value tree: explore while the budget is large, follow the best path as it runs out."""

from __future__ import annotations

import math

import numpy as np

from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.models.model import LOGPROBS, PREFIX
from budgeteer.solve import Answer, StoppedBy, Strategy, Task, derive
from budgeteer.strategies.aggregator import weighted_majority
from budgeteer.strategies.kit.nodes import chances
from budgeteer.strategies.kit.samples import Sample, traces_of
from budgeteer.strategies.kit.steps import extend, force
from budgeteer.strategies.scorer import Scorer, scorer_of


def value_tree(
    critic: Scorer | str = "progress",
    expansions: int = 64,
    *,
    answers: int = 4,
    floor: float = 0.05,
    horizon: int | None = None,
    step: str = "\n\n",
    step_tokens: int = 256,
    temperature: float = 0.8,
) -> Strategy:
    """Grow a tree of steps one node at a time; node i is expanded with probability ~ ``V_i ** (1 / r)``.

    r is the share of the budget that is left, the smallest over its kinds and over the expansions: at first nodes are
    drawn in proportion to their value, at the end the best one is taken. The critic rates the last step, not the
    trace: ``V(child) = V(parent) + rating``, at least ``floor``, with V(root) = 1. Steps that only repeat a sibling
    and nodes at the floor are pruned. The tree grows until ``answers`` nodes hold an answer, weighted by value, or the
    budget ends; then, without any, the best node's thinking is closed, for which room is kept.

    When it helps: some steps lead nowhere and the critic notices. When not: the critic is noise, or nearly all
    branches are dead, where following the best one from the start is better.

    "Spend Less, Reason Better: Budget-Aware Value Tree Search for LLM Agents", arXiv 2603.12634.

    Args:
        critic: a scorer or its name. It scores the change that the last step of a trace made, in [-1, 1], such as
            :func:`budgeteer.strategies.scorer.progress`; NaN counts as 0. Its calls are charged, too.
        expansions: most expansions.
        answers: number of nodes with an answer at which the search stops.
        floor: least value, > 0.
        horizon: expansions over which r falls to 0; None = ``expansions``.
        step: the text that ends a step.
        step_tokens: cap of one step.
        temperature: of the steps.
    """
    span = expansions if horizon is None else horizon
    if expansions < 1 or answers < 1 or not floor > 0 or step_tokens < 1 or not step or span < 1:
        raise InvalidInput(
            f"value_tree(expansions={expansions}, answers={answers}, floor={floor}, horizon={horizon}, step={step!r}, "
            f"step_tokens={step_tokens}); floor is above 0, the others are at least 1"
        )
    rates_by = scorer_of(critic)
    logprobs = LOGPROBS in rates_by.needs

    async def solve(task: Task) -> Answer:
        rate, prompt = rates_by.bind(task), task.style.prompt(task.question.text)
        start = task.model.remaining
        rng = np.random.default_rng(derive(task.seed, "tree"))
        nodes, values = [Sample("", None, 0)], [1.0]
        seen: set[str] = {""}
        pool: list[Sample] = []
        weights: list[float] = []
        stopped, failure = StoppedBy.DONE, ""
        for number in range(expansions):
            if not nodes:
                break
            ratio = min([1 - number / span, *(left_of(task, start))])
            at = int(rng.choice(len(nodes), p=chances(np.array(values), ratio)))
            try:
                grown = await extend(
                    task,
                    prompt,
                    nodes[at],
                    1,
                    step=step,
                    step_tokens=step_tokens,
                    temperature=temperature,
                    seed=derive(task.seed, "node", number),
                    logprobs=logprobs,
                )
            except ModelError as error:
                stopped, failure = StoppedBy.ERROR, str(error)
                break
            if not grown:
                stopped = StoppedBy.BUDGET
                break
            child = grown[0]
            if child.sample.text in seen and not child.ended:
                continue
            rating = (await rate([child.sample]))[0]
            value = max(floor, values[at] + (0.0 if math.isnan(rating) else rating))
            if child.ended:
                pool.append(child.sample)
                weights.append(value)
                if sum(sample.answer is not None for sample in pool) >= answers:
                    break
            elif value > floor:
                seen.add(child.sample.text)
                nodes.append(child.sample)
                values.append(value)
        ranked = weighted_majority()([sample.answer for sample in pool], weights)
        if not ranked:
            forced = await force(task, prompt, nodes[int(np.argmax(values))])
            return Answer(forced.answer, stopped, traces_of([*pool, forced]), error=failure)
        candidates = tuple(entry.answer for entry in ranked)
        return Answer(candidates[0], stopped, traces_of(pool), ranked[0].weight, failure, candidates)

    return Strategy(solve, rates_by.needs | {PREFIX})


def left_of(task: Task, start: dict[str, int]) -> list[float]:
    """For each kind of unit, the share that is left of what there was at the start (kind -> units)."""
    return [units / start[kind] if start[kind] > 0 else 0.0 for kind, units in task.model.remaining.items()]
