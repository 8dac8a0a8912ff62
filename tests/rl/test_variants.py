"""Variants: what rollouts are asked with, by hand; hints that carry no gradient; fits of SEELE; runs that resume."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.core.plan import CUT, ENDED, Items, Plan
from budgeteer.rl import recipes
from budgeteer.rl.advantage import hbpo_advantage
from budgeteer.rl.asked import Wording, varied
from budgeteer.rl.carry import partial_rollouts
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.control import Control
from budgeteer.rl.history import History
from budgeteer.rl.recipe import Variant, Variants, View
from budgeteer.rl.reward import hbpo
from budgeteer.rl.rollouts import Role, Rollouts
from budgeteer.rl.variant import effort, falling_budget, seele, split_budgets
from budgeteer.rl.variant._seele import Curve, fit
from helpers.rollouts import rows_of

A = np.array
KEYS = ("a", "b", "c")
WORDING = Wording(
    ("one", "two", "six"),
    lambda texts, of: [[1, *map(ord, text)] for text in texts],
    lambda texts: [list(map(ord, text)) for text in texts],
    (("p;", "q;"), ("r;",), ("s;", "t;", "u;", "v;")),
)
RNG = np.random.default_rng(0)


def view_of(units, spent=0.0, cap=40) -> View:
    items = Items(KEYS, np.ones(3))
    solutions = dict(zip(KEYS, WORDING.solutions or (), strict=True))
    return View(items, Plan(KEYS, A(units), 0.0), History.empty(), cap, spent, solutions)


# -- requests ---------------------------------------------------------------------------------------------------------


def test_rows_that_are_asked_alike_are_one_request() -> None:
    variants = Variants(
        prefix=("x", "", "x", "x", ""),
        hint=("p;", "p;", "p;", "", ""),
        columns={"effort": A([1.0, 0.5, 1.0, 0.5, 0.5])},
    )
    asked = varied(variants, A([3, 0, 2]), np.arange(3), WORDING, "mine")
    keys, prompts, units = asked.requests(KEYS, [(1, 7), (1, 8), (1, 9)])
    hint = tuple(map(ord, "p;"))
    assert keys == ["a", "a", "c", "c"]
    assert units.tolist() == [2, 1, 1, 1]
    assert prompts == [(1, *map(ord, "xone"), *hint), (1, 7, *hint), (1, *map(ord, "xsix")), (1, 9)]

    # and what comes back: [2, 1, 1, 1] rows of one token 5 each
    sampled = rows_of([[5]] * 5, group=[0, 0, 1, 2, 2], version=-1, cap=4)
    sampled = dataclasses.replace(
        sampled, keys=tuple(keys), prompts=tuple(prompts), group=A([0, 0, 1, 2, 3]), closed=A([1, -1, -1, -1, 1])
    )
    whole = asked.whole(sampled, KEYS).at(6)
    assert whole.keys == KEYS
    assert whole.group.tolist() == [0, 0, 0, 2, 2]
    assert whole.prompts_of(A([0, 2, 3, 4])) == [(1, *map(ord, "xone")), (1, 7), (1, *map(ord, "xsix")), (1, 9)]
    h, s, n = Role.HINT, Role.SAMPLED, Role.NONE
    assert whole.role.tolist() == [[h, h, s]] * 3 + [[s, n, n]] * 2
    assert whole.version.tolist() == [[-1, -1, 6]] * 3 + [[6, -1, -1]] * 2
    assert np.isnan(whole.logprob).tolist() == [[True, True, False]] * 3 + [[False, True, True]] * 2
    assert (whole.length.tolist(), whole.cap.tolist(), whole.closed.tolist()) == (
        [3, 3, 3, 1, 1],
        [6, 6, 6, 4, 4],
        [3, -1, -1, -1, 1],
    )
    assert (whole.billed.tolist(), whole.used) == ([1] * 5, 5)  # hints are nobody's tokens
    assert whole.outcomes(np.zeros(5)).tokens.tolist() == [1] * 5
    assert whole.more["effort"].tolist() == [1.0, 1.0, 0.5, 0.5, 0.5]


def test_rounds_with_and_without_what_was_asked_are_joined() -> None:
    plain = rows_of([[5, 6]], group=[0])
    asked = dataclasses.replace(rows_of([[7], [8]], group=[0, 1]), asked=((1, 3), (1, 4)))
    both = Rollouts.concatenate([plain, asked])
    assert both.prompts_of(A([2, 0, 1])) == [(1, 4), (1, 2), (1, 3)]
    assert both.take(A([False, True, True])).prompts_of(A([1, 0])) == [(1, 4), (1, 3)]


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (Variants(hint=("x",)), "gave 1 of hint for 3 rows; give one a row"),
        (Variants(columns={"effort": A([1.0])}), "gave 1 of effort for 3 rows"),
        (Variants(suffix=("a", 7, "b")), "a suffix that is no text"),  # type: ignore[arg-type]
    ],
)
def test_variants_that_do_not_fit_their_rows_are_refused(variants, message) -> None:
    with pytest.raises(InvalidInput, match=f"the variant of recipe 'mine' gave .*{message}|{message}"):
        varied(variants, A([3, 0, 0]), np.arange(3), WORDING, "mine")


def test_what_a_variant_needs_and_nobody_gives_is_refused_before_the_first_token() -> None:
    config, prompts = TrainConfig(), [(1,)] * 3
    with pytest.raises(InvalidInput, match=r"'seele' has a variant.* give it wording="):
        Control(recipes.get("seele"), config, prompts, KEYS)
    for solutions in (None, (("p;",), (), ("q;",))):
        with pytest.raises(InvalidInput, match=r"not every problem of this task has one.*a field solution"):
            Control(recipes.get("seele"), config, prompts, KEYS, wording=WORDING._replace(solutions=solutions))
    other = dataclasses.replace(recipes.get("grpo"), variant=Variant(lambda *given: Variants(), needs=("weather",)))
    with pytest.raises(InvalidInput, match="needs weather; it may need solution"):
        Control(other, config, prompts, KEYS, wording=WORDING)
    with pytest.raises(InvalidInput, match=r"reads the column 'effort'.*use a variant that says it"):
        Control(recipes.get("grpo:reward=e1"), config, prompts, KEYS, wording=WORDING)
    Control(recipes.get("grpo:reward=e1,variant=effort"), config, prompts, KEYS, wording=WORDING)
    with pytest.raises(InvalidInput, match="a carry and a variant"):
        dataclasses.replace(recipes.get("seele"), carry=partial_rollouts())


# -- the methods by hand ----------------------------------------------------------------------------------------------


def test_the_budget_in_the_prompt_falls() -> None:
    variant = falling_budget(first=0.5, factor=0.5, stairs=4, least=0.2, text="At most {tokens}. ")
    for spent, target in ((0.0, 20), (0.25, 10), (0.5, 5), (0.75, 4), (1.0, 4)):  # 0.2 of 20 from the third stair on
        variants = variant.vary((), view_of([2, 0, 1], spent), RNG)
        assert variants.prefix == (f"At most {target}. ",) * 3
        assert variants.columns["target"].tolist() == [target] * 3
    behind = falling_budget(text=" ({tokens})", behind=True).vary((), view_of([1, 0, 0]), RNG)
    assert (behind.prefix, behind.suffix) == ((), (" (20)",))
    for options, message in (({"first": 0}, "share of the cap"), ({"text": "soon"}, r"does not say \{tokens\}")):
        with pytest.raises(InvalidInput, match=message):
            falling_budget(**options)


def test_efforts_are_drawn_for_a_prompt_and_said_there() -> None:
    rng = np.random.default_rng(5)
    level = 1 + np.random.default_rng(5).integers(4, size=3)
    variants = effort(4, "Effort {percent}. ").vary((), view_of([2, 1, 3]), rng)
    expected = np.repeat(level / 4, [2, 1, 3]).tolist()
    assert variants.columns["effort"].tolist() == expected
    assert variants.prefix == tuple(f"Effort {int(100 * share)}. " for share in expected)
    drawn = effort(4).vary((), view_of([400, 0, 0]), rng).columns["effort"]
    assert len(set(drawn.tolist())) == 1
    shares = {float(effort(4).vary((), view_of([1, 0, 0]), rng).columns["effort"][0]) for _ in range(60)}
    assert shares == {0.25, 0.5, 0.75, 1.0}


def test_a_prompts_rollouts_take_the_budgets_in_turns() -> None:
    variants = split_budgets("In {tokens}. ").vary((), view_of([4, 0, 3]), RNG)  # of a cap of 40
    target = variants.columns["target"].tolist()
    assert sorted(target[:4]) == [5, 10, 20, 25]
    assert (target[:4] * 2)[target.index(5) :][:4] == [5, 10, 20, 25]
    assert len(set(target[4:])) == 3
    assert variants.hint == tuple(f"In {int(tokens)}. " for tokens in target)


def test_hbpo_by_hand() -> None:
    # cap 8 of sampled tokens (10 with a head of 2), targets 4 and 2; the rows have sampled 4, 6, 4 and 2 tokens
    rollouts = rows_of([[1] * 6, [1] * 8, [1] * 6, [1] * 4], [1, 1, 0, 1], cap=10)
    role = np.where(np.arange(8) < 2, Role.HINT, rollouts.role).astype(np.int8)
    rollouts = dataclasses.replace(rollouts, role=role, more={"target": A([4.0, 4.0, 2.0, 2.0])})
    cos = [4 * math.cos(math.pi * n / 16) for n in range(9)]
    reward = hbpo().score((), rollouts.columns(hbpo().needs))
    worth = [cos[4], cos[6] - 2 / 8, 0, cos[2]]
    assert reward.tolist() == pytest.approx(worth)
    advantage = hbpo_advantage(dataclasses.replace(rollouts, reward=reward), view_of([4, 0, 0]))
    mean, std = np.mean(worth), np.std(worth)
    within = [(worth[0] + worth[1]) / 2 - cos[4]] * 2 + [worth[3] / 2 - cos[2]] * 2
    assert advantage.tolist() == pytest.approx([(r - mean) / std + a for r, a in zip(worth, within, strict=True)])


def test_the_share_of_a_solution_by_hand() -> None:
    curve = Curve(k=8.0, mu=-0.4, b=0.1)
    assert curve(0.4) == pytest.approx(0.1 + 0.9 / 2)
    # a = 0.5: (1 - b) / (a - b) - 1 = 0.9 / 0.4 - 1 = 1.25, and p = 0.4 - ln(1.25) / 8
    assert curve.share(0.5) == pytest.approx(0.4 - math.log(1.25) / 8)
    assert curve(curve.share(0.5)) == pytest.approx(0.5)
    assert curve.share(0.05) == 0.0  # guessing alone is better
    assert Curve(50.0, 0.0, 0.0).share(0.2) == 0.0
    assert Curve(1.0, -1.0, 0.0).share(0.9) == 1.0


def test_the_fit_is_one_of_least_squares() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(3)
    for _ in range(5):
        p = rng.choice(np.linspace(0, 1, 11), size=int(rng.integers(4, 8)), replace=False)
        drawn = rng.integers(1, 9, len(p)).astype(float)
        true = Curve(float(rng.uniform(2, 40)), float(rng.uniform(-0.9, -0.1)), float(rng.uniform(0, 0.5)))
        seen = A([rng.binomial(int(n), true(x)) / n for x, n in zip(p, drawn, strict=True)])
        weight = drawn * len(p) / drawn.sum()

        def residuals(x, p=p, seen=seen, weight=weight):
            return np.sqrt(weight) * (x[2] + (1 - x[2]) / (1 + np.exp(-x[0] * (p + x[1]))) - seen)

        starts = [(k, mu, b) for k in (4, 20) for mu in (-0.8, -0.5, -0.2) for b in (0.05,)]
        bounds = ([1, -1, 0], [50, 0, 0.95])
        best = min(optimize.least_squares(residuals, x, bounds=bounds).cost * 2 for x in starts)
        assert float((residuals(fit(p, seen, drawn)) ** 2).sum()) < best + 0.01  # a grid, and the ridge of 0.001


def test_where_points_do_not_decide_the_fit_stays_near_its_start() -> None:
    easy = fit(A([0.75]), A([1.0]), A([2.0]))  # what a first round of right rows says: less will do
    assert easy(0.75) > 0.95
    assert 0.2 < easy.share(0.5) < 0.6
    hard = fit(A([0.75]), A([0.0]), A([2.0]))
    assert hard.share(0.5) > 0.75
    solved = fit(A([0.0]), A([1.0]), A([8.0]))
    assert solved.share(0.5) == 0.0


def test_hints_come_to_half_right_in_the_rounds_of_a_step() -> None:
    """The oracle: prompts whose accuracy at a share p is a curve that we drew."""
    rng = np.random.default_rng(0)
    count, length, rounds = 40, 12, 4
    keys = tuple(f"p{i}" for i in range(count))
    curves = [Curve(rng.uniform(6, 25), -rng.uniform(0.1, 0.9), 0.0) for _ in keys]
    solutions = {key: tuple(f"{i};" for i in range(length)) for key in keys}
    variant = seele()
    state, far = variant.init(), []
    units = np.full(count, 8)
    view = View(Items(keys, np.ones(count)), Plan(keys, units, 0.0), History.empty(), 9, 0.0, solutions)
    for step in range(2):
        for _ in range(rounds):
            variants = variant.vary(state, view, rng)
            shown = variants.columns["hinted"]
            assert [hint.count(";") / length for hint in variants.hint] == pytest.approx(shown)
            accuracy = A([curves[i // 8](p) for i, p in enumerate(shown)])
            far.append(float(np.abs(accuracy - 0.5).mean()))
            right = (rng.random(len(shown)) < accuracy).astype(float)
            rows = rows_of([[1]] * len(shown), right, version=step)
            rows = dataclasses.replace(rows, keys=keys, group=np.repeat(np.arange(count), 8), more={"hinted": shown})
            state = variant.observe(state, rows)
    assert far[0] == pytest.approx(0.43, abs=0.07)  # all steps but the last: nearly all are right
    assert max(far[3:5]) < 0.25  # the last round, and the first of the next step, which begins there
    assert state.owner.size == count * rounds  # the points of the second step alone


# -- whole runs --------------------------------------------------------------------------------------------------------


def play(control: Control, steps: int) -> list[list[float]]:
    """Steps with a sampler that writes 6 tokens a row, and stops where the budget of the round does."""
    advantages = []
    prompts = [(1, i) for i in range(len(control.keys))]
    for _ in range(steps):
        step = control.begin()
        while (work := step.next()) is not None:
            keys, asked, units = work.requests(prompts)
            group, left = np.repeat(np.arange(len(keys)), units), work.budget
            lengths = []
            for _ in group:
                lengths.append(6 if left is None else min(6, left))
                left = None if left is None else left - lengths[-1]
            kept = [i for i, size in enumerate(lengths) if size]
            part = rows_of([[9] * lengths[i] for i in kept], version=-1)
            status = A([ENDED if lengths[i] == 6 else CUT for i in kept], np.int8)
            part = dataclasses.replace(
                part, keys=tuple(keys), prompts=tuple(asked), group=group[kept], status=status,
                cap=np.broadcast_to(work.max_tokens, (len(keys),))[group[kept]],
            )  # fmt: skip
            whole = work.whole(part)
            hints = (whole.role == Role.HINT).sum(1)
            step.add(whole.scored(((hints + np.arange(len(whole))) % 3 > 0).astype(float)))
        collected = step.collected()
        assert collected is not None
        update = control.learn(*collected)
        control.done(collected[1], update)
        advantages.append(update.advantage.tolist())
    return advantages


@pytest.mark.parametrize(
    "name", ["seele", "train-long-think-short:asked=true", "hbpo", "grpo:variant=effort,reward=e1"]
)
def test_a_run_that_is_resumed_is_the_same_run(name) -> None:
    def fresh() -> Control:
        config = TrainConfig(steps=6, prompts=2, group=8, max_tokens=10)
        return Control(recipes.get(name), config, [(1, i) for i in range(3)], KEYS, step_budget=80, wording=WORDING)

    straight, first = fresh(), fresh()
    whole = play(straight, 6)
    before = play(first, 3)
    second = fresh()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert before + play(second, 3) == whole
    assert second.state_dict() == straight.state_dict()
    assert all(row["used"] <= 80 for row in straight.progress.steps_log)


def test_rows_that_never_had_their_chance_say_nothing_about_hints() -> None:
    seen = []

    def observe(state, rollouts):
        seen.append((len(rollouts), rollouts.length.tolist()))
        return state

    recipe = dataclasses.replace(
        recipes.get("grpo"), variant=Variant(lambda state, view, rng: Variants(), observe=observe)
    )
    config = TrainConfig(steps=2, prompts=2, group=4, max_tokens=8)
    control = Control(recipe, config, [(1, i) for i in range(3)], KEYS, step_budget=16, wording=WORDING)
    play(control, 1)
    assert seen == [(2, [6, 6])]  # 16 = two rows of 6, and 4 tokens of a third
    assert control.progress.wasted == 4


torch = pytest.importorskip("torch")


def test_hints_carry_no_gradient_and_the_rest_that_of_the_prompt_it_was_asked() -> None:
    from budgeteer.rl.logprobs import token_logprobs
    from budgeteer.rl.step import Update
    from helpers.training import build, config

    trainer = build("grpo", c=config(minibatches=1, max_grad_norm=1e9))
    rollouts = rows_of([[7, 8, 9], [6, 5, 4]], [1, 0])
    role = A([[Role.HINT, Role.HINT, Role.SAMPLED], [Role.SAMPLED] * 3], np.int8)
    asked = ((0, 11), (0, 12, 13))
    with torch.no_grad():
        logprob, _ = token_logprobs(trainer.model, asked, rollouts.tokens, rollouts.length, 1.0)
    old = np.where(role == Role.SAMPLED, logprob.numpy().reshape(2, 3), np.nan).astype(np.float32)
    rollouts = dataclasses.replace(rollouts, role=role, logprob=old, asked=asked)
    advantage, scale = A([1.0, -2.0]), A([0.5, 0.25])
    every = np.ones(2, np.bool_)
    trainer._backward(Update(rollouts, A([0, 1]), advantage, scale, every, ~every, every, np.ones(2)), A([0, 1]), scale)
    got = [p.grad.clone() for p in trainer.model.parameters()]
    trainer.model.zero_grad()
    logprob, _ = token_logprobs(trainer.model, asked, rollouts.tokens, rollouts.length, 1.0)
    weight = torch.tensor([0, 0, 0.5 * 1.0, *[0.25 * -2.0] * 3])
    (-(logprob * weight).sum()).backward()
    for mine, parameter in zip(got, trainer.model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_trainer_counts_hints_as_prefill_and_refuses_a_solution_that_does_not_fit() -> None:
    from budgeteer.core.plan import right
    from helpers.training import WORDING as SPELLED
    from helpers.training import build, config

    trainer = build("seele", c=config(steps=1), budget=None)
    collected = trainer._collect()
    assert collected is not None
    rollouts, _ = collected
    hints = (rollouts.role == Role.HINT).sum(1)
    assert set(hints.tolist()) == {0, 2, 4}  # of the steps "ab" and "c;", a token a letter
    assert rollouts.used == int((rollouts.role == Role.SAMPLED).sum())
    rounds = {(g, h) for g, h in zip(rollouts.group.tolist(), hints.tolist(), strict=True)}
    least = sum(len(rollouts.prompts[g]) + h for g, h in rounds)
    assert rollouts.prefill_tokens >= least
    assert right(rollouts.verified).any()
    told = dataclasses.replace(recipes.get("grpo"), variant=falling_budget(text="{tokens}" + "x" * 110))
    with pytest.raises(InvalidInput, match="model has 128 positions, so lower max_tokens by"):
        build(told)
    long = SPELLED._replace(solutions=[("x" * 120,)] * 12)
    with pytest.raises(InvalidInput, match="model has 128 positions, so lower max_tokens by"):
        build("seele", wording=long)


def test_a_variant_whose_column_nobody_reads_is_remarked_on() -> None:
    def made(name: str) -> Control:
        prompts = WORDING.ask(WORDING.texts, range(3))
        return Control(
            recipes.get(name), TrainConfig(prompts=2, max_tokens=9, eval_every=0), prompts, KEYS, wording=WORDING
        )

    with pytest.warns(UserWarning, match="the variant of recipe 'grpo:variant=effort' gives effort, and its reward"):
        made("grpo:variant=effort")
    with pytest.warns(UserWarning, match="gives target, and its reward does not read it"):
        made("grpo:variant=drawn-budget,reward=kimi")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("grpo:variant=effort,reward=e1", "grpo:variant=seele", "hbpo", "adaptive-deep", "rmt"):
            made(name)


def test_samples_say_what_a_rollout_was_asked() -> None:
    from budgeteer.core.environment import Item
    from budgeteer.lab.run import samples

    config = TrainConfig(steps=1, prompts=1, group=2, max_tokens=4, eval_every=0)
    prompts = WORDING.ask(WORDING.texts, range(3))
    own = Control(recipes.get("grpo:variant=effort,reward=e1"), config, prompts, KEYS, wording=WORDING, budget=12)
    begun = own.begin()
    work = begun.next()
    keys, asked, units = work.requests(prompts)
    rows = rows_of([[5]] * int(units.sum()), group=np.repeat(np.arange(len(units)), units), version=-1, cap=4)
    rows = dataclasses.replace(rows, keys=tuple(keys), prompts=tuple(asked))
    begun.add(work.whole(rows).scored(np.arange(len(rows)) % 2.0))
    rollouts, view = begun.collected()
    own.done(view, own.learn(rollouts, view))
    items = {key: Item(key, text, "", {}) for key, text in zip(KEYS, WORDING.texts, strict=True)}
    texts = [row["prompt"] for row in samples(own.progress, lambda rows: [""] * len(rows), items)]
    assert len(texts) == min(len(rollouts), 6) > 1
    text = items[view.items.keys[0]].prompt
    assert {*texts} <= {f"{share}%: {text}" for share in (25, 50, 75, 100)}
