"""The merge of a model that thinks long and one that thinks short, on weights worked by hand and on real folders."""

from __future__ import annotations

import json

import pytest

from budgeteer import cli
from budgeteer.core.errors import CheckpointError, InvalidInput

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from budgeteer.models.merge import INDEX, merge, mixed  # noqa: E402


def tokenizer(letters="abc ", end="<end>"):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [end, *letters.replace(" ", "Ġ"), "ab"]
    made = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [("a", "b")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([end])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=end, chat_template="{{ messages[0].content }}")


def folder(path, seed, *, tied=True, dtype=None, shards=None, width=8, letters="abc ", **more):
    """A Llama of one layer with random weights, as transformers writes it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(letters) + 2, hidden_size=width, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, tie_word_embeddings=tied, **more,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(dtype or torch.float32)
    model.save_pretrained(path, **({} if shards is None else {"max_shard_size": shards}))
    tokenizer(letters).save_pretrained(path)
    return path


def weights(path):
    return {name: tensor for file in sorted(path.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def test_the_mean_by_hand_in_the_type_of_the_long_one() -> None:
    # 0.75 * 2 + 0.25 * 6 = 3; 0.75 * -1 + 0.25 * 1 = -0.5
    made = mixed(torch.tensor([2.0, -1.0], dtype=torch.bfloat16), torch.tensor([6.0, 1.0]), 0.75)
    assert made.dtype == torch.bfloat16
    assert made.tolist() == [3.0, -0.5]
    # in bfloat16 0.2 * 257 would lose the units: 257 has 9 bits. In float32 it does not: 0.5 * 256 + 0.5 * 258 = 257
    big = mixed(torch.tensor([256.0], dtype=torch.float32), torch.tensor([258.0], dtype=torch.bfloat16), 0.5)
    assert big.tolist() == [257.0]


@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_of_the_folder_is_the_mean_and_transformers_loads_it(tied, tmp_path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    long, short = folder(tmp_path / "long", 0, tied=tied), folder(tmp_path / "short", 1, tied=tied)
    report = merge(long, short, tmp_path / "out", 0.8)
    mine, theirs, made = weights(long), weights(short), weights(tmp_path / "out")
    assert {*made} == {*mine}
    assert ("lm_head.weight" in made) is not tied
    for name, tensor in made.items():
        assert torch.allclose(tensor, 0.8 * mine[name] + 0.2 * theirs[name], atol=1e-7)
    assert (report.tensors, report.numbers, report.files) == (len(mine), sum(t.numel() for t in mine.values()), 1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    first, last = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (first.data_ptr() == last.data_ptr()) is tied
    assert torch.equal(last, made["model.embed_tokens.weight" if tied else "lm_head.weight"])
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tokenizer().chat_template
    assert json.loads((tmp_path / "out" / "merge.json").read_text())["weight"] == 0.8


def test_at_the_ends_it_is_one_of_the_two(tmp_path) -> None:
    long, short = folder(tmp_path / "long", 0), folder(tmp_path / "short", 1)
    for weight, of in ((1.0, long), (0.0, short)):
        out = tmp_path / f"out{weight}"
        merge(long, short, out, weight)
        assert all(torch.equal(tensor, weights(of)[name]) for name, tensor in weights(out).items())


def test_shards_and_types_are_those_of_the_long_one(tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    long = folder(tmp_path / "long", 0, dtype=torch.bfloat16, shards="1KB")
    short = folder(tmp_path / "short", 1)
    (tmp_path / "out").mkdir()  # an empty folder may be there
    report = merge(long, short, tmp_path / "out", 0.5)
    files = {path.name for path in long.glob("*.safetensors")}
    assert report.files == len(files) > 1
    assert {path.name for path in (tmp_path / "out").glob("*.safetensors")} == files
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    made = weights(tmp_path / "out")
    assert index["weight_map"] == json.loads((long / INDEX).read_text())["weight_map"]
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in made.values())
    assert {tensor.dtype for tensor in made.values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16


@pytest.mark.parametrize("stored", ["long", "short", "both"])
def test_a_tied_output_layer_may_be_stored_twice(stored, tmp_path) -> None:
    from transformers import AutoModelForCausalLM

    paths = {"long": folder(tmp_path / "long", 0), "short": folder(tmp_path / "short", 1)}
    for name, path in paths.items():
        if stored in (name, "both"):
            kept = weights(path)
            kept["lm_head.weight"] = kept["model.embed_tokens.weight"].clone()
            save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    merge(paths["long"], paths["short"], tmp_path / "out", 0.5)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    table = (
        weights(paths["long"])["model.embed_tokens.weight"] + weights(paths["short"])["model.embed_tokens.weight"]
    ) / 2
    assert torch.allclose(model.get_output_embeddings().weight, table)
    assert torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)


def test_what_does_not_fit_together_is_refused_and_nothing_is_written(tmp_path) -> None:
    long = folder(tmp_path / "long", 0)

    def refused(short, match, error=InvalidInput, first=long):
        with pytest.raises(error, match=match):
            merge(first, short, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / ".out.part").exists()

    refused(folder(tmp_path / "wide", 1, width=16), "hidden_size is 8 and 16")
    refused(folder(tmp_path / "base", 1, rope_parameters={"rope_theta": 5e5, "rope_type": "default"}), "rope")
    refused(folder(tmp_path / "untied", 1, tied=False), "tie_word_embeddings is True and False")
    refused(folder(tmp_path / "letters", 1, letters="abx "), "differ in 2 tokens, such as 'c', 'x'")
    odd = folder(tmp_path / "odd", 1)
    kept = weights(odd)
    save_file({**kept, "model.more": torch.ones(2)}, odd / "model.safetensors", metadata={"format": "pt"})
    refused(odd, "1 tensors that .*long has not, such as 'model.more'")
    norm = "model.norm.weight"
    save_file({**kept, norm: torch.ones(9)}, odd / "model.safetensors", metadata={"format": "pt"})
    refused(odd, r"model.norm.weight has the shape \(8,\) in .*long and \(9,\)")
    save_file({**kept, norm: torch.ones(8, dtype=torch.int8)}, odd / "model.safetensors", metadata={"format": "pt"})
    refused(odd, "hold.*float32 and torch.int8, which have no mean")
    (odd / "model.safetensors").write_bytes(b"torn")
    refused(odd, "cannot be read", CheckpointError)
    (odd / "model.safetensors").unlink()
    refused(odd, "has no model.safetensors", CheckpointError)
    with pytest.raises(InvalidInput, match="number from 0 to 1"):
        merge(long, long, tmp_path / "out", 1.5)


def test_a_run_that_was_killed_leaves_no_folder_and_the_next_one_replaces_it(tmp_path, monkeypatch) -> None:
    import safetensors.torch

    long, short = folder(tmp_path / "long", 0, shards="1KB"), folder(tmp_path / "short", 1)
    saved, count = safetensors.torch.save_file, []

    def failing(*args, **kwargs):
        count.append(1)
        if len(count) == 2:
            raise OSError("no space left")
        return saved(*args, **kwargs)

    monkeypatch.setattr(safetensors.torch, "save_file", failing)
    with pytest.raises(OSError, match="no space"):
        merge(long, short, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / ".out.part").mkdir()  # as kill -9 leaves it
    (tmp_path / ".out.part" / "model-00001.safetensors").write_bytes(b"half")
    merge(long, short, tmp_path / "out")
    assert not (tmp_path / ".out.part").exists()
    assert len(weights(tmp_path / "out")) == len(weights(long))


def test_the_command_says_what_it_wrote(tmp_path, capsys) -> None:
    long, short = folder(tmp_path / "long", 0), folder(tmp_path / "short", 1)
    out = tmp_path / "hybrid"
    assert cli.main(["lab", "merge", str(long), str(short), "--weight", "0.6", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"0.6 of {long} and 0.4 of {short}" in said
    assert torch.allclose(
        weights(out)["model.norm.weight"],
        torch.ones(8),  # both norms begin as ones
    )
    assert cli.main(["lab", "merge", str(long), str(short), "--out", str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err
