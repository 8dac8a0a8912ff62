"""The all-for-one analysis on a random Llama: against masks given to the whole model, and means taken row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from budgeteer import cli  # noqa: E402
from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.lab import last_token  # noqa: E402
from budgeteer.lab.last_token import allowed, faithfulness, means, prompts_of, restricted  # noqa: E402

IDS = torch.cartesian_prod(*[torch.arange(3, 8)] * 2)  # two operands
IDS = torch.stack([torch.zeros(25).long(), IDS[:, 0], torch.ones(25).long(), IDS[:, 1], 2 * torch.ones(25).long()], 1)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=12,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return transformers.LlamaForCausalLM(config).eval()


def logits(model: Any, states: Any, wait: int, transfer: int) -> Any:
    with torch.no_grad(), restricted(model, IDS, states, wait, transfer):
        return model(IDS, attention_mask=torch.ones_like(IDS), use_cache=False).logits[:, -1]


def test_without_waiting_it_is_the_model_with_one_mask(model: Any) -> None:
    seen = allowed(5, peek=True)
    bias = torch.zeros(5, 5).masked_fill(~seen, torch.finfo(torch.float32).min).expand(25, 1, 5, 5)
    with torch.no_grad():
        whole = model(IDS, attention_mask=bias, use_cache=False).logits[:, -1]
    assert torch.allclose(logits(model, means(model, IDS, 0), 0, 3), whole, atol=1e-5)


def test_a_last_token_that_never_looks_says_the_same_of_every_prompt(model: Any) -> None:
    found = logits(model, means(model, IDS, 0), 0, 0)
    assert torch.allclose(found, found[:1].expand_as(found), atol=1e-5)
    assert not torch.allclose(logits(model, means(model, IDS, 0), 0, 1), found, atol=1e-4)


def test_means_are_over_the_rows_with_the_same_token(model: Any) -> None:
    with torch.no_grad():
        states = model(IDS, output_hidden_states=True).hidden_states[2]
    found = means(model, IDS, 2)
    for row in (0, 7, 24):
        for position in range(5):
            same = IDS[:, position] == IDS[row, position]
            assert torch.allclose(found[row, position], states[same, position].mean(0), atol=1e-6)
    assert torch.allclose(found[:, 0], states[:, 0], atol=1e-6)  # the first token sees only itself
    assert torch.allclose(found[0, 4], found[24, 4], atol=1e-6)  # the last one is the same token everywhere


def test_means_forget_what_a_token_learnt_from_others(model: Any) -> None:
    """After two layers of waiting the last token's input no longer depends on the operands: it has to look again."""
    found = logits(model, means(model, IDS, 2), 2, 0)
    assert torch.allclose(found, found[:1].expand_as(found), atol=1e-5)


def test_faithfulness_counts_equal_next_tokens_and_restores_the_model(model: Any) -> None:
    with torch.no_grad():
        before = model(IDS).logits
    pairs = [(0, 3), (1, 1), (2, 0)]
    found = faithfulness(model, IDS, pairs, batch=7)
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, before)
    want = before[:, -1].argmax(-1)
    for flow, (wait, transfer) in zip(found, pairs, strict=True):
        same = logits(model, means(model, IDS, wait), wait, transfer).argmax(-1) == want
        assert (flow.wait, flow.transfer, flow.faithful) == (wait, transfer, pytest.approx(same.float().mean().item()))
    with pytest.raises(InvalidInput, match="3 layers"):
        faithfulness(model, IDS, [(3, 0)])
    with pytest.raises(InvalidInput, match="3 layers"):
        faithfulness(model, IDS, [(1, 3)])


def test_prompts_are_distinct_and_of_one_length() -> None:
    assert len(set(prompts_of("{a}+{b}-{c}=", range(10, 100), 50, 0))) == 50

    def tokenizer(text: str) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}

    assert last_token.encoded(tokenizer, ["1+2=", "3+4="]).shape == (2, 4)
    with pytest.raises(InvalidInput, match="4 to 5 tokens"):
        last_token.encoded(tokenizer, ["1+2=", "13+4="])
    with pytest.raises(InvalidInput, match="needs fields"):
        prompts_of("1+2=", [1], 1, 0)


def test_the_command_on_a_folder(tmp_path: Path, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({str(i): i for i in range(10)} | {"+": 10, "=": 11}, "="))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    command = ["lab", "last-token", "--model", f"hf:{tmp_path}", "--low", "0", "--high", "4", "--limit", "12"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "12 such as '0+0='" in said or "12 such as" in said
    assert "3 layers" in said
    assert len(said.strip().splitlines()) == 3 + 3
