"""Rewards of length, effort and mode on numbers worked by hand; sums of rewards; what is counted in texts."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from budgeteer.check import check_reward, check_steer
from budgeteer.core import registry
from budgeteer.core.allocator import dump_state, load_state
from budgeteer.core.column import column
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.plan import CUT, ENDED, Plan
from budgeteer.core.steer import Snapshot
from budgeteer.rl import recipes
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.control import Control
from budgeteer.rl.reward import (
    Columns,
    Reward,
    adacot,
    adaptive_deep,
    alp,
    cosine,
    e1,
    kimi,
    l1,
    o1_pruner,
    overlong,
    pear,
    repetition,
    shorter_better,
    summed,
    thinkdial,
    traac,
    triangular,
    visionthink,
)
from budgeteer.rl.reward._traac import Recent
from budgeteer.rl.reward.counted import split
from budgeteer.rl.reward.sums import from_text
from budgeteer.rl.schedule import decay, linear
from budgeteer.rl.variant import both_kinds, drawn_budget, effort, effort_modes, falling_budget

A = np.array


def rows_of(correct, length, group=None, cap=100, status=ENDED, **more) -> Columns:
    n = len(correct)
    return Columns(correct, length, [0] * n if group is None else group, [cap] * n, [status] * n, **more)


def score(reward: Reward, rows: Columns, state=None) -> list[float]:
    return reward.score(reward.init() if state is None else state, rows).tolist()


# -- baselines ---------------------------------------------------------------------------------------------------------


def test_l1_by_hand() -> None:
    rows = rows_of([1, 0, 1, 1], [60, 60, 20, 100], target=[40] * 4, cap=200)
    # exact: a distance of 20, 20, 20 and 60 of 200, at 1.2 for the whole cap
    assert score(l1(), rows) == pytest.approx([1 - 0.12, -0.12, 1 - 0.12, 1 - 0.36])
    # at most: 1/2 -+ 0.12, 1/2 - 0.36, and nothing for the wrong one
    assert score(l1(at_most=True), rows) == pytest.approx([0.38, 0, 0.62, 0.14])
    far = rows_of([1, 1], [1, 199], target=[199, 1], cap=200)
    assert score(l1(at_most=True), far) == [1.0, 0.0]  # clipped
    # the paper's coefficient: 0.0003 a token is 1.2 at a cap of 4,000
    assert score(l1(), rows_of([1], [1500], target=[1000], cap=4000)) == pytest.approx([1 - 0.0003 * 500])


def test_kimi_by_hand() -> None:
    rows = rows_of([1, 0, 1, 0, 1, 0], [10, 10, 20, 30, 30, 7], [0, 0, 0, 0, 0, 1])
    # 1/2 for the shortest, 0 in the middle, -1/2 for the longest; a group of one has no term
    assert score(kimi(), rows) == [1.5, 0.0, 1.0, -0.5, 0.5, 0.0]
    assert score(kimi(0.2), rows) == pytest.approx([1.1, 0.0, 1.0, -0.1, 0.9, 0.0])


def test_o1_pruner_by_hand() -> None:
    rows = rows_of([1, 0], [10, 40], reference_length=[20.0, 20.0], reference_rate=[0.75, 0.75])
    # 20/10 - 1 + 2 * 0.25; 20/40 - 1 - 2 * 0.75
    assert score(o1_pruner(), rows) == [1.5, -2.0]
    # without a reference the group's own mean length (25) and pass rate (1/2) stand in
    columns = rows_of([1, 0], [10, 40])
    made = {name: column(name, "rollouts").make(columns) for name in ("reference_length", "reference_rate")}
    assert score(o1_pruner(), columns.with_columns(**made)) == pytest.approx([25 / 10 - 1 + 1, 25 / 40 - 1 - 1])


def test_shorter_better_by_hand() -> None:
    rows = rows_of([1, 1, 0, 0, 0], [30, 40, 30, 20, 60], [0, 0, 0, 1, 1])
    # group 0: best is 30; group 1: no right row, so the mean, 40; a slope of 4 at a cap of 100
    assert score(shorter_better(), rows) == pytest.approx([2, 2 - 0.4, 0, -0.8, -0.8])
    assert score(shorter_better(1, 0), rows) == [1, 1, 0, 0, 0]


def test_alp_by_hand() -> None:
    rows = rows_of([1, 1, 1, 0, 0, 0], [50, 100, 10, 50, 50, 100], [0, 0, 0, 0, 1, 1])
    # p = 3/4 in group 0; never solved in group 1: 1/2, as if solved once
    want = [1 - 0.2 * 0.5 * 0.75, 1 - 0.2 * 0.75, 1 - 0.2 * 0.1 * 0.75, -0.075, -0.2 * 0.5 * 0.5, -0.2 * 0.5]
    assert score(alp(0.2), rows) == pytest.approx(want)


def test_cosine_by_hand() -> None:
    rows = rows_of([1, 1, 0, 0, 1], [0, 50, 0, 75, 100])
    long_wrong = -5 * (1 + math.cos(0.75 * math.pi))
    assert score(cosine(), rows) == pytest.approx([2.0, 1.5, -10.0, long_wrong, -10.0])
    assert score(cosine(), rows_of([1], [50], status=CUT)) == [-10.0]


def test_triangular_counts_a_complete_answer_where_it_is_asked_to() -> None:
    rows = rows_of([1, 0], [25, 50], target=[50.0, 50.0], answered=[25, -1])
    assert score(triangular(0.5, tidy=0.25), rows) == [1 + 0.25 + 0.25, 0.5]
    assert triangular().needs == ("target",)


# -- effort and mode ---------------------------------------------------------------------------------------------------


def test_thinkdial_by_hand() -> None:
    # one prompt in two modes: lengths are compared within a mode
    rows = rows_of(
        [1, 1, 0, 1, 1, 0],
        [10, 20, 30, 40, 80, 80],
        effort=[0.25, 0.25, 0.25, 0.5, 0.5, 1.0],
        leaks=[0, 0, 2, 0, 1, 0],
    )
    low = [1 + 0.5 + 0.5, 1 + 0.0 + 0.5, 0 - 0.5 - 0.5]
    medium = [1 + 0.5 * 0.5 + 0.5, 1 - 0.5 * 0.5 - 0.5]
    assert score(thinkdial(), rows) == [*low, *medium, 0.5]
    terms = thinkdial().terms((), rows)
    assert terms["leak"].tolist() == [0.5, 0.5, -0.5, 0.5, -0.5, 0.5]
    assert terms["length"].tolist() == [0.5, 0.0, -0.5, 0.25, -0.25, 0.0]


def test_adacot_by_hand() -> None:
    rows = rows_of([1, 1, 0, 0], [9] * 4, deliberate=[1, 0, 1, 0], needs_thinking=[0, 1, 1, 0], answered=[9, 9, 9, -1])
    assert score(adacot(0.1, 0.3), rows) == pytest.approx([1 - 0.3, 1 - 0.1, 0, -1])


def test_visionthink_by_hand() -> None:
    def of(correct, deliberate, **options):
        rows = rows_of(correct, [9] * len(correct), deliberate=deliberate, answered=[9] * len(correct))
        return score(visionthink(tidy=0, **options), rows)

    # 1 of 5 right ones answered at once: that is enough, and the expensive way costs
    assert of([1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0]) == pytest.approx([1, 0.9, 0.9, 0.9, 0.9, 0])
    # 1 of 6: answering at once was luck, and costs
    assert of([1, 1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1, 0]) == pytest.approx([0.9, 1, 1, 1, 1, 1, -0.1])
    # nobody is right
    assert of([0, 0], [0, 1]) == [-0.1, 0]


def test_adaptive_deep_by_hand() -> None:
    def of(correct, **options):
        rows = rows_of(correct, [50, 50, 10, 10], deliberate=[1, 1, 0, 0])
        return score(adaptive_deep(**options), rows)

    assert of([1, 1, 1, 0]) == [1.5, 1.5, 1.0, 0.0]  # short is worse: long is what the prompt needs
    assert of([1, 1, 1, 0], margin=0.5) == [1.0, 1.0, 1.5, 0.0]
    assert of([1, 0, 1, 0]) == [1.0, 0.0, 1.5, 0.0]  # as good: short suffices
    assert of([0, 0, 0, 0]) == [0.0] * 4
    near = rows_of([0, 0], [90, 100], deliberate=[0, 1])  # the last fifth of the cap, as in overlong
    assert score(adaptive_deep(), near) == [-0.5, -1.0]


def test_traac_by_hand() -> None:
    rows = rows_of([1, 1, 0, 0], [10, 30, 9, 9], [0, 0, 1, 1], branched=[0] * 4, answered=[10, 30, 9, -1])
    # the easy prompt's right rows: 10 to 30, median 20. 10: the line is 1; 30: it is 0, and the sigmoid that of -5
    late = 1 / (1 + math.exp(5))
    assert score(traac(), rows) == pytest.approx([4 + 1 + 1, 4 + 1 + late, 1, 0])
    # softer: sigmoid(-1) of 30, and of 22 the larger of (30 - 22) / 20 and sigmoid(-2 / 10)
    soft = rows_of([1, 1, 1], [10, 22, 30], branched=[0] * 3, answered=[-1] * 3)
    usual = 22
    want = [4 + 1, 4 + max(8 / 20, 0.5), 4 + 1 / (1 + math.exp((30 - usual) / (0.5 * usual)))]
    assert score(traac(softness=0.5), soft) == pytest.approx(want)


def test_traac_remembers_right_rows_of_ten_steps_by_difficulty() -> None:
    rows = rows_of([1, 1, 0, 1], [10, 30, 90, 50], [0, 0, 1, 1], branched=[0] * 4, answered=[9] * 4)
    state = traac().observe(traac().init(), rows)
    assert (state.length.tolist(), state.band.tolist(), state.now) == ([10, 30, 50], [0, 0, 1], 1)
    # easy from 0.8, medium from 0.3: two of three right are medium, beside the 50 of the step before
    later = rows_of([1, 1, 0], [40, 60, 7], branched=[0] * 3, answered=[9] * 3)
    got = score(traac(), later, state)
    assert got[0] == pytest.approx(4 + 1 + 1)
    assert got[1] == pytest.approx(4 + 1 + 1 / (1 + math.exp(2)))  # 60 beside a median of 50
    # after nine further steps of one length the first ones are forgotten
    same = rows_of([1], [40], branched=[0], answered=[40])
    for _ in range(9):
        assert 10 in state.length
        state = traac().observe(state, same)
    assert state.length.tolist() == [40.0] * 9
    assert score(traac(), same, state) == [5.5]
    back = load_state(traac().init(), json.loads(json.dumps(dump_state(state))))
    assert isinstance(back, Recent)
    assert score(traac(), same, back) == [5.5]


def test_rows_that_go_on_from_a_compressed_trace_do_not_make_a_prompt_easier() -> None:
    # one of four rollouts is right: hard. Its trace was compressed three times, and answered right each time
    rows = rows_of([1, 0, 0, 0, 1, 1, 1], [40, 50, 50, 50, 10, 10, 10], branched=[0] * 4 + [1] * 3, answered=[-1] * 7)
    assert traac().observe(traac().init(), rows).band.tolist() == [2.0] * 4
    got = score(traac(), rows)  # beside a median of 10: sigmoid(-30), and 1 for the shortest
    assert [got[0], got[4]] == pytest.approx([4 + 1 / (1 + math.exp(30)), 5])


# -- sums --------------------------------------------------------------------------------------------------------------


def test_a_sum_has_the_numbers_the_states_and_the_names_of_its_parts() -> None:
    rows = rows_of([1, 0, 1], [10, 90, 40], answered=[10, 90, 40], looping=[0] * 3, branched=[0] * 3)
    gated = registry.part_of("reward", 'right-only:inner="kimi+0.5*laser" + overlong')  # quoted, a + is no part's
    assert gated.needs == ("answered", "looping")
    assert set(gated.terms(gated.init(), rows)) == {"right-only", "overlong"}
    both = from_text("laser:bonus=0.3 + 0.5*traac")
    laser, second = registry.part_of("reward", "laser:bonus=0.3"), traac()
    state = both.init()
    for _ in range(3):
        want = laser.score(state[0], rows) + 0.5 * second.score(state[1], rows)
        np.testing.assert_allclose(both.score(state, rows), want)
        assert both.means(state, rows)["traac"] == pytest.approx(0.5 * second.score(state[1], rows).mean())
        state = both.observe(state, rows)
    assert state[1].now == 3
    assert state[0].step == 3
    check_reward(both)


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("1.2.3*laser", "1.2.3"),
        ("-1*laser", "-1"),
        ("laser*2", "laser"),
        ("nan*laser", "nan"),
        ("kimi+1e3*laser", "kimi"),
    ],
)
def test_a_weight_that_is_none_is_told(text, weight):
    with pytest.raises(
        InvalidInput, match=f"{re.escape(weight)}.* is no weight; write a number from 0 before the name"
    ):
        registry.part_of("reward", text)


@pytest.mark.parametrize("text", ["kimi+", "+kimi", "+", "kimi + 0.5*"])
def test_a_sum_without_a_part_is_told(text):
    with pytest.raises(InvalidInput, match=r"has a \+ or a weight with no reward beside it"):
        registry.part_of("reward", text)


def test_sums_are_read_from_command_lines_and_logged_by_part() -> None:
    recipe = recipes.get('grpo:reward="kimi:weight=0.5+2*overlong:share=0.5"')
    assert recipe.name == 'grpo:reward="kimi:weight=0.5+2*overlong:share=0.5"'
    rows = rows_of([1, 1], [50, 100])
    np.testing.assert_allclose(recipe.reward.score(recipe.reward.init(), rows), [1.25 + 2, 0.75 + 0])
    assert recipes.get("grpo:reward=kimi+overlong").reward.needs == ()
    assert recipes.get("grpo:reward=0.5*kimi").reward.score(((),), rows).tolist() == [0.75, 0.25]
    with pytest.raises(UnknownName, match="did you mean 'kimi'"):
        recipes.get("grpo:reward=kimmi+overlong")
    with pytest.raises(InvalidInput, match="has kimi twice"):
        recipes.get("grpo:reward=kimi+2*kimi")
    with pytest.raises(InvalidInput, match="give parts"):
        summed({})
    with pytest.raises(InvalidInput, match="weights of these"):
        summed({"kimi": kimi()}, {"alp": 1.0})


def test_a_run_logs_the_mean_of_each_term() -> None:
    from test_rewards import KEYS, PROMPTS, played

    recipe = recipes.get("grpo:reward=kimi+0.5*overlong")
    control = Control(recipe, TrainConfig(steps=6, prompts=3, group=3, max_tokens=10), PROMPTS, KEYS, budget=500)
    rewards = played(control, 2)
    for row, reward in zip(control.progress.steps_log, rewards, strict=True):
        assert list(row["terms"]) == ["kimi", "overlong"]
        assert sum(row["terms"].values()) == pytest.approx(np.mean(reward))
        assert row["terms"]["overlong"] != 0


# -- what is counted ---------------------------------------------------------------------------------------------------


def counted(name: str, *texts: str) -> list[int]:
    return column(name, "rollouts").make(rows_of([1] * len(texts), [9] * len(texts), text=list(texts)))


def test_words_are_counted_by_language() -> None:
    assert counted("reflections", "Wait, so. But wait!", "waiting butter", "Warte, aber nein", "等等不对") == [
        3,
        0,
        2,
        2,
    ]
    assert counted("reflections", "Attendons. Cependant oui", "Espera: sin embargo no", "") == [2, 2, 0]


def test_an_answer_that_goes_on_thinking_is_found_behind_the_tag_only() -> None:
    texts = ["<think>Wait, however</think>7", "<think>7</think>Actually, wait: 8", "[THINK]a[/THINK]let me think", "7"]
    assert counted("leaks", *texts) == [0, 2, 1, 0]


def test_whether_anything_is_thought() -> None:
    texts = ["<think>\n\n</think>\n\n7", "<think>\nso\n</think>7", "so</think>7", "7", "<think>so", "<think> "]
    assert counted("deliberate", *texts) == [0, 1, 1, 0, 1, 0]
    assert split("a</think>b</think>c") == ("a", "b</think>c")


def test_steps_are_paragraphs() -> None:
    assert counted("steps", "a\nb\n\nc\n \n\n\nd", "", "a") == [3, 0, 1]


def test_repetition_takes_a_share() -> None:
    assert score(repetition(2.0), rows_of([1, 0], [9, 9], repeated=[0.25, 1.0])) == [-0.5, -2.0]


# -- how rollouts are asked and cut ------------------------------------------------------------------------------------


def test_two_budgets_cap_the_answer_behind_the_thinking() -> None:
    from budgeteer.steer import two_budgets

    steer = two_budgets(8, 4)
    now = Snapshot.of([5, 8, 9, 9], cap=[20, 20, 20, 10], closed=[-1, -1, 7, 8])
    action, _ = steer.step((), now)
    assert action.decision.tolist() == [0, 1, 0, 0]
    assert action.cap.tolist() == [20, 20, 11, 10]
    check_steer(steer)


def test_recipes_cut_by_shares_of_the_cap() -> None:
    from budgeteer.check._made_up import made_up

    _, view = made_up(0)
    think = max(1, math.floor(0.25 * view.max_tokens))
    now = Snapshot.of([think - 1, think], cap=[view.max_tokens] * 2, closed=[-1, -1])
    for text in ("elastic:think=0.25", "budget-forcing:most=0.25"):
        steer = recipes.get(text).steer_of(view)
        assert steer.step(steer.init(None), now)[0].decision.tolist() == [0, 1]
    with pytest.raises(InvalidInput, match="together at most 1"):
        recipes.get("elastic:think=0.8,answer=0.5")
    with pytest.raises(InvalidInput, match="0 <= minimum <= most"):
        recipes.get("budget-forcing:most=0.2,minimum=0.5")


def test_dr_grpo_weighs_every_token_by_one_constant() -> None:
    weight = recipes.get("dr-grpo:length=50").token_weight
    assert weight(A([1, 9]), A([0, 0])).tolist() == [0.01, 0.01]
    with pytest.raises(InvalidInput, match="1 token or more"):
        recipes.get("dr-grpo:length=0")


def test_a_decay_has_no_stairs() -> None:
    assert decay(0.25)(0.5) == 0.5
    assert decay(0.25, least=0.3)(1.0) == 0.3
    with pytest.raises(InvalidInput, match="rate above 0"):
        decay(0)


def varied(variant, units=(4, 2), cap=40, spent=0.0, seed=0):
    import dataclasses

    from budgeteer.check._made_up import made_up

    _, view = made_up(0)
    keys = view.items.keys[: len(units)]
    items = view.items.take(np.arange(len(units)))
    view = dataclasses.replace(view, items=items, plan=Plan(keys, A(units), 0.0), max_tokens=cap, spent=spent)
    return variant.vary((), view, np.random.default_rng(seed))


def test_lengths_are_drawn_once_a_prompt_and_said() -> None:
    seen = set()
    for seed in range(20):
        made = varied(drawn_budget(0.25, 0.5), seed=seed)
        target = made.columns["target"]
        assert made.prefix == tuple(f"{int(tokens)}: " for tokens in target)
        assert len(set(target[:4])) == len(set(target[4:])) == 1
        assert all(10 <= tokens <= 20 for tokens in target)
        seen |= set(target)
    assert len(seen) > 5


def test_modes_are_said_by_their_words() -> None:
    words = {"low": 0.25, "medium": 0.5, "high": 1.0}
    seen = set()
    for seed in range(20):
        made = varied(effort_modes("Effort {effort}. ", behind=True), seed=seed)
        for said, share in zip(made.suffix, made.columns["effort"], strict=True):
            assert said == f"Effort {next(word for word, of in words.items() if of == share)}. "
            seen.add(share)
    assert seen == {0.25, 0.5, 1.0}


def test_the_mode_high_comes_alone_at_first() -> None:
    first = [varied(effort_modes(alone=0.5), spent=0.4, seed=seed) for seed in range(10)]
    assert all((made.columns["effort"] == 1).all() and set(made.prefix) == {"high: "} for made in first)
    later = [varied(effort_modes(alone=0.5), spent=0.5, seed=seed) for seed in range(10)]
    plain = [varied(effort_modes(), spent=0.5, seed=seed) for seed in range(10)]
    assert [made.prefix for made in later] == [made.prefix for made in plain]


def test_both_kinds_come_in_turns() -> None:
    made = varied(both_kinds("L ", "S "))
    kind = made.columns["deliberate"]
    assert kind[:4].sum() == 2
    assert made.prefix == tuple("L " if one else "S " for one in kind)
    with pytest.raises(InvalidInput, match="two different"):
        both_kinds("a", "a")


def test_a_straight_fall() -> None:
    assert [linear(0.2)(spent) for spent in (-1, 0, 0.25, 1, 2)] == pytest.approx([1, 1, 0.8, 0.2, 0.2])
    # half of 40 at first, a quarter of that at the end, and half way between in the middle
    for spent, tokens in ((0.0, 20), (0.5, 12), (1.0, 5)):
        assert varied(falling_budget(straight=True), spent=spent).columns["target"][0] == tokens


def test_a_falling_budget_without_stairs() -> None:
    assert varied(falling_budget(rate=0.25, least=0), spent=0.5).columns["target"][0] == 10  # half of 40, then half


@pytest.mark.parametrize(
    "make",
    [
        lambda: l1(-1), lambda: l1(slack=2), lambda: kimi(-1), lambda: o1_pruner(-1), lambda: shorter_better(-1),
        lambda: alp(-1), lambda: cosine(math.inf), lambda: triangular(-1), lambda: thinkdial(-1), lambda: adacot(-1),
        lambda: visionthink(least=2), lambda: adaptive_deep(share=0), lambda: traac(softness=0), lambda: repetition(-1),
        lambda: kimi(math.inf), lambda: adacot(untidy=math.nan), lambda: thinkdial(leak=math.nan),
        lambda: traac(tidy=math.nan), lambda: triangular(tidy=math.inf), lambda: visionthink(math.nan),
        lambda: drawn_budget(0.5, 0.25), lambda: effort_modes(alone=1), lambda: effort(101),
        lambda: linear(2), lambda: falling_budget(rate=0.5, straight=True), lambda: overlong(0), lambda: pear(math.inf),
        lambda: kimi(10**20), lambda: thinkdial(leak=10**20), lambda: pear(10**20),
        lambda: triangular(share=10**20), lambda: shorter_better(10**20),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(make) -> None:
    with pytest.raises(InvalidInput, match="give"):
        make()


def test_a_refused_cosine_names_the_value() -> None:
    with pytest.raises(InvalidInput, match=r"^cosine\(wrong_long=nan, cut=-inf\); give rewards from -1e6 to 1e6"):
        cosine(wrong_long=math.nan, cut=-math.inf)


def test_success_gates_another_reward() -> None:
    rows = rows_of([1, 1, 0, 0, 0.4], [10, 30, 10, 30, 10])
    assert score(registry.part_of("reward", "right-only"), rows) == [1.5, 0.5, 0.0, 0.0, 0.4]
    gated = registry.part_of("reward", "right-only:inner=o1-pruner")
    rows = rows.with_columns(reference_length=[20.0] * 5, reference_rate=[0.5] * 5)
    assert score(gated, rows) == pytest.approx([2.0, 20 / 30 - 1 + 1, 0, 0, 0.4])
    with pytest.raises(UnknownName):
        registry.part_of("reward", "right-only:inner=kimy")


def test_e1_may_remember_the_length_at_full_effort() -> None:
    def seen(length, effort, key="a"):
        n = len(length)
        return rows_of([1] * n, length, closed=[-1] * n, effort=[effort] * n, prompt_key=[key] * n)

    method = e1(keep=0.5)
    state = method.init()
    assert score(method, seen([10, 20], 0.5), state) == [0, 0]  # nothing is known: their own mean, 15
    state = method.observe(state, seen([10, 20], 0.5))
    assert state.keys == ()  # lengths at other efforts are not remembered
    state = method.observe(state, seen([20, 40], 1.0))
    state = method.observe(state, seen([10, 10], 1.0))
    assert state.length.tolist() == [20.0]  # 30, then half of 30 and 10
    assert score(method, seen([10, 11], 0.5), state) == [1, 0]
    assert score(method, seen([5, 15], 0.5, "b"), state) == [1, 0]  # another prompt: its own mean, 10
    assert "prompt_key" not in e1().needs
    with pytest.raises(InvalidInput, match="less than 1"):
        e1(keep=1)
