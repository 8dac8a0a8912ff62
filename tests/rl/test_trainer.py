"""The trainer: budgets hold, runs resume to the bit, gradients are the ones that the formulas say."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from budgeteer.core import registry
from budgeteer.core.environment import Item
from budgeteer.core.errors import BudgetExceeded, CheckpointError, InvalidInput, VerifierError
from budgeteer.core.plan import ABORTED, CUT, ENDED
from budgeteer.lab import heldout
from budgeteer.lab.tasks.base import extract_answer, score
from budgeteer.models.policy import REASONER, load_policy
from budgeteer.rl import recipes, trainer
from budgeteer.rl.history import History
from budgeteer.rl.logprobs import entropies, token_logprobs
from budgeteer.rl.ratio import Loss, clipped
from budgeteer.rl.recipes.kit import fixed_group
from budgeteer.rl.rollouts import Role, Rollouts
from budgeteer.rl.step import Progress
from budgeteer.rl.trainer import Trainer
from budgeteer.rl.weight import prompt_mean, sequence_mean, token_mean
from helpers.toys import MARKERS, VOCAB, toy_model
from helpers.training import KEYS, PROMPTS, SIZE, build, config, even_sum

RECIPES = list(registry.of("recipe"))


def assert_same_weights(a: Trainer, b: Trainer) -> None:
    for (name, x), (_, y) in zip(a.model.named_parameters(), b.model.named_parameters(), strict=True):
        assert torch.equal(x, y), name


def without_clocks(progress: Progress) -> dict:
    data = dataclasses.asdict(progress)
    data.pop("seconds")
    data.pop("phases")
    data["curve"] = [{k: v for k, v in point.items() if k != "seconds"} for point in data["curve"]]
    return data


# -- budgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [150, 800, 2000])
@pytest.mark.parametrize("name", [*RECIPES, "duet:aborted_fail=false", "duet:stop_answered=false"])
def test_the_budget_holds_and_no_token_is_lost(name, budget):
    spent = []
    t = build(name, budget=budget, c=config(max_tokens=24))
    sampled = trainer.sample

    def counted(*args, **options):
        rollouts, state = sampled(*args, **options)
        spent.append(rollouts.used)
        return rollouts, state

    trainer.sample, p = counted, None
    try:
        p = t.run()
    except BudgetExceeded:
        assert budget == 150  # some recipes need more than one rollout a step
    finally:
        trainer.sample = sampled
    if p is None:
        return
    log = p.steps_log
    assert p.used == sum(spent) == sum(row["used"] for row in log) <= budget
    assert p.wasted == sum(row["wasted"] for row in log)
    assert p.trained == sum(row["trained"] for row in log)
    assert p.trained + p.wasted <= p.used
    if recipes.get(name).carry is None:  # else rows hold beginnings that were paid for earlier
        assert all(row["trained"] + row["wasted"] <= row["used"] for row in log)
        assert all(sum(used for used, _, _ in row["by_key"].values()) == row["used"] for row in log)
    assert all(sum(n for _, _, n in row["by_key"].values()) == row["rollouts"] for row in log)
    assert p.planned > 0
    assert len(log) == p.step <= 4
    assert t.control.left() == budget - p.used


@pytest.mark.parametrize("name", RECIPES)
def test_the_budget_of_a_step_holds_in_every_step(name):
    t = build(name, budget=None, step_budget=300)
    p = t.run()
    assert p.step == 4
    assert all(0 < row["used"] <= 300 for row in p.steps_log)


def test_an_even_pace_leaves_tokens_for_every_step():
    p = build("grpo", budget=800).run()
    assert p.step == 4
    assert min(row["used"] for row in p.steps_log) > 100


def test_without_a_budget_a_fixed_group_is_what_is_asked():
    recipe = dataclasses.replace(recipes.get("grpo"), allocator=fixed_group(4))
    p = build(recipe, budget=None).run()
    assert [row["rollouts"] for row in p.steps_log] == [16] * 4
    assert [row["counts"] for row in p.steps_log] == [{"4": 4}] * 4


def test_without_a_budget_a_recipe_keeps_its_allocator():
    plain, spread = build("grpo", budget=None).run(), build("duet", budget=None, c=config(steps=8)).run()
    assert [row["counts"] for row in plain.steps_log] == [{"4": 4}] * 4  # what uniform groups would be
    later = [row["counts"] for row in spread.steps_log[3:]]
    assert any(len(counts) > 1 for counts in later)
    for row in spread.steps_log:  # as many rollouts as uniform groups, as nearly as costs are known
        assert 8 <= row["rollouts"] <= 32
    full = build("dapo", budget=None, c=config(steps=1)).run()  # draws until enough groups are mixed or none is left
    assert full.steps_log[0]["rollouts"] > 16


@pytest.mark.parametrize("kl", [0.0, 0.1])
@pytest.mark.parametrize("name", [*RECIPES, "duet:aborted_fail=false", "prompt-selection:replay=1"])
def test_every_token_is_trained_wasted_or_completed_without_gradient(name, kl):
    t = build(name, budget=701, c=config(max_tokens=24, kl=kl, seed=3))
    kept, learnt, update, backward = [], [], t._update, t._backward

    def watched_update(found):
        kept.append(found.rollouts)
        learnt.append(set())
        return update(found)

    def watched_backward(found, rows, *rest):
        learnt[-1] |= set(rows.tolist())
        return backward(found, rows, *rest)

    t._update, t._backward = watched_update, watched_backward
    p = t.run()
    for row, rollouts, rows in zip(p.steps_log, kept, learnt, strict=True):
        own = ~rollouts.replayed  # the others were paid for and counted in their own step
        trained = np.isin(np.arange(len(rollouts)), list(rows)) & own
        lost = (rollouts.status == ABORTED) & ~trained & own
        assert row["trained"] == rollouts.billed[trained].sum()
        assert row["wasted"] == rollouts.billed[lost].sum() == sum(w for _, w, _ in row["by_key"].values())
        if t.recipe.carry is None:  # else beginnings were paid for in an earlier step
            assert row["used"] == row["trained"] + row["wasted"] + rollouts.billed[~trained & ~lost & own].sum()
    assert p.trained + p.wasted <= p.used == sum(row["used"] for row in p.steps_log)


def test_aborted_rollouts_that_are_learnt_from_count_as_trained():
    options = {"budget": 3000, "c": config(max_tokens=24, steps=6)}
    t, aborted = build("duet", **options), 0
    update = t._update

    def watched(found):
        nonlocal aborted
        aborted += int(found.rollouts.length[(found.rollouts.status == ABORTED)].sum())
        return update(found)

    t._update = watched
    p = t.run()
    assert aborted > 0
    assert p.wasted < aborted


@pytest.mark.parametrize("name", RECIPES)
def test_all_rollouts_of_a_step_are_in_its_counts(name):
    p = build(name, budget=2000).run()
    carries = recipes.get(name).carry is not None
    for row in p.steps_log[: 1 if carries else None]:  # later ones also end rows of prompts that are not of their own
        planned = sum(int(n) * prompts for n, prompts in row["counts"].items())
        if carries:  # some of them go on in the next step
            assert planned > row["rollouts"]
        else:
            assert planned == row["rollouts"]


@pytest.mark.parametrize("name", RECIPES)
def test_too_small_a_budget_says_what_to_give(name):
    with pytest.raises(BudgetExceeded, match="give at least") as caught:
        build(name, budget=8).run()
    needed = int(re.search(r"give at least ([\d,]+)", str(caught.value))[1].replace(",", ""))
    progress = build(name, budget=needed).run()
    assert progress.step >= 1  # the advice works
    assert max(map(int, progress.steps_log[0]["counts"])) >= 2  # and a prompt has rollouts that can differ


def test_too_small_a_budget_says_what_the_usual_groups_take():
    trainer = build("grpo", budget=8)
    with pytest.raises(BudgetExceeded) as caught:
        trainer.run()
    c = trainer.config
    _, _, items = trainer.control.candidates()
    usual = c.steps * math.ceil(c.prompts * c.group * items.cost.mean())
    assert f"{c.group} rollouts of every prompt take about {usual:,}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "written"),
    [("right-only", "grpo:reward=right-only"), ("neyman", "grpo:allocator=neyman"), ("rex", "grpo:temperature=rex")],
)
def test_a_part_in_the_place_of_a_recipe_is_told_how_it_is_written(name, written):
    with pytest.raises(InvalidInput, match=f"{name!r} is no recipe, but a part of one; write {written}"):
        recipes.get(name)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises((BudgetExceeded, InvalidInput)):
        build(budget=0).run()


def test_rows_cut_by_the_budget_carry_no_gradient():
    for name in ("grpo", "duet"):
        t = build(name, budget=101, c=config(steps=1, max_tokens=24))
        seen = []
        original = t._update
        t._update = lambda u, seen=seen, original=original: (seen.append((u.rollouts, u.advantage)), original(u))[1]
        t.run()
        ((rollouts, advantage),) = seen
        natural = np.array([1 in row[:n].tolist() for row, n in zip(rollouts.tokens, rollouts.length, strict=True)])
        short = ~natural & (rollouts.length < 24) & (rollouts.status == ABORTED)
        if name == "grpo":
            assert short.any()
            assert np.all(advantage[short] == 0)


def test_a_step_takes_fresh_prompts_until_an_epoch_is_through():
    t = build(c=config(steps=3))
    seen = []
    t.score = lambda index, rows: (seen.append(set(index.tolist())), even_sum(index, rows))[1]
    t.run()
    assert set.union(*seen) == set(range(SIZE))
    assert sum(len(s) for s in seen) == SIZE


def test_more_prompts_a_step_than_there_are_is_refused():
    with pytest.raises(InvalidInput, match="12 training prompts"):
        build(c=config(prompts=13))


# -- verifiers --------------------------------------------------------------------------------------------------------


class Broken:
    name = "broken"

    def __init__(self, result):
        self.result = result

    def verify(self, item, answer):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (RuntimeError("no server"), "raised on item 'q7'.*no server"),
        (float("nan"), "returned nan on item 'q7'"),
        (float("inf"), "returned inf on item 'q7'"),
        (None, "raised on item 'q7'"),
        ("?", "raised on item 'q7'"),
    ],
)
def test_a_verifier_that_fails_is_named_with_its_item(result, message):
    item = Item("q7", "1 + 1 =", "2")
    with pytest.raises(VerifierError, match=message) as caught:
        score(Broken(result), item, "1+1=2;</think>2\n")
    assert "broken" in str(caught.value)
    if (REASONER / "model.safetensors").exists():
        policy = load_policy()
        with pytest.raises(VerifierError, match=message):
            heldout.rewards(policy, Broken(result), [item], [policy.tokenizer.encode("2</think>2").ids])


def test_a_verifier_error_ends_the_run():
    def reward(index, rows):
        raise VerifierError("verifier of 'x' raised on item 'y'")

    with pytest.raises(VerifierError, match="item 'y'"):
        build(reward=reward).run()


def test_the_answer_is_the_first_line_after_the_first_marker():
    assert extract_answer("1;</think> 7 \n8</think>9") == "7"
    assert extract_answer("</think>") == ""
    assert extract_answer("7\n8") is None


# -- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grpo", "duet", "duet-published", "reinforce-ada-balance", "dapo", "knapsack"])
def test_a_resumed_run_is_the_same_run(name, tmp_path):
    options = {"evaluate": lambda m: float(m.embed.detach().sum()), "budget": 4000}
    whole = build(name, **options)
    whole.run()
    first = build(name, **options)
    first.run(tmp_path, lambda p: p.step < 3)
    assert first.progress.step == 3
    second = build(name, **options)
    second.run(tmp_path)
    assert_same_weights(second, whole)
    assert without_clocks(second.progress) == without_clocks(whole.progress)


def test_a_resumed_run_with_a_reference_keeps_its_reference(tmp_path):
    c = config(kl=0.3)
    whole = build(c=c)
    whole.run()
    build(c=c).run(tmp_path, lambda p: p.step < 2)
    second = build(c=c)
    second.run(tmp_path)
    assert_same_weights(second, whole)
    assert torch.equal(second.reference.embed, toy_model().embed)


def test_on_step_pauses_with_a_checkpoint_and_the_next_call_goes_on(tmp_path):
    t = build()
    p = t.run(tmp_path, lambda p: False)
    assert p.step == 1
    assert (tmp_path / "checkpoint.pt").exists()
    assert [f.name for f in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert build().run(tmp_path, lambda p: False).step == 2
    assert build().run(tmp_path).step == 4


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build().run(None, lambda p: p.step < 2)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import conftest
from helpers import training
t = training.build(sys.argv[2], c=training.config(steps=5))
def on_step(progress):
    if progress.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return True
t.run(Path(sys.argv[1]), on_step, save_every=2)
"""


