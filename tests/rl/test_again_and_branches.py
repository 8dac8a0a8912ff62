"""What is learnt from again, and answers of thoughts that are cut: by numbers worked by hand and by brute force."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import CUT, ENDED, Items, Outcomes, Plan
from budgeteer.rl import recipes
from budgeteer.rl.advantage import brpo
from budgeteer.rl.advantage._brpo import anytime_advantage
from budgeteer.rl.asked import Wording
from budgeteer.rl.branch import CUT_AT, TRACE, Branch, answers_of, branched, numbered, requests_of
from budgeteer.rl.carry import partial_rollouts
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.control import Control
from budgeteer.rl.history import History
from budgeteer.rl.importance import down_sampled, high_entropy_steps
from budgeteer.rl.importance._down_sampled import most_varied
from budgeteer.rl.recipe import ENTROPY, Beginnings, View
from budgeteer.rl.replay import Kept, mixed, recent, success_pool
from budgeteer.rl.rollouts import Role, Rollouts
from budgeteer.rl.stream import mopps
from helpers.rollouts import rows_of

A = np.array


def view_of(rollouts: Rollouts, spent: float = 0.0) -> View:
    items = Items(rollouts.keys, np.ones(len(rollouts.keys)))
    return View(items, Plan(items.keys, rollouts.counts, 0.0), History.empty(), 9, spent)


# -- ratios ------------------------------------------------------------------------------------------------------------


def test_icepop_masks_what_has_moved_too_far_and_its_gradient() -> None:
    torch = pytest.importorskip("torch")
    from budgeteer.rl.ratio import Tokens, icepop

    ratio = torch.tensor([0.49, 0.5, 1.0, 5.0, 5.1])
    new = torch.cat([ratio.log(), torch.tensor([200.0])]).requires_grad_()  # exp(200) is infinite in float32
    advantage, row = torch.tensor([1.0, -2.0, 3.0, -1.0, 1.0, 1.0]), torch.zeros(6, dtype=torch.int64)
    surrogate = icepop()(Tokens(new, torch.zeros(6), advantage, row, torch.ones(6).bool()))
    torch.testing.assert_close(surrogate.detach(), torch.tensor([0.0, -1.0, 3.0, -5.0, 0.0, 0.0]))
    surrogate.sum().backward()
    torch.testing.assert_close(new.grad, torch.tensor([0.0, -1.0, 3.0, -5.0, 0.0, 0.0]))
    with pytest.raises(InvalidInput, match="0 <= low <= 1 <= high"):
        icepop(1.2)


def test_a_truncated_ratio_is_a_weight_and_no_token_loses_its_gradient() -> None:
    torch = pytest.importorskip("torch")
    from budgeteer.rl.ratio import Tokens, truncated

    new = torch.tensor([0.5, 1.0, 3.0, 1e9]).log().requires_grad_()
    tokens = Tokens(new, torch.zeros(4), A([2.0, -1.0, 1.0, -1.0]), torch.zeros(4).long(), torch.ones(4).bool())
    surrogate = truncated(1.5)(dataclasses.replace(tokens, advantage=torch.tensor([2.0, -1.0, 1.0, -1.0])))
    surrogate.sum().backward()
    torch.testing.assert_close(new.grad, torch.tensor([1.0, -1.0, 1.5, -1.5]))  # min(r, 1.5) A
    with pytest.raises(InvalidInput, match="bound of 1 or more"):
        truncated(0.9)


# -- carried beginnings that are trained on ----------------------------------------------------------------------------


def test_a_beginning_keeps_the_log_probabilities_of_who_sampled_it() -> None:
    rollouts = rows_of([[5, 6], [7, 8]], status=[CUT, ENDED], version=3)
    _, read = partial_rollouts().park(Beginnings.empty(), rollouts, 3)
    _, trained = partial_rollouts(trained=True).park(Beginnings.empty(), rollouts, 3)
    assert np.isnan(read.logprobs).all()
    assert trained.logprobs.tolist() == [[-1.0, -1.0]]
    again = load_state(Beginnings.empty(), json.loads(json.dumps(dump_state(trained))))
    assert again.logprobs.tolist() == [[-1.0, -1.0]]
    # the sampler went on behind (1, 2, 5, 6) with one token; of the beginning's, the second was forced: no probability
    sampled = dataclasses.replace(rows_of([[9]], version=-1), prompts=((1, 2, 5, 6),))
    whole = sampled.begun(("a",), A([0]), [A([5, 6])], [A([3, 3])], [A([-2.0, np.nan])])
    assert whole.sampled.tolist() == [[True, False, True]]
    assert whole.logprob[0].tolist() == pytest.approx([-2.0, np.nan, -1.0], nan_ok=True)
    assert (whole.used, whole.replayed.tolist()) == (1, [False])


# -- replay ------------------------------------------------------------------------------------------------------------


def test_a_prompt_that_fails_gets_its_latest_success() -> None:
    replay, prompts = success_pool(), {"a": (1, 2), "b": (1, 2)}
    first = rows_of([[5], [6, 7], [8]], [1, 1, 0], [0, 0, 1], version=0)
    again, kept = replay.draw(Kept.empty(), first, 0)
    assert (len(again), kept.keys, kept.tokens.tolist()) == (0, ("a",), [[6, 7]])  # the latest of two
    failing = rows_of([[3], [4]], [0, 0], [0, 1], version=1)
    again, kept = replay.draw(kept, failing, 1)
    assert (again.keys, kept.keys) == (("a",), ("a",))  # b has no success to give
    both = mixed(failing, again, prompts)
    assert (both.group.tolist(), both.verified.tolist()) == ([0, 1, 0], [0, 0, 1])
    assert (both.used, both.replayed.tolist()) == (2, [False, False, True])
    assert both.sampled[2].tolist() == [True, True]
    assert replay.draw(kept, rows_of([[2]], [1]), 2)[0].keys == ()  # solved again: no help needed


def test_mixed_groups_are_learnt_from_again_while_they_are_young() -> None:
    step = rows_of([[5], [6, 7], [8], [9]], [1, 0, 1, 1], [0, 0, 1, 1], version=4)
    again, kept = recent(2).draw(Kept.empty(), step, 4)
    assert (len(again), kept.keys, kept.tokens.tolist()) == (0, ("a", "a"), [[5, 0], [6, 7]])
    alike = rows_of([[5], [6]], [1, 1], version=5)
    again, kept = recent(2).draw(kept, alike, 5)
    assert (len(again), len(kept)) == (2, 2)
    again, kept = recent(2).draw(kept, alike, 6)
    assert (len(again), len(kept)) == (2, 0)  # for the last time
    copy = load_state(Kept.empty(), json.loads(json.dumps(dump_state(again))))
    assert (copy.keys, copy.tokens.tolist(), copy.logprob[0, 0]) == (again.keys, again.tokens.tolist(), -1.0)
    with pytest.raises(InvalidInput, match="at least 1 step"):
        recent(0)


def test_old_rows_keep_their_rewards_and_files_without_them_have_the_scores() -> None:
    rollouts = rows_of([[5], [6]], [1, 0], [0, 0], version=0)
    more = {"reward of function 0": np.array([2, np.nan]), "text": np.array(["a", "b"], object)}
    step = dataclasses.replace(rollouts, reward=np.array([3.0, -1.0]), more=more)
    _, kept = recent().draw(Kept.empty(), step, 0)
    written = json.loads(json.dumps(dump_state(kept)))
    copy = Kept.read(written)
    assert copy.names == ("reward", "reward of function 0")
    both = mixed(step, copy, {"a": (1, 2)})
    assert both.reward.tolist() == [3, -1, 3, -1]
    assert both.more["reward of function 0"].tolist() == pytest.approx([2, np.nan, 2, np.nan], nan_ok=True)
    old = Kept.read({name: value for name, value in written.items() if name not in ("names", "numbers")})
    assert mixed(rollouts, old, {"a": (1, 2)}).reward.tolist() == [1, 0, 1, 0]
    assert len(Kept.read(json.loads(json.dumps(dump_state(Kept.empty()))))) == 0


def test_forced_tokens_of_an_old_rollout_carry_no_gradient() -> None:
    rollouts = rows_of([[5, 6]], [1])
    role, logprob = rollouts.role.copy(), rollouts.logprob.copy()
    role[0, 1], logprob[0, 1] = Role.FORCED, np.nan
    kept = Kept.of(dataclasses.replace(rollouts, role=role, logprob=logprob), A([0]))
    assert mixed(rows_of([[3]], [0]), kept, {"a": (1, 2)}).sampled.tolist() == [[True, False], [True, False]]


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(InvalidInput, match="a replay and a variant or a reward"):
        dataclasses.replace(recipes.get("hbpo"), replay=recent())
    with pytest.raises(InvalidInput, match="no variant, carry or replay"):
        dataclasses.replace(recipes.get("brpo"), carry=partial_rollouts())
    with pytest.raises(InvalidInput, match="ends the thinking of its rollouts with a text"):
        Control(recipes.get("brpo"), TrainConfig(), [(1, 2)], ["a"])


# -- D3S and DART: which rows and tokens -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_subset_of_largest_variance_against_all_subsets(seed) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(size=7), 1)  # with ties
    for count in range(1, 8):
        found = most_varied(values, count, rng.permutation(7))
        best = max(np.var(values[list(some)]) for some in itertools.combinations(range(7), count))
        assert len(set(found.tolist())) == count
        assert np.var(values[found]) == pytest.approx(best)


def test_down_sampling_by_hand() -> None:
    # a: rewards 1, 0, 0, 0: advantages sqrt(3), -1/sqrt(3) (three times); b: all alike, 0
    entropy = A([[0.5, 0.1], [0.9, 0.4], [0.2, 0.3], [0.8, 0.7], [1, 1], [1, 1], [1, 1], [1, 1]], np.float32)
    tokens = [[i, i + 1] for i in range(8)]
    rollouts = rows_of(tokens, [1, 0, 0, 0, 1, 1, 1, 1], [0] * 4 + [1] * 4, entropy=entropy)
    weight = down_sampled(0.5, 0.25, 0.5).weigh(rollouts, view_of(rollouts))
    kept = np.flatnonzero(weight.any(axis=1)).tolist()
    # two of each prompt, then two of eight: row 0 and one failure of a; half of their 4 tokens: |A| H of row 0 is 0.87
    # and 0.17, and that of a failure 0.58 H; each weighs 16 / 2, so that the mean over all 16 is the mean of the kept
    assert kept[0] == 0
    assert set(kept) <= {0, 1, 2, 3}
    assert weight.sum() == pytest.approx(16)
    assert weight[0, 0] == 8
    assert (weight > 0).sum() == 2
    late = down_sampled(0.5, 0.25, 0.5).weigh(rollouts, view_of(rollouts, spent=1.0))
    assert (late > 0).sum() == 8  # at the end all tokens of all rows that their prompts kept
    with pytest.raises(InvalidInput, match="shares above 0"):
        down_sampled(0)


def test_uncertain_steps_by_hand() -> None:
    # steps end at token 3: row 0 has means 0.2, 0.8; row 1 has 0.5, 0.1
    entropy = A([[0.1, 0.3, 0.8, 0.8], [0.5, 0.5, 0.1, np.nan]], np.float32)
    rollouts = rows_of([[7, 3, 7, 3], [7, 3, 7]], entropy=entropy)
    weigh = high_entropy_steps(0.5, end=3).weigh
    assert weigh(rollouts, view_of(rollouts)).tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
    assert high_entropy_steps(1.0, end=3).weigh(rollouts, view_of(rollouts)).sum() == 7
    with pytest.raises(InvalidInput, match="share of the steps"):
        high_entropy_steps(1.5)


# -- MoPPS -------------------------------------------------------------------------------------------------------------


def test_prompts_nearest_to_half_solved_come_first() -> None:
    keys, stream = ("solved", "half", "hopeless", "late"), mopps(decay=0.5)
    taken = A([0, 1, 2, 3])

    def seen(rights: list[int]) -> Outcomes:
        rewards = np.concatenate([np.repeat([1.0, 0.0], [r, 40 - r]) for r in rights])
        return Outcomes(tuple(np.repeat(keys, 40)), np.ones(160, int), rewards, np.zeros(160), np.ones(160, np.int8))

    state = stream.observe(stream.init(), keys, taken, seen([40, 20, 0, 40]))
    state = stream.observe(state, keys, taken, seen([40, 20, 0, 0]))
    assert state.counts.of(keys)[0].tolist() == [60, 30, 0, 20]  # half of the first visit, and the second
    assert state.counts.of(keys)[1].tolist() == [0, 30, 60, 40]
    assert stream.pick(state, keys, 2, 5).tolist() == [1, 3]
    first = [stream.pick(stream.init(), keys, 1, seed)[0] for seed in range(40)]
    assert set(first) == {0, 1, 2, 3}  # nothing known: all are tried
    with pytest.raises(InvalidInput, match="0 < target < 1"):
        mopps(target=1.0)


# -- BRPO --------------------------------------------------------------------------------------------------------------


def test_the_baseline_of_thinking_by_hand() -> None:
    # three cuts, P = 1/3; trace 0: 0, 1, 1; trace 1: 0, 0, 1. R: (2/3, 2/3, 1/3) and (1/3, 1/3, 1/3)
    found = anytime_advantage(A([[0.0, 1, 1], [0.0, 0, 1]]), np.full(3, 1 / 3))
    # V2: 1/2, 1/2, 1/3. V1 of trace 0: -, 0, (0 + 2) / 3 * 1/3 = 2/9; of trace 1: -, 0, 0
    zero = [2 / 3 - 1 / 2, 2 / 3 - 2 / 3 * 1 / 2, 1 / 3 - (2 / 3 * 2 / 9 + 1 / 3 * 1 / 3)]
    one = [1 / 3 - 1 / 2, 1 / 3 - 2 / 3 * 1 / 2, 1 / 3 - 1 / 3 * 1 / 3]
    np.testing.assert_allclose(found, [zero, one])


def test_the_mixed_baseline_has_less_variance_than_none() -> None:
    rng = np.random.default_rng(0)
    solved_at = rng.integers(0, 8, (4000, 8))  # the cut from which on a trace of 8 pieces is right; some never
    reward = (np.arange(6) >= solved_at[..., None]).astype(float)
    prior = np.full(6, 1 / 6)
    later = np.cumsum((prior * reward)[..., ::-1], axis=-1)[..., ::-1]
    found = np.array([anytime_advantage(group, prior) for group in reward])
    assert np.all(found.var(axis=(0, 1)) < later.var(axis=(0, 1)))
    past = np.array([anytime_advantage(group[:1], prior)[0] for group in reward])  # alone: V2 is the trace itself
    assert np.all(np.abs(past[:, 0]) < 1e-12)


def traces() -> Rollouts:
    """One prompt; trace 0 thinks on beyond both cuts, trace 1 closes after 3 tokens and answers."""
    rows = rows_of([[11, 12, 13, 14], [21, 22, 4, 30]], [0, 1], status=[CUT, ENDED], cap=4)
    return numbered(dataclasses.replace(rows, closed=A([-1, 3])), 0, A([2, 4]))


def test_where_traces_are_cut() -> None:
    asked = requests_of(traces(), A([2, 4]), 2, [4])
    # trace 0 at both cuts; trace 1 at 2, and from its own end at 4, where it had closed
    assert [head.tolist() for head in asked.heads] == [[11, 12, 4], [11, 12, 13, 14, 4], [21, 22, 4], [21, 22, 4]]
    assert (asked.columns[TRACE].tolist(), asked.columns[CUT_AT].tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])
    assert asked.units.tolist() == [2, 2, 2, 2]
    early = requests_of(traces(), A([3, 4]), 2, [4])
    assert early.columns[CUT_AT].tolist() == [0, 1, 0]  # closed at the first cut: its answers count at both


def whole_step() -> Rollouts:
    asked = requests_of(traces(), A([3, 4]), 2, [4])
    keys, prompts, units = asked.requests(["a"], [(1, 2)])
    group = np.repeat(np.arange(len(units)), units)
    answers = rows_of([[30 + i] for i in range(6)], version=-1)
    answers = dataclasses.replace(answers, keys=tuple(keys), prompts=tuple(prompts), group=group)
    part = asked.whole(answers, ("a",)).scored(A([0, 1, 1, 1, 0, 1.0]))
    return Rollouts.concatenate([traces(), part])


def test_the_credit_of_a_step_by_hand() -> None:
    rollouts = whole_step()
    assert branched(rollouts).tolist() == [False] * 2 + [True] * 6
    # answers of trace 0: 1/2 at the first cut, 1 at the second; of trace 1: (0 + 1 + its own 1) / 3 at both
    r = A([[1 / 2, 1.0], [2 / 3, 2 / 3]])
    thinking = anytime_advantage(r, A([0.5, 0.5]))
    credit = brpo(rollouts, view_of(rollouts))
    assert credit[0, :4].tolist() == pytest.approx([*[thinking[0, 0]] * 3, thinking[0, 1]])  # cut at 3 and at 4
    assert credit[1, :3].tolist() == pytest.approx([thinking[1, 0]] * 3)
    assert credit[1, 3] == pytest.approx(1 - 2 / 3)
    sampled = rollouts.sampled
    per_row = [credit[i, sampled[i]].tolist() for i in range(2, 8)]
    assert [value for row in per_row for value in row] == pytest.approx([-0.5, 0.5, 0, 0, -2 / 3, 1 / 3])


def test_a_thought_cut_as_long_as_it_is_has_no_answer_of_its_own() -> None:
    # closed at 4; cut at 2 and closed with two tokens: as long, but another thought. Its own end counts at 5 and 9
    trace = rows_of([[21, 22, 23, 4, 30]], [1])
    trace = numbered(dataclasses.replace(trace, closed=A([4])), 0, A([2, 5, 9]))
    asked = requests_of(trace, A([2, 5, 9]), 1, [8, 4])
    assert [head.tolist() for head in asked.heads] == [[21, 22, 8, 4], [21, 22, 23, 4]]
    answers = dataclasses.replace(rows_of([[31], [32]], version=-1), keys=("a", "a"), group=A([0, 1]))
    answers = dataclasses.replace(answers, prompts=tuple(asked.requests(["a"], [(1, 2)])[1]))
    rollouts = Rollouts.concatenate([trace, asked.whole(answers, ("a",)).scored(A([0.0, 0.0]))])
    # r: 0 at the first cut, (0 + 1) / 2 at the others; alone in its group, R - V2 = 0 for the first piece
    thinking = anytime_advantage(A([[0.0, 0.5, 0.5]]), np.full(3, 1 / 3))[0]
    credit = brpo(rollouts, view_of(rollouts))
    assert credit[0].tolist() == pytest.approx([0, 0, thinking[1], thinking[1], 0.5])
    assert (credit[1, 4], credit[2, 4]) == (0, -0.5)
    lost = rollouts.take(A([True, True, False]))  # the budget ended before the second answer: nothing is known of it
    assert not brpo(lost, view_of(lost)).any()


def test_only_what_a_branch_adds_is_paid_and_its_trace_has_the_bill() -> None:
    rollouts = whole_step()
    assert (traces().used, rollouts.used) == (8, 8 + 6)
    outcomes = answers_of(rollouts, rollouts.outcomes(np.zeros(8)))
    assert outcomes.tokens[:2].tolist() == [4 + 4, 4 + 2]
    assert not rollouts.sampled[2:, :3].any()


def test_a_branch_is_a_round_after_the_others() -> None:
    recipe = dataclasses.replace(recipes.get("brpo"), branch=Branch(lambda cap: A([2, cap]), 2, 3, "x"))
    wording = Wording(["p"] * 4, lambda texts, of: [[1]] * len(texts), lambda texts: [[4]] * len(texts))
    config = TrainConfig(steps=2, prompts=2, group=2, max_tokens=4)
    control = Control(recipe, config, [(1, 2)] * 4, list("abcd"), budget=80, wording=wording)
    step = control.begin()
    work = step.next()
    assert work is not None
    n = int(work.view.plan.units.sum())
    group = np.repeat(np.arange(2), work.view.plan.units)
    rows = rows_of([[5, 6, 7, 8]] * n, [0] * n, version=-1, cap=4, status=[CUT] * n)
    rows = dataclasses.replace(rows, keys=work.view.items.keys, prompts=((1, 2),) * 2, group=group)
    step.add(rows)
    work = step.next()
    assert work is not None
    keys, prompts, units = work.requests([(1, 2)] * 4)
    assert (set(units.tolist()), len(keys), set(work.max_tokens.tolist())) == ({2}, 2 * n, {3})
    assert prompts[0] == (1, 2, 5, 6, 4)
    k = int(units.sum())
    answers = rows_of([[9]] * k, version=-1)
    answers = dataclasses.replace(
        answers, keys=tuple(keys), prompts=tuple(prompts), group=np.repeat(np.arange(len(units)), units)
    )
    step.add(work.whole(answers).scored((np.arange(k) % 3 == 0) * 1.0))
    assert step.next() is None
    rollouts, view = step.collected()
    assert view.plan.units.sum() == n  # traces alone are the allocator's
    update = control.learn(rollouts, view)
    control.done(view, update)
    assert control.progress.used == 4 * n + k
    assert control.history.rollouts.sum() == n
    assert control.history.length_sum.sum() == 4 * n + k


# -- a run that goes on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dart", "prompt-selection:replay=2,probe=true", "c3po", "mopps", "c-grpo", "d3s"])
def test_a_run_that_is_resumed_is_the_same_run(name) -> None:
    keys, prompts = [f"k{i}" for i in range(6)], [(1, 2, i) for i in range(6)]

    def fresh() -> Control:
        config = TrainConfig(steps=8, prompts=3, group=2, max_tokens=10, seed=2)
        return Control(recipes.get(name), config, prompts, keys, step_budget=160, offers=[ENTROPY])

    def play(control: Control, steps: int) -> list[str]:
        made = []
        for _ in range(steps):
            step = control.begin()
            while (work := step.next()) is not None:
                asked, asked_prompts, units = work.requests(prompts)
                group = np.repeat(np.arange(len(asked)), units)
                n = len(group)
                part = rows_of([[(g + r) % 5 + 1] * (3 + r % 3) for r, g in enumerate(group.tolist())], version=-1)
                part = dataclasses.replace(
                    part, keys=tuple(asked), prompts=tuple(asked_prompts), group=group,
                    entropy=np.where(part.sampled, 0.1 * part.tokens, np.nan).astype(np.float32),
                )  # fmt: skip
                rewards = (np.arange(n) + control.progress.step) % 3 == 0
                step.add(work.whole(part).scored(rewards.astype(np.float64)))
            collected = step.collected()
            assert collected is not None
            update = control.learn(*collected)
            control.done(collected[1], update)
            made.append(json.dumps([update.advantage.tolist(), update.rollouts.tokens.tolist()]))
        return made

    straight, first, second = fresh(), fresh(), fresh()
    whole, before = play(straight, 6), play(first, 3)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert before + play(second, 3) == whole
    assert second.state_dict() == straight.state_dict()
    if "replay" in name:
        rows = [row["rollouts"] for row in straight.progress.steps_log]
        assert any(len(json.loads(text)[1]) > n for text, n in zip(whole, rows, strict=True))
    assert math.isfinite(straight.progress.planned)
