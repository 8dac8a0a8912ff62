"""Budgeted caches on small random models of transformers: against the same model with masks, by rows and by chunks."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from budgeteer import Budget
from budgeteer.cache import BudgetedCache, budgeted, selection
from budgeteer.cache.attend import frequencies_of
from budgeteer.cache.kit import attention, turned
from budgeteer.cache.prefill import Prefill
from budgeteer.cache.protocol import Score
from budgeteer.cache.selecting import Selection
from budgeteer.core.errors import InvalidInput, UnknownName

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SLIDING = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
MODELS = {
    "Llama": {},
    "Qwen3": {"head_dim": 8},
    "Mistral": {"sliding_window": 16},
    "Gemma2": {"head_dim": 8, **SLIDING},  # caps its logits
    "Gemma3": {"head_dim": 8, **SLIDING},
    "Phi": {},
    "Phi3": {},  # its keys and values are parts of one tensor
    "Qwen2Moe": {"moe_intermediate_size": 16, "num_experts": 4, "shared_expert_intermediate_size": 16},
}
METHODS = (
    "random", "recent", "streaming-llm:sinks=2", "knorm", "tova", "snapkv:window=4", "h2o", "defensive:window=4",
    "snapkv:window=4,split=pyramid:beta=2", "knorm:split=ada-kv", "defensive:window=4,split=layers",
    "prefix-kv:every=1", "prefix-kv:every=1,distance=3", "compactor:sinks=2,recent=2,chunk=8",
    "tri-attention:window=8,reach=64",
    "tca-attention:block=8,recent=4",
)  # fmt: skip


QUICK = ("Llama", "Gemma3", "snapkv:window=4,split=pyramid:beta=2", "h2o", "defensive:window=4,split=layers")
"""Architectures and methods of every run; the others are tried with what is slow."""


def quick(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def model(kind: str = "Llama", attention: str = "sdpa", **changes):
    if kind == "Qwen2Moe" and int(transformers.__version__.partition(".")[0]) < 5:
        pytest.skip("its attention does not go through transformers' functions before 5.0: refused")
    configuration = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(kind, f"{kind}Config"))
    torch.manual_seed(3)
    made = getattr(transformers, f"{kind}ForCausalLM")(configuration(**{**SIZES, **MODELS[kind], **changes})).eval()
    for name, weight in made.named_parameters():  # attention that is not nearly uniform
        if "q_proj" in name or "k_proj" in name or "qkv_proj" in name:
            weight.data *= 6
    made.set_attn_implementation(attention)
    return made


def prompts(rows: int = 2, tokens: int = 40, padded: int = 7, seed: int = 0):
    ids = torch.randint(3, 97, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    ids[0, :padded], mask[0, :padded] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


GENERATE = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}


def generate(given, new: int = 8, **options):
    inputs = options.pop("inputs", None) or prompts()
    with torch.no_grad():
        return given.generate(**inputs, max_new_tokens=new, min_new_tokens=new, **GENERATE, **options)


def held(cache) -> list:
    """For each layer, row and head, the slots that are held."""
    found = []
    for layer in cache.layers:
        slots = layer.storage.slots(layer.seen)
        found.append([[head[head >= 0].tolist() for head in row] for row in slots])
    return found


@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", quick(MODELS))
def test_a_full_budget_gives_the_same_bits(kind: str, attention: str) -> None:
    if (kind, attention) == ("Gemma2", "sdpa"):
        pytest.skip("sdpa of transformers does not cap logits")
    plain = generate(model(kind, attention), new=12)
    made = model(kind, attention)
    for method in ("h2o", "defensive:window=4,split=layers"):
        cache = BudgetedCache(made, "100%", method)
        found = generate(made, new=12, past_key_values=cache)
        assert all(torch.equal(a, b) for a, b in zip(plain.logits, found.logits, strict=True))
        assert cache.account().share == 1.0
    again = generate(made, new=12)  # and without a budget the model is as it was
    assert all(torch.equal(a, b) for a, b in zip(plain.logits, again.logits, strict=True))


def masked(made, ids, mask, dropped, prompt: int, window_of):
    """Logits of the whole text in one pass without a cache; tokens from ``prompt`` on do not see dropped slots."""
    rows, length = ids.shape
    reference = copy.deepcopy(made)
    places = torch.arange(length)
    for layer in reference.modules():
        if hasattr(layer, "layer_idx"):
            layer.config = copy.copy(layer.config)
            layer.config._attn_implementation_internal = "masked_reference"

    def attend(module, query, key, value, attention_mask, scaling=None, softcap=None, **kwargs):
        group = query.shape[1] // key.shape[1]
        out = torch.zeros_like(query)
        for b in range(rows):
            for h in range(query.shape[1]):
                logits = (query[b, h] @ key[b, h // group].T) * scaling
                logits = softcap * torch.tanh(logits / softcap) if softcap else logits
                seen = (places[:, None] >= places) & mask[b].bool()
                if window_of(module.layer_idx) is not None:
                    seen = seen & (places[:, None] - places < window_of(module.layer_idx))
                seen[prompt:, dropped[module.layer_idx][b][h // group]] = False
                out[b, h] = torch.softmax(logits.masked_fill(~seen, -1e30), -1) @ value[b, h // group]
        return out.transpose(1, 2).contiguous(), None

    ALL_ATTENTION_FUNCTIONS.register("masked_reference", attend)
    with torch.no_grad():
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        return reference(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits


@pytest.mark.parametrize("method", quick(["snapkv:window=4", "knorm:split=ada-kv", "defensive:window=4,split=layers"]))
@pytest.mark.parametrize("kind", ["Gemma2", *quick(name for name in MODELS if name != "Gemma2")])
def test_after_the_choice_it_is_the_model_that_does_not_see_what_was_dropped(kind: str, method: str) -> None:
    """Masks, true positions, groups of heads, padding and heads of unequal lengths, against loops over heads."""
    made, inputs = model(kind, "eager" if kind == "Gemma2" else "sdpa"), prompts()
    dropped, cache = [], BudgetedCache(made, "40%", method)
    with torch.no_grad():
        made(**inputs, past_key_values=cache, position_ids=(inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0))
    windows = [layer.window for layer in cache.layers]
    for of_layer, window in zip(held(cache), windows, strict=True):
        first = 0 if window is None else 40 - window + 1
        dropped.append([[sorted(set(range(first, 40)) - set(head)) for head in row] for row in of_layer])
    assert any(head for row in dropped[1] for head in row)
    found = generate(made, inputs=inputs, past_key_values=BudgetedCache(made, "40%", method))
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, 8, dtype=torch.long)], dim=1)
    wanted = masked(model(kind, "eager"), found.sequences, mask, dropped, 40, windows.__getitem__)
    torch.testing.assert_close(torch.stack(found.logits, 1), wanted[:, 39:-1], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("method", quick(METHODS))
@pytest.mark.parametrize("kind", ["Llama", pytest.param("Gemma3", marks=pytest.mark.slow)])
def test_a_row_beside_others_and_behind_padding_is_the_row_alone(kind: str, method: str) -> None:
    if method == "random":
        pytest.skip("its draws are by slot, and padding counts as slots")
    made, inputs = model(kind), prompts()
    both = generate(made, inputs=inputs, new=12, past_key_values=BudgetedCache(made, "50%", method))
    for row, padded in enumerate([7, 0]):
        alone = {name: given[row : row + 1, padded:] for name, given in inputs.items()}
        one = generate(made, inputs=alone, new=12, past_key_values=BudgetedCache(made, "50%", method))
        assert torch.equal(one.sequences[0, -12:], both.sequences[row, -12:])
        torch.testing.assert_close(
            torch.stack(one.logits)[:, 0], torch.stack(both.logits)[:, row], atol=2e-4, rtol=1e-3
        )


@pytest.mark.parametrize("method", METHODS)
def test_the_budget_holds_and_what_is_always_kept_is_kept(method: str) -> None:
    made, inputs = model(), prompts(padded=0)
    cache = BudgetedCache(made, "cache:16", method)
    with torch.no_grad():
        made(**inputs, past_key_values=cache)
        assert cache.account().kept == 2 * 2 * 3 * 16  # rows, heads, layers
        score = cache.selected.score
        newest = max(score.recent, int(16 * score.recent_share))
        for row in (row for layer in held(cache) for row in layer):
            for head in row:
                assert head == sorted(set(head))
                assert set(range(score.first)) | set(range(40 - newest, 40)) <= set(head)
        sizes = []
        for _ in range(5):
            made(input_ids=inputs["input_ids"][:, :1], past_key_values=cache)
            sizes.append(cache.account().kept // 12)
    assert sizes == ([16] * 5 if score.every == 1 else [17, 18, 19, 20, 21])
    if "split" not in method and score.split == "uniform":
        assert {len(head) for layer in held(cache) for row in layer for head in row} == {sizes[-1]}
    if score.every == 1 and method in ("recent", "streaming-llm:sinks=2"):
        assert held(cache)[0][0][0] == [*range(score.first), *range(45 - 16 + score.first, 45)]


def test_while_decoding_the_choice_is_made_every_so_many_tokens() -> None:
    made, inputs, sizes = model(), prompts(padded=0), []
    cache = BudgetedCache(made, "cache:16", "snapkv:window=4,every=3")
    with torch.no_grad():
        made(**inputs, past_key_values=cache)
        for _ in range(7):
            made(input_ids=inputs["input_ids"][:, :1], past_key_values=cache)
            sizes.append(cache.account().kept // 12)
    assert sizes == [17, 18, 16, 17, 18, 16, 17]


def test_h2o_remembers_over_steps_what_each_entry_was_read() -> None:
    """The running sums, against attention that is computed anew from what was held at each step."""
    made, inputs = model(attention="eager"), prompts(rows=1, padded=0)
    cache, sums = BudgetedCache(made, "cache:16", "h2o"), {}
    with torch.no_grad():
        ids, before = inputs["input_ids"], [[[]] * 2] * 3
        for step in range(30):
            result = made(input_ids=ids, past_key_values=cache, output_attentions=True)
            asked = ids.shape[1]
            for layer in range(3):
                for head in range(2):
                    read = result.attentions[layer][0, 2 * head : 2 * head + 2].sum(1).mean(0)
                    start = 0 if not step else 39 + step
                    for slot, value in zip([*before[layer][head], *range(start, start + asked)], read, strict=True):
                        sums[layer, head, slot] = sums.get((layer, head, slot), 0.0) + float(value)
            before = [of_layer[0] for of_layer in held(cache)]
            ids = result.logits[:, -1:].argmax(-1)
    for layer in range(3):
        memory = cache.layers[layer].memory()[0, :, :, 0]
        for head in range(2):
            wanted = [sums[layer, head, slot] for slot in before[layer][head]]
            torch.testing.assert_close(memory[head], torch.tensor(wanted), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", quick(METHODS))
@pytest.mark.parametrize("kind", ["Llama", "Gemma3"])
def test_a_prompt_in_chunks(kind: str, method: str) -> None:
    """With a full budget it is the prompt at once; with less, no chunk leaves more than the budget."""
    made, inputs = model(kind), prompts(padded=0)
    whole, parts = BudgetedCache(made, "100%", method), BudgetedCache(made, "100%", method)
    small = BudgetedCache(made, "50%", method)
    with torch.no_grad():
        wanted = made(**inputs, past_key_values=whole).logits
        for start, stop in pairwise((0, 13, 26, 40)):
            piece = {
                "input_ids": inputs["input_ids"][:, start:stop],
                "attention_mask": inputs["attention_mask"][:, :stop],
            }
            found = made(**piece, past_key_values=parts).logits
            torch.testing.assert_close(found, wanted[:, start:stop], atol=1e-4, rtol=1e-3)
            made(**piece, past_key_values=small)
            assert small.account().kept <= (stop // 2) * 12
    assert small.get_seq_length() == 40
    if kind == "Llama" and method != "random":
        at_once = generate(made, inputs=inputs, past_key_values=BudgetedCache(made, "100%", method))
        pieces = generate(
            made, inputs=inputs, past_key_values=BudgetedCache(made, "100%", method), prefill_chunk_size=9
        )
        assert torch.equal(at_once.sequences, pieces.sequences)


@pytest.mark.parametrize("method", ["h2o", "defensive:window=4,split=layers", "knorm:rest=quantise", "adamas"])
def test_chunks_and_turns_with_a_full_budget_are_those_without_one(method: str) -> None:
    """Left padding, two rows, three calls of several tokens and one of one: the same bits."""
    made, inputs = model(), prompts()
    cache, full = BudgetedCache(made, "100%", method), transformers.DynamicCache()
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, 3, dtype=torch.long)], dim=1)
    ids = torch.cat([inputs["input_ids"], torch.tensor([[5, 6, 7], [8, 9, 5]])], dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        for start, stop in ((0, 15), (15, 40), (40, 42), (42, 43)):
            given = {
                "input_ids": ids[:, start:stop],
                "attention_mask": mask[:, :stop],
                "position_ids": positions[:, start:stop],
            }
            found, wanted = (made(**given, past_key_values=each).logits for each in (cache, full))
            assert torch.equal(found, wanted)
    assert cache.account().share == 1.0


def test_a_share_of_the_prompt_stays_while_the_text_grows() -> None:
    made, text = model(), prompts(1, padded=0)
    kept = []
    for budget in ("50%", "prompt:50%"):
        cache = BudgetedCache(made, budget, "h2o:every=1")
        generate(made, 9, inputs=text, past_key_values=cache)  # 40 tokens, and 8 that were generated and read
        kept.append({len(head) for layer in held(cache) for row in layer for head in row})
        with torch.no_grad():
            made(input_ids=text["input_ids"][:, :12], past_key_values=cache)  # another turn: a prompt of 60 tokens
        kept.append({len(head) for layer in held(cache) for row in layer for head in row})
    assert kept == [{24}, {30}, {20}, {30}]


def test_several_turns_keep_positions_and_the_budget() -> None:
    """The second turn reads what the first one left, at the true positions: as the model with masks does."""
    made, inputs = model(), prompts(padded=0)
    cache = BudgetedCache(made, "40%", "snapkv:window=4,split=ada-kv")
    first = generate(made, inputs=inputs, new=6, past_key_values=cache)
    kept = held(cache)  # what was chosen at the end of the prompt, and the five tokens that were read since
    ids = torch.cat([first.sequences, prompts(tokens=9, padded=0, seed=5)["input_ids"]], dim=1)
    with torch.no_grad():
        found = made(input_ids=ids[:, 45:], past_key_values=cache).logits  # the last generated token was not read yet
    dropped = [[[sorted(set(range(45)) - set(head)) for head in row] for row in layer] for layer in kept]
    wanted = masked(model(), ids, torch.ones_like(ids), dropped, 40, lambda layer: None)
    torch.testing.assert_close(found, wanted[:, 45:], atol=2e-4, rtol=1e-3)
    assert cache.get_seq_length() == 55
    assert cache.account().kept == 12 * (55 * 2 // 5)
    again = generate(
        made, inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)}, past_key_values=_read(made)
    )
    assert again.sequences.shape == (2, 55 + 8)


def _read(made):
    """A cache that has read the first turn of a conversation."""
    cache = BudgetedCache(made, "40%", "snapkv:window=4")
    generate(made, inputs=prompts(padded=0), new=6, past_key_values=cache)
    return cache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_bytes_are_measured_and_within_two_percent_of_the_budget(method: str, dtype) -> None:
    made = model(hidden_size=256, head_dim=128).to(dtype)
    inputs = prompts(rows=2, tokens=400, padded=0)
    entry = 2 * 128 * dtype.itemsize
    full = 2 * 2 * 3 * 400 * entry
    cache = BudgetedCache(made, "25%", method)
    with torch.no_grad():
        made(**inputs, past_key_values=cache)
    account = cache.account()
    assert (account.full_bytes, account.kept, account.total) == (full, 1200, 4800)
    memory = 4 * account.kept * cache.selected.score.remembers
    watched = sum(t.nbytes for layer in cache.layers for t in layer.watched or ())
    assert 0.25 * full <= account.bytes - memory - watched <= 1.02 * 0.25 * full
    assert account.bytes + full // 12 < account.peak_bytes
    # bytes are a budget, too: all that is held, memory of the score included
    cache = BudgetedCache(made, Budget.parse(f"bytes:{full // 4}"), method)
    with torch.no_grad():
        made(**inputs, past_key_values=cache)
    assert 0.96 * full // 4 < cache.account().bytes - watched <= full // 4 + 200


def test_the_peak_is_the_full_cache_only_where_all_layers_wait() -> None:
    """A layer at a time: the others are small when the last one is whole, and it is there twice while it is cut."""
    made, peaks = model(num_hidden_layers=8), {}
    for split in ("uniform", "ada-kv", "layers"):
        cache = BudgetedCache(made, "25%", f"knorm:split={split}")
        with torch.no_grad():
            made(**prompts(tokens=200, padded=0), past_key_values=cache)
        account = cache.account()
        peaks[split] = account.peak_bytes / account.full_bytes
    assert peaks["uniform"] < (7 * 0.25 + 1 + 0.25) / 8 * 1.1
    assert peaks["ada-kv"] < (7 * 0.25 + 1 + 0.25) / 8 * 1.1
    assert 1 < peaks["layers"] < 1.1


def test_a_sliding_layer_holds_its_window_at_most_and_less_on_a_smaller_budget() -> None:
    made = model("Gemma3")
    for budget, wanted in (("cache:30", [15, 30, 15]), ("cache:10", [10, 10, 10])):
        cache = BudgetedCache(made, budget, "knorm")
        with torch.no_grad():
            made(**prompts(padded=0), past_key_values=cache)
            assert [len(layer[0][0]) for layer in held(cache)] == wanted
            for _ in range(20):
                made(input_ids=torch.tensor([[5], [6]]), past_key_values=cache)
        for layer, of_layer in zip(cache.layers, held(cache), strict=True):
            if layer.window:
                assert all(slot > 60 - layer.window for row in of_layer for head in row for slot in head)
                assert len(of_layer[0][0]) == 15


def test_the_context_manager_gives_every_new_cache_a_budget() -> None:
    made, inputs = model(), prompts()
    wanted = generate(made, inputs=inputs, past_key_values=BudgetedCache(made, "50%", "h2o"))
    with budgeted(made, "50%", method="h2o"):
        found = generate(made, inputs=inputs)
        with torch.no_grad():
            cache = made(input_ids=inputs["input_ids"]).past_key_values
            unused = made(input_ids=inputs["input_ids"], use_cache=False).past_key_values
    assert torch.equal(found.sequences, wanted.sequences)
    assert isinstance(found.past_key_values, BudgetedCache)
    assert (cache.account().share, unused) == (0.5, None)
    assert not isinstance(generate(made, inputs=inputs).past_key_values, BudgetedCache)


def test_of_two_budgets_the_inner_one_counts() -> None:
    made, inputs = model(), prompts(padded=0)
    with budgeted(made, "50%", "knorm"), torch.no_grad():
        with budgeted(made, "25%", "knorm"):
            assert made(**inputs).past_key_values.account().share == 0.25
        assert made(**inputs).past_key_values.account().share == 0.5


def test_an_empty_cache_of_another_kind_is_no_way_around_the_budget() -> None:
    made = model()
    with budgeted(made, "50%", "knorm"):
        with pytest.raises(InvalidInput, match="this call brings a StaticCache; leave out past_key_values"):
            generate(made, cache_implementation="static")
        with pytest.raises(InvalidInput, match="reordered for beam search"):
            generate(made, num_beams=2)


def test_two_models_and_two_caches_at_a_time() -> None:
    first, second, inputs = model(), model("Qwen3"), prompts()
    wanted = [
        generate(made, inputs=inputs, past_key_values=BudgetedCache(made, "50%", "h2o")) for made in (first, second)
    ]
    caches = [BudgetedCache(made, "50%", "h2o") for made in (first, second, first)]
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        for made, cache in zip((first, second, first), caches, strict=True):
            made(**inputs, past_key_values=cache, position_ids=positions)
        logits = [
            made(
                input_ids=want.sequences[:, 40:41],
                attention_mask=torch.cat([inputs["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1),
                past_key_values=cache,
                position_ids=positions[:, -1:] + 1,
            ).logits
            for made, want, cache in zip((first, second, first), [*wanted, wanted[0]], caches, strict=True)
        ]
    for found, want in zip(logits, [*wanted, wanted[0]], strict=True):
        torch.testing.assert_close(found[:, 0], want.logits[1], atol=1e-5, rtol=1e-5)


# what cannot be


@pytest.mark.parametrize("seed", ["x", 1.5, True, -1, None])
def test_a_seed_that_is_none_is_refused_when_the_cache_is_made(seed) -> None:
    with pytest.raises(InvalidInput, match=f"seed is {seed!r}; give a whole number, 0 or more"):
        BudgetedCache(model(), "cache:8", "random", seed=seed)


@pytest.mark.parametrize(
    ("ids", "mask", "says"),
    [
        (torch.arange(5), None, r"ids is \(5,\) of torch.int64; give the tokens .* one prompt is ids\[None\]"),
        ([[1, 2]], None, "ids is a list; give the tokens"),
        (torch.zeros(1, 4), None, "ids is .* of torch.float32; give the tokens .* whole numbers"),
        (torch.zeros(1, 0, dtype=torch.long), None, r"ids is \(1, 0\)"),
        (torch.ones(1, 4, dtype=torch.long), torch.ones(4), r"attention_mask is \(4,\) and ids \(1, 4\)"),
        (torch.ones(1, 4, dtype=torch.long), [1] * 4, "attention_mask is a list"),
    ],
)
def test_a_prefill_of_what_is_no_batch_of_prompts_is_refused(ids, mask, says) -> None:
    with pytest.raises(InvalidInput, match=says):
        Prefill(model(), ids, mask)


def test_beams_and_assistants_are_refused() -> None:
    made, inputs = model(), prompts(rows=1, padded=0)
    for options in ({"num_beams": 2}, {"assistant_model": model()}, {"prompt_lookup_num_tokens": 3}):
        with pytest.raises(InvalidInput, match="num_beams=1 and without an assistant"), torch.no_grad():
            made.generate(**inputs, max_new_tokens=6, past_key_values=BudgetedCache(made, "50%", "knorm"), **options)
    cache = BudgetedCache(made, "50%", "knorm")
    for call in (lambda: cache.batch_repeat_interleave(2), lambda: cache.batch_select_indices(torch.tensor([0]))):
        with pytest.raises(InvalidInput, match="budgeted cache cannot be"):
            call()


@pytest.mark.parametrize(
    ("budget", "method", "says"),
    [
        ("cache:8", "snapkv", "leaves 8 tokens a head, and snapkv always keeps 32"),
        ("4", "streaming-llm:every=0", None),
        (
            "3",
            "streaming-llm",
            "always keeps 4; give a larger budget, or a method that protects nothing, such as keydiff",
        ),
        ("cache:0", "keydiff", "always keeps 1; give a larger budget$"),
        ("50%", "streaming-llm:sinks=-1", "keeps -1 first and 0 newest entries, .*none of these can be negative"),
        ("50%", "keydiff:every=-1", "none of these can be negative"),
        ("0%", "knorm", "is not positive; give more than 0"),
        ("101%", "knorm", "up to 100%"),
        ("bytes:25%", "knorm", "up to 100%"),
        ("$5", "knorm", "a cache has no budget of"),
        ("2k/day", "knorm", "a cache has no budget of"),
        ("0", "knorm", "leaves 0 tokens a head"),
        (0.25, "knorm", "a cache has no budget of 0.25; write it as a text, such as '25%'"),
        ("prompt:2k", "knorm", "give a share of the prompt"),
        ("prompt:101%", "knorm", "up to 100%"),
        ("50%", None, "a cache has no method None; write it as a text"),
        ("50%", "knorm:window=3", "has no options|unknown option"),
        ("50%", "snap", "unknown score 'snap'"),
        ("50%", "knorm:split=half", "unknown split 'half'"),
        ("50%", "knorm:safe=0.5,split=ada-kv", "write split=ada-kv:safe=0.5"),
    ],
)
def test_a_budget_or_a_method_that_cannot_be_is_refused_before_anything_is_computed(budget, method, says) -> None:
    made = model()
    if says is None:
        BudgetedCache(made, budget, method)
        return
    with pytest.raises((InvalidInput, UnknownName), match=says):
        BudgetedCache(made, budget, method)
    with pytest.raises((InvalidInput, UnknownName), match=says), budgeted(made, budget, method):
        pass


def test_a_share_that_is_too_small_for_the_prompt_is_refused_in_its_first_layer() -> None:
    made, layers = model(), []
    made.model.layers[1].register_forward_hook(lambda *args: layers.append(1))
    with pytest.raises(InvalidInput, match="25% leaves 8 tokens a head, and snapkv:window=9 always keeps 9"):
        generate(made, past_key_values=BudgetedCache(made, "25%", "snapkv:window=9"))
    assert not layers
    short = generate(made, inputs=prompts(tokens=20, padded=0), past_key_values=BudgetedCache(made, "100%", "snapkv"))
    assert short.sequences.shape == (2, 28)  # nothing has to go, so that nothing is too small


def test_models_without_a_standard_cache_are_refused() -> None:
    hybrid = transformers.JambaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_layer_period=2, attn_layer_offset=1, num_experts=1, use_mamba_kernels=False,
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="state-space"):
        BudgetedCache(transformers.JambaForCausalLM(hybrid), "50%")
    made = model()
    for _ in range(2):  # whether the model has had a cache or not
        made.set_attn_implementation("flex_attention")
        with pytest.raises(InvalidInput, match="attn_implementation='sdpa'"):
            BudgetedCache(made, "50%")
        made.set_attn_implementation("sdpa")
        BudgetedCache(made, "50%")
    with pytest.raises(InvalidInput, match="'smollm2' is no model of transformers; load it"):
        BudgetedCache("smollm2", "50%")


def test_methods_that_need_the_rotation_of_a_model_are_refused_where_it_is_not_known() -> None:
    made = model(rope_scaling={"rope_type": "dynamic", "factor": 2.0})  # its frequencies change with the text
    for method in ("expected-attention", "streaming-llm:rest=ema"):
        with pytest.raises(InvalidInput, match="how queries and keys are rotated"):
            BudgetedCache(made, "50%", method)
        BudgetedCache(model(), "50%", method)


@pytest.mark.parametrize("kind", ["Llama", "Gemma3", "Phi"])
def test_keys_are_turned_as_is_said_of_them(kind: str) -> None:
    """A token alone is read the same at any position, so that only the rotation of its keys differs."""
    made, keys = model(kind), []
    windows = [16, None, 16] if kind == "Gemma3" else [None] * 3
    found = frequencies_of(made, windows)
    for position in (0, 29):
        cache = transformers.cache_utils.DynamicCache(config=made.config)
        with torch.no_grad():
            made(input_ids=torch.tensor([[5]]), position_ids=torch.tensor([[position]]), past_key_values=cache)
        keys.append([layer.keys for layer in cache.layers])
    for before, after, frequencies in zip(*keys, found, strict=True):
        assert not torch.allclose(before, after, atol=1e-2)
        torch.testing.assert_close(turned(before, torch.tensor([29]), frequencies), after, atol=1e-4, rtol=1e-4)
    assert torch.equal(found[0], found[1]) == (kind != "Gemma3")


def test_a_cache_of_another_model_is_refused_and_a_used_one_goes_on() -> None:
    made, inputs = model(), prompts(padded=0)
    cache = BudgetedCache(made, "50%", "knorm")
    with pytest.raises(InvalidInput, match="did not go through"), torch.no_grad():
        model()(**inputs, past_key_values=cache)
    cache = BudgetedCache(made, "50%", "knorm")
    with torch.no_grad():
        one = made(**inputs, past_key_values=cache).logits
        made(**{**inputs, "attention_mask": torch.ones(2, 80, dtype=torch.long)}, past_key_values=cache)
        assert cache.get_seq_length() == 80
        cache.reset()
        assert (cache.account().bytes, cache.get_seq_length()) == (0, 0)
        assert torch.equal(made(**inputs, past_key_values=cache).logits, one)


def test_a_refused_call_of_another_model_leaves_nothing_behind() -> None:
    """The attention that never came is not that of the next call, which knows no budget."""
    made, inputs = model(), prompts(padded=0)
    other = BudgetedCache(made, "50%", "snapkv:window=4")
    with pytest.raises(InvalidInput, match="did not go through"), torch.no_grad():
        model()(**inputs, past_key_values=other)
    seen = []
    other.prepare = lambda *args: seen.append(args)
    with torch.no_grad():
        made(**inputs, use_cache=False)
    assert not seen


@pytest.mark.parametrize("method", ["snapkv:window=4", "keydiff:split=layers", "adamas", "kvzip", "prompt-distill"])
@pytest.mark.parametrize("where", [1, 2])
def test_a_call_that_broke_off_is_not_gone_on_with(method: str, where: int) -> None:
    """Layers that hold different texts would give an answer, and a wrong one."""
    made, inputs = model(), prompts(padded=0)
    cache = BudgetedCache(made, "50%", method)
    with torch.no_grad():
        wanted = made(**inputs, past_key_values=BudgetedCache(made, "50%", method)).logits
        handle = made.model.layers[where].register_forward_pre_hook(lambda *args: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            made(**inputs, past_key_values=cache)
        handle.remove()
        with pytest.raises(InvalidInput, match=r"an earlier call of the model broke off.*reset\(\) it"):
            made(input_ids=inputs["input_ids"][:, :1], past_key_values=cache)
        cache.reset()
        assert torch.equal(made(**inputs, past_key_values=cache).logits, wanted)


def test_a_refused_prompt_is_not_gone_on_with() -> None:
    made, inputs = model(), prompts(padded=0)
    cache = BudgetedCache(made, "25%", "snapkv:window=20")
    with torch.no_grad():
        with pytest.raises(InvalidInput, match="always keeps 20"):
            made(**inputs, past_key_values=cache)
        with pytest.raises(InvalidInput, match="broke off"):
            made(input_ids=inputs["input_ids"][:, :1], past_key_values=cache)


def test_an_empty_prompt_is_refused_and_spoils_nothing() -> None:
    made, inputs = model(), prompts(padded=0)
    cache, empty = BudgetedCache(made, "50%", "knorm"), torch.zeros(2, 0, dtype=torch.long)
    with pytest.raises(InvalidInput, match="empty text"), torch.no_grad():
        made(input_ids=empty, past_key_values=cache)
    with torch.no_grad():
        found = made(**inputs, past_key_values=cache).logits
        assert torch.equal(found, made(**inputs, past_key_values=BudgetedCache(made, "50%", "knorm")).logits)
    one = inputs["input_ids"][:, :1]  # of one token nothing can be kept at 50 %: nothing is dropped before a second one
    with torch.no_grad():
        cache = BudgetedCache(made, "50%", "knorm")
        made(input_ids=one, past_key_values=cache)
    assert cache.account().kept == cache.account().total == 12


def test_attention_is_listened_to_only_while_a_cache_is_there_that_looks() -> None:
    """A hook makes each call of a module slower; a copy of a cache looks, too."""
    made, inputs = model(), prompts(padded=0)

    def hooks() -> int:
        return sum(len(module._forward_pre_hooks) for module in made.modules())

    with torch.no_grad():
        made(**inputs, past_key_values=BudgetedCache(made, "50%", "snapkv:window=4"))
        assert hooks() == 0
        both = [BudgetedCache(made, "50%", "gui-kv:window=4") for _ in range(2)]
        assert hooks() == len(both[0].layers)  # one a layer, for both
        made(**inputs, past_key_values=both[0])
        both = [copy.deepcopy(both[1])]
        made(**inputs, past_key_values=both[0])  # an error if nobody listens
    assert both[0].account().share == pytest.approx(0.5, abs=0.02)
    both.clear()
    assert hooks() == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["knorm:split=ada-kv", "kvzip", "gui-kv:window=4"])
def test_a_compiled_model_gives_the_same(method: str) -> None:
    """What the cache does is left out of the compilation, since the number of entries changes."""
    made, inputs = model(), prompts(padded=0)
    ids, found = inputs["input_ids"], []
    for run in (made, torch.compile(made, backend="eager")):
        cache = BudgetedCache(made, "40%", method)
        with torch.no_grad():
            logits = [run(input_ids=ids, past_key_values=cache).logits]
            logits += [run(input_ids=ids[:, i : i + 1], past_key_values=cache).logits for i in range(2)]
        found.append((torch.cat(logits, dim=1), held(cache)))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    assert found[0][1] == found[1][1]


def test_a_call_that_does_not_fit_behind_what_a_cache_holds_is_refused() -> None:
    given = model()
    cache = BudgetedCache(given, "50%", "knorm")
    with torch.no_grad():
        given(**prompts(2), past_key_values=cache)
        with pytest.raises(InvalidInput, match="holds a batch of 2, and this call has one of 3"):
            given(input_ids=torch.full((3, 1), 5), past_key_values=cache)
        given.double()
        with pytest.raises(InvalidInput, match=r"entries of torch\.float32, and this call has torch\.float64"):
            given(input_ids=torch.full((2, 1), 5), past_key_values=cache)
        cache.reset()
        given(input_ids=torch.full((3, 8), 5), past_key_values=cache)
    assert cache.account().share == 0.5


def test_scores_read_what_a_model_with_a_learnt_logit_reads() -> None:
    """GPT-OSS: what a score computes is what the model's own attention says it read."""
    sizes = {**SIZES, "num_hidden_layers": 2, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1,
             "sliding_window": 64}  # fmt: skip
    torch.manual_seed(3)
    given = transformers.GptOssForCausalLM(transformers.GptOssConfig(**sizes)).eval()
    given.set_attn_implementation("eager")
    for layer in given.model.layers:
        layer.self_attn.sinks.data = torch.tensor([2.0, -1.0, 0.5, 4.0])
    seen = list[torch.Tensor]()

    def score(cells, memory):
        seen.append(attention(cells))
        return cells.slots.float()

    ids = torch.randint(3, 97, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = given(input_ids=ids, output_attentions=True, use_cache=False).attentions
        split, rest = selection("recent").split, selection("recent").rest
        given(input_ids=ids, past_key_values=BudgetedCache(given, "50%", Selection("seen", Score(score), split, rest)))
    assert len(seen) == len(wanted) == 2
    for ours, theirs in zip(seen, wanted, strict=True):
        assert float(theirs.sum(-1).max()) < 0.99  # the rest went to the learnt logit
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
