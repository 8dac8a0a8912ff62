"""Published rewards on numbers worked by hand, the columns that they read, and their states over a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import numpy as np
import pytest

from budgeteer.check import check_reward
from budgeteer.core import registry
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.column import Column, column, declare
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.plan import ENDED
from budgeteer.rl import recipes
from budgeteer.rl.advantage import hbpo_advantage
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.control import Control
from budgeteer.rl.recipe import ENTROPY, TEXT
from budgeteer.rl.reward import (
    Columns,
    Reward,
    adactrl,
    adathink_med,
    ares,
    arlcp,
    e1,
    kimi,
    laser,
    overlong,
    pear,
    summed,
)
from budgeteer.rl.reward._adathink_med import Usual
from budgeteer.rl.reward._ares import Hesitations
from budgeteer.rl.reward.counted import looping
from helpers.rollouts import rows_of as rollouts_of

A = np.array
SEEN = declare(
    Column("seen_in_tests", "how often the prompt was seen before", "ask whoever chose the prompts", whole=True),
    "rollouts",
)


def rows_of(correct, length, group=None, cap=100, **more) -> Columns:
    n = len(correct)
    return Columns(correct, length, [0] * n if group is None else group, [cap] * n, [ENDED] * n, **more)


def score(reward: Reward, rows: Columns, state=None) -> list[float]:
    return reward.score(reward.init() if state is None else state, rows).tolist()


# -- rewards by hand ---------------------------------------------------------------------------------------------------


def test_pear_by_hand() -> None:
    # row 0: thinking 0.4 and 0.6 (mean 0.5), the marker 7.0 counts for nothing, answer 0.2: P = 0.3, with weight 2: 0.1
    # row 1: never closed: P is the mean of all, 0.5; row 2: the answer is the less certain part: P = 0
    # row 3: P = 3 would put a right row below a wrong one; row 4 is wrong
    nan = np.nan
    entropy = [[0.4, 0.6, 7.0, 0.2], [0.25, 0.75, nan, nan], [0.1, 7.0, 0.9, nan], [3.0, 0.0, nan, nan], [0.0] * 4]
    rows = rows_of([1, 1, 1, 1, 0], [4, 2, 3, 2, 4], closed=[3, -1, 2, 2, 3], entropy=entropy)
    assert score(pear(), rows) == pytest.approx([0.7, 0.5, 1.0, 0.0, 0.0], abs=1e-6)
    assert score(pear(2.0, wrong=0.1), rows) == pytest.approx([0.9, 0.5, 1.0, 0.1, 0.1], abs=1e-6)
    with pytest.raises(InvalidInput, match="less than 1"):
        pear(wrong=1.0)


def test_arlcp_by_hand() -> None:
    say = "{} </think> 7"
    texts = [
        say.format("Wait, hmm: double-check this."), say.format("so. " * 3), say.format("But wait"),  # 3, 0, 2 words
        "no end: wait", say.format("two </think>"), say.format("buttery checks, ohm"),  # parts of words do not count
    ]  # fmt: skip
    rows = rows_of([1, 1, 0, 1, 1, 1], [20, 40, 30, 10, 10, 30], [0, 0, 0, 1, 1, 2], text=texts)
    words = column("reflections", "rollouts").make(rows)
    assert words == [3, 0, 2, 1, 0, 0]
    rows = rows.with_columns(reflections=words)
    # group 0: the right rows have 3 and 0 words: mean 1.5, sample deviation 3 / sqrt(2); 20 and 40 tokens likewise
    up = 1 / (1 + math.exp(-1.5 / (3 / math.sqrt(2) + 1e-6)))
    tokens = 1 / (1 + math.exp(10 / (20 / math.sqrt(2) + 1e-6)))
    expected = [
        1 - 0.05 * up - 0.15 * tokens,
        1 - 0.05 * (1 - up) - 0.15 * (1 - tokens),
        0,
        0,
        0,
        1 - 0.05 / 2 - 0.15 / 2,
    ]
    assert score(arlcp(), rows) == pytest.approx(expected, abs=1e-6)
    # above some words half of the penalty is theirs, above many three quarters: row 0 has 3
    for some, many, first in ((2, 3, 0.1), (1, 2, 0.15)):
        assert score(arlcp(0.2, some, many), rows)[0] == pytest.approx(
            1 - first * up - (0.2 - first) * tokens, abs=1e-6
        )
    with pytest.raises(InvalidInput, match="0 <= some <= many"):
        arlcp(some=9, many=8)


def test_laser_by_hand() -> None:
    # with one target, half of the cap: right and short 1.5, right and long 1, wrong -0.5, never answered -1
    rows = rows_of([1, 1, 0, 1, 0], [50, 51, 90, 9, 95], answered=[50, 51, 90, -1, -1], looping=[0] * 5)
    assert score(laser(0.5), rows) == [1.5, 1.0, -0.5, -1.0, -1.0]
    assert laser(0.5).needs == laser(explore=False).needs == ("answered",)
    # a hard prompt (1 of 4) whose target is half of the cap: long wrong rows that do not loop are rewarded, too
    state = dataclasses.replace(laser().init(), target=A([0.25, 0.4, 0.5]))
    hard = rows_of([1, 0, 0, 0], [50, 90, 90, 40], answered=[9] * 4, looping=[0, 0, 1, 0])
    assert score(laser(), hard, state) == [1.5, 0.0, -0.5, -0.5]
    assert score(laser(explore=False), hard, state) == [1.5, -0.5, -0.5, -0.5]
    easy = rows_of([1, 1, 0, 1], [25, 26, 26, 26], answered=[9] * 4, looping=[0] * 4)
    assert score(laser(), easy, state) == [1.5, 1.0, 0.0, 1.0]


def test_the_targets_of_laser_follow_the_lengths_of_each_band() -> None:
    # groups of 8: easy needs a fifth of its rollouts within the target, medium a half, hard all
    method = laser(every=3, lower=0.25)
    state = method.init()
    assert state.target.tolist() == [1, 1, 1]
    lengths = [10, 20, 30, 40, 50, 60, 70, 80]
    right = [1] * 6 + [0] * 2 + [1] * 4 + [0] * 4 + [0] * 8
    rows = rows_of(right, lengths * 3, [0] * 8 + [1] * 8 + [2] * 8, answered=[9] * 24, looping=[0] * 24)
    state = method.observe(state, rows)
    # easy: 2 of 8 within 4/16; medium: 4 of 8 within 7/16 (43.75); hard: all 8 within 13/16, and the longest has 0.8
    assert state.target.tolist() == [0.25, 0.4375, 0.8]
    assert (state.step, state.count.sum()) == (1, 0)
    short = rows_of([1] * 8, [90] * 8, answered=[9] * 8, looping=[0] * 8)
    state = method.observe(state, short)
    assert (state.target.tolist(), state.count.tolist()) == ([0.25, 0.4375, 0.8], [8, 0, 0])  # not its turn yet
    back = load_state(method.init(), json.loads(json.dumps(dump_state(state))))
    state, other = method.observe(state, short), method.observe(back, short)
    assert state.target.tolist() == other.target.tolist() == [0.9, 0.4375, 0.8]  # bands without rollouts keep theirs


def test_a_band_that_is_short_has_the_least_target_where_another_one_is_long() -> None:
    """As in LASER's code, which looks for a target below the longest rollout of the whole batch."""
    method = laser(every=1, lower=0.25, group=8)
    rows = rows_of([1, 1, 0, 0], [10, 20, 100, 90], group=[0, 0, 1, 1])
    assert method.observe(method.init(), rows).target.tolist() == [0.25, 1.0, 1.0]


