"""One prompt with everything in it: what the tools could tell is read at once, and no tool is called."""

from __future__ import annotations

from budgeteer.agent.turns import Agent, Turn, answered, limits_of, walk
from budgeteer.core.bisection import largest
from budgeteer.core.errors import InvalidInput
from budgeteer.core.usage import Usage
from budgeteer.solve import Answer, Strategy, Task
from budgeteer.solve.strategy import TOOLS


def one_prompt(step_tokens: int = 256, temperature: float = 0.0) -> Strategy:
    """Put all that the tools could tell before the question is answered, cut to what the budget can read.

    The baseline of agents that search: one call, no tool, the whole store as input. Only tools that say ``everything``
    can be read so.

    Helps when the store is small, or input is cheap beside calls of tools. Does not when the store is larger than the
    budget or the context, where the end of it is cut off. A model that thinks reads it twice where its thinking is cut,
    so half as much fits.

    Args:
        step_tokens: most tokens of output.
        temperature: 0 is greedy.
    """
    limits = limits_of(step_tokens, 1, temperature)

    async def solve(task: Task) -> Answer:
        known = "\n\n".join(tool.everything for tool in task.tools if tool.everything)
        if not known:
            raise InvalidInput("one-prompt reads tools that say 'everything' they could tell, and the task has none")

        def agent(size: int) -> Agent:
            return Agent(task, limits, about=known[:size], tools=False)

        def fits(size: int) -> bool:
            prompt, output = agent(size).prompt(()), task.style.answer_tokens
            if not task.style.close:  # one call: nothing is thought that would have to be closed, and read once more
                inputs, context = task.model.count(prompt), task.model.context
                return task.model.fits(Usage(input=inputs, output=output)) and (
                    context is None or inputs + output <= context
                )
            return agent(size).fits(prompt, output, (Turn(""),)) and (
                task.model.context is None or task.model.count(prompt) + 2 * output <= task.model.context
            )

        size = len(known) if fits(len(known)) else largest(fits, len(known))
        reader = agent(size)
        return await answered(reader, await walk(reader, (), 1))

    return Strategy(solve, frozenset({TOOLS}))
