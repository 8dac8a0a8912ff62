"""Embeddings for another tokenizer, and tokens that span words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from budgeteer.core.errors import InvalidInput
from budgeteer.models.supertokens import supertokens
from budgeteer.models.transplant import Settings, local, mixtures, near, shared, transplant

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")


def tokenizer(merges: list[tuple[str, str]], letters: str = "abc ", end: str = "<end>"):
    """A byte-level BPE of these letters and merges, and an end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [end, *letters.replace(" ", "Ġ"), *(a + b for a, b in merges)]
    made = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([end])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=end)


def llama(size: int, *, tied: bool = True):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=tied,
        )
    ).eval()


OLD = [("a", "b")]  # <end> a b c Ġ ab
NEW = [("a", "b"), ("ab", "c")]  # abc beside them


def vectors(texts):
    """A made-up encoder: abc is like ab, and like nothing else."""
    known = {"abc": [1.0, 0.0], "ab": [0.6, 0.8], "c": [0.0, 1.0], "a": [-1.0, 0.0]}
    return np.array([known.get(text, [0.0, -1.0]) for text in texts])


def test_weights_of_pieces_and_neighbours_by_hand() -> None:
    # no similarity: (1/2 + 2/3) / 2 and (1/2 + 1/3) / 2 differ by 1/6, over a temperature of 0.3
    first = 1 / (1 + math.exp(-1 / 6 / 0.3))
    assert local(np.zeros(2), np.array([2 / 3, 1 / 3]), 0.3) == pytest.approx([first, 1 - first])
    # e^(0.6/0.3) and e^(0.3/0.3): the one below the threshold is left out, and the others are renormalised
    e2, e1 = math.exp(2), math.e
    assert near(np.array([0.6, 0.3, 0.1]), 0.3, 0.2) == pytest.approx([e2 / (e2 + e1), e1 / (e2 + e1), 0])
    assert near(np.array([0.1, -0.2]), 0.3, 0.5).tolist() == [0, 0]


def test_a_token_is_made_of_its_pieces_and_neighbours() -> None:
    old, new = tokenizer(OLD), tokenizer(NEW)
    abc = new.convert_tokens_to_ids("abc")
    assert {new.decode([token]): old.decode([same]) for token, same in shared(old, new).items()} == {
        token: token for token in ("<end>", "a", "b", "c", " ", "ab")
    }
    first = 1 / (1 + math.exp(-1 / 6 / 0.3))
    (alone,) = mixtures(old, new).values()
    assert alone.weights == pytest.approx([first, 1 - first])
    assert old.decode(alone.ids[:1]) == "ab"
    # with vectors: cosines 0.6 (ab) and 0 (c); the two nearest are ab and one of cosine 0, which the threshold excludes
    u = 1 / (1 + math.exp(-0.6))
    first = 1 / (1 + math.exp(-((u - (1 - u)) + 1 / 3) / 2 / 0.3))
    found = mixtures(old, new, embed=vectors, settings=Settings(neighbours=2, threshold=0.1))[abc]
    assert found.weights == pytest.approx([0.7 * first, 0.7 * (1 - first), 0.3])
    assert [old.decode([piece]) for piece in found.ids] == ["ab", "c", "ab"]
    assert mixtures(old, new, "pieces")[abc].weights.tolist() == [0.5, 0.5]
    assert mixtures(old, new, "mean") == {}


