"""TRL's trainer with recipes: without one it is TRL's own, and with one its groups, losses and budgets are exact."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import transformers  # noqa: E402
from datasets import Dataset  # noqa: E402
from trl import GRPOTrainer  # noqa: E402

from budgeteer.adapters.trl import BudgetedGRPOTrainer  # noqa: E402
from budgeteer.adapters.trl.order import Taken, trl_order  # noqa: E402
from budgeteer.adapters.trl.scores import require_scores  # noqa: E402
from budgeteer.adapters.trl.sharded import refuse_shards  # noqa: E402
from budgeteer.adapters.trl.update import trl_advantages, weighted  # noqa: E402
from budgeteer.core.errors import BudgeteerError, BudgetExceeded, CheckpointError, InvalidInput  # noqa: E402
from budgeteer.core.plan import ABORTED  # noqa: E402
from budgeteer.rl import recipes  # noqa: E402
from budgeteer.rl.recipe import Aborted  # noqa: E402
from budgeteer.rl.step import Update  # noqa: E402
from budgeteer.rl.weight import prompt_mean  # noqa: E402
from budgeteer.steer import budget_forcing, marker_gate  # noqa: E402
from helpers.rollouts import rows_of  # noqa: E402
from helpers.trl_tiny import DATA, THINKER, config, letters, odd, ragged, tiny, trained, weights  # noqa: E402

LOSSES = ["dapo", "grpo", "vespo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return tiny(tmp_path_factory.mktemp("tiny"))


class Padded(BudgetedGRPOTrainer):
    """The trainer, which computes padding as TRL does."""

    trims = property(lambda self: False, lambda self, value: None)


def losses(trainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("seed", [pytest.param(i, marks=pytest.mark.slow if i else []) for i in range(8)])
def test_grpo_without_a_budget_is_trls_own(folder, tmp_path, seed) -> None:
    """Bit by bit: losses, weights and metrics after three steps, with settings drawn at random; some cross an epoch. A
    budget that is more than the run costs changes nothing but that padding is not computed."""
    draw = random.Random(seed)
    settings = {
        "loss_type": LOSSES[seed],
        "gradient_accumulation_steps": draw.choice([1, 2, 4]),
        "steps_per_generation": draw.choice([1, 2, 4]),
        "num_iterations": draw.choice([1, 2]),
        "num_generations": draw.choice([2, 4]),
        "beta": draw.choice([0.0, 0.05]),
        "scale_rewards": draw.choice(["group", "batch", "none"]),
        "multi_objective_aggregation": draw.choice(["sum_then_normalize", "normalize_then_sum"]),
        "mask_truncated_completions": draw.choice([True, False]),
        "top_p": draw.choice([1.0, 0.9]),
        "seed": seed,
    }
    theirs = trained(folder, config(tmp_path, **settings), kind=GRPOTrainer)
    budget = None if seed % 2 else "1m"
    ours = trained(folder, config(tmp_path, **settings), budget=budget, kind=Padded if budget else BudgetedGRPOTrainer)
    assert torch.equal(weights(theirs), weights(ours))
    for mine, other in zip(ours.state.log_history[:-1], theirs.state.log_history[:-1], strict=True):
        for name in other.keys() - {"step_time"}:
            assert mine[name] == pytest.approx(other[name], rel=1e-6, nan_ok=True), name


def plain_advantages(rewards, group, scale):
    """TRL's documented formula in plain Python, one group at a time."""
    total = [None if all(math.isnan(r) for r in row) else sum(r for r in row if not math.isnan(r)) for row in rewards]
    known = [t for t in total if t is not None]
    out = []
    for mine, g in zip(total, group, strict=True):
        peers = [t for t, h in zip(total, group, strict=True) if h == g and t is not None]
        values = peers if scale == "group" else known
        if mine is None or (scale == "group" and len(values) < 2):
            out.append(0.0)
            continue
        out.append((mine - statistics.mean(peers)) / (1 if scale == "none" else statistics.stdev(values) + 1e-4))
    return out


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_the_advantages_of_ragged_groups(scale) -> None:
    """Groups of one, all equal, with unscored rows, and in any order of rows."""
    rng, nan = np.random.default_rng(3), math.nan
    group = rng.permutation(np.repeat(np.arange(5), [1, 3, 4, 2, 6]))
    rewards = rng.integers(0, 3, (len(group), 2)).astype(float)
    rewards[group == 2] = 1.0
    rewards[np.flatnonzero(group == 4)[:2]] = nan
    rewards[np.flatnonzero(group == 1)[0], 0] = nan
    got = trl_advantages(torch.tensor(rewards), torch.ones(2), group, scale, "sum_then_normalize")
    assert got.value.tolist() == pytest.approx(plain_advantages(rewards.tolist(), group.tolist(), scale), abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "mean"),
    [
        ("dapo", "of prompts"),
        ("grpo", "plain"),
        *[
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("dapo", "plain"), ("grpo", "of prompts"), ("dr_grpo", "plain")]
        ],
    ],
)
def test_a_step_of_ragged_groups_is_the_gradient_computed_row_by_row(folder, tmp_path, loss, mean) -> None:
    """One step of SGD against a loop over single rows without padding, micro-batches or TRL's loss."""
    recipe = ragged(1, 5, 3, **({"token_weight": prompt_mean} if mean == "of prompts" else {}))
    seen: list = []

    def reward(prompts, completion_ids, **columns):
        seen.extend(zip(prompts, completion_ids, strict=True))
        return [sum(ids) % 7 / 7 for ids in completion_ids]

    settings = {"per_device_train_batch_size": 6, "num_generations": 4, "max_steps": 1, "loss_type": loss}
    args = config(tmp_path, **settings, optim="sgd", learning_rate=0.5, max_grad_norm=0.0, scale_rewards="none")
    made = trained(folder, args, recipe=recipe, reward_funcs=reward)
    assert len(seen) == 9  # of prompts with 1, 5 and 3 rollouts

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    group = [[p for p, _ in seen].index(prompt) for prompt, _ in seen]
    right = [sum(ids) % 7 / 7 for _, ids in seen]
    tokens, count, prompts = sum(len(ids) for _, ids in seen), len(seen), len(set(group))
    for i, (prompt, ids) in enumerate(seen):
        peers = [r for r, g in zip(right, group, strict=True) if g == group[i]]
        advantage = right[i] - sum(peers) / len(peers)
        before = tokenizer(prompt)["input_ids"]
        logits = model(torch.tensor([before + ids])).logits[0, len(before) - 1 : -1]
        logprob = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum()
        weight = {"dapo": 1 / tokens, "grpo": 1 / count / len(ids), "dr_grpo": 1 / count / 12}[loss]
        if mean == "of prompts":
            weight *= count / prompts / len(peers)
        (-advantage * weight * logprob).backward()
    expected = torch.cat([(p - 0.5 * p.grad).detach().flatten() for p in model.parameters()])
    assert torch.allclose(weights(made), expected, atol=2e-6)
    assert not torch.allclose(weights(made), torch.cat([p.detach().flatten() for p in model.parameters()]), atol=1e-4)