@pytest.mark.parametrize("name", ["duet", "seele"])
def test_a_killed_run_resumes_to_the_same_weights(name, tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parents[1]))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), name], timeout=120, env={**os.environ})
    assert done.returncode == -signal.SIGKILL
    resumed, whole = build(name, c=config(steps=5)), build(name, c=config(steps=5))
    starts = []
    resumed.run(tmp_path, lambda p: bool(starts.append(p.step)) or True)
    assert starts == [3, 4, 5]  # step 3 was lost with the process and is done again
    whole.run()
    assert_same_weights(resumed, whole)
    assert without_clocks(resumed.progress) == without_clocks(whole.progress)


def test_a_part_of_a_checkpoint_left_by_a_kill_does_no_harm(tmp_path):
    build().run(tmp_path, lambda p: p.step < 2)
    (tmp_path / "checkpoint.part").write_bytes(b"half")
    t, whole = build(), build()
    t.run(tmp_path)
    whole.run()
    assert_same_weights(t, whole)


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_a_damaged_checkpoint_is_refused(tmp_path, keep):
    build().run(tmp_path, lambda p: False)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"cannot read checkpoint .*checkpoint\.pt.*delete it"):
        build().run(tmp_path)
    assert path.stat().st_size == keep


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"recipe": "duet"}, "parts of the recipe; recipe: duet here, grpo there"),
        ({"recipe": dataclasses.replace(recipes.get("grpo"), loss=Loss(clipped(0.1, 0.2)))}, "parts of the recipe"),
        ({"c": config(lr=0.5)}, "lr: 0.5 here, 0.01 there"),
        ({"c": config(seed=1)}, "seed: 1 here, 0 there"),
        ({"budget": 801}, "tokens: 801 here, 800 there"),
        ({"step_budget": 300}, "tokens of a step: 300 here, None there"),
        ({"seed_of_model": 1}, "weights of the model"),
        ({"identity": {"problems": "content 0"}}, "problems"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_what_differs_is_named(tmp_path, other, named):
    build().run(tmp_path, lambda p: False)
    with pytest.raises(CheckpointError, match=re.escape(f"of another run ({named})")):
        build(**other).run(tmp_path)


def test_checkpoints_need_no_evaluation(tmp_path):
    t, seen = build(c=config(eval_every=0)), []
    t.run(tmp_path, lambda p: bool(seen.append((tmp_path / "checkpoint.pt").exists())) or True, save_every=2)
    assert seen == [False, False, True, True]
    assert build(c=config(eval_every=0)).run(tmp_path).step == 4


def test_the_seed_decides_the_run():
    one, two, other = build(), build(), build(c=config(seed=1))
    for t in (one, two, other):
        t.run()
    assert_same_weights(one, two)
    assert not torch.equal(one.model.embed, other.model.embed)


# -- gradients --------------------------------------------------------------------------------------------------------


def gradients(t: Trainer, rollouts: Rollouts, advantage, rows=None) -> dict[str, torch.Tensor]:
    """Summed gradient of all minibatches, before clipping; the optimiser does not move."""
    found: dict[str, torch.Tensor] = {}

    def hold():
        for name, w in t.model.named_parameters():
            found[name] = found.get(name, 0) + w.grad.clone()

    t.optimiser.step = hold
    rows = np.arange(len(rollouts)) if rows is None else rows
    t._update(t.control.chosen(rollouts, np.asarray(advantage, np.float64), rows))
    return found


def rollouts_of(t: Trainer, units, seed=0) -> Rollouts:
    found, _ = trainer.sample(
        t.model, KEYS[: len(units)], PROMPTS[: len(units)], np.array(units), max_tokens=t.config.max_tokens,
        markers=MARKERS, seed=seed, temperature=t.config.temperature,
    )  # fmt: skip
    return found


def reinforce(t: Trainer, rollouts: Rollouts, advantage, weight) -> dict[str, torch.Tensor]:
    """-sum_i w_i A_i grad log pi(row i), one row and one token at a time."""
    model = copy.deepcopy(t.model)
    total = torch.zeros(())
    for i in range(len(rollouts)):
        tokens = list(rollouts.prompts[rollouts.group[i]])
        for j in range(rollouts.length[i]):
            logits = model.logits(model(torch.tensor([tokens])))[0, -1] / t.config.temperature
            token = int(rollouts.tokens[i, j])
            if not (rollouts.role == Role.FORCED)[i, j]:
                w = weight[i] if weight.ndim == 1 else weight[i, j]
                total = total - float(w * advantage[i]) * logits.log_softmax(-1)[token]
            tokens.append(token)
    total.backward()
    return {name: w.grad for name, w in model.named_parameters()}


def assert_close(a: dict, b: dict, **tolerance) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)


