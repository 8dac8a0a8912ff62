"""ReAct with a cap: call tools until the model answers, at most so many turns.

Source: Yao et al., "ReAct: Synergizing Reasoning and Acting in Language Models", arXiv 2210.03629.
"""

from __future__ import annotations

from budgeteer.agent.turns import Agent, answered, limits_of, walk
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.solve.strategy import TOOLS
from budgeteer.strategies.aggregator import majority


def react(
    turns: int = 10, samples: int = 1, step_tokens: int = 256, result: int = 2000, temperature: float | None = None
) -> Strategy:
    """Ask the model, call the tools that it asks for, and so on until it answers or has made ``turns`` turns.

    The baseline of the other agents: it knows neither its budget nor its cap. After the last turn, or when the budget
    covers no other step, it is asked for its answer without tools. With ``samples`` it does so several times, one after
    the other until the budget ends, and the majority counts: parallel sampling, the baseline of searches.

    Helps when a question needs few lookups, each of which says what the next one is. Does not where the model never
    finds enough: it then spends whatever it is given.

    Args:
        turns: most turns of a sample.
        samples: most samples.
        step_tokens: most tokens of output of a turn.
        result: most characters of a tool's result.
        temperature: 0 is greedy; None = 0 for one sample, 0.8 for several.
    """
    warmth = (0.8 if samples > 1 else 0.0) if temperature is None else temperature
    limits = limits_of(step_tokens, result, warmth)
    if min(turns, samples) < 1:
        raise InvalidInput(f"react:turns={turns},samples={samples}; give at least 1 of each")

    async def solve(task: Task) -> Answer:
        agent = Agent(task, limits)
        first = await answered(agent, await walk(agent, (), turns))
        found = [first]
        while len(found) < samples and found[-1].stopped_by in (StoppedBy.DONE, StoppedBy.CAP):
            done = await walk(agent, (), turns, again=True)
            if not done.turns:  # not even a first step fits
                break
            try:
                found.append(await answered(agent, done))
            except ModelError as error:
                found.append(Answer(None, StoppedBy.ERROR, error=str(error)))
        ranked = majority()([answer.answer for answer in found], [0.0] * len(found))
        if not ranked:
            return first
        traces = tuple(trace for answer in found for trace in answer.traces)
        best = tuple(entry.answer for entry in ranked)
        return Answer(best[0], found[-1].stopped_by, traces, ranked[0].weight, found[-1].error, best)

    return Strategy(solve, frozenset({TOOLS}))