def test_thinned_rows_are_stood_for_in_the_means() -> None:
    """The factor of each row by hand: six rows of one group, of which one is left out and another stands for two; a
    seventh was aborted."""
    rollouts = rows_of([[1] * n for n in (4, 1, 2, 3, 1, 1, 9)])
    all_of_them, n = np.ones(7, bool), 7
    share = np.array([0.0, 2, 1, 1, 1, 1, 1])
    update = Update(rollouts, np.arange(n), np.ones(n), share, all_of_them, np.arange(n) == 6, all_of_them, share)
    for loss, factor in {"dapo": 1.0, "grpo": 8 / 6, "bnpo": 8 / 12}.items():
        got = weighted(update, recipes.get("grpo"), loss, 4)
        assert got.rows.tolist() == [1, 2, 3, 4, 5]
        assert got.over.tolist() == [0, 1, 2, 3, 4, 5]
        assert got.advantage.tolist() == pytest.approx([2 * factor, *[factor] * 4])


class Counting:
    """A reward function that counts the tokens it sees."""

    __name__ = "counting"

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def __call__(self, completion_ids, **columns):
        self.tokens.append(sum(map(len, completion_ids)))
        return [float(ids[0] % 2) if ids else 0.0 for ids in completion_ids]


@pytest.mark.parametrize(
    ("recipe", "budget", "step_budget"),
    [
        ("duet", 150, None),
        *[
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("grpo", 100, None),
                ("grpo", 333, None),
                ("grpo", None, 40),
                ("reinforce-ada-pos", 250, 70),
                ("d3s", 300, None),
                ("mopps", 300, None),
                ("c-grpo", 500, None),
            ]
        ],
    ],
)
def test_no_budget_is_ever_exceeded(folder, tmp_path, recipe, budget, step_budget) -> None:
    counting = Counting()
    args = config(tmp_path, max_steps=6, per_device_train_batch_size=8)
    made = trained(folder, args, reward_funcs=counting, recipe=recipe, budget=budget, step_budget=step_budget)
    progress = made.spending.progress
    assert progress.used == sum(counting.tokens) > 0
    assert progress.used <= (budget or math.inf)
    assert all(row["used"] <= (step_budget or math.inf) for row in progress.steps_log)
    last = [row for row in made.state.log_history if "loss" in row][-1]
    assert last["budget/used"] == progress.used
    assert last["budget/trained"] + last["budget/wasted"] <= last["budget/used"]
    if budget:
        assert last["budget/left"] == budget - progress.used


