"""VOI control: search, decompose or answer, whichever promises most for the share of the budget that it takes.

Paper: "Inference-Time Budget Control for LLM Search Agents", arXiv 2605.05701; its abstract and a note on its first
pages were read. Its coefficients were not seen; those here are chosen by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from budgeteer.agent._bats import listed, planned, replaced
from budgeteer.agent.track import ratio, tracker
from budgeteer.agent.turns import Agent, Turns, Walk, answered, limits_of
from budgeteer.core.errors import InvalidInput, ModelError
from budgeteer.core.usage import Usage
from budgeteer.solve import Answer, StoppedBy, Strategy, Task
from budgeteer.solve.strategy import TOOLS
from budgeteer.strategies.kit.trace import aside, ask

VALUES = """Rate three ways to go on, each with one line "NAME: NUMBER" from 0 to 10. search: how much another search \
would help. decompose: how much splitting the question into parts would help. answer: how surely it can be answered now.
Question: {question}
Work:
{work}
Rating:"""
REFINE = """Write the answer in the form that the question asks for. First line "answer: ...", then "support: NUMBER" \
(0 to 10, how well the work supports that form) and "harm: NUMBER" (0 to 10, how likely it makes a right answer wrong).
Question: {question}
Work:
{work}
Answer: {answer}
"""
_RATED = re.compile(r"(search|decompose|answer)\s*[:=]\s*(\d+(?:\.\d+)?)", re.IGNORECASE)
_REFINED = re.compile(r"answer\s*:\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_SUPPORT, _HARM = (re.compile(rf"{name}\s*:\s*(\d+(?:\.\d+)?)", re.IGNORECASE) for name in ("support", "harm"))
_TINY = 1e-3


class Action(StrEnum):
    """What an agent does next."""

    SEARCH = "search"
    DECOMPOSE = "decompose"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Weights:
    """Coefficients of the score of an action.

    Attributes:
        penalty: of the share that an action takes, as the budget runs out.
        parts: bonus of a search while parts of the question are listed.
        repeated: penalty of a search whose last one brought nothing new.
        again: penalty of a decomposition for each one before it.
        enough: rating of an answer below which it has no gain; an answer takes so little that any gain would win.
    """

    penalty: float = 1.0
    parts: float = 0.1
    repeated: float = 0.3
    again: float = 0.5
    enough: float = 0.5


def voi(
    penalty: float = 1.0,
    refine: bool = False,
    turns: int = 20,
    harm: float = 1.0,
    least: float = 0.3,
    plan_tokens: int = 128,
    critic_tokens: int = 32,
    step_tokens: int = 256,
    result: int = 2000,
    temperature: float = 0.0,
) -> Strategy:
    """Before each turn, score search, decompose and answer, and do what has the best gain for its share of the budget.

    ``r(k) = max(u(k), 0) / (d(k) + 0.001)`` with ``u(k) = gain(k) + bonus(k) - penalty (1 - ratio) d(k)``: gain is the
    critic's rating / 10, d the largest share of what is left that the action takes (the prompt, a turn's tokens of
    output, the mean so far, a call of the tool), ratio the share of the whole budget that is left. Bonuses: parts that
    are listed favour a search; a search after one that brought nothing new, and a second decomposition, are marked
    down; an answer gains by what its rating has above 0.5. Guards come first: what does not fit beside a last answer is
    not done. Where no action has a gain above 0, it answers.

    With ``refine``, the answer's form is rewritten at the end if ``support - harm x H >= least`` (both / 10) and one
    form contains the other, so that only form and no evidence is changed.

    Differences from the paper: weights are ours; it works on one trajectory, the paper's on a tree of values as well.

    Helps when calls are dear and the critic knows whether an answer is near. Does not where the critic's calls cost as
    much as the searches that they save: it reads the work before every turn.

    Args:
        penalty: of an action's share as the budget runs out; 0 leaves it out.
        refine: whether the answer's form is rewritten.
        turns: most actions.
        harm: weight of the harm of a rewritten form.
        least: gain that a rewritten form has to have.
        plan_tokens: most tokens of a decomposition or a rewritten form.
        critic_tokens: most tokens of a rating.
        step_tokens: most tokens of output of a turn.
        result: most characters of a tool's result.
        temperature: of the turns; 0 is greedy.
    """
    limits = limits_of(step_tokens, result, temperature)
    if min(turns, plan_tokens, critic_tokens) < 1 or not penalty >= 0 or not harm >= 0:
        raise InvalidInput(
            f"voi:turns={turns},plan_tokens={plan_tokens},critic_tokens={critic_tokens},penalty={penalty},harm={harm}; "
            "the first three are at least 1, the others 0 or more"
        )
    weights = Weights(penalty)

    async def solve(task: Task) -> Answer:
        start = task.model.remaining
        agent, split = Agent(task, limits), 0
        trajectory: Turns = ()
        done = Walk((), None, StoppedBy.CAP)
        for number in range(turns):
            try:
                gains = await valued(task, agent, trajectory, critic_tokens, number)
                action = chosen(task, agent, trajectory, gains, split, ratio(task, start), weights)
                if action == Action.ANSWER:
                    done = Walk(trajectory, None, StoppedBy.DECIDED)
                    break
                if action == Action.DECOMPOSE:
                    split += 1
                    items = await planned(task, tracker(task, start), plan_tokens)
                    agent = replaced(agent, "\n".join(listed(items, {}))) if items else agent
                    continue
                turn = await agent.step(trajectory)
            except ModelError as failure:
                if not trajectory:
                    raise
                return replace(await agent.conclude(trajectory, StoppedBy.ERROR), error=str(failure))
            if turn is None:
                done = Walk(trajectory, None, StoppedBy.BUDGET)
                break
            trajectory = (*trajectory, turn)
            done = Walk(trajectory, turn.answer, StoppedBy.DONE if turn.answer is not None else StoppedBy.CAP)
            if not turn.calls:
                break
        answer = await answered(agent, done)
        return await refined(task, agent, done.turns, answer, harm, least, plan_tokens) if refine else answer

    return Strategy(solve, frozenset({TOOLS}))


async def valued(task: Task, agent: Agent, turns: Turns, most: int, number: int) -> Mapping[Action, float]:
    """The critic's ratings, 0 to 1; a search where there are none, as long as no step was made."""
    prompt = aside(task, VALUES.format(question=task.question.text, work=agent.text(turns)))
    if not agent.fits(prompt, most, turns):
        return {}
    piece = await ask(task, prompt, most=most, stop=(), temperature=0.0, stage="critic", at=number)
    return gains_of(piece.text)