LOOSE = {"atol": 2e-6, "rtol": 1e-3}


def of_weight(token_weight, **changes) -> Trainer:
    recipe = dataclasses.replace(recipes.get("grpo"), token_weight=token_weight)
    options = {"minibatches": 1, "max_grad_norm": 1e9, **changes}
    return build(recipe, c=config(**options))


def test_one_token_reinforce_by_hand():
    t = of_weight(sequence_mean, max_tokens=1)
    rollouts = rollouts_of(t, [3, 0, 2])
    advantage = np.array([1.0, -1.0, 0.5, 2.0, -0.25])
    captured = []
    project = t.model.logits

    def watched(hidden):
        out = project(hidden)
        out.retain_grad()
        captured.append(out)
        return out

    t.model.logits = watched
    gradients(t, rollouts, advantage)
    (logits,) = captured  # sorted by length of prompt and completion
    order = np.argsort([len(rollouts.prompts[g]) for g in rollouts.group], kind="stable")
    p = logits.detach().softmax(-1).numpy()
    got = {}
    for row, i in enumerate(order):
        token = int(rollouts.tokens[i, 0])
        matches = [k for k in range(5) if k not in got and rollouts.group[k] == rollouts.group[i]]
        for k in matches:
            want = -(advantage[k] / 5) * (np.eye(VOCAB)[rollouts.tokens[k, 0]] - p[row])
            if np.allclose(logits.grad[row].numpy(), want, atol=1e-6):
                got[k] = token
                break
    assert sorted(got) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("token_weight", [token_mean, sequence_mean, prompt_mean])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_gradient_is_the_weighted_policy_gradient(token_weight, temperature):
    t = of_weight(token_weight, max_tokens=6, temperature=temperature)
    rollouts = rollouts_of(t, [3, 0, 2, 1])
    advantage = np.array([1.0, -1.0, 0.5, 2.0, -0.25, 1.5])
    weight = token_weight(rollouts.length, rollouts.group)
    assert_close(gradients(t, rollouts, advantage), reinforce(t, rollouts, advantage, weight), **LOOSE)


