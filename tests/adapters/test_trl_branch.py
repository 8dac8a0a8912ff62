"""Branches with TRL: answers of thoughts that are cut (BRPO), and rollouts that part from others (ARES)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import transformers  # noqa: E402

from budgeteer.adapters.trl import BudgetedGRPOTrainer  # noqa: E402
from budgeteer.adapters.trl.refusals import refuse_recipe  # noqa: E402
from budgeteer.adapters.trl.sampling import Sampling  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.rl import recipes  # noqa: E402
from budgeteer.rl.branch import CUT_AT, TRACE, branched  # noqa: E402
from budgeteer.rl.fork import Fork  # noqa: E402
from budgeteer.rl.rollouts import Role  # noqa: E402
from helpers.trl_oracle import SGD, descended, updates_of  # noqa: E402
from helpers.trl_tiny import DATA, config, even, tiny, trained, weights  # noqa: E402
from helpers.vllm_fake import Client, installed  # noqa: E402

BRPO = "brpo:cuts=3,samples=2,answer=3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return tiny(tmp_path_factory.mktemp("tiny"))


def counted(monkeypatch) -> list[int]:
    """Tokens of each call of the model."""
    generated, rows = [], Sampling.rows
    monkeypatch.setattr(
        Sampling, "rows",
        lambda self, *given: (made := rows(self, *given), generated.append(sum(len(row.tokens) for row in made)))[0],
    )  # fmt: skip
    return generated


def test_brpo_asks_traces_that_it_cuts_for_answers_and_learns_from_both(folder, tmp_path, monkeypatch) -> None:
    """Two steps of SGD against single rows: heads of answers are read, their own tokens and those of traces learnt."""
    updates, generated = updates_of(monkeypatch), counted(monkeypatch)
    args = config(tmp_path, max_steps=2, **SGD)
    made = trained(
        folder, args, recipe=BRPO, reward_funcs=even, train_dataset=DATA, close="e", answer="z", budget=500
    )  # fmt: skip
    progress = made.spending.progress
    assert progress.used == sum(generated) <= 500
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bridge = tokenizer("</think>", add_special_tokens=False)["input_ids"]
    kinds = set()
    for update in updates:
        rows = update.rollouts
        answers = branched(rows)
        assert answers.any()
        for i in np.flatnonzero(answers).tolist():
            trace = int(np.flatnonzero(~answers & (rows.more[TRACE] == rows.more[TRACE][i]))[0])
            head = rows.tokens[i][rows.role[i] == Role.HINT].tolist()
            cut, own = (4, 8, 12)[int(rows.more[CUT_AT][i])], rows.tokens[trace, : rows.length[trace]].tolist()
            closed = int(rows.closed[trace])
            kinds.add(0 <= closed <= cut)
            assert head == (own[:closed] if 0 <= closed <= cut else own[:cut] + bridge)
            assert 0 < rows.length[i] - len(head) <= 3
            assert not rows.sampled[i, : len(head)].any()
        asked = {(int(t), int(c)) for t, c in zip(rows.more[TRACE][answers], rows.more[CUT_AT][answers], strict=True)}
        if not update.wasted.any():
            assert answers.sum() == 2 * len(asked)
    assert kinds == {True, False}
    expected, _ = descended(folder, updates)
    assert torch.allclose(weights(made), expected, atol=1e-5)


def test_a_fork_is_learnt_from_with_the_head_that_it_shares(folder, tmp_path, monkeypatch) -> None:
    updates, generated = updates_of(monkeypatch), counted(monkeypatch)
    recipe = replace(recipes.get("grpo"), branch=Fork(1, 1))
    made = trained(
        folder, config(tmp_path, max_steps=2, **SGD), recipe=recipe, reward_funcs=even, train_dataset=DATA, budget=300
    )  # fmt: skip
    assert made.spending.progress.used == sum(generated) <= 300
    for update in updates:
        rows, forks = update.rollouts, branched(update.rollouts)
        assert forks.any()
        for i in np.flatnonzero(forks).tolist():
            trace = int(np.flatnonzero(~forks & (rows.more[TRACE] == rows.more[TRACE][i]))[0])
            shared = int((rows.role[i] == Role.CARRIED).sum())
            assert shared > 0
            assert rows.tokens[i, :shared].tolist() == rows.tokens[trace, :shared].tolist()
            np.testing.assert_array_equal(rows.logprob[i, :shared], rows.logprob[trace, :shared])
            assert rows.sampled[i, : rows.length[i]].all()
            assert rows.length[i] <= 12
    expected, ratios = descended(folder, updates)
    assert torch.allclose(weights(made), expected, atol=1e-5)
    assert np.allclose(ratios, 1, atol=1e-3)


def test_vllm_answers_within_the_budget_and_forks_are_refused_there(folder, tmp_path, monkeypatch) -> None:
    installed(monkeypatch, folder)
    updates, args = updates_of(monkeypatch), config(tmp_path, max_steps=1, use_vllm=True, vllm_mode="server")
    more = {"reward_funcs": even, "train_dataset": DATA, "close": "e", "answer": "z", "budget": 300}
    made = trained(folder, args, recipe=BRPO, **more)
    (client,) = Client.made
    assert branched(updates[0].rollouts).any()
    assert made.spending.progress.used == client.engine.given <= 300
    with pytest.raises(InvalidInput, match="leave out the fork"):
        refuse_recipe(recipes.get("ares"), args)


def test_a_resumed_run_branches_as_an_unbroken_one(folder, tmp_path) -> None:
    more = {"recipe": BRPO, "reward_funcs": even, "train_dataset": DATA, "close": "e", "answer": "z", "budget": 700}
    whole = trained(folder, config(tmp_path, save_strategy="steps", save_steps=1), **more)
    again = trained(folder, config(tmp_path / "b"), resume=str(tmp_path / "checkpoint-2"), **more)
    assert torch.equal(weights(whole), weights(again))


def test_a_prompt_needs_room_for_the_answer_behind_a_whole_thought(folder, tmp_path) -> None:
    recipe = "brpo:answer={}"
    BudgetedGRPOTrainer(str(folder), [even], config(tmp_path), DATA, recipe=recipe.format(8))
    with pytest.raises(InvalidInput, match="256 positions"):
        BudgetedGRPOTrainer(str(folder), [even], config(tmp_path), DATA, recipe=recipe.format(240))
