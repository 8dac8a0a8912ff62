"""Advantages, weights, ratio and history against numbers worked by hand."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math

import numpy as np
import pytest
import torch

from budgeteer.core import registry
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.errors import CheckpointError, InvalidInput, UnknownName
from budgeteer.core.plan import ABORTED, CUT, ENDED, Items, Outcomes
from budgeteer.rl import recipes
from budgeteer.rl.advantage import group_norm, history_baseline
from budgeteer.rl.history import History, Memory, estimates, record
from budgeteer.rl.ratio import Tokens, clipped
from budgeteer.rl.surrogate import DIMENSIONS, Ridge, prompt_features
from budgeteer.rl.thinning import thin
from budgeteer.rl.weight import decision_mask, prompt_mean, sequence_mean, token_mean

A = np.array


# -- advantages -------------------------------------------------------------------------------------------------------


def test_group_norm_by_hand():
    # group 0: rewards 1, 0, 0, 1 -> mean 0.5, std 0.5; group 1: 1, 0, 0 -> mean 1/3, std sqrt(2)/3; group 2: alone
    reward, group = A([1.0, 0, 0, 1, 1, 0, 0, 1]), A([0, 0, 0, 0, 1, 1, 1, 2])
    got = group_norm(reward, group, 3)
    np.testing.assert_allclose(got, [1, -1, -1, 1, math.sqrt(2), -1 / math.sqrt(2), -1 / math.sqrt(2), 0])
    centred = group_norm(reward, group, 3, scale=False)
    np.testing.assert_allclose(centred, [0.5, -0.5, -0.5, 0.5, 2 / 3, -1 / 3, -1 / 3, 0])


def test_group_norm_of_equal_rewards_and_of_one_is_zero():
    assert group_norm(A([1.0, 1, 0, 0, 1]), A([0, 0, 1, 1, 3]), 5).tolist() == [0.0] * 5
    assert group_norm(A([0.1 + 0.2, 0.3]), A([0, 0]), 1).tolist() == [0.0, 0.0]


def test_history_baseline_by_hand():
    # alone with a prior: r - prior; two with a prior 0.5 worth 2: b = (2 * 0.5 + other) / 3; two without: the other
    reward, group = A([1.0, 0, 1, 0, 1, 0, 1]), A([0, 1, 2, 2, 3, 3, 4])
    got = history_baseline(reward, group, A([0.25, 0.75, 0.5, np.nan, np.nan]))
    np.testing.assert_allclose(got, [0.75, -0.75, 1 - 1 / 3, 0 - 2 / 3, 1, -1, 0])


def test_history_baseline_without_priors_is_leave_one_out():
    rng = np.random.default_rng(0)
    reward, group = rng.random(40), np.repeat(np.arange(5), 8)
    got = history_baseline(reward, group, np.full(5, np.nan))
    own = reward.reshape(5, 8)
    np.testing.assert_allclose(got.reshape(5, 8), own - (own.sum(1, keepdims=True) - own) / 7)


def test_history_baseline_does_not_depend_on_the_own_reward():
    rng = np.random.default_rng(0)
    reward, group, prior = rng.random(9), A([0, 0, 0, 1, 1, 1, 1, 2, 2]), A([0.3, np.nan, 0.9])
    base = reward - history_baseline(reward, group, prior)
    for i in range(9):
        changed = reward.copy()
        changed[i] += 5.0
        again = changed - history_baseline(changed, group, prior)
        assert again[i] == pytest.approx(base[i])


@pytest.mark.parametrize("function", ["norm", "centred", "baseline", "token", "sequence", "prompt"])
def test_groups_are_formed_by_index_and_not_by_position(function):
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 1])
    reward, length = rng.integers(0, 2, 16).astype(float), rng.integers(1, 30, 16)
    prior = A([0.2, np.nan, 0.5, 0.1, np.nan, np.nan])
    apply = {
        "norm": lambda r, g, n: group_norm(r, g, 6),
        "centred": lambda r, g, n: group_norm(r, g, 6, scale=False),
        "baseline": lambda r, g, n: history_baseline(r, g, prior),
        "token": lambda r, g, n: token_mean(n, g),
        "sequence": lambda r, g, n: sequence_mean(n, g),
        "prompt": lambda r, g, n: prompt_mean(n, g),
    }[function]
    straight = apply(reward, group, length)
    for _ in range(5):
        order = rng.permutation(16)
        np.testing.assert_allclose(apply(reward[order], group[order], length[order]), straight[order])


# -- token weights ----------------------------------------------------------------------------------------------------


def test_token_weights_by_hand():
    length, group = A([2, 4, 6, 8]), A([0, 1, 1, 1])
    np.testing.assert_allclose(token_mean(length, group), np.full(4, 1 / 20))
    np.testing.assert_allclose(sequence_mean(length, group), [1 / 8, 1 / 16, 1 / 24, 1 / 32])
    # 2 prompts, mean length 5: 1 / (2 * 1 * 5) and 1 / (2 * 3 * 5)
    np.testing.assert_allclose(prompt_mean(length, group), [1 / 10, 1 / 30, 1 / 30, 1 / 30])
    # 1 + 3 tokens behind the first ones
    np.testing.assert_allclose(decision_mask(A([2, 4]), A([0, 1])), [[0, 1 / 4, 1 / 4, 1 / 4]] * 2)
    assert decision_mask(A([]).astype(int), A([]).astype(int)).shape == (0, 0)


@pytest.mark.parametrize("weight", [token_mean, sequence_mean, prompt_mean])
def test_token_weights_sum_to_one_over_equal_lengths_and_take_no_rows(weight):
    length, group = np.full(7, 5), A([0, 0, 0, 2, 2, 5, 5])
    assert (weight(length, group) * length).sum() == pytest.approx(1.0)
    assert len(weight(np.zeros(0, np.int64), np.zeros(0, np.int64))) == 0


def test_prompt_mean_keeps_the_objective_under_any_allocation_and_token_mean_does_not():
    # every row is 4 tokens and has a noisy gradient around its prompt's; the objective is the mean over prompts
    truth, noise, draws = A([1.0, 0.2, -0.5, 0.0]), 0.6, 20_000
    rng = np.random.default_rng(0)
    found = {"prompt": np.zeros(draws), "token": np.zeros(draws)}
    for k in range(draws):
        units = 1 + rng.binomial(6, [0.9, 0.5, 0.2, 0.05])  # more rollouts where the gradient is larger
        group = np.repeat(np.arange(4), units)
        gradient, length = rng.normal(truth[group], noise), np.full(len(group), 4)
        found["prompt"][k] = (prompt_mean(length, group) * length * gradient).sum()
        found["token"][k] = (token_mean(length, group) * length * gradient).sum()
    error = found["prompt"].std() / math.sqrt(draws)
    assert abs(found["prompt"].mean() - truth.mean()) < 4 * error
    assert abs(found["token"].mean() - truth.mean()) > 20 * error


# -- ratio ------------------------------------------------------------------------------------------------------------


def of_tokens(new: torch.Tensor, advantage: torch.Tensor) -> Tokens:
    """Tokens of rows of their own, whose old log-probabilities are 0."""
    return Tokens(new, torch.zeros(len(new)), advantage, torch.arange(len(new)), torch.ones(len(new)).bool())


def test_clipped_ratio_by_hand():
    ratio, a = torch.tensor([1.0, 1.5, 0.5, 1.5, 0.5]), torch.tensor([2.0, 2.0, 2.0, -2.0, -2.0])
    new = ratio.log().requires_grad_()
    value = clipped(0.2, 0.3)(of_tokens(new, a))
    torch.testing.assert_close(value, torch.tensor([2.0, 2.6, 1.0, -3.0, -1.6]))
    value.sum().backward()
    # d (r A) / d log r = r A where the clip is not active, else 0
    torch.testing.assert_close(new.grad, torch.tensor([2.0, 0.0, 1.0, -3.0, 0.0]))


def test_bounds_of_the_clip_are_separate():
    new, one = torch.log(torch.tensor([9.0, 0.01])), torch.tensor([1.0, -1.0])
    torch.testing.assert_close(clipped(0.1, 0.5)(of_tokens(new, one)), torch.tensor([1.5, -0.9]))


# -- history ----------------------------------------------------------------------------------------------------------


def outcomes(rows: list[tuple]) -> Outcomes:
    """From (key, tokens, reward[, score[, status]])."""
    filled = [(*row, *(float("nan"), ENDED)[len(row) - 3 :]) for row in rows]
    keys, tokens, reward, score, status = zip(*filled, strict=True)
    return Outcomes(tuple(keys), A(tokens), A(reward, float), A(score, float), A(status, np.int8))


def items(*keys: str, cost: float = 50.0) -> Items:
    return Items(keys, np.full(len(keys), cost))


def test_unseen_prompts_have_the_given_cost_no_rate_and_the_cold_std():
    got = estimates(History.empty(), items("a", "b"), Memory(std="score", cold_std=3.0))
    assert got.cost.tolist() == [50, 50]
    assert np.isnan(got.pass_rate).all()
    assert got.std.tolist() == [3, 3]
    assert got.visits.tolist() == [0, 0]
    assert estimates(History.empty(), items("a"), Memory()).std.tolist() == [0.5]


def test_running_means_by_hand():
    history = record(History.empty(), outcomes([("a", 10, 1), ("b", 30, 0), ("a", 20, 0)]), Memory())
    history = record(history, outcomes([("a", 60, 1)]), Memory())
    got = estimates(history, items("a", "b", "c"), Memory())
    np.testing.assert_allclose(got.cost[:2], [30, 30])
    np.testing.assert_allclose(got.cost[2], 30)  # unseen: the mean of the recent lengths 10, 30, 20, 60
    np.testing.assert_allclose(got.pass_rate, [2 / 3, 0, np.nan])
    np.testing.assert_allclose(got.std, [math.sqrt(2 / 9), 0.05, 0.5])
    assert got.visits.tolist() == [2, 1, 0]


def test_the_order_of_rows_does_not_matter():
    rows = [("a", 10, 1, 0.5), ("b", 30, 0, 2.0), ("a", 20, 0, 1.5), ("c", 5, 1, 0.0), ("b", 6, 1, -2.0)]
    memory = Memory(std="score", decay=0.5)
    straight = estimates(record(History.empty(), outcomes(rows), memory), items("c", "a", "b"), memory)
    turned = estimates(record(History.empty(), outcomes(rows[::-1]), memory), items("c", "a", "b"), memory)
    for name in ("cost", "std", "pass_rate", "visits"):
        np.testing.assert_allclose(getattr(straight, name), getattr(turned, name))


def test_decay_weighs_the_past_once_a_visit():
    memory = Memory(decay=0.5)
    history = record(History.empty(), outcomes([("a", 10, 1), ("a", 10, 1)]), memory)
    history = record(history, outcomes([("b", 99, 0)]), memory)  # others' visits do not age a
    history = record(history, outcomes([("a", 40, 0)]), memory)
    got = estimates(history, items("a"), memory)
    assert got.pass_rate[0] == pytest.approx((0.5 * 2 + 0) / (0.5 * 2 + 1))
    assert got.cost[0] == pytest.approx((0.5 * 20 + 40) / (0.5 * 2 + 1))


def test_prior_shrinks_the_rate_to_the_pool_and_the_cost_to_the_typical():
    memory = Memory(prior=2.0)
    history = record(History.empty(), outcomes([("a", 10, 1), ("b", 30, 0), ("b", 30, 0), ("b", 50, 1)]), memory)
    got = estimates(history, items("a", "b", "c"), memory)
    pooled, typical = 2 / 4, 30
    np.testing.assert_allclose(got.pass_rate, [(1 + 2 * pooled) / 3, (1 + 2 * pooled) / 5, np.nan])
    np.testing.assert_allclose(got.cost, [(10 + 2 * typical) / 3, (110 + 2 * typical) / 5, typical])


def test_last_only_forgets_earlier_visits():
    memory = Memory(last_only=True)
    history = record(History.empty(), outcomes([("a", 10, 1), ("a", 10, 1)]), memory)
    history = record(history, outcomes([("a", 10, 0), ("a", 10, 0), ("a", 10, 1), ("a", 10, 0)]), memory)
    history = record(history, outcomes([("b", 10, 1)]), memory)
    assert estimates(history, items("a", "b", "c"), memory).pass_rate.tolist()[:2] == [0.25, 1.0]
    assert np.isnan(estimates(history, items("c"), memory).pass_rate[0])


def test_score_std_is_the_mean_of_the_visits_stds():
    memory = Memory(std="score")
    history = record(History.empty(), outcomes([("a", 9, 1, 1.0), ("a", 9, 0, 3.0)]), memory)  # std 1
    history = record(history, outcomes([("a", 9, 1, 0.0), ("a", 9, 0, 6.0)]), memory)  # std 3
    history = record(history, outcomes([("a", 9, 1, 100.0)]), memory)  # one rollout measures no std
    history = record(history, outcomes([("b", 9, 1, 5.0), ("b", 9, 1, 5.0)]), memory)  # std 0
    got = estimates(history, items("a", "b", "c"), memory)
    np.testing.assert_allclose(got.std, [2.0, memory.std_floor, 1.0])  # unseen: the median of 2 and 0
    cold = estimates(history, items("c"), Memory(std="score", cold_std=7.0))
    assert cold.std.tolist() == [7.0]


def test_aborted_rows_count_only_when_the_memory_says_so():
    rows = [("a", 10, 1, 1.0, ENDED), ("a", 40, 0, 9.0, ABORTED), ("a", 25, 0, 3.0, CUT)]
    both = estimates(record(History.empty(), outcomes(rows), Memory()), items("a"), Memory(std="score"))
    kept = Memory(aborted=False, std="score")
    some = estimates(record(History.empty(), outcomes(rows), kept), items("a"), kept)
    assert (both.cost[0], some.cost[0]) == (25.0, 17.5)
    np.testing.assert_allclose([both.pass_rate[0], some.pass_rate[0]], [1 / 3, 1 / 2])
    assert both.std[0] == some.std[0] == 1.0  # the scores of aborted rows never count: their answers are unknown


def test_a_visit_of_aborted_rows_alone_keeps_the_estimates():
    memory = Memory(aborted=False, decay=0.5)
    history = record(History.empty(), outcomes([("a", 10, 1), ("a", 20, 0)]), memory)
    after = record(history, outcomes([("a", 99, 0, float("nan"), ABORTED)]), memory)
    assert estimates(after, items("a"), memory).pass_rate[0] == 0.5
    assert estimates(after, items("a"), memory).cost[0] == 15


def test_nothing_recorded_changes_nothing():
    empty = Outcomes((), np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0, np.int8))
    assert record(History.empty(), empty, Memory()).keys == ()


def test_weighted_quantiles_are_those_of_repeated_values():
    rng = np.random.default_rng(0)
    lengths, weight = rng.integers(1, 90, 60), rng.integers(1, 9, 60).astype(float)
    rows = [(f"p{i % 7}", int(n), 1) for i, n in enumerate(lengths)]
    history = record(History.empty(), outcomes(rows), Memory(), weight)
    repeated = np.repeat(lengths, weight.astype(int))
    for q in (0.01, 0.3, 0.5, 0.8, 0.95, 1.0):
        assert history.quantile(q) == np.quantile(repeated, q, method="inverted_cdf")


def test_quantiles_wait_for_enough_lengths():
    history = record(History.empty(), outcomes([("a", 5, 1)] * 31), Memory())
    assert np.isnan(history.quantile(0.5))
    assert record(history, outcomes([("a", 5, 1)]), Memory()).quantile(0.5) == 5.0


def test_only_recent_lengths_are_kept():
    history = record(History.empty(), outcomes([("a", 5, 1)] * 1000), Memory())
    history = record(history, outcomes([("a", 9, 1)] * 1024), Memory())
    assert history.quantile(0.001) == 9.0
    assert len(history.recent) == len(history.recent_weight) == 1024


def test_history_survives_json():
    memory = Memory(std="score", decay=0.7)
    history = record(History.empty(), outcomes([("a", 10, 1, 0.1), ("b", 3, 0, 1 / 3), ("a", 11, 0, 2.5)]), memory)
    for original in (History.empty(), history):
        again = load_state(History.empty(), json.loads(json.dumps(dump_state(original))))
        assert again.keys == original.keys
        assert type(again.ridge) is type(original.ridge)
        for f in dataclasses.fields(History)[1:]:
            a, b = getattr(again, f.name), getattr(original, f.name)
            if isinstance(b, np.ndarray):
                assert a.dtype == b.dtype, f.name
            assert dump_state(a) == dump_state(b), f.name
    # and a step from the restored history is the same step
    more = outcomes([("b", 7, 1, 0.5), ("c", 8, 1, 0.5)])
    one, two = record(history, more, memory), record(again, more, memory)
    assert dump_state(one) == dump_state(two)


def test_a_state_of_something_else_is_refused():
    with pytest.raises(CheckpointError, match="expected"):
        load_state(History.empty(), {"keys": []})
    with pytest.raises(CheckpointError, match="fit"):
        load_state(History.empty(), 3)


# -- frozen prompts (pitfall e) ---------------------------------------------------------------------------------------


def follow(name: str, visits: int) -> tuple[list[int], list[float]]:
    """Units and std of a prompt that failed at first and is mixed ever after, next to 7 informative prompts."""
    recipe = recipes.get(name)
    keys = tuple(f"p{i}" for i in range(8))
    rng, history = np.random.default_rng(0), History.empty()
    units, stds = [], []
    for visit in range(visits):
        seen = estimates(history, Items(keys, np.full(8, 20.0)), recipe.memory)
        budget = int(4 * seen.cost.sum())
        plan = recipe.allocator.allocate(budget, seen, recipe.allocator.init(seen), rng=rng)
        units.append(int(plan.units[0]))
        stds.append(float(seen.std[0]))
        rows = []
        for i, n in enumerate(plan.units.tolist()):
            for _ in range(n):
                reward = 0.0 if i == 0 and visit == 0 else float(rng.random() < 0.5)
                score = 0.0 if i == 0 and visit == 0 else rng.normal(0, 20)
                rows.append((keys[i], 20, reward, score, ENDED))
        history = record(history, outcomes(rows), recipe.memory)
    return units, stds


def test_the_published_form_freezes_a_prompt_that_failed_at_first():
    units, stds = follow("duet-published", 30)
    assert units[0] > 1
    assert set(units[1:]) == {1}  # one rollout never measures a std, so nothing can change any more
    assert set(stds[1:]) == {recipes.get("duet-published").memory.std_floor}


def test_the_mended_form_lets_the_prompt_come_back():
    units, stds = follow("duet", 30)
    assert min(units) >= 1
    assert len(set(stds[1:])) > 20  # every visit teaches something
    assert np.mean(stds[10:]) > stds[1]
    assert np.mean(units[10:]) > 2


# -- recipes ----------------------------------------------------------------------------------------------------------


def test_every_named_recipe_says_its_name():
    assert all(recipes.get(name).name == name for name in registry.of("recipe"))


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(UnknownName, match="'duet-published'"):
        recipes.get("duet-publish")
    with pytest.raises(UnknownName, match="'stop_answered'"):
        recipes.get("duet:stop_answer=false")
    with pytest.raises(InvalidInput, match="stop_answered is true or false"):
        recipes.get("duet:stop_answered=no")


OPTIONS = {name: not p.default for name, p in inspect.signature(recipes.duet).parameters.items()}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_correction_of_duet_is_an_option(option):
    text = f"duet:{option}={str(OPTIONS[option]).lower()}"
    other = recipes.get(text)
    assert other.name == text
    changed = dataclasses.replace(other, name="duet") != recipes.get("duet")
    assert changed or option in ("exact", "stop_answered")  # these differ inside functions


def test_a_slot_is_filled_by_the_name_of_a_part():
    assert recipes.get("grpo:token_weight=prompt-mean").token_weight is prompt_mean
    assert recipes.get("grpo:reward=overlong").reward is not None
    with pytest.raises(UnknownName, match="'overlong'"):
        recipes.get("grpo:reward=overlon")


# -- the prediction from the prompt -----------------------------------------------------------------------------------


def test_ridge_predicts_half_before_anything_was_seen_and_the_mean_without_features():
    x = np.zeros((3, DIMENSIONS))
    x[:, -1] = 1.0
    assert Ridge.empty().predict(x).tolist() == [0.5] * 3
    ridge = Ridge.empty().update(x, A([2.0, 1.0, 1.0]), A([1.0, 0.0, 0.0]), decay=1.0)
    np.testing.assert_allclose(ridge.predict(x), 0.25, rtol=1e-3)
    # decay 0.5: the past weighs 4 * 0.5 = 2 rollouts with 0.5 successes, the news 2 with 2
    again = ridge.update(x[:1], A([2.0]), A([2.0]), decay=0.5)
    np.testing.assert_allclose(again.predict(x), 2.5 / 4, rtol=1e-3)


def test_ridge_tells_hard_prompts_from_easy_ones():
    rng = np.random.default_rng(0)
    prompts = [(0, *([7] if i % 2 else [8]), *rng.integers(10, 60, 4)) for i in range(400)]
    x, truth = prompt_features(prompts), np.tile([0.9, 0.2], 200)
    n = np.full(300, 4.0)
    ridge = Ridge.empty().update(x[:300], n, rng.binomial(4, truth[:300]).astype(float), decay=1.0)
    got = ridge.predict(x[300:])
    assert np.corrcoef(got, truth[300:])[0, 1] > 0.9
    assert np.abs(got - truth[300:]).mean() < 0.15
    assert got.min() >= 0.02
    assert got.max() <= 0.98


def test_unseen_prompts_get_a_predicted_rate_once_anything_was_seen():
    memory = Memory(predict=True, prior=3.0)
    features = dict(zip("ab", prompt_features([(0, 7, 9), (0, 8, 9)]), strict=True))
    x = np.stack([features["a"], features["b"]])
    assert np.isnan(estimates(History.empty(), items("a", "b"), memory, x).pass_rate).all()
    history = record(
        History.empty(),
        outcomes([("a", 5, 1), ("a", 5, 1), ("a", 5, 0)]),
        memory,
        features=lambda keys: np.stack([features[k] for k in keys]),
    )
    got = estimates(history, items("a", "b"), memory, x)
    guess = history.ridge.predict(x)
    np.testing.assert_allclose(got.pass_rate, [(2 + 3 * guess[0]) / 6, guess[1]])


# -- thinning ---------------------------------------------------------------------------------------------------------


def test_thin_keeps_the_smaller_side_and_at_most_the_ratio_of_the_larger():
    # group 0: five right, one wrong; group 1: two and two; group 2: all alike (advantage 0); group 3: one side only
    advantage = A([1.0, 1, 1, 1, 1, -5, 2, 2, -2, -2, 0, 0, 3])
    group = A([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3])
    weight = thin(advantage, group, 2.0, np.random.default_rng(0))
    assert np.count_nonzero(weight[:5]) == 2
    assert sorted(weight[:5].tolist())[-2:] == [2.5, 2.5]
    assert weight[5:].tolist() == [1.0] * 8


def test_thin_is_unbiased_and_its_variance_is_that_of_sampling_without_replacement():
    rng = np.random.default_rng(3)
    advantage, group = A([-1.0] * 6 + [3.0] * 2), np.zeros(8, np.int64)
    x = rng.normal(size=8)
    draws = np.array([thin(advantage, group, 1.0, np.random.default_rng(k)) @ (advantage * x) for k in range(20_000)])
    exact = float(advantage @ x)
    assert abs(draws.mean() - exact) < 4 * draws.std() / math.sqrt(len(draws))
    # total of n = 6 estimated from k = 2: variance n^2 (1 - k / n) s^2 / k with s^2 the sample variance
    side = (advantage * x)[:6]
    assert draws.var() == pytest.approx(36 * (1 - 2 / 6) * side.var(ddof=1) / 2, rel=0.05)


def test_thin_does_not_depend_on_the_order_of_groups_and_takes_none():
    assert thin(np.zeros(0), np.zeros(0, np.int64), 2.0, np.random.default_rng(0)).tolist() == []
    advantage, group = A([1.0, -1, -1, 1, 1, -1]), A([1, 0, 1, 0, 0, 1])
    weight = thin(advantage, group, 1.0, np.random.default_rng(0))
    assert [np.count_nonzero(weight[group == g]) for g in (0, 1)] == [2, 2]
