"""Turn control: a fixed cap of turns or one that is extended, and a reminder of the turns that are left.

Paper: "More with Less: An Empirical Study of Turn-Control Strategies for Efficient Coding Agents", arXiv 2510.16786;
only its abstract and a partial review were to be had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from budgeteer.agent.turns import Agent, Turn, Turns, answered, limits_of, walk
from budgeteer.core.errors import InvalidInput
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.solve.strategy import TOOLS

Control = Literal["fixed", "dynamic"]


def turn_control(
    turns: int = 6,
    control: Control = "fixed",
    most: int = 12,
    remind: bool = True,
    step_tokens: int = 256,
    result: int = 2000,
    temperature: float = 0.0,
) -> Strategy:
    """ReAct whose number of turns is controlled from outside.

    ``fixed``: at most ``turns`` turns. ``dynamic``: without an answer by then, the model goes on to ``most`` turns,
    provided that its last turn brought a result which no turn before had; an agent that repeats itself is stopped. With
    ``remind`` each result is followed by the turns used and left. Caps are best taken from a pilot on other questions:
    :func:`turn_caps`.

    Differences from the paper: which pairs of cap and extension it uses was not seen; the gate of new results is
    ours, since an extension without a condition is the larger cap and saves nothing.

    Helps when long runs fail anyway, or the model hurries when it is reminded: what is resent grows with the square of
    the turns. Does not where every turn finds something: a cap below the hops of a question only fails.

    Args:
        turns: the cap; of ``dynamic`` the first one.
        control: ``fixed`` or ``dynamic``.
        most: the cap after an extension.
        remind: whether the model is told of the turns left.
        step_tokens: most tokens of output of a turn.
        result: most characters of a tool's result.
        temperature: 0 is greedy.
    """
    limits = limits_of(step_tokens, result, temperature)
    if control not in get_args(Control):
        raise InvalidInput(f"turn-control:control={control}; give {' or '.join(get_args(Control))}")
    if turns < 1 or (control == "dynamic" and most < turns):
        raise InvalidInput(f"turn-control:turns={turns},most={most}; give at least 1, and no fewer after an extension")

    async def solve(task: Task) -> Answer:
        agent = Agent(task, limits)

        def reminder(cap: int, before: Turns, turn: Turn) -> str:
            used = len(before) + 1
            return f"[turn {used} of {cap}; {cap - used} left]" if remind else ""

        done = await walk(agent, (), turns, lambda before, turn: reminder(turns, before, turn))
        unfinished = done.stopped_by == StoppedBy.CAP and len(done.turns) == turns
        if control == "dynamic" and most > turns and unfinished and progressed(done.turns):
            done = await walk(
                agent, done.turns, most - turns, lambda before, turn: reminder(most, before, turn), again=False
            )
        return await answered(agent, done)

    return Strategy(solve, frozenset({TOOLS}))


def progressed(turns: Turns) -> bool:
    """Whether the last turn brought a result that no turn before it had.

    >>> progressed((Turn("a", results=("x",)), Turn("b", results=("x",)))), progressed((Turn("a", results=("x",)),))
    (False, True)
    """
    before = {result for turn in turns[:-1] for result in turn.results}
    return bool(turns) and any(result not in before for result in turns[-1].results)


def turn_caps(used: Sequence[int], percents: Sequence[float] = (25, 50, 75)) -> tuple[int, ...]:
    """Caps from the turns of a pilot: its percentiles, by the nearest rank.

    Take the pilot from other questions than those that are capped: a cap from the same ones has seen the answer.

    >>> turn_caps([2, 3, 3, 4, 9, 10, 12, 30])
    (3, 4, 10)

    Raises:
        InvalidInput: there are no runs, or a percentage is not in (0, 100].
    """
    if not used or not all(0 < p <= 100 for p in percents):
        raise InvalidInput("give the turns of at least one run, and percentages above 0 and at most 100")
    return tuple(int(np.percentile(used, p, method="inverted_cdf")) for p in percents)
