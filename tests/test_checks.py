"""The checks of the small parts, each against methods that are broken on purpose: the message has to name the rule."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest

from budgeteer.allocate import pivotal, uniform
from budgeteer.check import (
    CheckFailed,
    check_aggregator,
    check_allowance,
    check_joint,
    check_many,
    check_matching,
    check_recipe,
    check_reward,
    check_rounding,
    check_router,
    check_scorer,
    check_verifier,
    check_weight,
)
from budgeteer.check import _verifier as verifier_rules
from budgeteer.core.errors import InvalidInput
from budgeteer.core.joint import Assignment
from budgeteer.core.router import Router
from budgeteer.core.stopper import Stopper
from budgeteer.ledger import Allowance
from budgeteer.models.model import Request
from budgeteer.online import load_balance, online_matching
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.recipes.kit import grpo_advantage
from budgeteer.rl.reward.protocol import Reward
from budgeteer.solve import Answer
from budgeteer.strategies import split
from budgeteer.strategies.kit.aggregate import Ranked, majority, weighted_majority
from budgeteer.strategies.kit.score import Scorer, mean_logprob, self_evaluation, verifier
from budgeteer.verify import exact

RNG = np.random.default_rng(0)


# joint


def random_search(
    loss, cost, budget, start, *, rng, over=0.0, soft=False, miscount=0, memory=None, edit=None, blind=False
):
    """Some random choices within the budget, the best of which is the result; the keywords break one rule each."""
    n, k = cost.shape
    if not blind and not np.all(np.isfinite(start)):
        raise InvalidInput("logits")
    if start.shape != cost.shape or not np.all(np.isfinite(cost) & (cost >= 0)):
        raise InvalidInput("costs")
    if not cost.min(axis=1).sum() <= budget:
        raise InvalidInput("budget")
    if edit is not None:
        start *= edit
    best, lowest, calls = None, math.inf, 0
    for turn in range(30):
        choice = (memory or rng).integers(0, k, n) if turn else cost.argmin(axis=1)
        if cost[np.arange(n), choice].sum() > budget * (1 + over):
            continue
        y = np.eye(k)[choice]
        value, _ = loss(0.9 * y + 0.1 / k if soft else y)
        calls += 1
        if not math.isfinite(value):
            raise InvalidInput("loss")
        if value < lowest:
            best, lowest = choice, value
    return Assignment(best, best, lowest, calls + miscount)


def altered(**changes):
    def joint(*args, **kwargs):
        found = random_search(*args, **kwargs)
        return dataclasses.replace(found, **{name: change(found) for name, change in changes.items()})

    return joint


def with_options(**options):
    return lambda *args, **kwargs: random_search(*args, **kwargs, **options)


JOINTS = {
    "over the budget": with_options(over=1.0),
    "every row is one-hot": with_options(soft=True),
    "the loss was called": with_options(miscount=1),
    "the same seed gave another": with_options(memory=RNG),
    "changed costs or logits": with_options(edit=0.5),
    "logits of nan are refused": with_options(blind=True),
    "best has a loss of": altered(loss=lambda found: found.loss - 1),
    "one option of 0 to 2 a group": altered(choice=lambda found: found.choice + 3),
    "expected cost of the last logits": altered(logits=lambda found: np.tile([9.0, 0.0, 0.0], (5, 1))),
}


def test_check_joint_accepts_a_random_search():
    check_joint(random_search)


@pytest.mark.parametrize("rule", list(JOINTS))
def test_check_joint_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_joint(JOINTS[rule])


# rounding


def rounded(choose):
    """A method of that choice, which refuses what is no chance."""

    def method(chance, rng):
        pivotal(chance, np.random.default_rng(0))
        return choose(chance, rng)

    return method


def largest(chance, rng):
    chosen = np.zeros(len(chance), np.bool_)
    chosen[np.argsort(-chance, kind="stable")[: math.floor(chance.sum() + 1e-9)]] = True
    return chosen


def systematic(chance, rng):
    """Exact marginals and total, but items at a whole distance are always chosen together."""
    ends = np.cumsum(chance) + rng.random()
    return np.floor(ends) > np.floor(ends - chance)


def halved(chance, rng):
    chosen = pivotal(chance, rng)
    if len(chance):
        chance[0] /= 2
    return chosen


ROUNDINGS = {
    "rounded down or up": rounded(lambda chance, rng: rng.random(len(chance)) < chance),
    "marginals are exact": rounded(largest),
    "negatively correlated": rounded(systematic),
    "0 and 1 are kept": rounded(lambda chance, rng: pivotal(chance[::-1].copy(), rng)),
    "the same seed": rounded(lambda chance, rng: pivotal(chance, RNG)),
    "bools": rounded(lambda chance, rng: pivotal(chance, rng).astype(int)),
    "changed the chances": rounded(halved),
    "are refused": lambda chance, rng: pivotal(np.clip(np.nan_to_num(chance.ravel()), 0, 1), rng),
}


@pytest.mark.parametrize("rule", list(ROUNDINGS))
def test_check_rounding_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_rounding(ROUNDINGS[rule])


# matching


class Altered:
    """A plan with another bound or way to serve."""

    def __init__(self, plan, bound=None, serve=None):
        self.plan, self.bound = plan, plan.bound if bound is None else bound
        self.how = serve

    def serve(self, time, free, rng):
        return self.plan.serve(time, free, rng) if self.how is None else self.how(time, free, rng)


def greedy_and_marking(time, free, rng):
    i = int(np.argmax(free)) if free.any() else -1
    if i >= 0:
        free[i] = False
    return i


def matched(**changes):
    return lambda value, chance: Altered(online_matching(value, chance), **changes)


MATCHINGS = {
    "not free": matched(serve=lambda time, free, rng: 0),
    "or -1": matched(serve=lambda time, free, rng: 7),
    "no bound": matched(bound=0.01),
    "bound is inf": matched(bound=math.inf),
    "caller marks": matched(serve=greedy_and_marking),
    "keeps no memory": matched(serve=lambda time, free, rng: int(RNG.integers(-1, 3)) if free.all() else -1),
    "a negative value is refused": lambda value, chance: online_matching(np.abs(value), chance),
}


@pytest.mark.parametrize("rule", list(MATCHINGS))
def test_check_matching_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_matching(MATCHINGS[rule])


# router

HONEST = load_balance(2)


def routed(change):
    """The honest router with its choice and weights changed."""
    return HONEST._replace(route=lambda state, scores: change(*HONEST.route(state, scores)))


def observed_in_place(state, load):
    state.bias[0] += 0.1
    return state


ROUTERS = {
    "distinct": routed(lambda chosen, weight: (chosen[:, [0, 0]], weight)),
    "in range": routed(lambda chosen, weight: (chosen + 8, weight)),
    "finite one for every choice": routed(lambda chosen, weight: (chosen, weight * math.nan)),
    "route keeps no memory": routed(lambda chosen, weight: (chosen, weight + RNG.random())),
    "integers": routed(lambda chosen, weight: (chosen.astype(float), weight)),
    "loads become more even": HONEST._replace(observe=lambda state, load: state),
    "observe changed the state": HONEST._replace(observe=observed_in_place),
    "a score of nan is refused": Router(
        HONEST.init, lambda state, scores: HONEST.route(state, np.nan_to_num(scores)), HONEST.observe
    ),
    "0 experts are refused": HONEST._replace(init=lambda experts: HONEST.init(max(experts, 2))),
}


@pytest.mark.parametrize("rule", list(ROUTERS))
def test_check_router_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_router(ROUTERS[rule])


# allowance


class Copied(Allowance):
    def __copy__(self):
        return self


class Generous(Allowance):
    def share(self, parts):
        return [Allowance(self._ledger, self.path, self.remaining) for _ in parts]


class Forgetful(Allowance):
    """Its children do not give back what they leave over."""

    def _child(self, path, amounts):
        child = super()._child(path, amounts)
        child._parent = None
        return child


class Kept(Allowance):
    """It can be used after it was delegated."""

    def _check(self):
        pass

    def _child(self, path, amounts):
        child = Kept(self._ledger, path, dict.fromkeys(amounts, 0))
        child._free, child._granted, child._tree, child._parent = dict(amounts), dict(amounts), self._tree, self
        return child


class Charging(Allowance):
    """Every call costs it a unit more than it used."""

    def give(self, amounts, held=None):
        super().give({kind: units - 1 for kind, units in amounts.items()}, held)


ALLOWANCES = {
    "never copied": Copied,
    "leaves the parent": Generous,
    "comes back to its parent": Forgetful,
    "cannot be used": Kept,
    "comes back": Charging,
}


@pytest.mark.parametrize("rule", list(ALLOWANCES))
def test_check_allowance_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_allowance(ALLOWANCES[rule])


# aggregators


def counting_none(answers, scores):
    ranked = majority()(answers, scores)
    return [one._replace(weight=one.weight * sum(a is not None for a in answers) / len(answers)) for one in ranked]


def sorting(answers, scores):
    answers.sort(key=str)
    return majority()(answers, scores)


AGGREGATORS = {
    "do not count": counting_none,
    "order of the samples": lambda a, s: [Ranked(next(x for x in a if x is not None), 1.0)] if any(a) else [],
    "each answer once": lambda a, s: majority()(a, s) * 2,
    "answers of|an answer of the samples": lambda a, s: [Ranked("42", 1.0)],
    "weights": lambda a, s: [one._replace(weight=math.nan) for one in majority()(a, s)],
    "changed the lists": sorting,
    "no memory, no chance": lambda a, s: [one._replace(weight=RNG.random()) for one in majority()(a, s)],
    "list of Ranked": lambda a, s: tuple(majority()(a, s)),
    "was ranked; rank one": lambda a, s: weighted_majority()(a, s) if not any(map(math.isnan, s)) else [],
}


@pytest.mark.parametrize("rule", list(AGGREGATORS))
def test_check_aggregator_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_aggregator(AGGREGATORS[rule])


# scorers


def scored(score, **declared):
    """A scorer of one function (task, samples) -> scores."""

    def bind(task):
        async def scores(samples):
            return await score(task, samples)

        return scores

    return Scorer(bind, **declared)


async def by_place(task, samples):
    return [float(i) for i in range(len(samples))]


async def of_answers(task, samples):
    return [float(len(sample.answer)) for sample in samples]


async def asking(task, samples):
    for sample in samples:
        await task.model.generate(Request(sample.text, 4))
    return [0.0] * len(samples)


async def past_the_budget(task, samples):
    for sample in samples:
        await task.model.model.generate(Request(sample.text, 4))
    return [0.0] * len(samples)


async def by_chance(task, samples):
    return [RNG.random() for _ in samples]


async def too_few(task, samples):
    return [0.0]


async def infinite(task, samples):
    return [math.inf] * len(samples)


SCORERS = {
    "not with its place": scored(by_place),
    "raised TypeError": scored(of_answers),
    "is not charged": scored(asking),
    "raised BudgetExceeded": scored(asking, charged=True),
    "went past the task's model": scored(past_the_budget, charged=True),
    "the same samples and seed": scored(by_chance),
    "one number each": scored(too_few),
    "NaN where nobody knows": scored(infinite),
    "which nobody declares": mean_logprob()._replace(needs=frozenset({"clairvoyance"})),
    "without a verifier": mean_logprob()._replace(needs=verifier().needs),
}


@pytest.mark.parametrize("rule", list(SCORERS))
def test_check_scorer_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_scorer(SCORERS[rule])


def test_check_scorer_accepts_several_votes():
    check_scorer(self_evaluation(votes=3, temperature=0.7))


# verifiers


def slow(answer, reference):
    if answer is not None and len(answer) > 1000:
        time.sleep(0.02)
    return exact(answer, reference)


VERIFIERS = {
    "None has a score of 0": lambda answer, reference: float(answer is None or answer == reference),
    "the same text is right": lambda answer, reference: 0.5 * exact(answer, reference),
    "in doubt an answer is wrong": lambda answer, reference: float(answer is not None),
    "raised ValueError": lambda answer, reference: exact(answer, reference) or 0 * float(answer or 0),
    r"scores are in \[0, 1\]": lambda answer, reference: 100 * exact(answer, reference),
    "the same pair": lambda answer, reference: exact(answer, reference) if answer is None else RNG.random(),
}


@pytest.mark.parametrize("rule", list(VERIFIERS))
def test_check_verifier_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_verifier(VERIFIERS[rule])


def test_check_verifier_rejects_what_takes_too_long(monkeypatch):
    monkeypatch.setattr(verifier_rules, "SECONDS", 0.01)
    with pytest.raises(CheckFailed, match="bound the work"):
        check_verifier(slow)


# many questions


def collected(change):
    """``split`` with its pairs of position and answer changed, in a list."""

    async def many(tasks):
        for pair in change([pair async for pair in split(tasks)]):
            yield pair

    return many


async def raising(tasks):
    for i, task in enumerate(tasks):
        await task.model.generate(Request(task.style.prompt(task.question.text), 40))
        yield i, Answer("4", "done")


async def beside(tasks):
    for i, task in enumerate(tasks):
        await task.model.model.generate(Request(task.style.prompt(task.question.text), 4))
        yield i, Answer(None, "done")


MANY = {
    "answered twice": collected(lambda pairs: pairs * 2),
    "each exactly once": collected(lambda pairs: pairs[1:]),
    "the same seed gave": collected(lambda pairs: [(i, with_chance(a)) for i, a in pairs]),
    "normal form": collected(lambda pairs: [(i, dataclasses.replace(a, answer=" 4 ")) for i, a in pairs]),
    "raised BudgetExceeded": raising,
    "went past the tasks' models": beside,
    "have no answer": collected(lambda pairs: [(i, Answer(None, "done")) for i, _ in pairs]),
}


def with_chance(answer):
    return dataclasses.replace(answer, confidence=RNG.random())


@pytest.mark.parametrize("rule", list(MANY))
def test_check_many_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_many(MANY[rule])


# rewards


def spoiling(state, rows):
    rows.correct[:] = 0
    return rows.correct


REWARDS = {
    "one finite number a row": Reward(lambda state, rows: rows.correct / 0.0),
    "order of the rows": Reward(lambda state, rows: np.cumsum(rows.correct)),
    "numbers of the groups": Reward(lambda state, rows: rows.correct + rows.group),
    "score keeps no memory": Reward(lambda state, rows: rows.correct + 1e-10 * RNG.random()),
    "survive JSON": Reward(lambda state, rows: rows.correct, lambda: [(1, 2)]),
    "changed the state": Reward(spoiling),
    "observe keeps no memory": Reward(
        lambda state, rows: rows.correct, lambda: 0.0, lambda state, rows: state + RNG.random()
    ),
}


@pytest.mark.parametrize("rule", list(REWARDS))
def test_check_reward_rejects_what_breaks_the_rule(rule):
    with np.errstate(all="ignore"), pytest.raises(CheckFailed, match=rule):
        check_reward(REWARDS[rule])


# token weights


def shortening(length, group):
    length[:] = 1
    return length / 1.0


WEIGHTS = {
    "one finite weight": lambda length, group: -1.0 / length,
    "order of the rows": lambda length, group: np.arange(1.0, len(length) + 1),
    "numbers of the groups": lambda length, group: 1.0 + group,
    "changed the lengths": shortening,
    "nothing would be learnt": lambda length, group: 0.0 * length,
}


@pytest.mark.parametrize("rule", list(WEIGHTS))
def test_check_weight_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_weight(WEIGHTS[rule])


# recipes


def recipe(**parts):
    return dataclasses.replace(Recipe("mutant", uniform(), grpo_advantage), **parts)


def centred_by_place(rollouts, view):
    return rollouts.reward - np.arange(len(rollouts)) / len(rollouts)


def by_group_number(rollouts, view):
    return rollouts.reward * (1.0 + rollouts.group)


def aborted_apart(rollouts, view):
    return grpo_advantage(rollouts, view) - (rollouts.status == 3)


def in_place(rollouts, view):
    rollouts.reward[:] -= 0.5
    return rollouts.reward.copy()


def overspent(budget, items):
    return uniform().allocate(2 * budget, items, (), rng=RNG)


RECIPES = {
    "order of the rows": recipe(advantage=centred_by_place),
    "order of the prompts": recipe(advantage=by_group_number),
    "one finite number": recipe(advantage=lambda rollouts, view: grpo_advantage(rollouts, view) * math.nan),
    "row_weight has": recipe(row_weight=lambda rollouts, view: -np.ones(len(rollouts))),
    "the recipe's token weight": recipe(token_weight=lambda length, group: np.ones(len(length) + 1)),
    "the recipe's reward": recipe(reward=Reward(lambda state, rows: rows.correct[:1])),
    "one that failed": recipe(advantage=aborted_apart, aborted="failure"),
    "aborted is 'drop'": recipe(aborted="drop"),
    "a row twice": recipe(select=lambda rollouts, rng: np.zeros(4, np.int64)),
    "indices of rows": recipe(select=lambda rollouts, rng: np.arange(4) + len(rollouts)),
    "the same seed": recipe(select=lambda rollouts, rng: RNG.permutation(len(rollouts))),
    "changed the rollouts": recipe(advantage=in_place),
    "the recipe's allocator: .*over its budget": recipe(
        allocator=uniform()._replace(allocate=lambda b, items, state, *, rng: overspent(b, items))
    ),
    "the recipe's stopper: Stopper.every": recipe(stopper=lambda view: Stopper(lambda rows: (), None, every=0)),
}


@pytest.mark.parametrize("rule", list(RECIPES))
def test_check_recipe_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_recipe(RECIPES[rule])