def late(length, group):
    """Token j of a row weighs j + 1; what stands behind the end of a row would be noticed."""
    weight = np.tile(np.arange(1.0, length.max() + 1), (len(length), 1))
    return np.where(np.arange(length.max()) < length[:, None], weight, 1e6)


def test_weights_of_tokens_are_those_of_the_gradient():
    t = of_weight(late, max_tokens=6)
    rollouts = rollouts_of(t, [3, 0, 2])
    length = np.array([6, 4, 6, 2, 3])
    role = np.where(np.arange(6) < length[:, None], rollouts.role, Role.NONE).astype(np.int8)
    rollouts = dataclasses.replace(rollouts, length=length, role=role)
    advantage, by_place = np.array([1.0, -1.0, 0.5, 2.0, -0.25]), np.arange(1.0, 7.0)
    # sum_i sum_j (j + 1) A_i grad log pi; the longest of some rows is shorter than the longest of all
    for rows in (np.arange(5), np.array([1, 3, 4])):
        weight = np.isin(np.arange(5), rows)[:, None] * by_place
        assert_close(gradients(t, rollouts, advantage, rows), reinforce(t, rollouts, advantage, weight), **LOOSE)


def test_rows_without_advantage_do_not_rescale_the_others():
    t = of_weight(prompt_mean, max_tokens=6)
    rollouts = rollouts_of(t, [3, 0, 2, 1])
    advantage = np.array([1.0, 0.0, 0.0, 2.0, 0.0, 0.0])
    weight = prompt_mean(rollouts.length, rollouts.group)
    assert_close(gradients(t, rollouts, advantage), reinforce(t, rollouts, advantage, weight), **LOOSE)