def test_a_generation_with_one_rollout_a_prompt_says_that_nothing_was_learnt(folder, tmp_path) -> None:
    with pytest.warns(UserWarning, match="no prompt of a step had a second rollout, and recipe 'grpo' learns from"):
        made = trained(folder, config(tmp_path, max_steps=1), budget=12)
    assert [row["rollouts"] for row in made.spending.progress.steps_log] == [1]
    assert made.spending.progress.trained == 0


def test_the_run_stops_when_the_budget_buys_nothing_more(folder, tmp_path) -> None:
    made = trained(folder, config(tmp_path, max_steps=50), recipe=replace(recipes.get("grpo"), pace="run"), budget=90)
    assert made.state.global_step < 50
    assert 90 - 15 <= made.spending.progress.used <= 90
    assert np.isfinite(losses(made)).all()


def test_a_rollout_ends_at_its_answer_and_forced_tokens_are_not_trained_on(folder, tmp_path) -> None:
    texts: list[str] = []

    def reward(completions, **columns):
        texts.extend(completions)
        return [float("e" in text) for text in completions]

    args = config(tmp_path, max_completion_length=24, max_steps=1)
    trained(folder, args, recipe="uniform-answer-stop", answer="e", close="", reward_funcs=reward)
    stopped = [text for text in texts if "e" in text]
    assert stopped
    assert all("e" not in text[: text.index("e")] and len(text) - text.index("e") < 12 for text in stopped)

    forced = replace(recipes.get("grpo"), steer=budget_forcing(6, reserve=2))
    masks = []

    class Watching(BudgetedGRPOTrainer):
        def _compute_loss(self, model, inputs):
            masks.append(inputs.get("tool_mask"))
            return super()._compute_loss(model, inputs)

    chat = Dataset.from_list([{"prompt": [{"role": "user", "content": row["prompt"]}], "n": 1} for row in DATA])
    reward = lambda completions, **columns: [0.5 for _ in completions]  # noqa: E731
    trained(folder, args, kind=Watching, recipe=forced, train_dataset=chat, reward_funcs=reward)
    assert any(mask is not None and (mask == 0).any() for mask in masks)


def test_a_group_whose_rows_are_all_aborted_changes_nothing(tmp_path) -> None:
    """The gate aborts every row after three tokens, before any of them ends: all is wasted, and SGD without decay
    leaves the weights."""
    folder = tiny(tmp_path / "model")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": 1017}))
    gate = marker_gate(0.0, 3.0, keep_abort=1e-9)
    recipe = replace(recipes.get("grpo"), steer=gate, aborted=Aborted.MASK)
    args = config(tmp_path, optim="sgd", learning_rate=1.0, max_steps=2)
    made = trained(folder, args, recipe=recipe, answer="no text has this", close="")
    p = made.spending.progress
    assert {row["status"] for row in p.traces} == {ABORTED}
    assert p.used == p.wasted > 0
    assert p.trained == 0
    start = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(weights(made), torch.cat([w.detach().flatten() for w in start.parameters()]))


