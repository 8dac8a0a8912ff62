"""KVzip reads a prompt twice: against the attention of one pass over the text and its repetition."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer.cache import BudgetedCache, budgeted, replay
from budgeteer.cache.prefill import Prefill
from budgeteer.core.errors import InvalidInput

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LAYERS, KV_HEADS, TOKENS = 3, 2, 30


def model(**changes):
    torch.manual_seed(3)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, **changes)).eval()
    for name, weight in made.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 6
    return made


def prompt(rows: int = 1, seed: int = 0):
    return torch.randint(3, 97, (rows, TOKENS), generator=torch.Generator().manual_seed(seed))


def wanted(made, ids):
    """For each layer [K, n]: the most that a token of the repetition reads of each entry of the text."""
    made.set_attn_implementation("eager")
    with torch.no_grad():
        found = made(torch.cat([ids, ids], dim=1), output_attentions=True).attentions
    made.set_attn_implementation("sdpa")
    n = ids.shape[1]
    return [each[0, :, n:, :n].reshape(KV_HEADS, 2, n, n).amax(dim=(1, 2)) for each in found]


def held(cache, row: int = 0) -> list[list[list[int]]]:
    slots = [layer.storage.slots(layer.seen)[row] for layer in cache.layers]
    return [[head[head >= 0].tolist() for head in layer] for layer in slots]


def best(scores, places: int, sinks: int):
    """Indices of the best entries of a flat list of heads, the first ones of each head being sure."""
    flat = torch.stack([head for layer in scores for head in layer]).clone()
    flat[:, :sinks] = 9.0
    top = flat.flatten().topk(places).indices.tolist()
    return [sorted(i % TOKENS for i in top if i // TOKENS == head) for head in range(len(flat))]


@pytest.mark.parametrize("padded", [0, 5])
def test_the_entries_are_kept_that_the_repetition_reads_most(padded: int) -> None:
    made, ids = model(), prompt()
    scores = wanted(made, ids)
    cache = BudgetedCache(made, "40%", "kvzip:sinks=2")
    given = {"input_ids": ids}
    if padded:  # a row of padding before it, and one beside it
        row = torch.cat([torch.zeros(1, padded, dtype=torch.long), ids], dim=1)
        other = prompt(seed=7).repeat(1, 2)[:, : TOKENS + padded]
        mask = torch.ones(2, TOKENS + padded, dtype=torch.long)
        mask[0, :padded] = 0
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        given = {"input_ids": torch.cat([row, other]), "attention_mask": mask, "position_ids": places}
    with torch.no_grad():
        made(**given, past_key_values=cache)
    found = [[slot - padded for slot in head] for layer in held(cache) for head in layer]
    assert found == best(scores, 12 * LAYERS * KV_HEADS, sinks=2)
    assert (cache.get_seq_length(), cache.unread) == (TOKENS + padded, False)
    assert cache.account().kept == 12 * LAYERS * KV_HEADS + (14 * LAYERS * KV_HEADS if padded else 0)


def test_a_prompt_in_pieces_and_generation_go_on_from_true_positions(monkeypatch) -> None:
    made, ids = model(), prompt()
    once = BudgetedCache(made, "40%", "kvzip:split=ada-kv:safe=0")
    with torch.no_grad():
        made(ids, past_key_values=once)
        after = made(ids[:, :3], past_key_values=once).logits
    assert once.get_seq_length() == TOKENS + 3
    monkeypatch.setattr(replay, "CHUNK", 11)  # the second reading, a piece at a time: each sees the text and itself
    pieces = BudgetedCache(made, "40%", "kvzip:split=ada-kv:safe=0")
    with torch.no_grad():
        made(ids, past_key_values=pieces)
    assert pieces.account().kept == 12 * LAYERS * KV_HEADS
    with budgeted(made, "40%", "kvzip:split=ada-kv:safe=0"), torch.no_grad():
        result = made.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    assert result.past_key_values.get_seq_length() == TOKENS + 3
    assert torch.isfinite(after).all()


def test_one_prefill_serves_all_budgets_and_a_full_budget_reads_once() -> None:
    made, ids = model(), prompt()
    read = Prefill(made, ids)
    for budget, method in (("40%", "kvzip"), ("20%", "kvzip"), ("40%", "kvzip:split=uniform")):
        shared, own = read.into(BudgetedCache(made, budget, method)), BudgetedCache(made, budget, method)
        with torch.no_grad():
            made(ids, past_key_values=own)
        assert held(shared) == held(own)
    with torch.no_grad():
        plain = made(ids).logits
        cache = BudgetedCache(made, "100%", "kvzip")
        assert torch.equal(made(ids, past_key_values=cache).logits, plain)
    assert cache.account().share == 1.0


def test_what_kvzip_cannot_do_is_said() -> None:
    made, ids = model(), prompt()
    cache = BudgetedCache(made, "40%", "kvzip")
    with torch.no_grad():
        made.model(ids, past_key_values=cache)  # the inner model: nobody reads the prompt again
        with pytest.raises(InvalidInput, match="call that model"):
            made.model(ids, past_key_values=cache)
    sliding = transformers.MistralConfig(**SIZES, sliding_window=16)
    with pytest.raises(InvalidInput, match="sliding window"):
        BudgetedCache(transformers.MistralForCausalLM(sliding), "40%", "kvzip")
    with pytest.raises(InvalidInput, match="sinks=-1"):
        BudgetedCache(made, "40%", "kvzip:sinks=-1")