@pytest.mark.parametrize("tied", [True, False])
def test_the_model_reads_its_new_tokens(tied) -> None:
    old, new = tokenizer(OLD), tokenizer(NEW)
    model = llama(len(old), tied=tied)
    before = [layer.weight.detach().clone() for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    assert transplant(model, old, new, "pieces") == (7, 6, 1, 0)
    after = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    for was, now in zip(before, after, strict=True):
        assert torch.equal(now[new.convert_tokens_to_ids("c")], was[old.convert_tokens_to_ids("c")])
        assert torch.allclose(now[new.convert_tokens_to_ids("abc")], (was[5] + was[3]) / 2)
    assert torch.equal(after[0], after[1]) == tied
    assert model.config.vocab_size == 7
    assert model.config.eos_token_id == new.eos_token_id
    assert model(torch.tensor([new("abc a")["input_ids"]])).logits.shape == (1, 3, 7)


def test_tokens_in_another_order_change_nothing() -> None:
    old, new = tokenizer(OLD, "abc "), tokenizer(OLD, " cba")
    model, text = llama(len(old)), "abc ab cab"
    ids = old(text)["input_ids"]
    before = model(torch.tensor([ids])).logits[0]
    report = transplant(model, old, new)
    assert (report.copied, report.mixed, report.left) == (6, 0, 0)
    after = model(torch.tensor([new(text)["input_ids"]])).logits[0]
    order = [shared(new, old)[token] for token in range(len(old))]
    assert torch.allclose(after[:, order], before, atol=1e-6)


def test_special_tokens_and_the_template_come_along_and_the_rest_is_the_mean() -> None:
    old, new = tokenizer(OLD), tokenizer(OLD, "abcé ")  # é is two bytes, of which the old one has none
    old.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    old.chat_template = "{{ messages[0].content }}<turn>"
    model = llama(len(old))
    mean = model.get_input_embeddings().weight.mean(0).detach().clone()
    turn = model.get_input_embeddings().weight[old.convert_tokens_to_ids("<turn>")].detach().clone()
    report = transplant(model, old, new)
    table = model.get_input_embeddings().weight
    assert report.left == 1
    assert torch.allclose(table[new.convert_tokens_to_ids("é")], mean)
    assert torch.equal(table[new.convert_tokens_to_ids("<turn>")], turn)
    said = new.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False)
    assert new.convert_ids_to_tokens(new(said)["input_ids"]) == ["ab", "<turn>"]


def test_an_end_of_another_name_is_the_same_end() -> None:
    old, new = tokenizer(OLD), tokenizer(OLD, "abc ", end="<ab>")  # its text could be made of pieces, too
    model = llama(len(old))
    stop = new.eos_token_id
    before = model.get_input_embeddings().weight[old.eos_token_id].detach().clone()
    assert transplant(model, old, new).left == 0
    assert torch.equal(model.get_input_embeddings().weight[stop], before)
    assert new.eos_token == "<end>"


def test_random_draws_have_the_tables_spread_and_a_seed() -> None:
    old, new = tokenizer(OLD), tokenizer([*NEW, ("abc", "a"), ("abca", "b")])
    tables = []
    for seed in (0, 0, 1):
        model = llama(len(old))
        transplant(model, old, new, "random", seed=seed)
        tables.append(model.get_input_embeddings().weight.detach().clone())
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    with pytest.raises(InvalidInput, match="no way to embed new tokens"):
        transplant(llama(len(old)), old, new, "best")
    with pytest.raises(InvalidInput, match="temperature above 0"):
        Settings(temperature=0)


def test_supertokens_span_words_and_never_lines() -> None:
    text = "\n".join(f"it is day {number} of {number * 37 % 101}, and all is well" for number in range(300))
    held = "it is day 3 of 9, and all is well\nall is well, and it is day 4"
    one, three = (supertokens([text], 340, words) for words in (1, 3))
    for made in (one, three):
        assert made.decode(made(held)["input_ids"]) == held
        assert len(made) == 340
    texts = {made: [made.decode([token]) for token in range(1, len(made))] for made in (one, three)}
    assert not any(" " in token.strip() for token in texts[one])
    assert any(" " in token.strip() for token in texts[three])
    assert not any("\n" in token.strip("\n") for token in texts[three])
    assert len(three(held)["input_ids"]) < len(one(held)["input_ids"])  # fewer tokens of a vocabulary of equal size
    with pytest.raises(InvalidInput, match="257"):
        supertokens([text], 256)