@pytest.mark.parametrize("said", [None, pytest.param(math.nan, marks=pytest.mark.slow)])
def test_rows_without_a_reward_teach_nothing(folder, tmp_path, said) -> None:
    """All rows: no gradient, wasted, and no place in the history. Some: the others are GRPO among themselves."""
    nothing = lambda completions, **columns: [said for _ in completions]  # noqa: E731
    args = config(tmp_path, optim="sgd", learning_rate=1.0)
    made = trained(folder, args, reward_funcs=nothing, recipe="duet", close="")
    p = made.spending.progress
    assert p.used == p.wasted > 0
    assert made.spending.history.keys == ()
    start = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(weights(made), torch.cat([w.detach().flatten() for w in start.parameters()]))


def test_chats_lora_and_a_named_verifier(folder, tmp_path) -> None:
    peft = pytest.importorskip("peft")
    chat = Dataset.from_list([{"prompt": [{"role": "user", "content": row["prompt"]}], "n": row["n"]} for row in DATA])

    said = defaultdict(list)

    def even(prompts, completion_ids, n, **columns):
        got = [float(ids[0] % 2 == 0) for ids in completion_ids]
        for prompt, right in zip(prompts, got, strict=True):
            said[prompt[0]["content"]].append(right)
        return got

    def short(completions, **columns):
        assert all(message[0]["role"] == "assistant" for message in completions)
        return [-float(len(message[0]["content"])) for message in completions]

    settings = {"train_dataset": chat, "peft_config": peft.LoraConfig(r=2), "recipe": "knapsack", "verifier": "even"}
    made = trained(folder, config(tmp_path, beta=0.01), reward_funcs=[even, short], **settings)
    changed = {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert changed
    assert all("lora" in name for name in changed)
    history, texts = made.spending.history, [row["prompt"] for row in DATA]  # a key is the row's number
    assert {*history.keys} == {str(texts.index(prompt)) for prompt in said}
    for key, right, rollouts in zip(history.keys, history.right, history.rollouts, strict=True):
        assert (right, rollouts) == (sum(said[texts[int(key)]]), len(said[texts[int(key)]])), key
    assert 0 < history.right.sum() < history.rollouts.sum()


def test_a_row_that_the_named_verifier_does_not_score_is_wasted_whatever_others_say(folder, tmp_path) -> None:
    """Its None means: not verified. Without a name the row counts by the other function."""
    tokens = []

    def some(completion_ids, **columns):
        tokens.extend((len(ids), ids[0] % 2 == 0) for ids in completion_ids)
        return [1.0 if ids[0] % 2 else None for ids in completion_ids]

    for name in ("some", None):
        tokens.clear()
        made = trained(folder, config(tmp_path, max_steps=1), reward_funcs=[letters, some], verifier=name)
        unscored = sum(n for n, unknown in tokens if unknown)
        assert 0 < unscored < sum(n for n, _ in tokens) == made.spending.progress.used
        assert made.spending.progress.wasted == (unscored if name else 0)
        assert made.spending.history.rollouts.sum() == sum(not (name and unknown) for _, unknown in tokens)


def test_rows_that_the_loss_does_not_see_are_wasted(folder, tmp_path) -> None:
    """``mask_truncated_completions``: rows at the cap of 12 tokens; the ends of this model may come as the last one."""
    ends = set(transformers.GenerationConfig.from_pretrained(folder).eos_token_id)
    seen = []

    def spread(completion_ids, **columns):
        seen.extend(completion_ids)
        return [sum(ids) % 97 / 97 for ids in completion_ids]

    for masks in (True, False):
        seen.clear()
        args = config(tmp_path, max_steps=1, mask_truncated_completions=masks)
        p = trained(folder, args, reward_funcs=[spread]).spending.progress
        cut = sum(len(ids) for ids in seen if len(ids) == 12 and ids[-1] not in ends)
        assert 0 < cut < p.used == sum(map(len, seen))
        assert (p.trained, p.wasted) == ((p.used - cut, cut) if masks else (p.used, 0))


def test_completions_and_their_columns_are_logged_for_all_rollouts(folder, tmp_path) -> None:
    pandas = pytest.importorskip("pandas")

    def reward(completion_ids, log_extra, log_metric, **columns):
        log_extra("first", [ids[0] for ids in completion_ids])
        log_metric("mine", 2.0)
        return [float(ids[0] % 2) for ids in completion_ids]

    args = config(tmp_path, log_completions=True, max_steps=2, per_device_train_batch_size=8)
    made = trained(folder, args, recipe="reinforce-ada-balance", reward_funcs=reward, step_budget=100)
    table = pandas.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert len(table) == min(made.spending.progress.steps_log[0]["rollouts"], 16)
    assert (table["first"] % 2 == table["reward"]).all()
    assert [row["mine"] for row in made.state.log_history if "mine" in row] == [2.0, 2.0]


@pytest.mark.slow
def test_what_a_recipe_reads_beside_rewards(folder, tmp_path) -> None:
    """Entropies, log-probabilities and marks of plain rollouts: by one more pass, and from their texts."""
    for recipe in ("forking-tokens", "grpo:reward=pear", "grpo:reward=adactrl"):
        made = trained(folder, config(tmp_path, max_steps=2), recipe=recipe, close="")
        assert np.isfinite(losses(made)).all()
        assert made.spending.progress.trained > 0
    scores = replace(recipes.get("duet-published"), steer=None)
    made = trained(folder, config(tmp_path, max_steps=2), recipe=scores)
    assert (made.spending.history.std_count > 0).any()


@pytest.mark.parametrize(
    ("recipe", "settings", "steps"),
    [
        ("duet", {"num_iterations": 2, "steps_per_generation": 3, "max_steps": 5}, [4]),
        pytest.param("grpo", {"max_steps": 7}, [2, 4], marks=pytest.mark.slow),
        pytest.param(
            "reinforce-ada-balance", {"steps_per_generation": 4, "max_steps": 7}, [2, 4], marks=pytest.mark.slow
        ),
    ],
)
def test_a_resumed_run_has_the_weights_of_an_unbroken_one(folder, tmp_path, recipe, settings, steps) -> None:
    """From a checkpoint within the second generation, too, whose rollouts are in it."""
    args = config(tmp_path, save_strategy="steps", save_steps=1, **settings)
    whole = trained(folder, args, recipe=recipe, budget=700)
    for step in steps:
        resume = str(tmp_path / f"checkpoint-{step}")
        again = trained(folder, config(tmp_path / "b", **settings), recipe=recipe, budget=700, resume=resume)
        assert torch.equal(weights(whole), weights(again))
        assert whole.spending.progress.used == again.spending.progress.used
    other = BudgetedGRPOTrainer(str(folder), [letters, odd], args, DATA, recipe=recipe, budget=900)
    with pytest.raises(CheckpointError, match=r"of another run \(.*tokens: 900 here, 700 there"):
        other.train(resume_from_checkpoint=resume)
    cut = config(tmp_path / "c", **settings, max_completion_length=args.max_completion_length + 1)
    with pytest.raises(CheckpointError, match=r"cap of a rollout: "):
        trained(folder, cut, recipe=recipe, budget=700, resume=resume)
    (tmp_path / "checkpoint-2" / "budgeteer-0.pt").unlink()
    with pytest.raises(CheckpointError, match="has no budgeteer-0"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_generation_is_not_gone_on_with_in_other_batches(folder, tmp_path) -> None:
    """What a checkpoint within a generation has of it are batches of one size."""
    small = config(tmp_path, steps_per_generation=4, save_strategy="steps", save_steps=1, max_steps=1)
    trained(folder, small, budget=700)
    large = config(tmp_path / "b", per_device_train_batch_size=8, gradient_accumulation_steps=1, steps_per_generation=2)
    with pytest.raises(CheckpointError, match=r"batches of a generation: 2 here, 4 there; rollouts of a batch: 8 here"):
        trained(folder, large, budget=700, resume=str(tmp_path / "checkpoint-1"))


KEYS = [f"k{i}" for i in range(len(DATA))]
ASKED = [{"role": "user", "content": "What is 2 plus 3?"}]


def prompts(values: list) -> Dataset:
    return Dataset.from_dict({"prompt": values, "n": [1] * len(values)})


def without(*names: str):
    tokenizer = transformers.AutoTokenizer.from_pretrained(THINKER)
    for name in names:
        setattr(tokenizer, name, None)
    return tokenizer


@pytest.mark.parametrize(
    ("more", "settings", "message"),
    [
        ({"rollout_func": print}, {}, "does not offer rollout_func"),
        ({}, {"use_transformers_continuous_batching": True}, "does not offer use_transformers_continuous_batching"),
        ({"train_dataset": DATA.to_iterable_dataset()}, {}, "load it without streaming"),
        ({"recipe": "gspo"}, {"importance_sampling_level": "sequence"}, "leave that at the default"),
        ({"recipe": "dart"}, {"loss_type": "cispo"}, "another one of bnpo, dapo"),
        ({"recipe": "seele"}, {}, "give each row a field solution"),
        ({"recipe": "grpo:lr=rex"}, {}, "lr_scheduler_type"),
        ({"recipe": "grpo:temperature=staircase"}, {}, "TRL's is fixed"),
        ({"recipe": "duet"}, {"top_p": 0.9}, "leave top_p at the default"),
        ({"recipe": "tempo"}, {"scale_rewards": "batch"}, "leave scale_rewards"),
        ({"recipe": "grpo:token_weight=sequence-mean"}, {"loss_type": "grpo"}, "set it to cispo or dapo or vespo"),
        ({"recipe": "grpo:reward=e1"}, {}, "nobody gives it here"),
        ({"recipe": "grop"}, {}, "did you mean"),
        ({"verifier": "right"}, {}, "the reward functions are letters, odd"),
        ({"budget": "50%"}, {}, "a number of generated tokens"),
        ({"budget": "$5"}, {}, "a number of generated tokens"),
        ({"budget": 0}, {}, "budget is 0"),
        ({"budget": 3}, {}, "buys no rollout; give at least"),
        ({"step_budget": 3}, {}, "buys no rollout; give at least"),
        ({"recipe": "duet", "answer": "(", "close": ""}, {}, "no regular expression"),
        ({}, {"max_completion_length": 250}, "row 0 of the data set has .* 256 positions"),
        ({}, {"gradient_accumulation_steps": 16}, "12 prompts, 16 a generation"),
        ({"train_dataset": DATA.rename_column("prompt", "question")}, {}, "no column 'prompt'.*; rename"),
        ({"train_dataset": DATA.add_column("key", ["a"] * len(DATA))}, {}, "repeats"),
        ({"train_dataset": DATA.add_column("key", KEYS)}, {"max_completion_length": 250}, r"data set \(key 'k0'\)"),
        ({}, {"generation_kwargs": {"num_beams": 2}}, "generation_kwargs has num_beams, .*leave that out"),
        ({}, {"generation_kwargs": {"return_dict_in_generate": True}}, "has return_dict_in_generate, .*leave that out"),
        ({}, {"generation_kwargs": {"num_return_sequences": 2, "stop_strings": ["e"]}}, "_sequences, stop_strings"),
        ({}, {"generation_kwargs": {"stop_strings": "e"}, "use_vllm": True}, "generation_kwargs has stop_strings"),
        ({}, {"generation_kwargs": {"max_new_tokens": 3, "max_time": 1.0}}, "has max_new_tokens, max_time"),
        ({"answer": ""}, {}, "answer=''; give the regular expression"),
        ({"answer": None}, {}, "answer=None; give the regular expression"),
        ({"close": 5}, {}, "close=5; give the text"),
        ({"recipe": None}, {}, "recipe=None; give a recipe or its name"),
        ({}, {"max_completion_length": None}, "max_completion_length is None"),
        ({"train_dataset": DATA.select([])}, {}, "the data set is empty"),
        ({"train_dataset": prompts(["What?"] * 3 + [None])}, {}, "the prompt in row 3 of the data set is None"),
        ({"train_dataset": prompts([5] * 4)}, {}, "the prompt in row 0 of the data set is 5; all prompts have to be"),
        ({"train_dataset": prompts([ASKED] * 3 + [[]])}, {}, r"the prompt in row 3 of the data set is \[\]"),
        ({"train_dataset": prompts([[{"content": "What?"}]] * 4)}, {}, "messages with a role and a content"),
        ({"train_dataset": prompts([ASKED] * 4), "processing_class": without("chat_template")}, {}, "no chat template"),
        ({"processing_class": without("eos_token")}, {}, "has no end of a sequence"),
        ({"model": THINKER.parents[1]}, {}, "has no config.json"),
        ({"model": "/nowhere/at/all"}, {}, "is not there"),
    ],
)
def test_what_is_not_offered_is_refused_when_the_trainer_is_made(folder, tmp_path, more, settings, message) -> None:
    given = {"model": folder, "reward_funcs": [letters, odd], "train_dataset": DATA, **more}
    given["model"] = str(given["model"])
    with pytest.raises(BudgeteerError, match=message) as raised:
        BudgetedGRPOTrainer(args=config(tmp_path, **settings), **given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("message", "flag"),
    [("accelerate shards nothing here", "ACCELERATE_USE_FSDP"), ("not offer deepspeed", "ACCELERATE_USE_DEEPSPEED")],
)
def test_what_accelerate_launch_asks_for_is_refused_too(folder, tmp_path, monkeypatch, message, flag) -> None:
    args = config(tmp_path)
    monkeypatch.setenv(flag, "true")
    with pytest.raises(InvalidInput, match=message):
        BudgetedGRPOTrainer(str(folder), [letters, odd], args, DATA)


@pytest.mark.parametrize(
    ("version", "vllm", "message"),
    [(1, False, "this trainer knows version 2: --fsdp_version 2"), (2, True, "FSDP with use_vllm"), (2, False, None)],
)
def test_of_fsdp_version_2_without_vllm_is_taken(version, vllm, message) -> None:
    plugin = SimpleNamespace(fsdp_version=version)
    accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin))
    args = SimpleNamespace(fsdp=True)
    made = SimpleNamespace(args=args, is_fsdp_enabled=True, accelerator=accelerator, use_vllm=vllm)
    with pytest.raises(InvalidInput, match=message) if message else nullcontext():
        refuse_shards(made)


