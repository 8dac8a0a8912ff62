"""What holds for every registered reward: groups of one, all right, all wrong, ties, other groups, and scales."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgeteer.check import check_reward
from budgeteer.core import registry
from budgeteer.core.plan import ENDED
from budgeteer.rl.advantage.kit import group_norm
from budgeteer.rl.reward import Columns, Reward

NAMES = sorted(registry.of("reward"))
MORE = [
    "adactrl:hard=true",
    "e1:keep=0.9",
    "right-only:inner=laser",
    "l1:at_most=true",
    "laser:explore=false",
    "laser:target=0.4",
    "kimi+0.5*pear",
]
OF_THE_BATCH = {
    "adathink-med": "scales entropies to [0, 1] over the rows of the step",
    "traac": "measures lengths against those of this step's prompts of the same difficulty",
}
"""Rewards of a row that depend on other prompts of the same step."""
BELOW_WRONG = {"hbpo": "a right answer far beyond its target loses more than it gets"}
"""Rewards by which being right may cost."""
IN_TOKENS = {
    "adathink-med": "counts repetitions of 40 tokens",
    "arlcp": "counts words",
    "ares": "counts windows of 4 tokens",
    "repetition": "counts repetitions of 40 tokens",
}
"""Rewards that change when all lengths and caps are longer by the same factor."""


def drawn(seed: int, sizes: list[int], right: float | None = None) -> Columns:
    """Rows of groups of these sizes with everything that a reward may read; ``right`` = all scores."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    cap = np.full(n, 40)
    length = rng.integers(2, 41, n)
    closed = np.where(rng.random(n) < 0.8, rng.integers(1, length + 1), -1)
    complete = rng.random(n) < 0.8
    texts = ["[Easy] so </think> 7", "[Hard] wait, hmm </think> actually 7", "7", "<think> </think> but 7"]
    group = np.repeat(np.arange(len(sizes)), sizes)
    return Columns(
        rng.choice([0.0, 0.4, 1.0], n) if right is None else np.full(n, right),
        length,
        group,
        cap,
        np.full(n, ENDED),
        closed=closed,
        answered=np.where(complete, length, -1),
        tokens=rng.integers(0, 4, (n, 40)),
        sampled=(np.arange(40) < length[:, None]) * 1,
        prompt_key=[f"p:{g}" for g in group],
        entropy=rng.exponential(0.5, (n, 40)),
        text=[str(rng.choice(texts)) for _ in range(n)],
        effort=rng.choice([0.25, 0.5, 1.0], len(sizes))[group],
        target=rng.integers(1, 41, n).astype(float),
        needs_thinking=rng.integers(0, 2, len(sizes))[group],
    )


def seen(reward: Reward, rows: Columns) -> Columns:
    """What the reward reads of rows, what is computed included."""
    return rows.completed(reward.needs, rows.columns)


def scored(reward: Reward, rows: Columns, state=None) -> np.ndarray:
    return reward.score(reward.init() if state is None else state, seen(reward, rows))


seeds = st.integers(0, 10**6)


@pytest.mark.parametrize("name", NAMES + MORE)
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_one_number_a_row_whatever_the_group(name: str, seed: int) -> None:
    """Groups of one, all right and all wrong ones among them; advantages made of it are finite, 0 in a group of one."""
    reward = registry.part_of("reward", name)
    for right in (None, 0.0, 1.0):
        rows = drawn(seed, [1, 3, 1, 4], right)
        state = reward.init()
        for _ in range(2):
            made = scored(reward, rows, state)
            assert made.shape == (9,)
            assert np.isfinite(made).all()
            advantage = group_norm(made, rows.group, 4)
            assert np.isfinite(advantage).all()
            assert (advantage[[0, 4]] == 0).all()
            state = reward.observe(state, seen(reward, rows))


@pytest.mark.parametrize("name", NAMES + MORE)
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_equal_rows_are_equal_and_being_right_never_costs(name: str, seed: int) -> None:
    """Row 0 and row 1 are the same rollout; then row 0 is right and row 1 is wrong, and nothing else differs."""
    reward, rows = registry.part_of("reward", name), drawn(seed, [6])
    twins = rows.take(np.array([0, 0, 2, 3, 4, 5]))
    for correct in (0.0, 1.0):
        made = scored(reward, twins.with_columns(correct=np.r_[correct, correct, twins.correct[2:]]))
        assert made[0] == made[1]
    made = scored(reward, twins.with_columns(correct=np.r_[1.0, 0.0, twins.correct[2:]]))
    assert made[0] >= made[1] - 1e-12 or name in BELOW_WRONG


def test_a_right_answer_beyond_its_target_may_be_worth_less_than_a_wrong_one() -> None:
    rows = Columns([1, 0], [40, 40], [0, 0], [40, 40], [ENDED] * 2, target=[4.0, 4.0], sampled=np.ones((2, 40), int))
    assert registry.part_of("reward", "hbpo").score((), rows).tolist() == pytest.approx([-0.9, 0])


@pytest.mark.parametrize("name", [name for name in NAMES + MORE if name not in OF_THE_BATCH])
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_other_prompts_do_not_change_a_row(name: str, seed: int) -> None:
    reward, rows = registry.part_of("reward", name), drawn(seed, [3, 4, 2])
    state = reward.observe(reward.init(), seen(reward, rows))
    together = scored(reward, rows, state)
    for group in range(3):
        alone = rows.group == group
        np.testing.assert_allclose(scored(reward, rows.take(alone), state), together[alone], atol=1e-12)


@pytest.mark.parametrize("name", sorted(OF_THE_BATCH))
def test_those_that_look_at_the_batch_do(name: str) -> None:
    """Otherwise their exception above would hide a test."""
    reward = registry.part_of("reward", name)
    differs = []
    for seed in range(20):
        rows = drawn(seed, [3, 4, 2])
        alone = rows.group == 0
        differs.append(not np.allclose(scored(reward, rows.take(alone)), scored(reward, rows)[alone]))
    assert any(differs)


def longer(rows: Columns, factor: int) -> Columns:
    """The same rollouts, every token written ``factor`` times; the marker that closes the thinking stays one token."""
    length = rows.length * factor
    closed = rows.column("closed", "test")
    more = {
        "closed": np.where(closed > 0, (closed - 1) * factor + 1, closed),
        "answered": np.where(rows.column("answered", "test") >= 0, length, -1),
        "target": rows.column("target", "test") * factor,
        "looping": rows.completed(["looping"], rows.columns).column("looping", "test"),
    }
    for name in ("tokens", "sampled", "entropy"):
        more[name] = np.repeat(rows.column(name, "test"), factor, axis=1)
    return rows.with_columns(length=length, max_tokens=rows.max_tokens * factor, **more)


@pytest.mark.parametrize("name", [name for name in NAMES + MORE if name not in IN_TOKENS and "pear" not in name])
@settings(max_examples=15, deadline=None)
@given(seed=seeds, factor=st.integers(2, 5))
def test_a_longer_cap_with_rollouts_as_much_longer_changes_nothing(name: str, seed: int, factor: int) -> None:
    reward, rows = registry.part_of("reward", name), drawn(seed, [3, 4])
    np.testing.assert_allclose(scored(reward, longer(rows, factor)), scored(reward, rows), atol=1e-9)


@pytest.mark.parametrize("name", MORE)
def test_variants_and_sums_keep_the_rules(name: str) -> None:
    check_reward(registry.part_of("reward", name))