def test_the_monitor_of_laser_sets_its_targets_and_training_rollouts_do_not() -> None:
    method = laser(every=3, lower=0.25, monitor=7)
    own = method.monitor
    assert (own.prompts, own.rollouts, own.every) == (7, 8, 3)
    state = method.init()
    long = rows_of([1] * 8, [90] * 8, answered=[9] * 8, looping=[0] * 8)
    for _ in range(4):
        state = method.observe(state, long)
    assert (state.step, state.target.tolist(), state.count.tolist()) == (4, [1, 1, 1], [0, 0, 0])
    # the targets of the test above, at once, and again without what was seen before
    lengths = [10, 20, 30, 40, 50, 60, 70, 80]
    right = [1] * 6 + [0] * 2 + [1] * 4 + [0] * 4 + [0] * 8
    state = own.watch(state, rows_of(right, lengths * 3, [0] * 8 + [1] * 8 + [2] * 8))
    assert (state.step, state.target.tolist()) == (4, [0.25, 0.4375, 0.8])
    assert own.watch(state, long.only()).target.tolist() == [0.9, 0.4375, 0.8]
    assert laser().monitor is None
    both = summed({"kimi": kimi(), "laser": method})
    assert both.monitor.watch(both.init(), long.only())[1].target.tolist() == [0.9, 1, 1]
    with pytest.raises(InvalidInput, match="laser and again ask for rollouts of their own"):
        summed({"laser": method, "again": laser(monitor=2)})
    with pytest.raises(InvalidInput, match="none with a target that is fixed"):
        laser(0.5, monitor=4)