def test_an_infinite_reward_and_one_that_raises(folder, tmp_path) -> None:
    endless = lambda completions, **columns: [math.inf for _ in completions]  # noqa: E731
    endless.__name__ = "endless"
    with pytest.raises(InvalidInput, match="'endless' returned an infinite reward"):
        trained(folder, config(tmp_path), reward_funcs=endless)

    def broken(completions, **columns):
        raise ArithmeticError("of the verifier itself")

    with pytest.raises(ArithmeticError, match="of the verifier itself"):
        trained(folder, config(tmp_path), reward_funcs=broken)


@pytest.mark.parametrize("given", [None, [["good"]] * 8])
@pytest.mark.parametrize("awaited", [False, True])
def test_a_reward_function_that_gives_no_number_for_each_completion_is_named(folder, tmp_path, given, awaited) -> None:
    def odd_one(completions, **columns):
        return given

    async def odd_two(completions, **columns):
        return given

    name = "odd_two" if awaited else "odd_one"
    with pytest.raises(InvalidInput, match=rf"'{name}' returned .* for 8 completions; return a list"):
        trained(folder, config(tmp_path, max_steps=1), reward_funcs=odd_two if awaited else odd_one)


@pytest.mark.parametrize(
    "given",
    [1.0, [1.0], "good", ["1.0"] * 3, "111", b"111", dict.fromkeys(range(3), 1.0), {1, 2, 3}, iter("111"), [1j] * 3],
)
def test_what_is_no_list_of_numbers_is_no_scores(given) -> None:
    """Texts of numbers, and the keys of a mapping, are numbers to float() and not to TRL."""
    with pytest.raises(InvalidInput, match=r"returned .* for 3 completions; return a list with a number, or None"):
        require_scores(given, "odd", 3)