def gains_of(text: str) -> dict[Action, float]:
    """Ratings as they are written, 0 to 1.

    >>> {action.value: gain for action, gain in gains_of("search: 6\\nAnswer: 12").items()}
    {'search': 0.6, 'answer': 1.0}
    """
    return {Action(name.lower()): min(1.0, float(number) / 10) for name, number in _RATED.findall(text)}


def chosen(
    task: Task, agent: Agent, turns: Turns, gains: Mapping[Action, float], split: int, left: float, weights: Weights
) -> Action:
    """The action with the best score; a search where the critic says nothing."""
    model, style = task.model, task.style
    inputs = model.count(agent.prompt(turns))
    tool = task.tools[0] if task.tools else None
    written = [model.count(turn.text) for turn in turns if turn.text]
    usual = sum(written) // len(written) if written else style.answer_tokens
    shares = {
        Action.SEARCH: model.share(Usage(input=inputs, output=usual), tool),
        Action.DECOMPOSE: model.share(Usage(input=inputs, output=usual)),
        Action.ANSWER: model.share(Usage(input=inputs, output=style.answer_tokens)),
    }
    if not gains:
        return Action.SEARCH if shares[Action.SEARCH] <= 1 else Action.ANSWER
    stale = len(turns) > 1 and set(turns[-1].results) <= {result for turn in turns[:-1] for result in turn.results}
    bonus = {
        Action.SEARCH: weights.parts * (split > 0) - weights.repeated * stale,
        Action.DECOMPOSE: -weights.again * split,
        Action.ANSWER: -weights.enough,
    }
    scores = {
        action: score(gains.get(action, 0.0) + bonus[action], share, left, weights.penalty)
        for action, share in shares.items()
        if share <= 1 or action == Action.ANSWER
    }
    best = max(scores, key=lambda action: scores[action])
    return best if scores[best] > 0 else Action.ANSWER


def score(gain: float, share: float, left: float, penalty: float) -> float:
    """``max(gain - penalty (1 - left) share, 0) / (share + 0.001)``.

    >>> round(score(0.5, 0.249, 1.0, 1.0), 9), round(score(0.5, 0.25, 0.5, 1.0), 4), score(0.1, 0.5, 0.0, 1.0)
    (2.0, 1.494, 0.0)
    """
    return max(gain - penalty * (1 - left) * share, 0.0) / (share + _TINY)


async def refined(
    task: Task, agent: Agent, turns: Turns, answer: Answer, harm: float, least: float, most: int
) -> Answer:
    """The answer with its form rewritten, if that gains more than it may harm."""
    if answer.answer is None:
        return answer
    prompt = aside(task, REFINE.format(question=task.question.text, work=agent.text(turns), answer=answer.answer))
    try:
        piece = await ask(task, prompt, most=most, stop=(), temperature=0.0, stage="refine")
    except ModelError:
        return answer
    form, support, risk = _REFINED.search(piece.text), _SUPPORT.search(piece.text), _HARM.search(piece.text)
    if form is None or support is None or risk is None:
        return answer
    new, old = task.style.normal(form[1]), answer.answer
    same = bool(new) and (new.lower() in old.lower() or old.lower() in new.lower())
    if not same or (float(support[1]) - harm * float(risk[1])) / 10 < least:
        return answer
    return replace(answer, answer=new, candidates=())