def test_loops_by_hand() -> None:
    assert not looping(list(range(40)))
    assert looping([1] * 40)
    assert not looping([1, 2, 3, *range(10, 30), 1, 2, 3])  # twice, but far apart
    assert looping([7, 8, 9, 7, 8, 9, *range(20, 50)])
    assert not looping([])


def test_adactrl_by_hand() -> None:
    # 5 of 8 are right, which is not more than 0.625: Hard is the right tag; T = 50; the cap's last sixth is from 250
    texts = ["[Hard] 1", "[Easy] 1", "1", "[Hard]", "[Easy]", " [Easy]", "[Hard] ", "[Easy]"]
    rows = rows_of([1, 1, 1, 0, 0, 1, 1, 0], [50, 25, 50, 0, 0, 50, 50, 50], cap=300, text=texts)
    short = 0.5 * (1 + math.cos(math.pi / 2))
    assert score(adactrl(), rows) == pytest.approx(
        [1 + 0.5, 1 + 0.5 * short, 1 - 0.5, -1 + 0.5, -1, 1 - 0.5, 1 + 0.5, -1]
    )
    # the other length term: only the deserved tag, longer is better, right or not
    assert score(adactrl(hard=True), rows) == pytest.approx([1 + 0.5 + 0.5, 1, 0.5, -1 + 0.5, -1, 0.5, 2, -1])
    easy = rows_of([1, 1], [275, 300], cap=300, text=["[Easy]", "[Hard]"])
    short = 0.5 * (1 + math.cos(math.pi * 275 / 300))
    assert score(adactrl(), easy) == pytest.approx([1 - 0.5 + 0.5 * short + 0.5, 1 - 1 + 0])


def test_e1_by_hand() -> None:
    # thinking of 6, 3, 9 and 2 tokens (the marker is none): mean 5; with effort 0.6 at most 3
    rows = rows_of([1, 1, 1, 0], [9, 5, 9, 3], closed=[7, 4, -1, 3], effort=[0.6, 0.6, 1.0, 0.6])
    assert score(e1(), rows) == [0.0, 1.0, 1.0, 0.0]
    with pytest.raises(InvalidInput, match=r"effort is 1\.5 for 'row 0'; it is a number from 0 to 1"):
        rows_of([1], [9], effort=[1.5])


def test_adathink_med_by_hand() -> None:
    # entropies: the largest fifth (one of five) is 1, 0, 0; log(1 + e) scaled: 1, 0, 0, so certainty 0, 1, 1
    entropy = [[1.0, 0, 0, 0, 0], [0.0] * 5, [0.0] * 5]
    rows = rows_of([1, 1, 0], [5, 5, 5], [0, 0, 1], entropy=entropy, answered=[5, 5, -1], repeated=[0.0, 0.0, 0.5])
    # difficulty: group 0: 1 - mean(0.5, 1) = 0.25; group 1: 1. Usual lengths 10 and 4, threshold 0.5
    state = Usual(0.5, A([10.0, 4.0]))
    # row 0: x = 5/10 * 0.5 = 0.25; row 1: x = 0.5; row 2: wrong and hard: x = 5/4, s = 0.25, less 0.05 * 0.5
    expected = [1 + 0.5 + 0.5 * 0.75, 1 + 0.5 + 0.5 * 0.5, 0.5 * (0.25 - 0.025)]
    assert score(adathink_med(), rows, state) == pytest.approx(expected)
    # the 0.7 quantile of 0.25 and 1 is 0.775; the usual lengths move to 5
    after = adathink_med().observe(state, rows)
    assert after.threshold == pytest.approx(0.9 * 0.5 + 0.1 * 0.775)
    np.testing.assert_allclose(after.length, [9.5, 4.1])
    first = adathink_med().observe(adathink_med().init(), rows)
    assert first.threshold == pytest.approx(0.775)
    assert first.length.tolist() == [5.0, 5.0]


