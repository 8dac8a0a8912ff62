"""One agent, many, or none: what pays by one's own runs.

A run is a row: ``correct`` (or ``score``, 0 to 1), ``tokens`` (a number, or the object that ``budgeteer solve``
writes), ``id`` of the question, and perhaps ``budget`` (a number or that object: runs at equal budgets are one point),
``agents`` (1), ``task`` (one for all) and ``tools`` (a number, or the object of calls by tool). Repeated samples of a
question at the same budget say how far errors are shared, and ``relayed``, how right somebody is who read no more than
the run's message (as ``correct``), how much of an agent's bias a message keeps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from budgeteer.agent.scaling import TERMS, Configuration, Fit, Gate, fitted, gate
from budgeteer.agent.transition import (
    FAN_INS,
    Ability,
    Organisation,
    ability_of,
    exponent,
    organisations,
)
from budgeteer.core import rows
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import F64

DRAWS = 500
"""Of the bootstrap over questions."""
MARGIN = 0.01
"""Accuracy by which a tree has to be above one agent: less is lost in what the formulas leave out."""


class AgentRun(NamedTuple):
    """One run; ``at`` names its budget, or is "" where the row has none; ``relayed`` is NaN where nobody read it."""

    id: str
    right: float
    tokens: float
    at: str = ""
    agents: int = 1
    task: str = ""
    tools: int = 0
    relayed: float = math.nan


class Interval(NamedTuple):
    """An estimate with its 95 % interval; all NaN where the runs do not tell."""

    mean: float
    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Advice:
    """What pays.

    Attributes:
        decision: ``one``, ``many`` or ``none``.
        why: in a sentence.
        single: success of one agent.
        ability: its power law; None where the runs do not tell, or one agent is no better than guessing.
        beta, shared, fidelity: their estimates.
        exponents: fan-in -> s; a tree can only win where s > beta.
        one, best: one agent and the best tree at the budget; None without a power law.
        team: what the published rules say.
        fit: a regression over teams, or why there is none.
    """

    decision: str
    why: str
    single: Interval
    ability: Ability | None
    beta: Interval
    shared: Interval
    fidelity: Interval
    exponents: Mapping[int, float]
    one: Organisation | None
    best: Organisation | None
    team: Gate
    fit: Fit | str


def read(source: str) -> list[AgentRun]:
    """The runs of a file.

    Raises:
        InvalidInput: a row is none, or there are none.
    """
    runs: list[AgentRun] = []
    for place, row in rows.read(source):
        if not isinstance(row, dict):
            raise InvalidInput(f"{rows.where(source)}, {place}: not an object with fields; give a run a row")
        try:
            runs.append(_run(row, len(runs)))
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidInput(f"{rows.where(source)}, {place}: {error}") from error
    if not runs:
        raise InvalidInput(f"{rows.where(source)} holds no run; give rows with correct and tokens")
    return runs


def _run(row: Mapping[str, Any], number: int) -> AgentRun:
    given = row.get("score", row.get("correct"))
    if given is None:
        raise InvalidInput("no correct and no score; give each run one of them, true, false or 0 to 1")
    right, told = _score("score" if "score" in row else "correct", given), row.get("relayed")
    tokens = row.get("tokens")
    if isinstance(tokens, Mapping):
        if not tokens.keys() & {"input", "output"}:
            raise InvalidInput(f"tokens are {dict(tokens)}; give input and output, or a number")
        parts = [_number(f"tokens.{name}", tokens.get(name) or 0) for name in ("input", "output")]
    else:
        parts = [math.nan if tokens is None else _number("tokens", tokens)]
    if not all(0 <= part < math.inf for part in parts):
        raise InvalidInput(f"tokens are {tokens!r:.60}; give what the run used, 0 or more")
    spent = sum(parts)
    agents, tools = row.get("agents", 1), row.get("tools") or 0
    team = 1.0 if agents in (None, "") else _number("agents", agents)
    kinds = float(len(tools)) if isinstance(tools, Mapping) else _number("tools", tools)
    if not (team >= 1 and team.is_integer() and kinds >= 0 and kinds.is_integer()):
        raise InvalidInput(f"agents is {agents!r} and tools {tools!r}; give whole numbers, agents from 1, tools from 0")
    at = row.get("budget")
    return AgentRun(
        str(row.get("id", number)), right, spent, "" if at is None else str(at), int(team), str(row.get("task", "")),
        int(kinds), math.nan if told in (None, "") else _score("relayed", told),
    )  # fmt: skip


def _score(name: str, given: Any) -> float:
    """True, false or 0 to 1 as a number."""
    found = {"true": 1.0, "false": 0.0}.get(str(given).lower())
    found = _number(name, given) if found is None else found
    if not 0 <= found <= 1:
        raise InvalidInput(f"{name} is {given!r}; give true, false or 0 to 1")
    return found


def _number(name: str, given: Any) -> float:
    """A value of a row as a number."""
    try:
        return float(given)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} is {given!r:.60}; give a number") from None


def advised(
    runs: Sequence[AgentRun],
    budget: int,
    *,
    message: int = 64,
    fidelity: float | None = None,
    shared: float | None = None,
    sequential: bool = False,
    worth: float | None = None,
    guess: float = 0.5,
    window: int | None = None,
    seed: int = 0,
) -> Advice:
    """What pays at a budget.

    ``none`` pays where one agent is not shown to be better than guessing, or, with ``worth``, where the best is not
    right often enough above guessing to be worth the budget. The formulas are of questions with two answers, guessed
    with chance 1/2; where guessing does worse, the bias is the share of the way from ``guess`` to 1, which is cautious:
    wrong answers that differ from each other win no vote.

    Args:
        runs: of one agent at several budgets, with repeats; of teams, for the regression.
        budget: tokens of a question.
        message: tokens of what one agent tells another.
        fidelity: share of an agent's bias that a message keeps; None = from runs that were relayed, 1 where none was.
        shared: correlation of errors; None = from repeated samples, 1 where there are none.
        sequential: whether each step of the task needs the one before it.
        worth: tokens that a right answer is worth; None: it is worth any.
        guess: accuracy of guessing, such as 0.25 with four choices, 0 for free answers.
        window: tokens of context of the agent that settles.
        seed: of the bootstrap.

    Raises:
        InvalidInput: there is no run of one agent.
    """
    alone = [run for run in runs if run.agents == 1]
    if not alone:
        raise InvalidInput("no run of one agent (agents = 1); its success is what all advice stands on")
    if (
        not (fidelity is None or 0 <= fidelity <= 1)
        or not (shared is None or 0 <= shared <= 1)
        or message < 1
        or budget < 1
        or not 0 <= guess < 1
    ):
        raise InvalidInput(
            f"budget {budget}, message {message}, fidelity {fidelity}, shared {shared}, guess {guess}; give tokens of "
            "1 or more, and shares from 0 to 1, of guessing below 1"
        )
    table = _Alone(alone, guess)
    single, beta = table.success(seed), table.interval(lambda times: table.power(times).beta, seed)
    estimated = table.interval(table.shared, seed) if shared is None else Interval(shared, shared, shared)
    rho = 1.0 if math.isnan(estimated.mean) else estimated.mean
    kept = table.interval(table.fidelity, seed) if fidelity is None else Interval(fidelity, fidelity, fidelity)
    gamma = 1.0 if math.isnan(kept.mean) else kept.mean
    exponents = {fan_in: exponent(fan_in, gamma, rho) for fan_in in FAN_INS}
    team = gate(single.mean, sequential=sequential, tools=max(run.tools for run in runs))
    fit: Fit | str
    try:
        fit = fitted(_configurations(runs), seed=seed)
    except InvalidInput as error:
        fit = str(error)
    known = partial(
        Advice, single=single, beta=beta, shared=estimated, fidelity=kept, exponents=exponents, team=team, fit=fit
    )
    if not single.low > guess:
        why = f"one agent is right with {_shown(single, '.1%')}, which is not shown to be above guessing ({guess:.0%})"
        return known("none", why, ability=None, one=None, best=None)
    try:
        ability = table.power(np.ones(len(table.count)))
    except InvalidInput as error:
        decision, why = "one" if team.kind == "single" else "many", f"by the published rules, {team.why}; {error}"
        most = single.mean if decision == "one" else 1.0  # what a team does is not known: at most all
        if worth is not None and (most - guess) * worth < budget:
            decision, why = "none", f"right answers of {most:.1%} are not worth {budget:,} tokens a question; {error}"
        return known(decision, why, ability=None, one=None, best=None)

    def above(plan: Organisation) -> Organisation:
        return replace(plan, predicted=guess + (1 - guess) * (2 * plan.predicted - 1))

    how = {"message": message, "fidelity": gamma, "shared": rho, "window": window}
    one, *trees = map(above, organisations(ability, budget, **how))  # type: ignore[arg-type]
    best = max(trees, key=lambda tree: tree.predicted, default=None)
    top = one if best is None or best.predicted < one.predicted + MARGIN else best
    gain = top.predicted - guess
    if worth is not None and gain * worth < budget:
        decision, why = "none", f"the best is right with {top.predicted:.1%}, which is not worth {budget:,} tokens"
    elif top is one:
        decision, why = "one", f"one agent is predicted at {one.predicted:.1%}, no tree a point above it"
    else:
        why = f"{top.leaves} agents with {top.tokens:,} tokens each are predicted at {top.predicted:.1%}, one agent at "
        decision, why = "many", f"{why}{one.predicted:.1%}"
    return known(decision, why, ability=ability, one=one, best=best)


class _Alone:
    """The runs of one agent as sums over questions (rows, [q]) and budgets (columns, [b]).

    A draw of the bootstrap is a number of times that each question counts, [q].
    """

    def __init__(self, runs: Sequence[AgentRun], guess: float) -> None:
        self._guess = guess
        questions = {key: i for i, key in enumerate(dict.fromkeys((run.task, run.id) for run in runs))}
        points = {at: i for i, at in enumerate(dict.fromkeys(run.at for run in runs))}
        shape = len(questions), len(points)
        self.count, self.right, self.square, self.tokens = (np.zeros(shape) for _ in range(4))
        self.relayed = np.zeros((shape[0], 3))  # of runs that were relayed: how many, how right, how right when read
        for run in runs:
            at = questions[run.task, run.id], points[run.at]
            self.count[at] += 1
            self.right[at] += run.right
            self.square[at] += run.right**2
            self.tokens[at] += run.tokens
            if not math.isnan(run.relayed):
                self.relayed[at[0]] += 1, run.right, run.relayed

    def single(self, times: F64) -> float:
        """Success of one agent, over all budgets."""
        return float((times @ self.right).sum() / (times @ self.count).sum())

    def success(self, seed: int) -> Interval:
        """Success of one agent, with its interval. Where all runs are right, or all wrong, no draw of the bootstrap
        differs, and the exact binomial bound of as many questions is taken in its place: 0.025^(1 / n)."""
        found, bound = self.interval(self.single, seed), 0.025 ** (1 / len(self.count))
        if found.mean in (0.0, 1.0):
            return Interval(1.0, bound, 1.0) if found.mean else Interval(0.0, 0.0, 1 - bound)
        return found

    def power(self, times: F64) -> Ability:
        """The power law through the budgets; an accuracy that falls with tokens counts as one that stays."""
        count = times @ self.count
        some = count > 0
        tokens, right = ((times @ sums)[some] / count[some] for sums in (self.tokens, self.right))
        bias = (right - self._guess) / (1 - self._guess)
        ability = ability_of(tokens, (1 + bias) / 2, count[some])
        return ability if ability.beta >= 0 else Ability(float(np.average(bias, weights=count[some])), 0.0)

    def shared(self, times: F64) -> float:
        """rho (:func:`budgeteer.agent.transition.shared_errors`), the mean over budgets; NaN without repeats."""
        found = []
        for count, right, square in zip(self.count.T, self.right.T, self.square.T, strict=True):
            several = count > 1
            n, c, w = count[several], right[several], times[several]
            if not (w @ n) > 0 or not 0 < (p := (w @ c) / (w @ n)) < 1:
                continue
            pairs = ((c - n * p) ** 2 - (square[several] - 2 * p * c + n * p * p)) / (n * (n - 1))
            found.append(float(np.clip((w @ pairs) / w.sum() / (p * (1 - p)), 0, 1)))
        return float(np.mean(found)) if found else math.nan

    def fidelity(self, times: F64) -> float:
        """gamma: the bias of those who read messages, as a share of the bias of those who wrote them, 0 to 1; NaN where
        nothing was relayed, or the writers are no better than guessing."""
        count, right, read = times @ self.relayed
        if not count or not right / count > self._guess:
            return math.nan
        return float(np.clip((read - count * self._guess) / (right - count * self._guess), 0, 1))

    def interval(self, figure: Callable[[F64], float], seed: int) -> Interval:
        """A figure, with a bootstrap over questions."""
        n = len(self.count)
        try:
            mean = figure(np.ones(n))
        except InvalidInput:
            return UNKNOWN
        drawn = []
        for times in np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), DRAWS):
            try:
                drawn.append(figure(times.astype(float)))
            except InvalidInput:
                continue
        drawn = [value for value in drawn if not math.isnan(value)]
        if len(drawn) < DRAWS // 2:
            return Interval(mean, math.nan, math.nan)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return Interval(mean, float(low), float(high))


def _configurations(runs: Sequence[AgentRun]) -> list[Configuration]:
    """Runs by task, size of the team and tools, where one agent was tried on the task, too."""
    alone: dict[str, list[float]] = defaultdict(list)
    teams: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for run in runs:
        teams[run.task, run.agents, run.tools].append(run.right)
        if run.agents == 1:
            alone[run.task].append(run.right)
    return [
        Configuration(agents, tools, float(np.mean(alone[task])), float(np.mean(right)), len(right))
        for (task, agents, tools), right in teams.items()
        if task in alone and agents > 1
    ]


def lines(advice: Advice, budget: int) -> list[str]:
    """The advice as text, one line a figure."""
    text = [
        f"decision    {advice.decision}: {advice.why}",
        f"one agent   right {_shown(advice.single, '.1%')}",
        f"beta        {_shown(advice.beta, '.3f')}    accuracy's bias grows with tokens ^ beta",
        f"shared      {_shown(advice.shared, '.2f')}    correlation of errors between samples",
        f"fidelity    {_shown(advice.fidelity, '.2f')}    share of an agent's bias that a message keeps",
    ]
    for fan_in, s in advice.exponents.items():
        verdict = "below beta" if not s > advice.beta.mean else "above beta: trees can win while accuracy is low"
        if math.isnan(advice.beta.mean):
            verdict = "the signal dies" if s <= 0 else "the signal grows"
        text.append(f"fan-in {fan_in}    exponent {s:+.3f}, {verdict}")
    for name, plan in (("one", advice.one), ("tree", advice.best)):
        if plan is not None:
            shape = f"{plan.leaves} leaves of {plan.tokens:,} tokens, fan-in {plan.fan_in}" if plan.fan_in else "all"
            text.append(f"{name:<11} {plan.predicted:.1%} at {budget:,} tokens: {shape}")
    text.append(f"teams       {advice.team.kind}: {advice.team.why}")
    if isinstance(advice.fit, str):
        text.append(f"regression  none: {advice.fit}")
    else:
        text.append(f"regression  explains {advice.fit.explained:.0%} of configurations that it has not seen")
        text += [f"  {name:<26} {_shown(Interval(*advice.fit.coefficients[name]), '+.3f')}" for name in TERMS]
    return text


def _shown(interval: Interval, form: str) -> str:
    if math.isnan(interval.mean):
        return "not known from these runs"
    bounds = "" if math.isnan(interval.low) else f" [{interval.low:{form}}, {interval.high:{form}}]"
    return f"{interval.mean:{form}}{bounds}"
