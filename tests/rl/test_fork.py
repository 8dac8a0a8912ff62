"""Further rollouts from where others hesitated: requests by hand, and in the trainer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from budgeteer.core.errors import InvalidInput
from budgeteer.rl import recipes
from budgeteer.rl.branch import CUT_AT, TRACE, branched, numbered
from budgeteer.rl.fork import Fork, hesitation, hesitations
from budgeteer.rl.recipe import Recipe
from budgeteer.rl.rollouts import Role, Rollouts
from helpers.rollouts import rows_of
from helpers.training import build, config

A = np.array


def traces(**more) -> Rollouts:
    """Two rollouts of eight tokens, the second of which closes its thinking at its sixth."""
    made = rows_of([[11, 12, 13, 14, 15, 16, 17, 18], [21, 22, 23, 24, 25, 3, 27, 28]], group=[0, 0])
    entropy = A([[0, 0, 5.0, 5.0, 0, 0, 3.0, 3.0], [0, 0, 1.0, 1.0, 9.0, 0, 9.0, 9.0]], np.float32)
    return numbered(dataclasses.replace(made, entropy=entropy, closed=A([-1, 6]), **more), 0, Fork().cuts(9))


def test_a_threshold_is_the_mean_of_the_rows_upper_ends() -> None:
    # of 0, 1, ..., 20 the 95th percentile is 19; a row of nothing known does not count
    assert hesitation([np.arange(21.0), np.full(4, 1.0), np.full(3, np.nan)]) == pytest.approx(10)
    assert hesitation([np.zeros(0)]) == np.inf


def test_windows_are_whole_and_the_first_one_has_no_beginning() -> None:
    assert hesitations(A([9.0, 9, 1, 2, 3, 2, 0, 0, 4]), 2, 1.5).tolist() == [4, 2]
    assert hesitations(A([9.0, 9, 1, 2, 3, 2, 0, 0, 4]), 2, 2.0).tolist() == [4]
    assert hesitations(A([9.0]), 2, 0.0).tolist() == []
    assert hesitations(A([0.0, 0, np.nan, 1]), 2, 0.0).tolist() == []  # what is not known is no hesitation


def test_a_row_goes_on_from_its_largest_window_with_what_it_was_sampled_at() -> None:
    # row 1: the 95th percentile of (0, 0, 5, 5, 0, 0, 3, 3) is 5; row 2, its five tokens of thinking: that of
    # (0, 0, 1, 1, 9) is 1 + 0.8 * 8 = 7.4. Their mean is 6.2: no window of 2 reaches it, and of one token the fifth of
    # row 2 does
    assert len(Fork(2).requests(traces(), 9, ()).of) == 0
    asked = Fork(1).requests(traces(), 9, ())
    assert [head.tolist() for head in asked.heads] == [[21, 22, 23, 24]]
    assert asked.columns[TRACE].tolist() == [1]
    assert asked.columns[CUT_AT].tolist() == [0]
    assert asked.versions[0].tolist() == [0] * 4
    assert asked.logprobs[0].tolist() == [-1.0] * 4
    assert Fork(1).caps(asked, 9).tolist() == [5]
    assert not asked.learnt


def test_what_a_steer_forced_is_read_only() -> None:
    made = traces()
    role = made.role.copy()
    role[1, 1] = Role.FORCED
    asked = Fork(1).requests(dataclasses.replace(made, role=role), 9, ())
    assert asked.versions[0].tolist() == [0, -1, 0, 0]
    assert np.isnan(asked.logprobs[0]).tolist() == [False, True, False, False]


def test_so_many_of_a_trace_at_most() -> None:
    entropy = A([[0, 4.0, 5.0, 0, 3.0, 0, 0, 0], [0] * 8], np.float32)  # 95th percentiles 4.65 and 0: from 2.325 on
    made = dataclasses.replace(traces(), entropy=entropy)
    for most, want in ((1, [2]), (2, [2, 1]), (9, [2, 1, 4])):
        asked = Fork(1, most).requests(made, 9, ())
        assert [len(head) for head in asked.heads] == want
        assert asked.columns[CUT_AT].tolist() == list(range(len(want)))
    with pytest.raises(InvalidInput, match="1 or more of each"):
        Fork(0)


# -- in the trainer ----------------------------------------------------------------------------------------------------


def forking() -> Recipe:
    return dataclasses.replace(recipes.get("grpo"), name="fork", branch=Fork(2))


def test_branches_are_rollouts_of_their_prompt_that_pay_for_what_is_new() -> None:
    seen = []
    trainer = build(forking(), budget=4_000, wording=None)
    learnt = trainer.control.learn

    def watched(rollouts, view):
        seen.append(rollouts)
        return learnt(rollouts, view)

    trainer.control.learn = watched
    trainer.run()
    assert trainer.progress.used == sum(rollouts.used for rollouts in seen) <= 4_000
    count = 0
    for rollouts in seen:
        branch = branched(rollouts)
        for i in np.flatnonzero(branch).tolist():
            (own,) = np.flatnonzero(~branch & (rollouts.more[TRACE] == rollouts.more[TRACE][i]))
            head = int((rollouts.role[i] == Role.CARRIED).sum())
            assert head > 0
            assert head % 2 == 0
            assert rollouts.tokens[i, :head].tolist() == rollouts.tokens[own, :head].tolist()
            np.testing.assert_array_equal(rollouts.logprob[i, :head], rollouts.logprob[own, :head])
            assert rollouts.group[i] == rollouts.group[own]
            assert rollouts.sampled[i, : rollouts.length[i]].all()  # its head is learnt from, too
            assert rollouts.paid[i] == rollouts.length[i] - head
            count += 1
    assert count > 10


def weights(trainer) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in trainer.model.parameters()])


def test_the_papers_recipe_goes_on_as_the_same_run(tmp_path) -> None:
    def make():
        return build("ares", budget=3_000, c=config(kl=0.1))

    whole, halves, again = make(), make(), make()
    whole.run()
    halves.run(tmp_path, on_step=lambda p: p.step < 2)
    again.run(tmp_path)
    assert torch.equal(weights(again), weights(whole))
    assert again.control.kl_state.weight.tolist() == whole.control.kl_state.weight.tolist()
    assert again.control.kl_state.updates == 4
