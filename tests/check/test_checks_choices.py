"""Checks of joint choices, rounding, matching, routers and allowances: each rule against a method that breaks it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from budgeteer.allocate import pivotal
from budgeteer.check import (
    CheckFailed,
    check_allowance,
    check_joint,
    check_matching,
    check_rounding,
    check_router,
)
from budgeteer.core.errors import InvalidInput
from budgeteer.core.joint import Assignment
from budgeteer.core.router import Router
from budgeteer.ledger import Allowance
from budgeteer.online import load_balance, online_matching

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

    def _child(self, path, amounts, tags):
        child = super()._child(path, amounts, tags)
        child._parent = None
        return child


class Kept(Allowance):
    """It can be used after it was delegated."""

    def _check(self):
        pass

    def _child(self, path, amounts, tags):
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