def test_ares_by_hand() -> None:
    # threshold 0.5 and windows of 2 tokens: hesitations 4, 0, 1, 3
    high, low = [1.0, 1.0], [0.0, 0.0]
    entropy = A([high * 4, low * 4, high + low * 3, high * 3 + low])
    state = Hesitations(0.5, A([0.0, 2.0, 2.0]), np.full(3, 0.5))
    easy = rows_of([1, 1, 1, 0], [8] * 4, entropy=entropy)  # target 0, tolerance 1, bend 2, softness 2
    # row 0: x = 3 > 2: h = 3 - 1 = 2, over 3: 2/3 of 0.5; row 3 is wrong: tanh(2 / 4) of 0.6 of 0.5
    expected = [1 - 1 / 3, 1.0, 1.0, math.tanh(0.5) * 0.3]
    assert score(ares(2), easy, state) == pytest.approx(expected)
    medium = rows_of([1, 1, 0, 0], [8] * 4, entropy=entropy)  # target 2, tolerance 1, bend 3
    # row 0: d = 2, x = 1, h = 1/6, over 4; row 1: d = -2: the same; rows 2 and 3: d = -1 and 1, within the tolerance
    expected = [1 - 0.5 / 24, 1 - 0.5 / 24, 0.0, 0.0]
    assert score(ares(2), medium, state) == pytest.approx(expected)
    hard = rows_of([0, 0, 1, 0, 0], [8, 8, 8, 8, 8], entropy=A([*entropy, high * 4]))  # target 2, cap 0.6, softness 3
    # row 2: d = -1 is -m: sigmoid(0) of 0.6; rows 0 and 4: d = 2 beyond the tolerance by 1
    expected = [math.tanh(1 / 6) * 0.6, 0.0, 1.3, 0.0, math.tanh(1 / 6) * 0.6]
    assert score(ares(2), hard, state) == pytest.approx(expected)
    after = ares(2).observe(state, easy)
    np.testing.assert_allclose(after.target, [0.1 * 2, 2, 2])  # mean hesitations 2
    np.testing.assert_allclose(after.strength, [0.5 + 0.05 * 2, 0.5, 0.5])
    assert after.threshold == pytest.approx(0.99 * 0.5 + 0.01 * (1 + 0 + 1 + 1) / 4)
    # hard, target 2, mean hesitations (4 + 0 + 1 + 3 + 4) / 5 = 2.4: more than wanted, so that the bonus shrinks
    np.testing.assert_allclose(ares(2).observe(state, hard).strength, [0.5, 0.5, 0.5 - 0.05 * 0.4])
    few = rows_of([0, 0, 0, 1], [8] * 4, entropy=A([low * 4] * 4))  # none: it grows
    np.testing.assert_allclose(ares(2).observe(state, few).strength, [0.5, 0.5, 0.5 + 0.05 * 2])


def test_a_window_of_ares_that_no_row_fills_is_the_row() -> None:
    rows = rows_of([1, 1], [3, 4], entropy=[[1.0] * 4, [0.1] * 4])
    state = Hesitations(0.5, np.zeros(3), np.full(3, 0.5))
    assert score(ares(10**20), rows, state) == score(ares(4), rows, state)


