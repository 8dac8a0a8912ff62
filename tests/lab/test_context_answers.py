"""The benchmark of answers from reduced context: its scores, its batches, and that it goes on where it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("bm25s")
torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    pytest.importorskip("xllamacpp")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import context_answers

    return context_answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of bytes with random weights."""
    tokenizers = pytest.importorskip("tokenizers")
    made_in = tmp_path_factory.mktemp("model") / "bytes"
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(["<end>", *alphabet])}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>").save_pretrained(made_in)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=257, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        eos_token_id=0, bos_token_id=None, pad_token_id=0, initializer_range=0.5, max_position_embeddings=8192,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(made_in)
    return made_in


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1"),
    [
        ("The Hague", "hague", 1, 1.0),
        ("born in Graz", "Graz, Austria", 0, 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),
        ("Ann Ann", "Ann Bo Ann", 0, 0.8),  # 2 of 2 and 2 of 3
        ("no", "no, he was not", 0, 0.0),  # half a yes or no is nothing
        ("yes.", "Yes", 1, 1.0),
        ("", "Oslo", 0, 0.0),
    ],
)
def test_scores_are_those_of_the_data_set(script, answer, reference, exact, f1):
    found = script.scored({"answers": ["nothing of it", reference]}, answer)
    assert found == {"exact": exact, "f1": pytest.approx(f1)}


def test_a_prompt_of_a_batch_gets_the_answer_that_it_gets_alone(script, folder):
    reader = script.Reader(str(folder))
    prompts = ["Where?\nAnswer:", "A much longer context.\nIt has lines.\nWho?\nAnswer:", "Who was it?\nAnswer:"]
    together = reader.answers(prompts)
    for text, found in zip(prompts, together, strict=True):
        ids = reader.tokenizer(script.HEAD + text, return_tensors="pt")
        n = ids["input_ids"].shape[1]
        ends = [0, reader.tokenizer("\n")["input_ids"][0]]
        plain = reader.model.generate(**ids, max_new_tokens=script.CAP, do_sample=False, eos_token_id=ends)
        written = reader.tokenizer.decode(plain[0, n:], skip_special_tokens=True).split("\n")[0].strip()
        assert found["text"] == written
        assert found["input"] == n  # worked examples included
        assert found["output"] == plain.shape[1] - n
    assert len({found["text"] for found in together}) == 3  # the weights do tell them apart


def test_it_asks_once_and_again_only_what_changed(script, folder, tmp_path, monkeypatch):
    rows = [
        {
            "question": f"Which city has the river {i}?",
            "answers": [f"City{i}"],
            "gold_sentences": [f"The river {i} flows through City{i}."],
            "candidate_sentences": [f"The tower number {j} is old." for j in range(20)]
            + [f"The river {i} flows through City{i}."],
        }
        for i in range(3)
    ]
    data, out, kept = tmp_path / "data.jsonl", tmp_path / "out.json", tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["context_answers.py", str(data), "--model", str(folder), "--quick", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--rows", str(kept)])
    script.main()
    first = kept.read_text()
    with kept.open("a") as file:
        file.write('{"model": "bytes", "question": 1, "redu')  # killed in the middle of a line
    script.main()
    assert kept.read_text() == first
    found = {row["reducer"]: row for row in json.loads(out.read_text())["bytes"]}
    assert {"none", "evidence", "full", "oracle", "random", "bm25", "recency"} <= set(found)
    assert all(row["questions"] == 3 for row in found.values())
    assert found["none"]["input"] < found["bm25"]["input"] < found["full"]["input"]
    assert "minus_bm25" not in found["none"]  # has no budget
    assert found["recency"]["minus_bm25"]["n"] == 3
    rows[0]["question"] = "Which town has the river 0?"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    script.main()
    added = [json.loads(line) for line in kept.read_text()[len(first) :].splitlines()]
    assert added
    assert {line["question"] for line in added} == {0}


def test_differences_are_of_the_questions_that_both_have(script):
    lines = [
        {"reducer": name, "budget": 256, "question": q, "exact": 0.0, "f1": f1, "input": 300, "output": 4}
        for name, values in {"bm25": (0.5, 0.0, 1.0), "random": (0.0, 0.0)}.items()
        for q, f1 in enumerate(values)
    ]
    row = next(row for row in script.analysed(lines) if row["reducer"] == "random")
    assert (row["questions"], row["minus_bm25"]["n"], row["minus_bm25"]["mean"]) == (2, 2, -0.25)


def test_the_page_has_the_tables_of_the_file(script):
    text = script.PAGE.read_text(encoding="utf-8")
    made = script.tables(json.loads(script.OUT.read_text(encoding="utf-8")))
    assert script.between(text, made, script.BEGIN, script.END) == text