def test_forced_tokens_carry_no_gradient():
    t = of_weight(token_mean, max_tokens=6)
    rollouts = rollouts_of(t, [4])
    forced = np.zeros(rollouts.role.shape, np.bool_)
    forced[:, 0] = forced[1, :] = True
    role = np.where(forced & rollouts.sampled, Role.FORCED, rollouts.role)
    logprob = np.where(forced, np.float32(np.nan), rollouts.logprob)  # nobody knows it, and it spoils nothing
    rollouts = dataclasses.replace(rollouts, role=role.astype(np.int8), logprob=logprob)
    advantage = np.array([1.0, -1.0, 0.5, 2.0])
    weight = token_mean(rollouts.length, rollouts.group)
    assert_close(gradients(t, rollouts, advantage), reinforce(t, rollouts, advantage, weight), **LOOSE)


def test_unselected_rows_carry_no_gradient_and_no_weight():
    t = of_weight(token_mean, max_tokens=6)
    rollouts = rollouts_of(t, [5])
    advantage, rows = np.array([1.0, -1.0, 0.5, 2.0, 3.0]), np.array([0, 3])
    weight = np.zeros(5)
    weight[rows] = token_mean(rollouts.length[rows], rollouts.group[rows])
    assert_close(gradients(t, rollouts, advantage, rows), reinforce(t, rollouts, advantage, weight), **LOOSE)


