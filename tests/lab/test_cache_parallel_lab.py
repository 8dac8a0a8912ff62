"""Documents read apart against one behind the other: the questions, the choice on one half, and the command."""

from __future__ import annotations

import json
from zlib import crc32

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer import cli
from budgeteer.core.errors import InvalidInput
from budgeteer.lab import cache_parallel
from budgeteer.lab.cache_parallel import SCALES, TEMPERATURES, Said, answered, compare, questions

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")


def llama():
    torch.manual_seed(3)
    made = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=128,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).eval()
    for name, weight in made.named_parameters():
        weight.data *= 6 if "q_proj" in name or "k_proj" in name else 1
    return made


def encode(text: str, first: bool) -> list[int]:
    """A word is a token."""
    return [1] * first + [3 + crc32(word.encode()) % 120 for word in text.split()]


def test_a_question_is_about_one_of_documents_with_different_keys() -> None:
    asked = questions(lambda text, first: text.split(), 6, 3, 60, seed=2)  # type: ignore[arg-type, return-value]
    for one in asked:
        assert [50 < len(text) <= 60 for text in one.documents] == [True] * 3
        key, number = one.question[one.question.index("for") + 1], one.answer[0]
        assert [number in " ".join(text) for text in one.documents].count(True) == 1
        (having,) = [text for text in one.documents if key in text]  # type: ignore[comparison-overlap]
        assert f"{key} is {number}" in " ".join(having)
    assert questions(encode, 2, 3, 60, seed=2) == questions(encode, 2, 3, 60, seed=2)
    with pytest.raises(InvalidInput, match="give 2 to 12"):
        questions(encode, 2, 1, 60)


def test_one_document_apart_is_the_text_read_at_once() -> None:
    made = llama()
    one = questions(encode, 1, 2, 60)[0]
    alone = one._replace(documents=one.documents[:1])
    sequential, apart = answered(made, [1, 5], alone, [(1.0, 1.0)])
    assert sequential.logprob == pytest.approx(apart.logprob, abs=1e-4)
    with torch.no_grad():
        ids = [1, 5, *alone.documents[0], *one.question, *one.answer]
        logs = made(torch.tensor([ids])).logits[0].log_softmax(-1)
    count = len(one.answer)
    wanted = sum(float(logs[len(ids) - count - 1 + i, one.answer[i]]) for i in range(count)) / count
    assert sequential.logprob == pytest.approx(wanted, abs=1e-4)


def test_the_choice_is_made_on_the_first_half_and_judged_on_the_other(monkeypatch) -> None:
    """Questions of the first half like temperature 0.7 and scale 0.8 best; in the other half that is no better."""
    asked = questions(encode, 8, 2, 40)
    places = {id(one): i for i, one in enumerate(asked)}

    def made_up(model, prefix, one, settings):
        first = places[id(one)] < 4
        yield Said(-1.0, right=True)
        for temperature, scale in settings:
            best = (temperature, scale) == (0.7, 0.8)
            yield Said(-1.2 if best and first else -2.0 - 0.1 * places[id(one)], right=best)

    monkeypatch.setattr(cache_parallel, "answered", made_up)
    found = compare(None, [1, 2, 3], asked)
    assert (found["temperature"], found["scale"], found["questions"]) == (0.7, 0.8, 4)
    assert 0.7 in TEMPERATURES
    assert 0.8 in SCALES
    rows = {row["way"]: row for row in found["rows"]}
    assert rows["ape"]["lost"]["mean"] == pytest.approx(1.0 + 0.1 * (4 + 5 + 6 + 7) / 4)
    assert rows["sequential"]["lost"]["mean"] == 0
    assert rows["ape"]["right"]["mean"] == 1
    assert rows["parallel"]["right"]["mean"] == 0
    question = sum(len(one.question) for one in asked[4:]) / 4
    whole = sum(3 + sum(map(len, one.documents)) for one in asked[4:]) / 4
    assert rows["ape"]["read"] == question
    assert rows["sequential"]["read"] == pytest.approx(whole + question)
    with pytest.raises(InvalidInput, match="give 4 or more"):
        compare(None, [1], asked[:3])


def test_the_command(tmp_path, capsys, monkeypatch) -> None:
    made = llama()
    monkeypatch.setattr("budgeteer.lab.cache_eval.opened", lambda spec, device, **asked: (made, encode))
    command = ["cache", "parallel", "thinker", "--documents", "2", "--length", "60", "--samples", "4"]
    assert cli.main([*command, "--out", str(tmp_path / "out.json")]) == 0
    said = capsys.readouterr().out
    assert "judged on 2 others about 2 documents" in said
    assert json.loads((tmp_path / "out.json").read_text())["questions"] == 2
    assert [line.split()[0] for line in said.splitlines()[2:]] == ["sequential", "parallel", "ape"]
