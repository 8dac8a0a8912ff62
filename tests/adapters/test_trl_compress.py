"""TRAAC with TRL: rows that go on from compressed traces, which are trained on and whose answers alone are paid for."""

from __future__ import annotations

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import transformers  # noqa: E402

from budgeteer.adapters.trl import BudgetedGRPOTrainer  # noqa: E402
from budgeteer.rl import compress  # noqa: E402
from budgeteer.rl.branch import TRACE, branched  # noqa: E402
from budgeteer.rl.control import Control  # noqa: E402
from budgeteer.rl.rollouts import Role  # noqa: E402
from helpers.trl_tiny import DATA, config, tiny, trained  # noqa: E402
from helpers.vllm_fake import Client, installed  # noqa: E402


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model of whose thinking each token with a letter begins a step, and one step is left out."""
    torch.set_num_threads(1)
    monkeypatch.setattr(compress, "_CONTROL", re.compile(r"\S+"))

    def one(scores, rate):
        return np.arange(len(scores)) == int(np.argmin(scores)) if len(scores) > 1 else np.zeros(len(scores), bool)

    monkeypatch.setattr(compress, "evicted", one)
    return tiny(tmp_path / "tiny")


def most(completion_ids, **columns):
    """Three of four completions are right."""
    return [float(sum(ids) % 4 > 0) for ids in completion_ids]


def learnt(monkeypatch) -> list:
    """The rollouts of each step, once there are some."""
    seen, learn = [], Control.learn
    monkeypatch.setattr(
        Control, "learn", lambda self, rows, view, lost=0: (seen.append(rows), learn(self, rows, view, lost))[1]
    )
    return seen


def test_compressed_traces_are_rows_of_their_own(folder, tmp_path, monkeypatch) -> None:
    """A thinking ends at a token with an e."""
    batches, seen, theirs = [], learnt(monkeypatch), BudgetedGRPOTrainer._generate_and_score_completions
    monkeypatch.setattr(
        BudgetedGRPOTrainer, "_generate_and_score_completions",
        lambda self, inputs: batches.append(theirs(self, inputs)) or batches[-1],
    )  # fmt: skip

    made = trained(
        folder, config(tmp_path, max_steps=1), recipe="traac", close="e", reward_funcs=[most], train_dataset=DATA,
        budget=900,
    )  # fmt: skip
    (rows,), (batch,) = seen, batches
    again = branched(rows)
    assert again.any()
    assert made.spending.progress.used == rows.used == int((rows.role == Role.SAMPLED).sum()) <= 900
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    probe = tokenizer(compress.PROBE, add_special_tokens=False)["input_ids"]
    for i in np.flatnonzero(again).tolist():
        trace = int(np.flatnonzero(~again & (rows.more[TRACE] == rows.more[TRACE][i]))[0])
        end, head = int(rows.closed[trace]), int((rows.role[i] == Role.CARRIED).sum())
        step, attention = (rows.more[name][trace, :end] for name in (compress.STEP, compress.ATTENTION))
        left = compress.kept(attention, step, 1.0)
        assert rows.tokens[i, :head].tolist() == rows.tokens[trace, :end][left].tolist()
        assert rows.closed[i] == head < end
        assert rows.sampled[i, : rows.length[i]].all()
        # the attention is that of a plain reading of prompt, thinking, probe and end
        last = int(np.flatnonzero(step >= 0)[-1]) + 1
        whole = [*rows.tokens[trace, :last], *probe, *rows.tokens[trace, last:end]]
        before = list(rows.prompts[rows.group[trace]])
        if i == np.flatnonzero(again)[0]:  # the weights are those of before the first update
            with torch.no_grad():
                layers = plain(torch.tensor([before + whole]), output_attentions=True).attentions
            want = torch.stack([layer[0, :, -1] for layer in layers]).mean(dim=(0, 1))[len(before) :][:last]
            np.testing.assert_allclose(attention[:last], want, atol=1e-5)
        # what TRL trains on has the head with a gradient
        ids = rows.tokens[i, : rows.length[i]].tolist()
        found = [
            j for j, row in enumerate(batch["completion_ids"].tolist())
            if row[: len(ids)] == ids and batch["completion_mask"][j].sum() == len(ids)
        ]  # fmt: skip
        if found:
            mask = batch.get("tool_mask")
            assert mask is None or mask[found[0], : len(ids)].all()
    kept = {
        tuple(ids[mask.bool()].tolist())
        for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    }
    assert {tuple(rows.tokens[i, : rows.length[i]].tolist()) for i in np.flatnonzero(again)} & kept
    assert all(np.isfinite(row.get("loss", 0.0)) for row in made.state.log_history)


def test_heads_have_the_probabilities_of_the_model_where_vllm_generates(folder, tmp_path, monkeypatch) -> None:
    """TRL compares what the engine said of each token with the model: a head that nobody measured would stand out."""
    installed(monkeypatch, folder)
    seen = learnt(monkeypatch)
    args = config(tmp_path, max_steps=1, use_vllm=True, vllm_mode="server")
    made = trained(folder, args, recipe="traac", close="e", reward_funcs=[most], train_dataset=DATA, budget=900)
    (client,), (rows,) = Client.made, seen
    assert (rows.role == Role.CARRIED).any()
    progress = made.spending.progress
    assert progress.used == client.engine.given <= 900
    (row,) = [row for row in made.state.log_history if "sampling/sampling_logp_difference/max" in row]
    assert row["sampling/sampling_logp_difference/max"] < 1e-4