@pytest.mark.parametrize("given", [[1, None, math.nan], (1.0, True, 0), np.ones(3), torch.ones(3)])
def test_lists_of_numbers_are_scores(given) -> None:
    assert require_scores(given, "right", 3) is given


def test_equal_prompts_are_groups_of_their_own_and_padding_is_no_token(folder, tmp_path) -> None:
    """Rows of equal prompts are told apart by their place; a tokenizer without a pad token pads with the end."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    same, counting = Dataset.from_list([{"prompt": "What?"}] * 4), Counting()
    more = {"train_dataset": same, "processing_class": tokenizer, "reward_funcs": counting, "budget": 60}
    made = trained(folder, config(tmp_path, max_steps=1), **more)
    assert len(made.spending.history.keys) == 2  # prompts a generation
    assert made.spending.progress.used == sum(counting.tokens) <= 60


def test_the_order_of_prompts_is_trls() -> None:
    from trl.trainer.utils import RepeatSampler

    theirs = RepeatSampler(range(7), mini_repeat_count=1, batch_size=2, seed=5)
    epochs = [list(theirs), list(theirs)]
    stream = trl_order(2, shuffle=True)
    ours = [stream.pick(Taken(2 * i), tuple("abcdefg"), 2, 5).tolist() for i in range(6)]
    assert ours == [epoch[i : i + 2] for epoch in epochs for i in (0, 2, 4)]
    assert len(set(stream.pick(Taken(4), tuple("abcdefg"), 6, 5).tolist())) == 6


CHILD = [sys.executable, "-m", "helpers.trl_tiny"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        "ragged",
        "uniform-answer-stop:replay=1",
        "uniform-answer-stop:variant=drawn-budget,reward=l1",
        "uniform-answer-stop:ratio=truncated",
    ],
)
def test_two_processes_plan_and_learn_as_one(folder, tmp_path, recipe) -> None:
    """Over gloo: rows draw by their number, so the plans, rollouts and advantages are those of one process, also of a
    group whose rows are on both; the weights differ by the order of sums alone."""
    for processes in (1, 2):
        out = tmp_path / str(processes)
        launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=29517"]
        child = [*launch, *CHILD[1:], str(folder), recipe, "3", str(out), str(2 // processes)]
        subprocess.run(child, env=ENVIRONMENT, check=True)
    one, two = (torch.load(tmp_path / name / "end.pt") for name in "12")
    assert one["log"] == two["log"]
    assert recipe != "ragged" or all(row["counts"] == {"1": 1, "7": 1} for row in one["log"])
    assert len(one["advantages"]) == len(two["advantages"]) == len(one["log"]) > 1
    for mine, other in zip(one["advantages"], two["advantages"], strict=True):
        assert mine == pytest.approx(other, abs=1e-6)
        assert max(map(abs, mine)) > 0.1
    assert torch.allclose(one["weights"], two["weights"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["duet", "prompt-selection:replay=1"])
def test_killed_and_resumed_it_has_the_weights_of_an_unbroken_run(folder, tmp_path, recipe) -> None:
    def command(out):
        return [*CHILD, str(folder), recipe, "6", str(out), "2", "300"]

    subprocess.run(command(tmp_path / "whole"), env=ENVIRONMENT, check=True)
    child = subprocess.Popen(command(tmp_path / "killed"), env=ENVIRONMENT)
    while not (tmp_path / "killed" / "checkpoint-3" / "trainer_state.json").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "killed" / "end.pt").exists()
    subprocess.run(command(tmp_path / "killed"), env=ENVIRONMENT, check=True)
    whole, again = (torch.load(tmp_path / name / "end.pt") for name in ("whole", "killed"))
    assert torch.equal(whole["weights"], again["weights"])


def test_a_budget_below_one_rollout_says_how_much_would_do(folder, tmp_path) -> None:
    with pytest.raises(BudgetExceeded, match="give at least") as raised:
        BudgetedGRPOTrainer(str(folder), [letters, odd], config(tmp_path), DATA, budget=3)
    least = int(str(raised.value).split("give at least ")[1].split(" ")[0].replace(",", ""))
    BudgetedGRPOTrainer(str(folder), [letters, odd], config(tmp_path), DATA, budget=least)
