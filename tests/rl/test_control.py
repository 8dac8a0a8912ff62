"""One step's decisions without a model: rounds, caps, rewards, and what goes on after a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest

from budgeteer.core.allocator import stateless
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import CUT, ENDED, Plan
from budgeteer.rl import recipes
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.control import Control
from budgeteer.rl.reward import Columns, Monitor, Reward
from budgeteer.rl.rollouts import Role, Rollouts

KEYS = [f"prompt {i}" for i in range(6)]
CONFIG = TrainConfig(steps=3, prompts=4, group=2, max_tokens=10, eval_every=0)


def control(recipe, **options) -> Control:
    return Control(recipe, CONFIG, [(1, 2, i) for i in range(len(KEYS))], KEYS, **{"budget": 200, **options})


def drawn(work, right=lambda i: i % 2 == 0) -> Rollouts:
    """Rollouts of a round without a model: all 8 tokens long, or cut at their cap; every second one is right."""
    units = work.view.plan.units
    group = np.repeat(np.arange(len(units)), units)
    n, cap = len(group), work.max_tokens[group]
    length = np.minimum(8, cap)
    status = np.where(length < cap, ENDED, CUT).astype(np.int8)
    within = np.arange(10) < length[:, None]
    tokens, ones, never = np.ones((n, 10), np.int64), np.ones(n), np.full(n, -1)
    found = Rollouts(
        work.view.items.keys, tuple((1, 2, 3) for _ in units), group, tokens, length, cap,
        np.where(within, np.float32(-1), np.float32(np.nan)), np.where(within, Role.SAMPLED, Role.NONE).astype(np.int8),
        np.full((n, 10), -1, np.int32), status, never, never, 0 * ones, 0 * ones, ones, 3,
    )  # fmt: skip
    return found.scored(np.array([float(right(i)) for i in range(n)]))


def step(control: Control):
    """One whole step; its update."""
    begun = control.begin()
    while (work := begun.next()) is not None:
        begun.add(drawn(work))
    rollouts, view = begun.collected()
    update = control.learn(rollouts, view)
    control.done(view, update)
    return update


def test_it_needs_no_torch() -> None:
    code = (
        "import sys, budgeteer.rl.control, budgeteer.rl.recipes as r; r.get('duet'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_caps_of_a_plan_are_kept_and_a_row_cut_by_its_cap_is_no_loss() -> None:
    def allocate(budget, items):
        units = np.full(len(items), 2)
        return Plan(items.keys, units, items.spend(units), max_tokens=np.arange(len(items)) * 3)  # 0 = none

    of = control(dataclasses.replace(recipes.get("grpo"), allocator=stateless(allocate)), budget=None)
    work = of.begin().next()
    assert work.max_tokens.tolist() == [10, 3, 6, 9]  # the run's own cap is 10
    update = step(of)
    assert update.rollouts.length.tolist() == [8, 8, 3, 3, 6, 6, 8, 8]
    assert not update.wasted.any()
    assert update.trained.all()  # every group has one right row


@pytest.mark.parametrize(
    ("units", "rule"), [(100, "over its budget of 66"), (-1, "units are 0 or more"), (1.0, "units are integers")]
)
def test_a_plan_that_breaks_a_rule_is_refused_before_anything_is_sampled(units, rule) -> None:
    broken = stateless(lambda budget, items: Plan(items.keys, np.full(len(items), units), 5.0))
    run = control(dataclasses.replace(recipes.get("grpo"), allocator=broken))
    for begin in (run.check, run.begin().next):
        with pytest.raises(
            InvalidInput, match=f"the allocator of recipe 'grpo' made a plan that breaks a rule: .*{rule}"
        ):
            begin()


def test_a_rewards_state_goes_on_and_the_history_sees_the_verifier() -> None:
    def score(state: int, rows: Columns) -> np.ndarray:
        return state - rows.correct  # wrong rows are worth more than right ones

    own = Reward(score, init=lambda: 5, observe=lambda state, rows: state + 1)
    of = control(dataclasses.replace(recipes.get("grpo"), reward=own))
    update = step(of)
    assert set(update.rollouts.reward.tolist()) == {4.0, 5.0}
    right = update.rollouts.verified == 1
    assert np.all(update.advantage[right] < 0)
    assert np.all(update.advantage[~right] > 0)
    assert of.history.right.sum() == right.sum()
    assert of.reward_state == 6
    after = control(dataclasses.replace(recipes.get("grpo"), reward=own))
    after.load_state_dict(json.loads(json.dumps(of.state_dict())))
    assert (after.reward_state, after.progress.step, after.left()) == (6, 1, of.left())
    assert np.array_equal(step(after).advantage, step(of).advantage)
    assert json.dumps(after.state_dict()) == json.dumps(of.state_dict())


def test_a_monitor_sees_fixed_prompts_now_and_then_on_the_bill_and_nothing_is_learnt_from_them() -> None:
    seen = []

    def watch(state: int, rows: Columns) -> int:
        seen.append(rows)
        return state + 10

    own = Reward(lambda state, rows: rows.correct + state, lambda: 0, monitor=Monitor(3, 2, 2, watch))
    recipe = dataclasses.replace(recipes.get("grpo"), reward=own)
    of = control(recipe, budget=1000)
    prompts, used = [], []
    for number in range(3):
        begun, before = of.begin(), of.progress.used
        work = begun.next()
        assert work.watched == (number != 1)
        if work.watched:
            prompts.append(work.picked.tolist())
            assert work.view.plan.units.tolist() == [2, 2, 2]
            begun.add(drawn(work))
            assert of.left() == 1000 - before - 6 * 8
            work = begun.next()
        assert not work.watched
        begun.add(drawn(work))
        assert begun.next() is None
        rollouts, view = begun.collected()
        update = of.learn(rollouts, view)
        of.done(view, update)
        assert (update.rollouts.reward - update.rollouts.verified == of.reward_state).all()
        used.append(of.progress.used - before)
        assert used[-1] == len(rollouts) * 8 + 48 * (number != 1)
        assert len(of.history.keys) <= 6
    assert prompts[0] == prompts[1]
    assert len(set(prompts[0])) == 3
    assert (of.reward_state, [len(rows) for rows in seen]) == (20, [6, 6])
    assert [row["used"] for row in of.progress.steps_log] == used
    assert sum(of.history.rollouts) == (sum(used) - 2 * 48) / 8  # nobody learns of the others, the history neither
    again = control(recipe, budget=1000)
    assert again.begin().next().picked.tolist() == prompts[0]


def test_a_monitor_keeps_within_the_budget_and_needs_its_prompts() -> None:
    of = Reward(lambda state, rows: rows.correct, monitor=Monitor(7, 2, 2, lambda state, rows: state))
    with pytest.raises(InvalidInput, match="monitors 7 training prompts, and there are 6"):
        control(dataclasses.replace(recipes.get("grpo"), reward=of))
    of = of._replace(monitor=of.monitor._replace(prompts=6))
    run = control(dataclasses.replace(recipes.get("grpo"), reward=of), budget=None, step_budget=100)
    begun = run.begin()
    work = begun.next()
    assert work.budget == 100
    begun.add(drawn(work))  # 12 rows of 8 tokens: 4 are left of the step, and no rollout fits
    assert begun.next() is None
    assert begun.collected() is None
    assert run.progress.used == 96


def test_rows_that_nobody_scored_are_wasted_and_teach_nothing() -> None:
    of = control(recipes.get("grpo"), budget=None)
    begun = of.begin()
    work = begun.next()
    rollouts = drawn(
        work, right=lambda i: np.nan if i < 3 else i % 2 == 0
    )  # all of prompt 0, and one of two of prompt 1
    begun.add(rollouts)
    update = of.learn(*begun.collected())
    of.done(begun.collected()[1], update)
    keys = work.view.items.keys
    assert (update.lost, len(update.rollouts)) == (3 * 8, len(rollouts) - 3)
    assert (of.progress.used, of.progress.wasted) == (8 * len(rollouts), 3 * 8)
    assert set(of.history.keys) == set(keys[1:])
    assert of.history.rollouts[of.history.keys.index(keys[1])] == 1
    assert not update.trained[update.rollouts.group == 1].any()  # alone it has no baseline
    assert update.trained[update.rollouts.group > 1].all()


def test_a_bounded_step_plans_no_more_than_whole_groups() -> None:
    for bounded, most in ((False, 25), (True, 8)):
        work = control(recipes.get("grpo"), budget=450, bounded=bounded).begin().next()
        assert work.view.plan.units.sum() == most  # 150 tokens of 6 a rollout, or 4 prompts of 2


def test_a_step_whose_prompts_have_one_rollout_each_says_that_nothing_was_learnt() -> None:
    # a token costs 6 at first: 3 steps of 24 tokens buy one rollout of each of 4 prompts, those of 48 two
    with pytest.warns(UserWarning, match="no prompt of a step had a second rollout, and recipe 'grpo' learns from"):
        update = step(control(recipes.get("grpo"), budget=72))
    assert (len(update.rollouts), len(update.rows)) == (4, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update = step(control(recipes.get("grpo"), budget=144))
    assert len(update.rollouts) == 8
