"""Checks of rewards, token weights and recipes: each rule against a method that breaks it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from budgeteer.allocate import uniform
from budgeteer.check import (
    CheckFailed,
    check_advantage,
    check_carry,
    check_importance,
    check_meter,
    check_ratio,
    check_recipe,
    check_reward,
    check_schedule,
    check_stream,
    check_tuning,
    check_variant,
    check_weight,
)
from budgeteer.core.meter import Counted
from budgeteer.core.steer import Steer
from budgeteer.rl.advantage import grpo_advantage
from budgeteer.rl.carry import partial_rollouts
from budgeteer.rl.recipe import Beginnings, Carry, Importance, Recipe, Stream, Variant, Variants
from budgeteer.rl.reward.protocol import Monitor, Reward
from budgeteer.rl.stream import domain_ratio

RNG = np.random.default_rng(0)


# rewards


def spoiling(state, rows):
    rows.correct[:] = 0
    return rows.correct


def unnamed(state, rows):
    return rows.column("entropy", "unnamed").sum(axis=1)


def unequal(state, rows):
    return rows.correct * (rows.column("closed", "unequal") == rows.column("closed", "unequal")[:1])


REWARDS = {
    "unnamed reads the column 'entropy'": Reward(unnamed),
    "give a tuple of texts": Reward(lambda state, rows: rows.correct, needs="entropy"),
    "the order of the rows; group": Reward(unequal, needs=("closed",)),
    "one finite number a row": Reward(lambda state, rows: rows.correct / 0.0),
    "order of the rows": Reward(lambda state, rows: np.cumsum(rows.correct)),
    "numbers of the groups": Reward(lambda state, rows: rows.correct + rows.group),
    "score keeps no memory": Reward(lambda state, rows: rows.correct + 1e-10 * RNG.random()),
    "survive JSON": Reward(lambda state, rows: rows.correct, lambda: [(1, 2)]),
    "changed the state": Reward(spoiling),
    "watch keeps no memory": Reward(
        lambda state, rows: rows.correct, lambda: 0.0, monitor=Monitor(1, 1, 1, lambda state, rows: RNG.random())
    ),
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


def by_place(length, group):
    return np.ones((len(length), length.max(initial=0))) * np.arange(1.0, len(length) + 1)[:, None]


def no_token(length, group):
    """Weights for what stands behind the ends of the rows only."""
    return 1.0 * (np.arange(length.max(initial=0)) >= length[:, None])


WEIGHTS = {
    "one weight a row, or one for each of its tokens": lambda length, group: np.ones((len(length), 200)),
    "one finite weight": lambda length, group: -1.0 / length,
    "order of the rows": lambda length, group: np.arange(1.0, len(length) + 1),
    "numbers of the groups": lambda length, group: 1.0 + group,
    "changed the lengths": shortening,
    "nothing would be learnt": lambda length, group: 0.0 * length,
    "the order of the": by_place,
    "all weights are 0": no_token,
}


def test_check_weight_takes_weights_of_tokens():
    def late(length, group):  # nothing is asked of what stands behind the end of a row
        weight = np.arange(1.0, length.max(initial=0) + 1) / np.maximum(length, 1)[:, None]
        return np.where(np.arange(length.max(initial=0)) < length[:, None], weight, np.nan)

    check_weight(late)


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
    "importance has": recipe(importance=Importance(lambda rollouts, view: -np.ones(len(rollouts)))),
    "the recipe's token weight": recipe(token_weight=lambda length, group: np.ones(len(length) + 1)),
    "the recipe's reward": recipe(reward=Reward(lambda state, rows: rows.correct[:1])),
    "one that failed": recipe(advantage=aborted_apart, aborted="failure"),
    "a row twice": recipe(select=lambda rollouts, rng: np.zeros(4, np.int64)),
    "indices of rows": recipe(select=lambda rollouts, rng: np.arange(4) + len(rollouts)),
    "the same seed": recipe(select=lambda rollouts, rng: RNG.permutation(len(rollouts))),
    "changed the rollouts": recipe(advantage=in_place),
    "the recipe's allocator: .*over its budget": recipe(
        allocator=uniform()._replace(allocate=lambda b, items, state, *, rng: overspent(b, items))
    ),
    "the recipe's steer: Steer.every": recipe(steer=lambda view: Steer(lambda rows: (), None, every=0)),
}


@pytest.mark.parametrize("rule", list(RECIPES))
def test_check_recipe_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_recipe(RECIPES[rule])


# parts of a recipe


def a_stream(**parts):
    return domain_ratio()._replace(**parts)


def first_ones(state, keys, count, seed):
    return np.arange(count)


def gap(tokens):
    return tokens.logprob - tokens.old


def as_sequence(tokens):
    """The mean of a row over all its tokens, forced ones too."""
    moved, rows = gap(tokens).detach(), int(tokens.row.max()) + 1
    total = moved.new_zeros(rows).index_add(0, tokens.row, moved)
    size = moved.new_zeros(rows).index_add(0, tokens.row, moved * 0 + 1)
    own = (tokens.logprob - tokens.logprob.detach()).exp()
    return (total / size)[tokens.row].exp() * own * tokens.advantage


def parked_all(waiting, rollouts, step):
    return partial_rollouts(99).park(waiting, rollouts, step)


def emptied(waiting, rollouts, step):
    return partial_rollouts().park(waiting, rollouts, step)[0], Beginnings.empty()


def rows_in(view):
    return int(view.plan.units.sum())


def said(**columns):
    """The same for all rows."""
    return Variant(
        lambda state, view, rng: Variants(
            prefix=("so",) * rows_in(view), columns={name: np.full(rows_in(view), x) for name, x in columns.items()}
        )
    )


def spoiled(state, rollouts):
    rollouts.verified[:] = 0
    return state


def last_seen(state, rollouts):
    return int(rollouts.length[-1]) if len(rollouts) else state


def last_said(state, view, rng):
    return Variants(hint=(str(state),) * rows_in(view))


@dataclasses.dataclass
class Fixed:
    """A meter that measures the same whatever was consumed, and thinks that the worst case is 1."""

    units: float
    kind: str = "fixed"

    def __call__(self, usage):
        return self.units

    def worst(self, usage):
        return 1


MUTANTS = {
    "one finite number for each": (check_advantage, lambda rollouts, view: rollouts.reward[:-1]),
    "advantage changes with the order of the rows": (check_advantage, centred_by_place),
    "advantage changes with the order of the prompts": (check_advantage, by_group_number),
    "importance has -1.0": (check_importance, Importance(lambda rollouts, view: -np.ones(len(rollouts)))),
    "no Importance": (check_importance, lambda rollouts, view: np.ones(len(rollouts))),
    "give a tuple of texts": (check_importance, Importance(lambda rollouts, view: rollouts.weight, "entropy")),
    "not the advantage": (check_ratio, lambda tokens: tokens.logprob * tokens.advantage),
    "one finite number a token": (check_ratio, lambda tokens: tokens.advantage[:1] * tokens.logprob.sum()),
    "changes with the order of the rows; use": (
        check_ratio,
        lambda tokens: tokens.advantage * gap(tokens).exp() * gap(tokens).detach()[0].exp(),
    ),
    "tokens that nobody sampled": (check_ratio, as_sequence),
    "never came": (check_stream, a_stream(pick=first_ones)),
    "a prompt twice": (check_stream, a_stream(pick=lambda state, keys, count, seed: np.zeros(count, np.int64))),
    "indices were asked for": (check_stream, a_stream(pick=lambda state, keys, count, seed: np.arange(count + 1))),
    "gave other prompts": (check_stream, a_stream(pick=lambda state, keys, n, seed: RNG.permutation(len(keys))[:n])),
    "observe keeps no memory": (check_stream, Stream(lambda: 0.0, first_ones, lambda *given: RNG.random())),
    "still waits": (check_carry, Carry(parked_all)),
    "not what was parked": (check_carry, Carry(emptied)),
    "was not cut": (check_carry, Carry(lambda waiting, rows, step: (np.ones(len(rows), np.bool_), waiting))),
    "one truth value": (check_carry, Carry(lambda waiting, rows, step: (np.arange(len(rows)), waiting))),
    "no Variant": (check_variant, lambda state, view, rng: Variants()),
    "a trainer can give solution": (check_variant, said()._replace(needs=("weather",))),
    "give Variants": (check_variant, Variant(lambda state, view, rng: ("so",) * rows_in(view))),
    "entries of suffix for": (check_variant, Variant(lambda state, view, rng: Variants(suffix=("so",)))),
    "and gives names effort": (check_variant, said()._replace(gives=("effort",))),
    "vary's column: .*effort is 2": (check_variant, said(effort=2.0)._replace(gives=("effort",))),
    "vary's column: .*'colour'": (check_variant, said(colour=2.0)._replace(gives=("colour",))),
    "draw from rng only": (check_variant, Variant(lambda *given: last_said(RNG.random(), *given[1:]))),
    "rollouts gave another state: observe": (check_variant, said()._replace(observe=lambda *given: RNG.random())),
    "vary or observe changed": (check_variant, said()._replace(observe=spoiled)),
    "changes with the order of the rows; group by Rollouts": (check_variant, Variant(last_said, lambda: 0, last_seen)),
    "finite number, 0 or more": (check_schedule, lambda spent: 0.5 - spent),
    "it keeps no memory": (check_schedule, lambda spent: RNG.random() + 1),
    "starts at 0": (check_schedule, lambda spent: spent),
    "the kind of the meter": (check_meter, Counted("")),
    "units are whole numbers": (check_meter, Fixed(0.5)),
    "below the": (check_meter, Fixed(5)),
}  # fmt: skip


@pytest.mark.parametrize("rule", list(MUTANTS))
def test_checks_of_parts_reject_what_breaks_the_rule(rule):
    check, mutant = MUTANTS[rule]
    if check is check_ratio:
        pytest.importorskip("torch")
    with np.errstate(all="ignore"), pytest.raises(CheckFailed, match=rule):
        check(mutant)


# builders of training examples


def builder(example=None, kind="sft", spend=False, restless=False):
    """A builder that samples two traces and makes this example of the first right one."""
    from budgeteer.tuning import Builder, Built
    from budgeteer.tuning.kit import traces

    async def build(task):
        drawn = await traces(task, 2, most=200, temperature=1.0)
        if spend:  # around the budget
            from budgeteer.models.model import Request

            await task.model.model.generate(Request(task.style.prompt(task.question.text), 200, 1, 1.0))
        made = [example(task, trace) for trace in drawn if trace.right][:1]
        if restless and made:
            made[0]["id"] += str(RNG.random())
        return Built(tuple(made))

    return Builder(build, kind)


def sound(task, trace):
    from budgeteer.tuning.kit import example

    return example(task, trace.text)


def wrong(task, trace):
    return {**sound(task, trace), "completion": "</think>5\n"}


TUNING = {
    "no Builder": lambda: 3,
    "kind is 'other'": lambda: builder(sound, kind="other"),
    "tokens were used of a budget": lambda: builder(sound, spend=True),
    "the same seed gave other examples": lambda: builder(sound, restless=True),
    "no question had an example": lambda: builder(lambda task, trace: None)._replace(build=nothing),
    "not as TRL reads it": lambda: builder(lambda task, trace: {"id": "q", "prompt": "a"}),
    "whose answer is not the reference": lambda: builder(wrong),
    "prefers an answer to itself": lambda: builder(
        lambda task, trace: {"id": "q", "prompt": "a", "chosen": trace.text, "rejected": trace.text}, kind="preference"
    ),
}  # fmt: skip


async def nothing(task):
    from budgeteer.tuning import Built

    return Built(())


@pytest.mark.parametrize("rule", list(TUNING))
def test_check_tuning_rejects_what_breaks_the_rule(rule):
    with pytest.raises(CheckFailed, match=rule):
        check_tuning(TUNING[rule]())


def test_check_tuning_accepts_one_that_keeps_them():
    check_tuning(builder(sound))
