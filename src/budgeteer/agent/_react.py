"""ReAct with a cap: call tools until the model answers, at most so many turns.

Source: Yao et al., "ReAct: Synergizing Reasoning and Acting in Language Models", arXiv 2210.03629.
"""

from __future__ import annotations

from budgeteer.agent.turns import Agent, answered, limits_of, walk
from budgeteer.core.errors import InvalidInput
from budgeteer.solve import Answer, Strategy, Task
from budgeteer.solve.strategy import TOOLS


def react(turns: int = 10, step_tokens: int = 256, result: int = 2000, temperature: float = 0.0) -> Strategy:
    """Ask the model, call the tools that it asks for, and so on until it answers or has made ``turns`` turns.

    The baseline of the other agents: it knows neither its budget nor its cap. After the last turn, or when the budget
    covers no other step, it is asked for its answer without tools.

    Helps when a question needs few lookups, each of which says what the next one is. Does not where the model never
    finds enough: it then spends whatever it is given.

    Args:
        turns: most turns.
        step_tokens: most tokens of output of a turn.
        result: most characters of a tool's result.
        temperature: 0 is greedy.
    """
    limits = limits_of(step_tokens, result, temperature)
    if turns < 1:
        raise InvalidInput(f"react:turns={turns}; give at least 1")

    async def solve(task: Task) -> Answer:
        agent = Agent(task, limits)
        return await answered(agent, await walk(agent, (), turns))

    return Strategy(solve, frozenset({TOOLS}))
