"""Slots of a recipe by numbers worked by hand, and their states over a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from budgeteer.check._made_up import made_up
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.plan import ABORTED, CUT, ENDED, Items, Outcomes, Plan
from budgeteer.rl import recipes
from budgeteer.rl.advantage import grpo_advantage, tempo
from budgeteer.rl.carry import partial_rollouts
from budgeteer.rl.carry.waiting import not_started
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.control import Control
from budgeteer.rl.history import History
from budgeteer.rl.importance import high_entropy, temporal
from budgeteer.rl.recipe import ENTROPY, Beginnings, Importance, View
from budgeteer.rl.reward import overlong, triangular
from budgeteer.rl.rollouts import Role, Rollouts
from budgeteer.rl.schedule import rex, staircase
from budgeteer.rl.stream import domain_ratio, tiers
from budgeteer.rl.stream._tiers import Steps as tier_steps
from budgeteer.steer import answered
from helpers.rollouts import rows_of

A = np.array


def view_of(rollouts: Rollouts, spent: float = 0.0) -> View:
    items = Items(rollouts.keys, np.ones(len(rollouts.keys)))
    return View(items, Plan(items.keys, rollouts.counts, 0.0), History.empty(), 9, spent)


# -- advantages and importance of tokens -------------------------------------------------------------------------------


def test_tempo_by_hand() -> None:
    # rewards 1, 0, 0: mean 1/3, std sqrt(2)/3. Rows 0 and 1 share [7]: V = 1/2; then they part: V = 1 and 0.
    rollouts = rows_of([[7, 8], [7, 9], [5, 5]], [1, 0, 0])
    std, mean = math.sqrt(2) / 3, 1 / 3
    plain = A([1 - mean, -mean, -mean])
    value = A([[1 / 2 - mean, 1 - 1 / 2], [1 / 2 - mean, 0 - 1 / 2], [0 - mean, 0]])
    np.testing.assert_allclose(tempo(rollouts, view_of(rollouts)), (plain[:, None] + value) / std)


def test_tempo_is_grpo_where_nothing_is_shared_or_all_is_equal() -> None:
    apart = rows_of([[1, 4], [2, 4], [3, 4]], [1, 0, 1])
    plain = grpo_advantage(apart, view_of(apart))
    np.testing.assert_allclose(tempo(apart, view_of(apart))[:, 1], plain)  # parted at the first token
    equal = rows_of([[1, 4], [1, 4]], [1, 1])
    assert not tempo(equal, view_of(equal)).any()


def test_the_tokens_of_largest_entropy_by_hand() -> None:
    entropy = A([[0.1, 0.9, 0.2], [0.8, 0.3, np.nan]], np.float32)
    rollouts = rows_of([[1, 2, 3], [4, 5]], entropy=entropy)
    assert high_entropy(0.4).weigh(rollouts, view_of(rollouts)).tolist() == [[0, 1, 0], [1, 0, 0]]  # 2 of 5 tokens
    assert high_entropy(1.0).weigh(rollouts, view_of(rollouts)).tolist() == [[1, 1, 1], [1, 1, 0]]
    with pytest.raises(InvalidInput, match="share of the tokens"):
        high_entropy(0)


def test_the_ends_of_rollouts_come_first() -> None:
    rollouts = rows_of([[1] * 10, [1] * 4])
    count = {spent: temporal().weigh(rollouts, view_of(rollouts, spent)).sum(1).tolist() for spent in (0, 0.4, 0.8, 1)}
    # rho = 0.99, 0.495, 0, 0: floor(9.9) and floor(3.96) of the tokens are left out, then floor(4.95) and floor(1.98)
    assert count == {0: [1, 1], 0.4: [6, 3], 0.8: [10, 4], 1: [10, 4]}
    assert temporal().weigh(rollouts, view_of(rollouts))[0].tolist() == [0] * 9 + [1]


def test_what_a_recipe_needs_and_a_trainer_lacks_is_refused() -> None:
    recipe = recipes.get("forking-tokens")
    with pytest.raises(InvalidInput, match="'forking-tokens' needs entropy of each token, and this trainer gives none"):
        Control(recipe, TrainConfig(), [(1, 2)], ["a"])
    Control(recipe, TrainConfig(), [(1, 2)], ["a"], offers=[ENTROPY])


# -- loss --------------------------------------------------------------------------------------------------------------


def test_one_ratio_for_a_row_by_hand() -> None:
    torch = pytest.importorskip("torch")
    from budgeteer.rl.ratio import Tokens, sequence

    new = torch.tensor([0.3, -0.1, 0.4, 9.0], requires_grad=True)  # the last one is forced: out of the mean
    row, sampled = torch.tensor([0, 0, 1, 1]), torch.tensor([True, True, True, False])
    old = torch.where(sampled, torch.zeros(4), new.detach())
    surrogate = sequence(0.2, 0.2)(Tokens(new, old, torch.tensor([2.0, 2.0, 1.0, 1.0]), row, sampled))
    # row 0: s = exp(0.1), within the bounds; row 1: s = exp(0.4) is clipped at 1.2
    torch.testing.assert_close(surrogate.detach(), torch.tensor([2 * math.exp(0.1)] * 2 + [1.2] * 2))
    surrogate.sum().backward()
    torch.testing.assert_close(new.grad, torch.tensor([2 * math.exp(0.1)] * 2 + [0.0] * 2))


def test_the_penalty_is_a_named_part() -> None:
    torch = pytest.importorskip("torch")
    from budgeteer.rl.ratio import Loss

    gap = torch.tensor([0.5, -0.5])
    torch.testing.assert_close(Loss().kl(-gap, torch.zeros(2)), gap.exp() - gap - 1)


# -- stream -----------------------------------------------------------------------------------------------------------


def outcome(keys, status) -> Outcomes:
    n = len(keys)
    return Outcomes(tuple(keys), np.ones(n, int), np.ones(n), np.zeros(n), A(status, np.int8))


def test_domains_that_lag_come_more_often() -> None:
    keys = tuple([f"math:{i}" for i in range(20)] + [f"code:{i}" for i in range(20)])
    stream = domain_ratio(math=3, code=1)

    def share(state) -> list[int]:
        picked = stream.pick(state, keys, 8, 5)
        assert len(set(picked.tolist())) == 8
        return [int((picked < 20).sum()), int((picked >= 20).sum())]

    state = stream.init()
    assert share(state) == [6, 2]  # nothing seen: the targets 3/4 and 1/4
    done = outcome(["math:1"] * 10 + ["code:1"] * 20, [ENDED] * 10 + [ABORTED] * 10 + [ENDED] * 10)
    state = stream.observe(state, keys, A([1, 21]), done)
    assert state.completed.tolist() == [10, 10]  # by name: code, math; aborted rollouts do not count
    # achieved: code (10 + 0.5) / 22, math (10 + 1.5) / 22; weights t^2 / achieved: 0.131 and 1.076: 0.87 and 7.13 of 8
    assert share(state) == [7, 1]
    with pytest.raises(InvalidInput, match="no share for code; it has math"):
        domain_ratio(math=1).pick(stream.init(), keys, 2, 0)


def test_a_domain_comes_in_epochs() -> None:
    keys, stream = ("a:0", "a:1", "a:2", "b:0"), domain_ratio()
    state, came = stream.init(), []
    for _ in range(6):
        picked = stream.pick(state, keys, 2, 1)
        came += [i for i in picked.tolist() if i < 3]
        state = stream.observe(state, keys, picked, outcome([keys[i] for i in picked], [ENDED] * 2))
    assert sorted(came[:3]) == sorted(came[3:6]) == [0, 1, 2]


def test_tiers_go_from_easy_to_hard_by_hand() -> None:
    keys = tuple(f"{name}:{i}" for name in ("easy", "hard", "other") for i in range(40))
    stream = tiers(100, easy=0.5, hard=0.0, late_easy=0.0, late_hard=1.0)

    def shares(done: int) -> list[float]:
        picked = np.concatenate([stream.pick(tier_steps(done), keys, 20, seed) for seed in range(40)])
        return [float(np.mean(picked // 40 == tier)) for tier in range(3)]

    assert shares(0)[1] == 0
    np.testing.assert_allclose(shares(30), [0.5, 0, 0.5], atol=0.06)  # a key of no tier is medium
    np.testing.assert_allclose(shares(50), [0.25, 0.5, 0.25], atol=0.06)  # half of the way from 0.3 to 0.7
    assert shares(70) == [0, 1, 0] == shares(500)
    everything = stream.pick(tier_steps(99), keys, 120, 0)
    assert sorted(everything.tolist()) == list(range(120))  # hard ones first, then what is left
    assert set(everything[:40].tolist()) == set(range(40, 80))
    for bad in ({"steps": 0}, {"easy": 0.7, "hard": 0.4}, {"begin": 0.8}, {"late_hard": -0.1}, {"easy": math.nan}):
        with pytest.raises(InvalidInput, match="1 at most together"):
            tiers(**bad)


# -- schedules and the reward that goes with one ----------------------------------------------------------------------


def test_schedules_by_hand() -> None:
    assert [rex()(z) for z in (0, 0.5, 1)] == pytest.approx([1, 2 / 3, 0])
    assert all(rex()(s) > 1 - s for s in (0.1, 0.5, 0.9))
    assert [staircase(0.5, 4, 0.2)(s) for s in (0, 0.24, 0.25, 0.5, 0.75, 1)] == [1, 1, 0.5, 0.25, 0.2, 0.2]
    control = Control(recipes.get("train-long-think-short"), TrainConfig(steps=10, max_tokens=50), [(1,)], ["a"])
    caps = []
    for step in range(10):
        control.progress.step = step
        caps.append(control.view(Items((), []), Plan((), np.zeros(0, np.int64), 0.0)).max_tokens)
    assert caps == [50, 50, 40, 40, 32, 32, 25, 25, 20, 20]


def test_lr_and_temperature_follow_the_recipe() -> None:
    recipe = recipes.get("grpo:lr=rex,temperature=staircase")
    control = Control(recipe, TrainConfig(steps=10, warmup=2, temperature=0.5), [(1,)], ["a"])
    assert control.lr_scale() == 0.5  # half of the warm-up
    control.progress.step = 5
    assert control.lr_scale() == pytest.approx(2 / 3)
    assert control.temperature() == pytest.approx(0.5 * 0.64)
    plain = Control(recipes.get("grpo"), TrainConfig(steps=8, warmup=0), [(1,)], ["a"])
    plain.progress.step = 7  # 0.875: half way from 1 at 0.75 to 0.1 at 1
    assert plain.lr_scale() == pytest.approx(0.55)


def test_the_triangle_by_hand() -> None:
    rollouts = rows_of([[1] * 10, [1] * 40, [1] * 30], [1, 0, 1], cap=40)
    half = triangular(1.0, share=0.5)
    assert half.score((), rollouts.columns(half.needs)).tolist() == [1.5, 0.0, 1.5]
    asked = replace(rollouts, more={"target": A([10.0, 30.0, 15.0])})
    needs = triangular(1.0).needs
    assert triangular(1.0).score((), asked.columns(needs)).tolist() == pytest.approx([2.0, 2 / 3, 1.0])
    with pytest.raises(InvalidInput, match=r"column 'target' of rollouts .* nobody gave it; use a variant"):
        rollouts.columns(needs)


# -- carry ------------------------------------------------------------------------------------------------------------


def test_rows_that_a_budget_cut_wait_and_old_ones_are_given_up() -> None:
    rollouts = rows_of([[5, 6], [7, 8, 9], [4]], status=[CUT, ENDED, CUT], group=[0, 1, 1], version=3, cap=3)
    capped = dataclasses.replace(rollouts, cap=A([9, 9, 1]))  # the last one ended at its own cap
    parked, waits = partial_rollouts(2).park(Beginnings.empty(), capped, 3)
    assert parked.tolist() == [True, False, False]
    assert (waits.keys, waits.tokens.tolist(), waits.version.tolist()) == (("a",), [[5, 6]], [[3, 3]])
    assert partial_rollouts(2).park(waits, capped, 4)[0].tolist() == [True, False, False]
    assert not partial_rollouts(2).park(waits, capped, 5)[0].any()
    closed = dataclasses.replace(capped, closed=A([1, -1, -1]))
    assert not partial_rollouts(2).park(waits, closed, 3)[0].any()


def test_what_a_step_did_not_reach_waits_on() -> None:
    """Of three beginnings, two of them alike, the step goes on with one of the two."""
    begun = Beginnings(("a", "a", "b"), A([[5, 6], [5, 6], [7, 0]]), A([2, 2, 1]), A([[0, 1], [0, 1], [1, -1]]))
    rollouts = rows_of([[5, 6, 9], [5, 6]], group=[0, 0], version=2)
    rollouts = dataclasses.replace(rollouts, version=A([[0, 1, 2], [2, 2, -1]], np.int32))  # the second began anew
    waits = not_started(begun, rollouts, 2)
    assert (waits.keys, waits.length.tolist()) == (("a", "b"), [2, 1])
    assert len(not_started(Beginnings.empty(), rollouts, 2)) == 0


def test_a_cut_row_that_nobody_scored_goes_on_and_one_that_ended_does_not() -> None:
    control = Control(
        recipes.get("c3po"), TrainConfig(steps=6, prompts=3, group=2, max_tokens=10), PROMPTS, KEYS, step_budget=37
    )
    step = control.begin()
    work = step.next()
    assert work is not None
    keys, prompts, _ = work.requests(PROMPTS)
    part = rows_of([[5, 6], [7, 8, 9], [4]], status=[CUT, ENDED, ENDED], group=[0, 1, 1], cap=9)
    part = dataclasses.replace(part, keys=tuple(keys), prompts=tuple(prompts), verified=A([np.nan, np.nan, 1.0]))
    step.add(part)
    assert step.next() is None
    collected = step.collected()
    assert collected is not None
    update = control.learn(*collected)
    assert (control.beginnings.keys, control.beginnings.tokens.tolist()) == ((keys[0],), [[5, 6]])
    assert (update.parked, update.lost, update.given.tolist()) == (2, 3, [2])


def test_a_share_of_the_runs_budget_cuts_rows_that_go_on() -> None:
    config = TrainConfig(steps=6, prompts=3, group=2, max_tokens=10)
    carried = Control(recipes.get("c3po"), config, PROMPTS, KEYS, budget=220)
    play(carried, 1)
    assert carried.progress.used == 36  # 220 // 6
    assert carried.beginnings.length.tolist() == [4]
    play(carried, 1)
    assert carried.progress.used <= 36 + (220 - 36) // 5
    plain = Control(recipes.get("grpo"), config, PROMPTS, KEYS, budget=220)
    play(plain, 1)
    assert plain.progress.used > 36  # what is expected to fit is drawn to its end
    ample = Control(recipes.get("c3po"), config, PROMPTS, KEYS, budget=6000, bounded=True)
    play(ample, 1)
    assert not len(ample.beginnings)  # a share that pays for all rollouts cuts none
    with pytest.raises(InvalidInput, match="9 tokens of a step are less than one rollout of 10; raise the one"):
        Control(recipes.get("c3po"), config, PROMPTS, KEYS, step_budget=9)


def test_continued_rows_become_whole_rollouts() -> None:
    # the sampler saw two prompts of their own: (1, 2, 5, 6) and (1, 3, 7), and added [8, 9] and [4]
    sampled = rows_of([[8, 9], [4]], group=[0, 1], version=-1, cap=5)
    sampled = dataclasses.replace(sampled, prompts=((1, 2, 5, 6), (1, 3, 7)), closed=A([1, -1]))
    whole = sampled.begun(("p", "q"), A([1, 0]), [A([5, 6]), A([7])], [A([0, 1]), A([1])]).at(2)
    assert (whole.keys, whole.prompts, whole.group.tolist()) == (("p", "q"), ((1, 3), (1, 2)), [1, 0])
    assert whole.tokens.tolist() == [[5, 6, 8, 9], [7, 4, 0, 0]]
    c, s = Role.CARRIED, Role.SAMPLED
    assert whole.role.tolist() == [[c, c, s, s], [c, s, Role.NONE, Role.NONE]]
    assert whole.version.tolist() == [[0, 1, 2, 2], [1, 2, -1, -1]]
    assert (whole.used, whole.length.tolist(), whole.cap.tolist(), whole.closed.tolist()) == (
        3,
        [4, 2],
        [7, 6],
        [3, -1],
    )
    assert np.isnan(whole.logprob[0]).tolist() == [True, True, False, False]


# -- a whole run of the decisions --------------------------------------------------------------------------------------

KEYS = [f"{'xy'[i % 2]}:{i}" for i in range(6)]
PROMPTS = [(1, 2, i) for i in range(6)]


def play(control: Control, steps: int) -> list[list[float]]:
    """Steps with a sampler that writes 8 tokens a row, and stops where the budget of the round does."""
    advantages = []
    for _ in range(steps):
        step = control.begin()
        while (work := step.next()) is not None:
            keys, prompts, units = work.requests(PROMPTS)
            group, left = np.repeat(np.arange(len(keys)), units), work.budget
            caps = np.broadcast_to(work.max_tokens, (len(keys),))[group]
            lengths, rows = [], []
            for g, cap in zip(group.tolist(), caps.tolist(), strict=True):
                begun = len(prompts[g]) - 3
                want = min(8 - begun if begun else 8, cap)
                got = want if left is None else min(want, left)
                left = None if left is None else left - got
                if got:
                    lengths.append(got)
                    rows.append((g, CUT if got < want else ENDED, cap))
            part = rows_of([[g % 5 + 1] * n for (g, _, _), n in zip(rows, lengths, strict=True)], version=-1)
            part = dataclasses.replace(
                part, keys=tuple(keys), prompts=tuple(prompts), group=A([g for g, _, _ in rows]),
                status=A([s for _, s, _ in rows], np.int8), cap=A([c for _, _, c in rows]),
                entropy=np.where(part.sampled, 0.1 * part.tokens, np.nan).astype(np.float32),
            )  # fmt: skip
            whole = work.whole(part)
            step.add(whole.scored((np.arange(len(whole)) % 2).astype(np.float64)))
        collected = step.collected()
        assert collected is not None
        update = control.learn(*collected)
        control.done(collected[1], update)
        advantages.append(update.advantage.tolist())
    return advantages


RUNS = ["c3po", "domain-mix", "forking-tokens", "tp-schedule", "tempo", "train-long-think-short", "gspo"]


@pytest.mark.parametrize("name", [*RUNS, "duet:carry=partial-rollouts,stream=domain-ratio"])
def test_a_run_that_is_resumed_is_the_same_run(name) -> None:
    def fresh() -> Control:
        config = TrainConfig(steps=6, prompts=3, group=2, max_tokens=10)
        return Control(recipes.get(name), config, PROMPTS, KEYS, step_budget=37, offers=[ENTROPY])

    straight, first = fresh(), fresh()
    whole = play(straight, 6)
    before = play(first, 3)
    second = fresh()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert before + play(second, 3) == whole
    assert second.state_dict() == straight.state_dict()


def test_tokens_that_go_on_are_paid_once_and_not_wasted() -> None:
    config = TrainConfig(steps=6, prompts=3, group=2, max_tokens=10)
    cut, carried = (
        Control(recipes.get(name), config, PROMPTS, KEYS, step_budget=37)
        for name in ("grpo", "grpo:carry=partial-rollouts")
    )
    play(cut, 4)
    play(carried, 1)
    assert carried.beginnings.length.tolist() == [5]  # 37 = 4 rows of 8 and 5 tokens
    play(carried, 3)
    learnt = sum(used for row in carried.progress.steps_log for used, _, _ in row["by_key"].values())
    assert learnt + carried.beginnings.length.sum() == carried.progress.used
    assert cut.progress.wasted > 0
    assert carried.progress.wasted == 0


def test_weights_of_tokens_reach_the_update() -> None:
    half = Importance(
        lambda rollouts, view: np.where(np.arange(rollouts.tokens.shape[1]) % 2, 1.0, 0.0) * rollouts.sampled
    )
    recipe = dataclasses.replace(recipes.get("grpo"), importance=half)
    control = Control(recipe, TrainConfig(steps=2, prompts=3, group=2, max_tokens=10), PROMPTS, KEYS, budget=200)
    (advantage,) = play(control, 1)
    assert np.ndim(advantage) == 2
    assert not np.any(np.array(advantage)[:, ::2])
    plain = Control(
        recipes.get("grpo"), TrainConfig(steps=2, prompts=3, group=2, max_tokens=10), PROMPTS, KEYS, budget=200
    )
    (rows,) = play(plain, 1)
    assert np.array(advantage)[:, 1].tolist() == rows


def test_token_weights_of_rows_and_of_tokens_by_hand() -> None:
    rollouts = rows_of([[7, 8, 9], [5], [4, 3]], [1, 0, 0])
    advantage = A([1.0, -1.0, 1.0])

    def update(weight, thin=None):
        recipe = replace(recipes.get("grpo"), token_weight=weight, thin=thin)
        run = Control(recipe, TrainConfig(), PROMPTS, KEYS)
        made = run.chosen(rollouts, advantage, A([0, 1, 2]))
        order = np.argsort(made.rows)
        return made.rows[order].tolist(), made.scale[order].tolist()

    def discounted(length, group):
        return np.tile(0.5 ** np.arange(length.max()), (len(length), 1)) / len(length)

    # scale is times the rows that train; behind the end of a row nothing counts, so it may hold anything
    assert update(discounted) == ([0, 1, 2], [[1.0, 0.5, 0.25]] * 3)
    assert update(lambda length, group: discounted(length, group)[:, 0]) == ([0, 1, 2], [1.0] * 3)
    # the two right rows are thinned to one, which stands for both: weight 2, and 2 rows train
    rows, scale = update(discounted, thin=1.0)
    assert rows in ([0, 1], [1, 2])
    by_row = dict(zip(rows, scale, strict=True))
    assert by_row.pop(1) == pytest.approx([2 / 3, 1 / 3, 1 / 6])
    assert by_row.popitem()[1] == pytest.approx([4 / 3, 2 / 3, 1 / 3])
    with pytest.raises(
        InvalidInput, match=r"has shape \(3, 2\); give one weight a row, \(3,\), or one a token, \(3, 3\)"
    ):
        update(lambda length, group: np.ones((3, 2)))


def test_every_slot_is_filled_by_name() -> None:
    made = recipes.get("duet:advantage=tempo,ratio=sequence,importance=temporal,stream=domain-ratio")
    assert made.advantage is tempo
    assert made.loss.kl is recipes.get("grpo").loss.kl
    assert made.stream is not None
    with pytest.raises(UnknownName, match="'sequence'"):
        recipes.get("grpo:ratio=sequences")


def test_a_recipe_takes_an_allocator_by_name() -> None:
    items = Items(("a", "b", "c"), A([10.0, 10.0, 10.0]), std=A([0.1, 0.5, 0.3]))
    named = recipes.get("grpo:allocator=neyman:min_units=2").allocator
    for allocator, units in ((named, [2, 8, 5]), (recipes.get("grpo").allocator, [5, 5, 5])):
        plan = allocator.allocate(150, items, allocator.init(items), rng=np.random.default_rng(0))
        assert plan.units.tolist() == units
    config = TrainConfig(steps=1, prompts=3, group=4, max_tokens=10)
    control = Control(recipes.get("grpo:allocator=elimination"), config, PROMPTS, KEYS, budget=200)
    assert control.begin().next() is not None
    with pytest.raises(InvalidInput, match=r"menu-knapsack needs Items\.menu"):
        Control(recipes.get("grpo:allocator=menu-knapsack"), config, PROMPTS, KEYS, budget=200).begin().next()


def test_a_recipe_takes_a_steer_by_name():
    assert recipes.get("grpo:steer=answered").steer is answered()


def test_a_part_named_in_a_slot_has_options_of_its_own() -> None:
    columns = made_up(0)[0].columns()
    for text, share in (("grpo:reward=overlong:share=0.4", 0.4), ('grpo:reward="overlong:share=0.4"', 0.4)):
        reward = recipes.get(text).reward
        assert reward is not None
        np.testing.assert_array_equal(reward.score((), columns), overlong(share).score((), columns))
    assert recipes.get("grpo:steer=answered:every=4").steer is registry.make("steer", "answered", every=4)
    gate = recipes.get('grpo:steer="marker-gate:first=4,last=10,every=3"').steer
    assert gate is not None
    assert gate.every == 3
    with pytest.raises(InvalidInput, match=r"write reward=overlong:share=0\.4"):
        recipes.get("grpo:reward=overlong,share=0.4")
    with pytest.raises(UnknownName, match="unknown option of overlong 'shares'; did you mean 'share'"):
        recipes.get("grpo:reward=overlong:shares=0.4")


def test_a_recipe_takes_one_steer_or_a_function_that_makes_it() -> None:
    view = made_up(0)[1]
    steer = registry.make("steer", "answered")
    assert replace(recipes.get("grpo"), steer=steer).steer_of(view) is steer
    assert replace(recipes.get("grpo"), steer=lambda seen: steer if seen is view else None).steer_of(view) is steer
