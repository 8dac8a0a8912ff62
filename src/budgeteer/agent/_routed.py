"""ReAct by two models: at each step a policy says whether the small or the large one goes on.

Paper: "Budget-Aware Agentic Routing via Boundary-Guided Training", arXiv 2602.21227; see :mod:`budgeteer.route.steps`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from budgeteer.agent.turns import FAILED, Agent, Turns, Walk, answered, limits_of
from budgeteer.core.bisection import largest
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.core.plan import F64
from budgeteer.core.usage import Usage
from budgeteer.models.load import named
from budgeteer.models.model import Model
from budgeteer.route.steps import Choose, StepPolicy, read
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.solve.strategy import TOOLS

Seen = Callable[[Task, F64, NDArray[np.bool_]], None]
"""(task, features [t, d] of its steps, [t] which of them the large model took), when a trajectory has ended."""
FEATURES = ("one", "turn", "left", "pays", "read", "failed", "new")
"""Of a step: 1; a tenth of the turns so far; the smallest share of a limit that is left; an eighth of the steps like
this one, at most 8, that what is left pays by the large model; thousands of tokens that a last answer would read; the
share of the last turn's results that are errors; that of its words that are new."""
_STEPS = 8
SMALL, LARGE = "small", "large"


def routed(
    large: Model | str,
    policy: StepPolicy | Choose | str | Path = LARGE,
    turns: int = 10,
    step_tokens: int = 256,
    result: int = 2000,
    temperature: float = 0.0,
    seen: Seen | None = None,
) -> Strategy:
    """Go on as ``react`` does, each step by the task's model, the small one, or by ``large``.

    The policy sees what there is before the step, with what is left of the budget (:data:`FEATURES`). Both models pay
    from the task's budget, each at its own price; where a step of the large one and a last answer do not fit, or it
    fails, the small one goes on. A last answer without tools is the small model's. Helps where some steps need the
    large model and a step's past tells which; a policy is learnt by :func:`budgeteer.route.steps.fit`, for which
    ``seen`` hears each trajectory. ``small`` and ``large`` as policies are the baselines: one model for all steps.

    Args:
        large: the other model, or its name as ``--model`` takes it.
        policy: one that was fitted, its file, ``small``, ``large``, or a function of the features.
        turns: most turns.
        step_tokens: most tokens of output of a turn.
        result: most characters of a tool's result.
        temperature: of the draws.
        seen: is told of each trajectory.

    Raises:
        InvalidInput: a value out of range, or a file that is no policy.
    """
    limits = limits_of(step_tokens, result, temperature)
    if turns < 1:
        raise InvalidInput(f"routed:turns={turns}; give at least 1")
    choose, other = _chooser(policy), named(large)

    async def solve(task: Task) -> Answer:
        agents = Agent(task, limits), Agent(replace(task, model=task.model.other(other)), limits)
        begun = dict(task.model.allowance.remaining)
        walked: Turns = ()
        rows: list[F64] = []
        taken: list[bool] = []
        by = StoppedBy.CAP

        def ended(answer: Answer) -> Answer:
            if seen is not None:
                seen(task, np.array(rows).reshape(-1, len(FEATURES)), np.array(taken, np.bool_))
            return answer

        for number in range(turns):
            x = features(agents, walked, begun)
            asked = choose(x)
            turn = None
            for big in (True, False) if asked else (False,):
                agents[big].made = 2 * number + big  # each call has a seed and a name of its own
                try:
                    turn = await agents[big].step(walked)
                except ModelError:
                    if not big:
                        raise
                if turn is not None:
                    rows.append(x)
                    taken.append(big)
                    break
            if turn is None:
                by = StoppedBy.BUDGET
                break
            walked = (*walked, turn)
            if not turn.calls:
                done = StoppedBy.DONE if turn.answer is not None else StoppedBy.CAP
                return ended(await answered(agents[0], Walk(walked, turn.answer, done)))
        return ended(await answered(agents[0], Walk(walked, None, by)))

    return Strategy(solve, frozenset({TOOLS}), (other,))


def features(agents: tuple[Agent, Agent], turns: Turns, begun: Mapping[str, int]) -> F64:
    """[d] of the next step.

    Args:
        agents: of the small and of the large model.
        turns: so far.
        begun: units of each kind when the task began.
    """
    small, large = agents
    kinds = small.task.model.allowance.remaining.items()
    left = min((n / begun[kind] for kind, n in kinds if begun[kind]), default=1.0)
    reads, output = small.reads(turns), large.limits.step_tokens

    def fits(steps: int) -> bool:
        return large.task.model.fits(Usage(input=steps * reads, output=steps * output))

    pays = largest(fits, _STEPS)
    last = turns[-1].results if turns else ()
    before = {word for turn in turns[:-1] for text in turn.results for word in text.split()}
    words = [word for text in last for word in text.split()]
    failed = sum(FAILED.match(text) is not None for text in last) / len(last) if last else 0.0
    new = sum(word not in before for word in words) / len(words) if words else 0.0
    return np.array([1.0, len(turns) / 10, left, pays / _STEPS, reads / 1000, failed, new])


def _chooser(policy: StepPolicy | Choose | str | Path) -> Choose:
    if policy in (SMALL, LARGE):
        return lambda x: policy == LARGE
    if isinstance(policy, str | Path):
        policy = read(Path(policy))
    if isinstance(policy, StepPolicy):
        if policy.w.shape != (len(FEATURES),):
            raise InvalidInput(
                f"the policy has learnt from {len(policy.w)} features a step, and an agent has {len(FEATURES)} "
                f"({', '.join(FEATURES)}); fit one on trajectories of this strategy"
            )
        return policy.choose
    return policy
