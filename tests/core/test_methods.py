"""The matrix: every registered method through the shared checks, and every check against a method that breaks it."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from budgeteer import Items, Menu, Plan, Steer, chain
from budgeteer.allocate import (
    cap,
    elimination,
    floor,
    greedy_marginal,
    knapsack,
    neyman,
    round_to_budget,
    uniform,
    water_filling,
)
from budgeteer.check import (
    CheckFailed,
    check_allocator,
    check_method,
    check_steer,
    check_strategy,
    objectives,
)
from budgeteer.check._method import CHECKS, example
from budgeteer.core.allocator import Allocator, stateless
from budgeteer.core.errors import InvalidInput, MissingExtra, UnknownName
from budgeteer.core.method import PARTS
from budgeteer.core.plan import whole
from budgeteer.core.registry import METHODS, Method, explained, get, load, make, meaning_of, of, options_of, resolve
from budgeteer.core.steer import Action, Need
from budgeteer.models.model import INTERNALS
from budgeteer.solve import registered


def importable(method):
    module = method.path.partition(":")[0]
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


SEEDS = {"allocator": 3, "strategy": 3}
"""Part -> with how many seeds its methods are checked; the others with one."""


@pytest.fixture(scope="module")
def reasoner():
    made = pytest.importorskip("budgeteer.models.reasoner").Reasoner(slots=8)
    yield made
    asyncio.run(made.aclose())


@pytest.mark.parametrize(
    ("method", "seed"),
    [
        pytest.param(method, seed, id=f"{method.part} {method.name} {seed}")
        for method in METHODS
        for seed in range(SEEDS.get(method.part, 1))
    ],
)
def test_every_method_keeps_the_rules_of_its_part(method, seed, request):
    options = {}
    try:
        if method.part == "strategy" and INTERNALS in example(method).needs:
            if seed:
                pytest.skip("strategies inside the model are checked with one seed: a real one takes its time")
            made = request.getfixturevalue("reasoner")
            options = {"model": lambda: made, "budgets": 2}
        check_method(method, seed=seed, **options)
    except MissingExtra as missing:
        pytest.skip(str(missing))


def test_every_part_has_a_check_and_a_method():
    assert set(PARTS) == {method.part for method in METHODS}
    assert set(CHECKS) == set(PARTS)


@pytest.mark.parametrize(
    ("allocator", "objective"),
    [
        (uniform(4), None),
        (neyman(min_units=2, max_units=5), objectives.neyman),
        (neyman(published=True), objectives.neyman),
        (knapsack(per_token=True), objectives.knapsack),
        (knapsack(low=1, high=6, fallback=False), objectives.knapsack),
        (water_filling("exponential"), objectives.exponential),
        (elimination(exit="pos"), None),
        (chain(neyman(), floor(3), cap(9), round_to_budget()), None),
    ],
)
def test_options_keep_the_rules(allocator, objective):
    check_allocator(allocator, objective=objective)


@pytest.mark.parametrize(
    "text",
    [
        "convergence:every=12,thinking=48", "length-filtered-vote:samples=4,max_tokens=60", "conciseness:inner=elastic",
        "best-of-n:scorer=verifier,n=4", "best-of-n:scorer=mean-logprob,n=4", "self-consistency:n=5",
        "diffadapt:probe_tokens=60",
    ],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(3))
def test_strategies_with_other_parameters_keep_the_rules(text, seed):
    check_strategy(lambda: registered.build(text), seed=seed, budgets=12)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.part} {method.name}")
def test_registered_paths_exist_and_say_what_they_are(method):
    if not importable(method):
        pytest.skip(f"{method.path} is not there")
    if method.part == "policy":
        pytest.importorskip("orjson")
    assert load(method).__doc__
    assert len(method.decides) < 80
    if method.evidence is not None:
        assert importlib.util.find_spec(f"budgeteer.lab.evidence.{method.evidence}") is not None


def test_registry_names_the_nearest():
    with pytest.raises(UnknownName, match="neyman"):
        get("allocator", "neymann")
    with pytest.raises(UnknownName):
        get("strategy", "neyman")


def test_an_option_of_the_wrong_type_is_told_its_type_and_what_it_means():
    with pytest.raises(InvalidInput, match=r"max_units is a whole number \(most units an item, >= min_units\)$"):
        make("allocator", "neyman", max_units="x")
    with pytest.raises(
        InvalidInput, match=r"max_steps is a whole number \(most steps of a chain, from min_steps to 1,000"
    ):
        make("task", "chains", max_steps="x")
    with pytest.raises(InvalidInput, match=r"hard has no options; max_steps is an option of chains$"):
        make("task", "hard", max_steps=3)
    with pytest.raises(InvalidInput, match=r"hard has no options$"):
        make("task", "hard", foo=3)


@pytest.mark.parametrize("part", ["allocator", "online", "joint", "router", "task"])
def test_every_number_that_an_option_takes_is_described(part):
    for method in of(part).values():
        for name, parameter in options_of(method).items():
            if str(parameter.annotation).startswith(("int", "float")):
                assert meaning_of(method, name), f"{part} {method.name}: describe {name} under Args of its docstring"


def test_what_an_option_takes_is_said_in_words_whatever_its_annotation():
    """Numbers and texts also where another type of the signature is for type checkers; none alone says too little."""

    def takes(part, name):
        return {option["name"]: option["takes"] for option in explained(get(part, name))["options"]}

    for method in METHODS:
        if importable(method) and not (method.part == "policy" and not importlib.util.find_spec("orjson")):
            said = {option["takes"] for option in explained(method)["options"]}
            assert not said & {"int", "float", "str", "bool", "none", "<class 'inspect._empty'>"}, method
    assert takes("online", "dual-descent")["price"] == "Sequence[float] | None"
    assert takes("many", "split")["show"] == "gains or agreement"
    if importlib.util.find_spec("torch"):
        assert takes("ratio", "clipped") == {"low": "a number", "high": "a number"}


@pytest.mark.parametrize("method", of("policy").values(), ids=lambda method: method.name)
def test_the_options_of_a_policy_are_those_that_the_gateway_reads(method):
    """Each declared option is an argument of the factory and a field of its table, and nothing else is."""
    pytest.importorskip("orjson")
    from budgeteer.check import policy_of

    said = {option["name"]: option for option in explained(method)["options"]}
    assert said
    assert said.keys() == options_of(method).keys()
    assert all(option["meaning"] and option["takes"] for option in said.values())
    given = dict(resolve(method.arguments)() if isinstance(method.arguments, str) else method.arguments)
    if defaults := {name: option["default"] for name, option in said.items() if option["default"] is not None}:
        filled = policy_of(load(method), {**defaults, **given})()
        assert filled == policy_of(load(method), given)()  # the defaults are those that are said
    with pytest.raises(InvalidInput, match=f"policies.checked.other is unknown; known: {min(said)}"):
        policy_of(load(method), {**given, "other": 1})()


def test_registry_reads_entry_points(monkeypatch):
    class Entry:
        name, dist = "theirs", None

        def load(self):
            return Method("theirs", "allocator", "budgeteer.allocate._uniform:uniform", "the same for all")

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Entry()])
    assert load(get("allocator", "theirs")) is load(get("allocator", "uniform"))


def test_registry_starts_without_numpy():
    code = "import sys, budgeteer.core.registry; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Broken on purpose: each breaks one rule, and its check has to say so.


def plan_of(items, units, cost=None):
    units = np.asarray(units)
    return Plan(items.keys, units, float(units @ items.cost) if cost is None else cost)


def drop_keys(budget, items):
    plan = uniform().allocate(budget, items, (), rng=np.random.default_rng(0))
    return dataclasses.replace(plan, keys=tuple(reversed(plan.keys)))


def positional(budget, items):
    units = np.zeros(len(items), np.int64)
    if len(items):
        units[0] = int(budget / items.cost[0])  # the first item takes it all
    return plan_of(items, units)


def mutating(budget, items):
    if len(items):
        items.cost[0] += 1
    return plan_of(items, np.zeros(len(items), np.int64))


def global_random(budget, items):
    share = budget / (items.cost * max(len(items), 1))  # many values, or two plans would often agree by chance
    return plan_of(items, np.floor(RNG.random(len(items)) * share).astype(np.int64))


RNG = np.random.default_rng(0)


def random_but_positional(budget, items, state, *, rng):
    units = np.zeros(len(items), np.int64)
    for i in range(len(items)):  # earlier items are served first; the draws only hide it
        if float(units @ items.cost) + items.cost[i] <= budget and rng.random() < 0.9:
            units[i] = 1
    return plan_of(items, units)


def random_by_position(budget, items, state, *, rng):
    """Draws differ with the order, but their distribution does not: this one is fine."""
    whole("budget", budget)
    return plan_of(items, np.where(items.cost * len(items) <= budget, rng.integers(0, 2, len(items)), 0))


def overflowing_count(budget, items):
    """Units of everybody; more than int64 holds where the budget is huge and the units are cheap."""
    return int(whole("budget", budget) / items.cost.sum()) if len(items) else 0


def overflowing(budget, items):
    return plan_of(items, np.full(len(items), float(overflowing_count(budget, items))).astype(np.int64))


@dataclasses.dataclass(frozen=True)
class Lossy:
    seen: object


BROKEN = {
    "over its budget": stateless(lambda b, items: plan_of(items, np.ones(len(items), np.int64))),
    "units are 0 or more": stateless(lambda b, items: plan_of(items, np.full(len(items), -1))),
    "fit into int64": stateless(overflowing),
    "raised OverflowError": stateless(
        lambda b, items: plan_of(items, np.array([overflowing_count(b, items)] * len(items), np.int64))
    ),
    "units are integers": stateless(lambda b, items: plan_of(items, np.zeros(len(items)))),
    "Plan.max_tokens has -5": stateless(
        lambda b, items: dataclasses.replace(
            plan_of(items, np.zeros(len(items), np.int64)), max_tokens=np.full(len(items), -5)
        )
    ),
    "Plan.keys": stateless(drop_keys),
    "expected_cost": stateless(lambda b, items: plan_of(items, np.zeros(len(items), np.int64), cost=1.0)),
    "in place": stateless(mutating),
    "order of the items": stateless(positional),
    "same seed": stateless(global_random),
    "beyond random draws": stateless(lambda b, items: positional(b, items))._replace(allocate=random_but_positional),
    "into JSON": uniform()._replace(init=lambda items: Lossy({1, 2})),
    "differs from the one written": uniform()._replace(init=lambda items: Lossy([(1, 2)])),
    "gives another plan": Allocator(
        lambda items: Lossy(np.float64(1.0)),
        lambda b, items, state, *, rng: uniform(1 if type(state.seen) is float else 2).allocate(b, items, (), rng=rng),
        lambda state, outcomes: state,
    ),
}


def test_a_plan_takes_a_cap_for_each_key_or_none():
    units = np.array([1, 2])
    assert Plan(("a", "b"), units, 3.0).max_tokens.tolist() == [0, 0]
    assert Plan(("a", "b"), units, 3.0, np.array([5, 0])).max_tokens.tolist() == [5, 0]
    with pytest.raises(InvalidInput, match=r"Plan.max_tokens has shape \(1,\) for 2 keys"):
        Plan(("a", "b"), units, 3.0, np.array([5]))


@pytest.mark.parametrize("rule", list(BROKEN))
def test_check_allocator_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_allocator(BROKEN[rule])


def lying(value, gap):
    """Buys nothing and says that it is worth that much."""
    return stateless(
        lambda b, items: Plan(items.keys, np.zeros(len(items), np.int64), 0.0, value=value(b), gap=gap if b else np.nan)
    )


def removed(items, n):
    return -float(np.sum(items.std**2 / (n + 1)))


def falling(budget, items):
    """Spends all it can on a small budget and nothing on a large one, and calls both optimal."""
    units = np.floor(budget / items.cost).astype(np.int64) if 0 < len(items) < 2 and budget < 100 else 0 * items.drawn
    return Plan(items.keys, units, items.spend(units), value=removed(items, units), gap=0.0)


def after_outcomes(budget, items, state, *, rng):
    plan = uniform().allocate(budget, items, (), rng=rng)
    return plan_of(items, plan.units + 1) if state else plan


def takes(refused, huge):
    """Buys nothing for any budget but those that ``refused`` is true of, and ``huge`` units for 10^22 tokens."""

    def allocate(budget, items, state, *, rng):
        if refused(budget):
            raise InvalidInput("no")
        return plan_of(items, np.full(len(items), huge if budget == 10**22 else 0))

    return uniform()._replace(allocate=allocate), None


VALUES = {
    "over its budget": (Allocator(lambda items: 0, after_outcomes, lambda state, outcomes: state + 1), None),
    "units are worth": (lying(lambda b: 1e9, 0.0), removed),
    "are worth 0": (lying(lambda b: 1e9, np.nan), lambda items, n: float(n.sum())),
    "Give check_allocator the objective": (lying(lambda b: 1e9, 0.0), None),
    "of a value that is NaN": (lying(lambda b: np.nan, 0.0), None),
    "no plan is worth": (stateless(falling), removed),
    "a budget of -1": takes(lambda b: not b >= -1, 0),
    "a budget of nan": takes(lambda b: b < 0 or b == np.inf, 0),
    "a budget of inf": takes(lambda b: not b >= 0, 0),
    "units are 0 or more": takes(lambda b: not 0 <= b < 1e30, -5),
}  # fmt: skip


@pytest.mark.parametrize("rule", list(VALUES))
def test_check_allocator_rejects_false_values_and_what_takes_any_budget(rule):
    allocator, objective = VALUES[rule]
    with pytest.raises(CheckFailed, match=rule):
        check_allocator(allocator, objective=objective)


@pytest.mark.parametrize("menu", [False, True])
def test_check_allocator_rejects_what_takes_any_number(menu, monkeypatch):
    monkeypatch.setattr(Menu if menu else Items, "__post_init__", lambda self: None)
    monkeypatch.setattr(
        "budgeteer.core.menu._whole", lambda cost: np.nan_to_num(cost, posinf=9, neginf=9).astype(np.int64)
    )

    def nothing(budget, items):
        return Plan(items.keys, np.zeros(len(items), np.int64), 0.0)

    with pytest.raises(CheckFailed, match="of nan on a menu are refused" if menu else "whose cost is nan are refused"):
        check_allocator(stateless(nothing), menu=menu)


def test_check_allocator_rejects_a_menu_value_that_is_not_the_options():
    honest = greedy_marginal()

    def inflated(budget, items, state, *, rng):
        plan = honest.allocate(budget, items, state, rng=rng)
        return dataclasses.replace(plan, value=plan.value + 1)

    with pytest.raises(CheckFailed, match="units are worth"):
        check_allocator(honest._replace(allocate=inflated), menu=True)

    def blind(budget, items, state, *, rng):  # true values, but the options that cost most are never looked at
        cost, value, indptr = items.menu.cost, items.menu.value, items.menu.indptr
        cheap = Menu(cost, np.where(cost > 2, 0.0, value), indptr)
        return honest.allocate(budget, dataclasses.replace(items, menu=cheap), state, rng=rng)

    with pytest.raises(CheckFailed, match="but the options"):
        check_allocator(honest._replace(allocate=blind), menu=True)


def test_check_allocator_accepts_random_draws_by_position():
    check_allocator(uniform()._replace(allocate=random_by_position))


def test_check_allocator_needs_the_flag_for_a_preference_order():
    allocator = make("allocator", "dynamic-sampling", target=4)
    check_allocator(allocator, ordered=True)
    with pytest.raises(CheckFailed, match="order of the items"):
        check_allocator(allocator)


def steer(step, init=lambda rows: (), needs=(Need.MARKERS, Need.MARGIN), **fields):
    return Steer(init, step, frozenset(needs), **fields)


def going(state, now):
    return Action(np.zeros(len(now.row), np.int8)), state


def steer_in_place(state, now):
    state[now.row] += 1
    return going(state, now)


def acts(**columns):
    """A step whose action has these columns, each made from the snapshot."""
    return lambda state, now: (Action(**{name: make(now) for name, make in columns.items()}), state)


def by_position(state, now):
    """Ends the first half of all rows that it ever heard of, whoever they are."""
    return Action(np.where(now.row < len(state) // 2, 2, 0).astype(np.int8)), state


STEERS = {
    "no Steer": going,
    "ask after": steer(going, every=0),
    "members of Need": steer(going, needs=("telepathy",)),
    r"return \(Action, state\)": steer(lambda state, now: (np.zeros(len(now.row), np.int8), state)),
    "int8": steer(acts(decision=lambda now: np.zeros(len(now.row)))),
    "one decision a row": steer(acts(decision=lambda now: np.zeros(len(now.row) + 1, np.int8))),
    "members of Decision": steer(acts(decision=lambda now: np.full(len(now.row), 4, np.int8))),
    "Action.force": steer(acts(force=lambda now: np.full(len(now.row), 10**6))),
    "Action.cap": steer(acts(cap=lambda now: np.full(len(now.row), -1))),
    "changed the state": steer(steer_in_place, lambda rows: np.zeros(len(rows.keys))),
    "gave different decisions": steer(acts(decision=lambda now: RNG.integers(0, 2, len(now.row)).astype(np.int8))),
    "without naming it": steer(acts(decision=lambda now: (now.margin() > 2).astype(np.int8)), needs=()),
    "no columns": steer(going, lambda rows: {"rows": len(rows.keys)}),
    "rows decide otherwise": steer(by_position, lambda rows: np.zeros(len(rows.keys))),
    "kept_weight": steer(
        going, lambda rows: np.zeros(len(rows.keys)), kept_weight=lambda state: np.full(len(state), np.nan)
    ),
    "1 notes for": steer(going, report=lambda state: [None]),
}
LATE_STEERS = {
    "has logits": (acts(logits=lambda now: now.logits), (Need.HIDDEN,)),
    "Action.logits has shape": (acts(logits=lambda now: now.logits[:, :3]), (Need.LOGITS,)),
    "excludes every token": (acts(logits=lambda now: now.logits - np.inf), (Need.LOGITS,)),
    "Action.drawn": (acts(logits=lambda now: now.logits, drawn=lambda now: np.ones(len(now.row))), (Need.LOGITS,)),
    "has embeddings": (acts(embeddings=lambda now: now.model.embed[now.row * 0]), (Need.LOGITS,)),
    "Action.embeddings has shape": (acts(embeddings=lambda now: now.model.embed), (Need.EMBEDDINGS,)),
}


@pytest.mark.parametrize("rule", list(STEERS))
def test_check_steer_rejects_what_breaks_the_rule(rule):
    error = InvalidInput if rule == "without naming it" else CheckFailed
    with pytest.raises(error, match=rule):
        check_steer(STEERS[rule])


@pytest.mark.parametrize("rule", list(LATE_STEERS))
def test_check_steer_rejects_late_steers_that_break_the_rule(rule):
    pytest.importorskip("torch")
    step, needs = LATE_STEERS[rule]
    with pytest.raises(CheckFailed, match=rule):
        check_steer(steer(step, needs=needs))


def test_check_steer_accepts_one_that_stops():
    def step(state, now):
        decisions = np.where(now.answered >= 0, 1, np.where(now.length > 100, 2, 0)).astype(np.int8)
        assert now.margin().shape == now.row.shape
        return Action(decisions), state

    check_steer(steer(step))
