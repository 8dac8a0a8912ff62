"""Variants with TRL: rollouts that are asked with more than their prompts, and learn as they were asked."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import transformers  # noqa: E402
from datasets import Dataset  # noqa: E402
from trl import GRPOTrainer  # noqa: E402

from budgeteer.adapters.trl import BudgetedGRPOTrainer  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.rl import recipes  # noqa: E402
from budgeteer.rl.recipe import Variant, Variants  # noqa: E402
from budgeteer.rl.rollouts import Role  # noqa: E402
from budgeteer.rl.variant import both_kinds, effort, split_budgets  # noqa: E402
from helpers.trl_oracle import SGD, descended, updates_of  # noqa: E402
from helpers.trl_tiny import DATA, config, tiny, trained, weights  # noqa: E402

PLAIN = DATA.add_column("plain", DATA["prompt"])
TALK = Dataset.from_list(
    [
        {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": row["prompt"]}], **more}
        for row in DATA
        for more in [{"plain": row["prompt"]}]
    ]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return tiny(tmp_path_factory.mktemp("tiny"))


class Even:
    """A reward that remembers what it was asked with: a mapping a row."""

    __name__ = "even"

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def __call__(self, prompts, completions, completion_ids, log_extra=None, log_metric=None, **columns):
        columns.pop("trainer_state", None)
        names = ("prompt", "completion", "ids", *columns)
        for row in zip(prompts, completions, completion_ids, *columns.values(), strict=True):
            self.rows.append(dict(zip(names, row, strict=True)))
        return [float(sum(ids) % 2 == 0) for ids in completion_ids]


def generated(monkeypatch) -> list[tuple[int, ...]]:
    """The prompts that the model was given, as token ids."""
    seen, own = [], GRPOTrainer._generate_single_turn
    monkeypatch.setattr(
        GRPOTrainer, "_generate_single_turn",
        lambda self, ids, *more, **named: (seen.extend(map(tuple, ids)), own(self, ids, *more, **named))[1],
    )  # fmt: skip
    return seen


@pytest.mark.parametrize("data", [PLAIN, TALK], ids=["texts", "conversations"])
def test_prompts_are_generated_scored_and_learnt_from_as_they_were_asked(folder, tmp_path, monkeypatch, data) -> None:
    """Three steps of SGD against single rows; the prompts are those that the variant says, written here anew."""
    even, updates, given = Even(), updates_of(monkeypatch), generated(monkeypatch)
    recipe = replace(recipes.get("grpo"), variant=both_kinds())
    made = trained(folder, config(tmp_path, **SGD), recipe=recipe, reward_funcs=even, train_dataset=data)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    asked = []
    for row in even.rows:
        text = ("short: ", "long: ")[row["deliberate"]] + row["plain"]
        prompt = text if data is PLAIN else [data[0]["prompt"][0], {"role": "user", "content": text}]
        assert row["prompt"] == prompt
        if data is PLAIN:
            asked.append(tuple(tokenizer(text)["input_ids"]))
        else:
            asked.append(tuple(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)))
    assert {row["deliberate"] for row in even.rows} == {0, 1}
    assert Counter(given) == Counter(asked)
    rows = [ids for update in updates for ids in update.rollouts.prompts_of(np.arange(len(update.rollouts)))]
    assert Counter(rows) == Counter(asked)
    expected, _ = descended(folder, updates)
    assert torch.allclose(weights(made), expected, atol=1e-5)
    assert not torch.allclose(weights(made), descended(folder, updates[:1])[0], atol=1e-3)


def test_hbpo_says_its_budgets_at_the_head_of_the_answer(folder, tmp_path, monkeypatch) -> None:
    even, updates = Even(), updates_of(monkeypatch)
    made = trained(
        folder, config(tmp_path, max_steps=2, **SGD), recipe="hbpo", reward_funcs=even, train_dataset=DATA, budget=400
    )  # fmt: skip
    assert {int(re.match(r"(\d+): ", row["completion"])[1]) for row in even.rows} == {1, 3, 6, 7}
    assert all(row["completion"].startswith(f"{row['target']:.0f}: ") for row in even.rows)
    hint = sum(int((update.rollouts.role == Role.HINT).sum()) for update in updates)
    assert made.spending.progress.used == sum(len(row["ids"]) for row in even.rows) - hint <= 400
    expected, _ = descended(folder, updates)
    assert torch.allclose(weights(made), expected, atol=1e-5)


def test_a_steer_and_a_budget_hold_and_a_resumed_run_is_the_same(folder, tmp_path) -> None:
    recipe = "uniform-answer-stop:variant=drawn-budget,reward=l1"
    even = Even()
    more = {"recipe": recipe, "train_dataset": DATA, "budget": 330, "close": "", "answer": "e", "reward_funcs": even}
    whole = trained(folder, config(tmp_path, save_strategy="steps", save_steps=2), **more)
    assert whole.spending.progress.used == sum(len(row["ids"]) for row in even.rows) <= 330
    assert len({row["prompt"] for row in even.rows}) > 3
    more["reward_funcs"] = Even()
    again = trained(folder, config(tmp_path / "b"), resume=str(tmp_path / "checkpoint-2"), **more)
    assert torch.equal(weights(whole), weights(again))


def test_evaluation_asks_the_prompts_as_they_are(folder, tmp_path) -> None:
    """Without the variant's columns, too; a metric of training never sees those rows."""
    even, seen = Even(), []

    class Watched(BudgetedGRPOTrainer):
        def evaluate(self, *args, **more):
            before = len(even.rows)
            made = super().evaluate(*args, **more)
            seen.extend(even.rows[before:])
            return made

    args = config(tmp_path, max_steps=1, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=4)
    trained(
        folder, args, kind=Watched, recipe="grpo:variant=effort,reward=e1", reward_funcs=even, train_dataset=PLAIN,
        eval_dataset=PLAIN.select(range(2)),
    )  # fmt: skip
    assert len(seen) == 8
    assert all(row["prompt"] == row["plain"] and "effort" not in row for row in seen)
    assert all(row["prompt"] == f"{100 * row['effort']:.0f}%: {row['plain']}" for row in even.rows[:8])


def test_a_prompt_has_to_fit_with_the_longest_text_of_the_run(folder, tmp_path) -> None:
    """The text is long in the middle of the run alone."""

    def vary(state, view, rng):
        text = "and so on " * (60 if 0.4 < view.spent < 0.6 else 1)
        return Variants(suffix=(text,) * int(view.plan.units.sum()))

    recipe = replace(recipes.get("grpo"), variant=Variant(vary))
    with pytest.raises(InvalidInput, match=r"data set has .* 256 positions"):
        BudgetedGRPOTrainer(str(folder), [Even()], config(tmp_path), DATA, recipe=recipe)


@pytest.mark.parametrize(
    ("recipe", "data", "message"),
    [
        (effort(), DATA.add_column("effort", [1] * len(DATA)), "has a column 'effort', .*rename"),
        (both_kinds(), [[{"role": "system", "content": "Be brief."}]] * 12, "row 0 of the data set has no message of"),
        (split_budgets(), DATA, "hints and a steer"),
    ],
)
def test_what_does_not_go_with_a_variant_is_refused(folder, tmp_path, recipe, data, message) -> None:
    data = data if isinstance(data, Dataset) else Dataset.from_dict({"prompt": data})
    name = "uniform-answer-stop" if message == "hints and a steer" else "grpo"
    with pytest.raises(InvalidInput, match=message):
        BudgetedGRPOTrainer(
            str(folder), [Even()], config(tmp_path), data, recipe=replace(recipes.get(name), variant=recipe)
        )