def test_ares_behind_listed_words_by_hand(tmp_path) -> None:
    plain, as_json = tmp_path / "words.txt", tmp_path / "words.json"
    plain.write_text("wait\n\nSo\nnever\n")
    as_json.write_text('["wait", "so", "never"]')
    # tokens: Wa|it|,| so| x| y and So| no| sol|v| |so: "sol" is no word of the list, and behind the last is nothing
    texts = ["Wait, so x y", "So no solv so"]
    offsets = A([[2, 4, 5, 8, 10, 12], [2, 5, 9, 10, 12, 13]])
    entropy = A([[9.0, 0, 1, 1, 0, 0], [0, 0.2, 0.6, 0, 9, 9]])
    rows = rows_of([1, 1], [6, 6], entropy=entropy, text=texts, offsets=offsets)
    # the two tokens behind "Wait" (token 1) have 1, behind "so" (3) 0, behind "So" (0) 0.4, behind the last "so" none
    for path in (plain, as_json):
        reward = ares(2, words=str(path))
        state = Hesitations(0.4, A([0.0, 0.0, 0.0]), np.full(3, 0.5))
        hesitations = reward.terms(state, rows)["hesitations"]
        assert hesitations == pytest.approx([0.0, 0.0])  # one each, within the tolerance of 1
        assert reward.observe(state, rows).target[0] == pytest.approx(0.1)  # their mean is 1
        strict = dataclasses.replace(state, threshold=0.5)
        assert reward.observe(strict, rows).target[0] == pytest.approx(0.05)  # one and none
        # means behind: 0.5, 1, 0.5, 0 and 0.4, 0.3, 4.5, 9; 95th percentiles 0.925 and 8.325
        assert reward.observe(strict, rows).threshold == pytest.approx(0.99 * 0.5 + 0.01 * (0.925 + 8.325) / 2)
    assert (reward.needs, ares().needs) == (("entropy", "text", "offsets"), ("entropy",))
    for content in ("", "[]", "[1", '["", 3]'):
        plain.write_text(content)
        with pytest.raises(InvalidInput, match=r"ares\(words=.*give a"):
            ares(words=str(plain))
    with pytest.raises(InvalidInput, match="cannot be read"):
        ares(words=str(tmp_path / "none"))


def test_the_ends_of_tokens_in_a_text_are_those_of_the_tokenizer() -> None:
    transformers = pytest.importorskip("transformers")
    from functools import partial

    from budgeteer.models.thinker import THINKER
    from budgeteer.rl.texts import written

    tokenizer = transformers.AutoTokenizer.from_pretrained(THINKER)
    rows = [tokenizer(text).input_ids for text in ("Wait, let me check once more.", "<think>\n12 + 30 = 42\n</think>")]
    decode = partial(tokenizer.batch_decode, skip_special_tokens=True)
    made = written({"text", "offsets"}, decode, rows, max(map(len, rows)))
    for text, ends, row in zip(made["text"], made["offsets"], rows, strict=True):
        assert ends[len(row) - 1] == len(text)
        assert [text[:end] for end in ends[: len(row)]] == [decode([row[: i + 1]])[0] for i in range(len(row))]
    assert written({"entropy"}, decode, rows, 9) == {}


def test_overlong_is_as_it_was() -> None:
    rows = rows_of([1.0, 0.25, 0.0], [80, 93, 100])
    share = 0.2
    buffer = share * rows.max_tokens
    before = rows.correct + np.clip((rows.max_tokens - buffer - rows.length) / buffer, -1.0, 0.0)
    assert score(overlong(share), rows) == before.tolist()


# -- columns -----------------------------------------------------------------------------------------------------------

KEYS = [f"p:{i}" for i in range(6)]
PROMPTS = [(1, 2, i) for i in range(6)]


def run_of(reward: Reward | str, **options) -> Control:
    made = recipes.get(f"grpo:reward={reward}") if isinstance(reward, str) else None
    recipe = made or dataclasses.replace(recipes.get("grpo"), reward=reward)
    return Control(recipe, TrainConfig(steps=6, prompts=3, group=3, max_tokens=10), PROMPTS, KEYS, **options)


@pytest.mark.parametrize(
    ("reward", "offers", "said"),
    [
        ("pear", [TEXT], r"reward of recipe 'grpo:reward=pear' reads the column 'entropy' of rollouts \(entropy in "),
        ("arlcp", [ENTROPY], r"reads the column 'text' of rollouts .*nobody gives it here; give the trainer decode="),
        ("e1", [TEXT, ENTROPY], r"column 'effort' .*put it into the entry of every problem .*say it in the prompt"),
        (Reward(lambda state, rows: rows.correct, needs=(SEEN,)), [], r"'seen_in_tests' .*; ask whoever chose the pro"),
    ],
)  # fmt: skip
def test_a_column_that_nobody_gives_is_refused_before_anything_is_sampled(reward, offers, said) -> None:
    with pytest.raises(InvalidInput, match=said):
        run_of(reward, offers=offers)