@pytest.mark.parametrize("micro", [1, 40, 100])
def test_micro_batches_give_the_same_gradient(monkeypatch, micro):
    t = of_weight(prompt_mean)
    rollouts = rollouts_of(t, [5, 3, 0, 6])
    advantage = np.random.default_rng(0).normal(size=len(rollouts))
    whole = gradients(t, rollouts, advantage)
    monkeypatch.setattr(trainer, "MICRO", micro)
    assert_close(gradients(t, rollouts, advantage), whole, **LOOSE)


def test_minibatches_share_out_the_gradient():
    t, halves = of_weight(token_mean), of_weight(token_mean, minibatches=2)
    rollouts = rollouts_of(t, [5, 3, 0, 6])
    advantage = np.random.default_rng(0).normal(size=len(rollouts))
    whole, summed = gradients(t, rollouts, advantage), gradients(halves, rollouts, advantage)
    # each of the two is an estimate of the whole gradient
    assert_close({name: g / 2 for name, g in summed.items()}, whole, **LOOSE)


def test_a_kl_penalty_pulls_nowhere_while_the_policy_is_the_reference():
    plain, pulled = of_weight(prompt_mean), of_weight(prompt_mean, kl=0.7)
    rollouts = rollouts_of(plain, [3, 0, 4])
    advantage = np.random.default_rng(0).normal(size=len(rollouts))
    assert pulled.reference is not None
    assert_close(gradients(pulled, rollouts, advantage), gradients(plain, rollouts, advantage), **LOOSE)


def test_a_kl_penalty_keeps_the_policy_nearer_to_the_reference():
    def distance(kl):
        t = build(c=config(steps=8, kl=kl, minibatches=1), budget=4000)
        t.run()
        prompts = [PROMPTS[i] for i in range(SIZE)]
        start, now = toy_model(), t.model
        gap = 0.0
        with torch.no_grad():
            for prompt in prompts:
                p = start.logits(start(torch.tensor([prompt])))[0, -1].log_softmax(-1)
                q = now.logits(now(torch.tensor([prompt])))[0, -1].log_softmax(-1)
                gap += float((q.exp() * (q - p)).sum())
        return gap

    assert distance(3.0) < 0.5 * distance(0.0)


