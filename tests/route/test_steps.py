"""Routing of steps: formulas by hand, and the world of the method's card, in which what it claims must hold or not."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from budgeteer.core.errors import BudgetExceeded, CheckpointError, InvalidInput
from budgeteer.route import steps as module
from budgeteer.route.steps import Boundary, StepPolicy, Steps, StepTraining, advantages, load, save, trained

SMALL, LARGE, LENGTH, TASKS = 1, 10, 6, 40


class World:
    """Tasks of six steps, of which some are hard; the small model fails those with chance 0.8, and a step that failed
    leaves a fifth of the chance of success. What is seen of a step is whether it is hard, with noise.

    Args:
        shuffled: what is seen is that of another step.
    """

    def __init__(self, seed: int, shuffled: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.hard = self.rng.random((TASKS, LENGTH)) < 0.3
        self.seen = self.hard + self.rng.normal(0, 0.2, self.hard.shape)
        if shuffled:
            self.seen = self.rng.permutation(self.seen.ravel()).reshape(self.seen.shape)

    def play(self, task: int, steps: Steps) -> float:
        chance = 1.0
        for step in range(LENGTH):
            large = steps.large(self.seen[task, step : step + 1], SMALL, LARGE)
            steps.pay(LARGE if large else SMALL)
            if self.hard[task, step] and not large and self.rng.random() < 0.8:
                chance *= 0.2
        return float(self.rng.random() < chance)

    def measured(self, policy: StepPolicy | None, cap: int | None = None, share: float = 0.0) -> tuple[float, float]:
        """Success and mean cost; without a policy a share of the steps is large."""
        found, paid = [], []
        for _ in range(20):
            for task in range(TASKS):
                steps = Steps(policy, cap, None if policy else self.rng, share)
                try:
                    found.append(self.play(task, steps))
                except BudgetExceeded:
                    found.append(0.0)
                paid.append(steps.spent)
                assert cap is None or steps.spent <= cap
        return float(np.mean(found)), float(np.mean(paid))

    def mixed(self, cost: float) -> float:
        """Success of a random mix at this mean cost."""
        return self.measured(None, share=(cost / LENGTH - SMALL) / (LARGE - SMALL))[0]


@lru_cache
def policy(shuffled: bool = False) -> StepPolicy:
    return trained(World(0, shuffled).play, TASKS, StepTraining(epochs=30))


def test_rewards_references_and_advantages_by_hand() -> None:
    easy, hard = Boundary(1.0, 1.0, 6, 60), Boundary(0.0, 0.9, 6, 60)
    assert (easy.kind, hard.kind, Boundary(0.4, 0.4, 6, 60).kind) == ("easy", "hard", "intractable")
    assert hard.reward(1.0, 33, 0.5) == pytest.approx(1.25)  # half of the way: 1 + 0.5 x 0.5
    assert hard.reward(0.0, 6, 0.5) == 0.0  # cheap failure
    assert hard.reward(1.0, 100, 0.5) == 1.0  # dearer than always-large
    assert Boundary(1.0, 1.0, 6, 6).reward(1.0, 6, 0.5) == 1.5  # both cost the same
    assert easy.reference(0.5) == 1.5
    assert hard.reference(0.5) == pytest.approx(0.9)
    np.testing.assert_allclose(advantages(np.array([1.25, 0.0, 1.25, 0.0]), 1.0), [0.4, -1.6, 0.4, -1.6])


def test_what_is_left_forces_the_small_model_and_then_ends_the_task() -> None:
    always = StepPolicy(np.array([0.0, 0.0, 9.0]))
    steps = Steps(always, cap=22)
    made = []
    for _ in range(4):
        made.append(steps.large(np.zeros(1), SMALL, LARGE))
        steps.pay(LARGE if made[-1] else SMALL)
    assert made == [True, True, False, False]
    assert len(steps.chosen) == 2  # forced steps are no choices
    np.testing.assert_allclose([seen[-1] for seen in steps.seen], [1.0, 12 / 22])
    with pytest.raises(BudgetExceeded) as raised:
        steps.large(np.zeros(1), SMALL, LARGE)
    assert (raised.value.used, raised.value.requested, raised.value.limit) == (22, 1, 22)


def test_the_router_solves_what_the_large_model_solves_for_half_of_the_cost_and_beats_a_mix() -> None:
    world = World(1)  # other tasks than it was trained on
    dear, most = world.measured(None, share=1.0)
    success, cost = world.measured(policy())
    assert (dear, most) == (1.0, 60.0)
    assert success > 0.85
    assert cost < 0.5 * most
    assert success > world.mixed(cost) + 0.3


def test_it_holds_strict_caps_and_beats_a_mix_that_is_cut_off() -> None:
    for cap in (15, 24, 33):
        success, cost = World(1).measured(policy(), cap)
        mixes = [World(1).measured(None, cap, share)[0] for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
        assert cost <= cap
        assert success > max(mixes) + 0.05


def test_without_anything_to_see_there_is_no_advantage() -> None:
    world = World(1, shuffled=True)
    success, cost = world.measured(policy(shuffled=True))
    assert success < world.mixed(cost) + 0.1


def test_a_price_on_cost_alone_collapses_to_cheap_failure_and_the_boundaries_do_not(monkeypatch) -> None:
    """A reward of solved - 4 C against the mean of the group: the 0.3 of the way that hard steps take cost more than
    the 0.7 that they add to success. With all of thrift the boundaries' reward still pays for them."""
    thrifty = trained(World(0).play, TASKS, StepTraining(thrift=1.0, epochs=30))
    assert World(1).measured(thrifty)[0] > 0.85
    monkeypatch.setattr(Boundary, "reward", lambda self, solved, cost, thrift: solved - 4 * (cost - 6) / 54)
    monkeypatch.setattr(module, "advantages", lambda rewards, reference: rewards - rewards.mean())
    priced = trained(World(0).play, TASKS, StepTraining(epochs=80, rate=0.2))
    success, cost = World(1).measured(priced)
    assert cost < 8
    assert success < 0.45


@pytest.mark.parametrize("outcome", [1.5, float("nan")])
def test_bad_outcomes_and_tasks_that_nobody_solves_are_refused(outcome) -> None:
    with pytest.raises(InvalidInput, match="task 0 was played with the outcome"):
        trained(lambda task, steps: outcome, 2)
    with pytest.raises(InvalidInput, match="neither model alone solves any of 2"):
        trained(lambda task, steps: 0.0, 2)
    with pytest.raises(InvalidInput, match=r"no run of task 0 chose a model; ask steps\.large"):
        trained(lambda task, steps: 1.0, 2)
    with pytest.raises(InvalidInput, match="give thrift"):
        StepTraining(thrift=2)
    with pytest.raises(InvalidInput, match="takes 1 finite numbers a step"):
        policy().chance(np.zeros(3), 1.0)


def test_a_router_survives_its_file(tmp_path) -> None:
    save(policy(), tmp_path / "r.json")
    np.testing.assert_array_equal(load(tmp_path / "r.json").weights, policy().weights)
    (tmp_path / "bad.json").write_text('{"weights": [[1]]}')
    for name in ("bad.json", "none.json"):
        with pytest.raises(CheckpointError, match="holds no router of steps"):
            load(tmp_path / name)