def test_names_of_columns_are_checked() -> None:
    with pytest.raises(UnknownName, match="did you mean 'entropy'"):
        run_of(Reward(lambda state, rows: rows.correct, needs=("entropie",)))
    with pytest.raises(UnknownName, match="effort_in_tests"):
        run_of("overlong", columns={"effort_in_tests": [1] * 6})
    with pytest.raises(InvalidInput, match=r"effort is 2\.0 for 'p:1'; it is a number from 0 to 1: share of the usual"):
        run_of("e1", columns={"effort": [1, 2, 1, 1, 1, 1]})
    rows = rows_of([1], [9])
    with pytest.raises(InvalidInput, match=re.escape("my reward reads the column 'closed'") + r".*needs=\('closed',\)"):
        rows.column("closed", "my reward")


def played(control: Control, steps: int) -> list[list[float]]:
    """Steps of rollouts of 4 to 8 tokens without a model; their rewards."""
    rewards = []
    for _ in range(steps):
        step = control.begin()
        while (work := step.next()) is not None:
            group = np.repeat(np.arange(len(work.view.plan.units)), work.view.plan.units)
            turn = control.progress.step
            length = [4 + (i + turn) % 5 for i in range(len(group))]
            part = rollouts_of([[1 + (i * turn) % 4] * n for i, n in enumerate(length)], version=-1, cap=10)
            spread = (np.arange(part.tokens.size) % 7 / 7.0).reshape(part.tokens.shape)
            part = dataclasses.replace(
                part, keys=work.view.items.keys, prompts=((1, 2),) * len(work.view.items), group=group,
                closed=A([n - 2 for n in length]), answered=A(length),
                entropy=np.where(part.sampled, spread, np.nan).astype(np.float32),
                more={TEXT: A([f"wait {i} </think> {i}" for i in range(len(group))], object)},
            )  # fmt: skip
            step.add(part.scored((np.arange(len(group)) % 3 > 0) * 1.0))
        rollouts, view = step.collected()
        update = control.learn(rollouts, view)
        control.done(view, update)
        rewards.append(update.rollouts.reward.tolist())
    return rewards


@pytest.mark.parametrize("name", sorted(registry.of("reward")))
def test_a_run_with_any_reward_is_resumed_to_the_same_run(name) -> None:
    def fresh() -> Control:
        columns = {"effort": [0.5 + i / 10 for i in range(6)], "needs_thinking": [0, 1] * 3, "target": [8, 12] * 3}
        return run_of(name, budget=500, offers=[ENTROPY, TEXT], columns=columns)

    straight, first, second = fresh(), fresh(), fresh()
    whole = played(straight, 5)
    before = played(first, 2)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert before + played(second, 3) == whole
    assert second.state_dict() == straight.state_dict()


def test_columns_of_the_prompts_reach_the_rows_of_each() -> None:
    seen = []
    own = Reward(lambda state, rows: seen.append(rows) or rows.correct, needs=(SEEN, "prompt_key", "sampled"))
    played(run_of(own, columns={SEEN: [10, 11, 12, 13, 14, 15]}), 2)
    for rows in seen:
        assert set(rows.columns) == {
            "correct",
            "length",
            "group",
            "max_tokens",
            "status",
            SEEN,
            "prompt_key",
            "sampled",
        }
        assert rows.column(SEEN, "test").tolist() == [10 + int(key[2:]) for key in rows.column("prompt_key", "test")]
        np.testing.assert_array_equal(rows.column("sampled", "test").sum(1), rows.length)


def test_an_advantage_reads_what_the_problems_say_as_the_reward_does() -> None:
    """``hbpo`` of both kinds reads the target; where a problem gives it, that is no half of the cap."""
    seen = []

    def advantage(rollouts, view):
        made = hbpo_advantage(rollouts, view)
        seen.append((rollouts, view, made))
        return made

    recipe = dataclasses.replace(recipes.get("grpo:reward=hbpo"), advantage=advantage)
    config = TrainConfig(steps=6, prompts=3, group=3, max_tokens=10)
    played(Control(recipe, config, PROMPTS, KEYS, columns={"target": [2, 3, 4, 5, 6, 7]}), 1)
    ((rollouts, view, made),) = seen
    own = A([2.0 + int(rollouts.keys[g][2:]) for g in rollouts.group])
    told = hbpo_advantage(dataclasses.replace(rollouts, more={"target": own}), view)
    half = hbpo_advantage(dataclasses.replace(rollouts, more={}), view)
    assert made.tolist() == told.tolist() != half.tolist()