def test_a_penalty_needs_no_advantage_so_aborted_rows_carry_its_gradient_and_are_not_wasted():
    def wasted(kl):
        return build("duet:aborted_fail=false", c=config(kl=kl, max_tokens=24, steps=6), budget=3000).run().wasted

    assert wasted(0.0) > 0
    assert wasted(0.1) == 0


def test_token_logprobs_are_those_of_the_sampler():
    t = build()
    rollouts = rollouts_of(t, [3, 2, 0, 4])
    prompts = [rollouts.prompts[g] for g in rollouts.group]
    with torch.no_grad():
        got, mask = token_logprobs(t.model, prompts, rollouts.tokens, rollouts.length, 1.0)
    np.testing.assert_allclose(got.numpy(), rollouts.logprob[mask.numpy()], atol=1e-4)
    assert mask.sum() == rollouts.used


def test_no_useful_row_means_no_update():
    t = build(reward=lambda index, rows: np.zeros(len(rows)))
    before = copy.deepcopy(t.model.state_dict())
    p = t.run()
    assert p.trained == 0
    assert p.used > 0
    assert all(torch.equal(before[name], w) for name, w in t.model.state_dict().items())


# -- it runs and learns -----------------------------------------------------------------------------------------------


def test_bfloat16_runs_on_the_cpu_and_keeps_to_the_budget():
    t = build("duet", c=config(dtype="bfloat16"))
    p = t.run()
    assert p.step == 4
    assert p.used <= 800
    assert t.model.embed.dtype == torch.float32
    assert all(torch.isfinite(w).all() for w in t.model.parameters())


@pytest.mark.parametrize("name", ["grpo", "duet", "uniform-stop", "vip"])
def test_it_learns_to_start_with_one_of_few_tokens(name):
    def reward(index, rows):
        return np.array([float(row[0] % 4 == 3) for row in rows])

    p = build(name, c=config(steps=15, prompts=6, max_tokens=3), reward=reward, budget=15 * 140).run()
    rewards = [row["reward"] for row in p.steps_log]
    assert np.mean(rewards[:2]) < 0.4
    assert np.mean(rewards[-3:]) > 0.9


def test_the_curve_holds_the_evaluations():
    p = build(evaluate=lambda model: 0.25, c=config(steps=4, eval_every=1)).run()
    assert [point["accuracy"] for point in p.curve] == [0.25] * 4  # before the first step and after all but the last
    assert [point["tokens"] for point in p.curve] == sorted(point["tokens"] for point in p.curve)
    assert p.curve[0]["tokens"] == 0


def test_traces_and_phases_are_kept_for_the_report():
    p = build("duet").run()
    assert 0 < len(p.traces) <= 9
    assert {t["status"] for t in p.traces} <= {1, 2, 3, 4}
    assert all(t["key"] in KEYS for t in p.traces)
    assert {"allocation", "sampling", "training", "verifying", "stopping"} <= p.phases.keys()
    assert sum(v for k, v in p.phases.items()) <= p.seconds * 1.05
    assert History.empty().keys == ()
    assert {ENDED, CUT, ABORTED} == {1, 4, 3}


def test_entropies_are_those_of_the_tempered_policy():
    t = build(c=config(max_tokens=5, temperature=0.7))
    rollouts = rollouts_of(t, [2, 1])
    found = entropies(t.model, rollouts, 0.7)
    for i in range(len(rollouts)):
        row = [*rollouts.prompts[rollouts.group[i]], *rollouts.tokens[i, : rollouts.length[i]].tolist()]
        begin = len(row) - int(rollouts.length[i])
        logp = (t.model.logits(t.model(torch.tensor([row])))[0] / 0.7).log_softmax(-1)[begin - 1 : -1]
        np.testing.assert_allclose(found[i, : len(logp)], -(logp.exp() * logp).sum(-1).detach(), atol=1e-5)
        assert np.isnan(found[i, len(logp) :]).all()
