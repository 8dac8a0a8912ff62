"""SEELE with TRL: hints of worked solutions at the heads of completions, which teach nothing and cost nothing."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import transformers  # noqa: E402

from budgeteer.adapters.trl import BudgetedGRPOTrainer  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from helpers.trl_tiny import DATA, config, tiny, trained, weights  # noqa: E402

STEPS = ["First one.\n", "Then two.\n", "So three.\n", "It is four."]
HINTED = DATA.add_column("solution", [STEPS] * len(DATA))
RECIPE = "seele:rounds=3,round_units=2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return tiny(tmp_path_factory.mktemp("tiny"))


class Seen:
    """Whether a completion has an odd number of tokens; what it was called with."""

    __name__ = "seen"

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, list[int]]] = []

    def __call__(self, prompts, completions, completion_ids, **columns):
        self.rows += zip(prompts, completions, completion_ids, strict=True)
        return [float(len(ids) % 2) for ids in completion_ids]


def test_hints_are_read_and_neither_learnt_from_nor_paid_for(folder, tmp_path, monkeypatch) -> None:
    """One step, three rounds: the first shows all steps but the last, the others what the curve says; the batch that
    TRL learns from masks exactly the tokens of the hint."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    size = [len(tokenizer("".join(STEPS[:n]), add_special_tokens=False)["input_ids"]) for n in range(5)]
    batches, seen = [], Seen()
    theirs = BudgetedGRPOTrainer._generate_and_score_completions
    monkeypatch.setattr(
        BudgetedGRPOTrainer,
        "_generate_and_score_completions",
        lambda self, inputs: batches.append(theirs(self, inputs)) or batches[-1],
    )
    made = trained(
        folder, config(tmp_path, max_steps=1), recipe=RECIPE, budget=400, reward_funcs=seen, train_dataset=HINTED
    )
    state, progress = made.spending.variant_state, made.spending.progress
    shown = defaultdict(list)  # hinted share of each rollout, by prompt, as the texts have them
    hints = {}
    for prompt, text, ids in seen.rows:
        n = max(n for n in range(5) if text.startswith("".join(STEPS[:n])))
        hints[tuple(ids)] = size[n]
        shown[prompt].append(n / 4)
    assert len(seen.rows) > 2 * 2  # the tokens of a step buy more than one round
    for key, shares in zip(state.keys, [shown[HINTED["prompt"][int(key)]] for key in state.keys], strict=True):
        assert shares[:2] == [0.75, 0.75]
        mine = state.owner == state.keys.index(key)
        told = np.repeat(state.shown[mine], state.drawn[mine].astype(int))
        assert sorted(told.tolist()) == sorted(shares)
    assert progress.used == sum(len(ids) - hints[tuple(ids)] for _, _, ids in seen.rows) <= 400
    (batch,) = batches
    learnt = 0
    for ids, mask, own in zip(batch["completion_ids"], batch["completion_mask"], batch["tool_mask"], strict=True):
        if not mask.any():
            continue
        row = tuple(ids[mask.bool()].tolist())
        assert own[: hints[row]].sum() == 0
        assert own[hints[row] : len(row)].all()
        learnt += len(row) - hints[row]
    assert learnt == batch["num_items_in_batch"].item()
    assert 0 < progress.trained <= learnt  # rows of prompts whose rewards are all equal have no gradient


def test_a_resumed_run_goes_on_with_the_hints_of_an_unbroken_one(folder, tmp_path) -> None:
    more = {"recipe": RECIPE, "reward_funcs": Seen(), "train_dataset": HINTED}
    whole = trained(folder, config(tmp_path, save_strategy="steps", save_steps=2), **more)
    again = trained(folder, config(tmp_path / "b"), resume=str(tmp_path / "checkpoint-2"), **more)
    assert torch.equal(weights(whole), weights(again))
    assert again.spending.variant_state.share.tolist() == whole.spending.variant_state.share.tolist()


@pytest.mark.parametrize(
    ("column", "more", "message"),
    [
        ([STEPS] * 11 + [[]], {}, r"the solution in row 11 of the data set is '\[\]'"),
        (["one\ntwo " + "and so on " * 60] * 12, {}, "row 0 of the data set has .* 256 positions"),
    ],
)
def test_solutions_that_do_not_do_are_refused(folder, tmp_path, column, more, message) -> None:
    data = DATA.add_column("solution", column)
    with pytest.raises(InvalidInput, match=message):
        BudgetedGRPOTrainer(str(folder), [Seen()], config(tmp_path), data, recipe="seele")