def test_a_column_is_computed_from_others_unless_somebody_gives_it() -> None:
    halves = Column("halves_in_tests", "half of the tokens", needs=("length",), make=lambda rows: rows.length / 2)
    own = Reward(lambda state, rows: rows.column("halves_in_tests", "test"), needs=(declare(halves, "rollouts"),))
    rewards = played(run_of(own), 1)[0]
    assert rewards == [(4 + i % 5) / 2 for i in range(len(rewards))]
    given = played(run_of(own, columns={"halves_in_tests": [7] * 6}), 1)[0]
    assert set(given) == {7.0}
    check_reward(own)


# -- a whole trainer ---------------------------------------------------------------------------------------------------


def test_the_trainer_gives_texts_and_entropies() -> None:
    pytest.importorskip("torch")
    from helpers.training import build

    seen = []
    own = Reward(lambda state, rows: seen.append(rows) or rows.correct, needs=(TEXT, ENTROPY, "tokens"))
    recipe = dataclasses.replace(recipes.get("grpo"), reward=own)
    build(recipe, decode=lambda rows: [" ".join(map(str, row)) for row in rows]).step()
    (rows,) = seen
    for text, tokens, entropy, length in zip(
        *(rows.column(c, "") for c in (TEXT, "tokens", ENTROPY, "length")), strict=True
    ):
        assert text == " ".join(map(str, tokens[:length]))
        assert np.all((entropy[:length] > 0) & (entropy[:length] < math.log(64)))
        assert np.all(np.isnan(entropy[length:]))
    with pytest.raises(InvalidInput, match=r"'text' .*; give the trainer decode="):
        build(recipe, decode=None)


def test_states_of_rewards_are_in_the_checkpoint(tmp_path) -> None:
    pytest.importorskip("torch")
    from helpers.training import build, config

    def fresh(steps: int):
        return build("grpo:reward=adathink-med", c=config(steps=steps), budget=4000)

    whole = fresh(4)
    whole.run()
    assert not np.isnan(whole.control.reward_state.threshold)
    first = fresh(4)
    first.run(tmp_path, on_step=lambda progress: progress.step < 2)
    second = fresh(4)
    second.run(tmp_path)
    assert second.control.state_dict()["reward"] == whole.control.state_dict()["reward"]
    for a, b in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert np.array_equal(a.detach().numpy(), b.detach().numpy())


def test_columns_of_a_file_are_those_of_its_problems() -> None:
    pytest.importorskip("torch")
    from budgeteer.core.environment import Item
    from budgeteer.lab.run import columns_of

    def items(*entries):
        return [Item(f"q{i}", "?", "1", entry=entry) for i, entry in enumerate(entries)]

    recipe = recipes.get("grpo:reward=e1")
    assert columns_of(recipe, items({"effort": 0.5, "text": "question"}, {"effort": 1})) == {"effort": [0.5, 1]}
    assert columns_of(recipe, items({}, {})) == {}  # the trainer refuses the recipe
    with pytest.raises(InvalidInput, match="reads 'effort', and the entry of problem 'q1' lacks it; give it for all"):
        columns_of(recipe, items({"effort": 0.5}, {}))
    # lengths of a reference are taken where the file has them, and are the prompt's own rollouts' else
    recipe = recipes.get("grpo:reward=o1-pruner")
    reference = {"reference_length": 20, "reference_rate": 0.5}
    assert columns_of(recipe, items(reference, reference)) == {key: [value] * 2 for key, value in reference.items()}
    assert columns_of(recipe, items({}, {})) == {}
    # what the model wrote is never the file's field of that name, nor is what is computed from it
    assert columns_of(recipes.get("grpo:reward=arlcp"), items({"text": "?", "reflections": 9, "length": 3})) == {}


def test_what_computes_a_column_is_part_of_the_identity() -> None:
    from budgeteer.rl.identity import fingerprint

    def with_make(factor: int):
        make = Column("scaled_in_tests", "scaled", needs=("length",), make=lambda rows: factor * rows.length)
        own = Reward(lambda state, rows: rows.correct, needs=(declare(make, "rollouts"),))
        recipe = dataclasses.replace(recipes.get("grpo"), reward=own)
        return fingerprint(recipe.columns())

    assert with_make(2) == with_make(2) != with_make(3)
