"""Sizes of layers found offline: by hand, against the split that finds them online, and the command."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np
import torch
import transformers

from budgeteer import cli
from budgeteer.cache import BudgetedCache, Groups
from budgeteer.cache.split import prefix, profile
from budgeteer.cache.split._profile import fitted
from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.lab.cache_profile import SHARES, blockwise, prefix_sizes, sensitivity_sizes, similarity

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
TOKENS = 112
FOUND = {"shares": [0.2, 0.5], "sizes": [[0.1, 0.2], [0.3, 0.8]]}


def llama(**changes):
    torch.manual_seed(3)
    configuration = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2,
    }  # fmt: skip
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**configuration, **changes)).eval()
    for name, weight in made.named_parameters():  # layers read more and more unevenly
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 6 * (1 + int(name.split(".")[2]))
    return made


def texts(count: int, tokens: int = TOKENS):
    return torch.randint(3, 64, (count, tokens), generator=torch.Generator().manual_seed(0))


def sizes(split, size: int, tokens: int, must: int = 0) -> list[int]:
    scores = torch.rand(1, 2, tokens)
    scores[..., tokens - must :] = float("inf")
    given = [Groups((scores,), (torch.tensor([size]),), (torch.tensor([tokens]),), layer, 2) for layer in (0, 1)]
    return [split.sizes(each)[0][0].tolist()[0] for each in given]


def test_sizes_between_those_that_were_found_by_hand() -> None:
    split = profile(FOUND)
    assert not split.together
    assert sizes(split, 20, 100) == [10, 30]  # as found
    assert sizes(split, 35, 100) == [15, 55]  # half way
    assert sizes(split, 10, 100) == [5, 15]  # half of the least
    assert sizes(split, 75, 100) == [60, 90]  # half way to all
    assert sizes(split, 7, 100) == [4, 10]  # 3.5 and 10.5: one whole entry more, of the first of equal fractions
    assert sizes(split, 20, 100, must=15) == [15, 25]  # 10 is too few, and the other one gives up 5 of its 15
    assert sizes(split, 100, 100) == [100, 100]
    scores = torch.tensor([[[5.0, 4.0, 3.0, 2.0], [1.0, 0.9, 0.8, 9.0]]])
    given = Groups((scores,), (torch.tensor([2]),), (torch.tensor([4]),), 0, 2)
    assert profile(FOUND).sizes(given)[0].tolist() == [[1, 1]]  # 0.8 and 3.2 of 4: the larger fraction gets the entry
    assert profile(FOUND, compete=True).sizes(given)[0].tolist() == [[1, 1]]  # 9 and 5 are the best two
    given = given._replace(layer=1)
    assert profile(FOUND).sizes(given)[0].tolist() == [[3, 3]]
    assert profile(FOUND, compete=True).sizes(given)[0].tolist() == [[4, 2]]  # 9, 5, 4, 3, 2, 1


def test_sizes_are_brought_into_their_range_with_their_sum() -> None:
    # 0 and 9 are brought to 1 and 8; 3 too many of 6 + 7 + 3 above 1: each gives up a part
    assert fitted(np.array([0.0, 9.0, 4.0]), 1, 8, 10) == pytest.approx([1, 1 + 7 * 0.7, 1 + 3 * 0.7])
    assert fitted(np.array([2.0, 9.0, 4.0]), 1, 8, 19) == pytest.approx([2 + 6 * 0.5, 8, 4 + 4 * 0.5])
    assert fitted(np.array([2.0, 2.0]), 1, 2, 9).tolist() == [2, 2]  # more than there is room for


def test_offline_sizes_of_one_text_are_those_that_the_split_prefix_finds_for_it() -> None:
    model, ids = llama(), texts(1)
    found = prefix_sizes(model, ids)
    assert [len(found["sizes"]), *(len(row) for row in found["sizes"])] == [3, 7, 7, 7]
    for share in SHARES:
        counts = []
        for split in ("prefix", None):
            cache = BudgetedCache(model, f"cache:{int(share * TOKENS)}", "prefix-kv")
            if split is None:
                cache.selected = cache.selected._replace(split=profile(found))
            with torch.no_grad():
                model(input_ids=ids, past_key_values=cache)
            counts.append([int((layer.storage.slots(TOKENS) >= 0).sum(-1)[0, 0]) for layer in cache.layers])
        assert counts[0] == counts[1]
        assert sum(counts[0]) == 3 * int(share * TOKENS)
    two, other = prefix_sizes(model, texts(2)), prefix_sizes(model, texts(2)[1:])
    np.testing.assert_allclose(two["sizes"], (np.array(found["sizes"]) + other["sizes"]) / 2)
    assert len({tuple(row) for row in two["sizes"]}) == 3  # layers do differ


def held_slots(cache, layer: int, seen: int) -> list[int]:
    slots = cache.layers[layer].storage.slots(seen)
    assert bool((slots[0] == slots[0, :1]).all())  # heads are equal
    return [slot for slot in slots[0, 0].tolist() if slot >= 0]


@pytest.mark.parametrize(
    ("split", "budget", "share"),
    [
        ("prefix", "cache:28", False), ("prefix", "prompt:25%", False), ("uniform", "cache:28", False),
        ("prefix", "25%", True), ("profile", "25%", True), ("uniform", "25%", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("distance", [5, 25])  # some layers keep fewer than 25 entries, of which half stay
def test_while_decoding_one_entry_leaves_at_a_fixed_place_against_loops(
    split: str, budget: str, share: bool, distance: int
) -> None:
    """Each layer is a list of slots, from which the paper's code takes one at the same index, when it is too long."""
    model, ids, more = llama(), texts(1), texts(1, 60)
    cache = BudgetedCache(model, budget, f"prefix-kv:every=1,distance={distance},split=uniform")
    other = cache.selected.split
    if split != "uniform":
        other = profile(prefix_sizes(model, ids)) if split == "profile" else prefix()
    cache.selected = cache.selected._replace(split=other)
    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache)
        lists = [held_slots(cache, layer, TOKENS) for layer in range(3)]
        kept = [len(each) for each in lists]
        assert sum(kept) == 3 * 28
        assert (split == "uniform") == (len(set(kept)) == 1)
        index = [max(n - distance if n - distance >= 1 else n // 2, 4) for n in kept]  # the first 4 stay
        for step in range(60):
            model(input_ids=more[:, step : step + 1], past_key_values=cache)
            seen = TOKENS + step + 1
            for layer in range(3):
                lists[layer].append(seen - 1)
                most = seen * kept[layer] / TOKENS if share else kept[layer]
                if int(len(lists[layer]) - most) > 0:
                    del lists[layer][index[layer]]
                found = held_slots(cache, layer, seen)
                if share:  # the code rounds the size of each layer up, and here their mean is rounded down first
                    assert abs(len(found) - most) <= 2
                    stay, queue = found[: index[layer]], found[index[layer] :]
                    assert stay == lists[layer][: index[layer]]
                    assert queue[-3:] == lists[layer][index[layer] :][-3:]
                else:
                    assert found == lists[layer]
        if share:
            assert cache.account().kept == 2 * 3 * int((TOKENS + 60) / 4)
            gone = [len(found) - len(set(found) & set(range(TOKENS))) for found in lists]
            assert max(gone) > 15  # the queue has moved


def test_a_further_prompt_is_chosen_from_anew_and_then_the_queue_begins_behind_it() -> None:
    model, ids, more = llama(), texts(1), texts(1, 60)
    cache = BudgetedCache(model, "cache:28", "prefix-kv:every=1,distance=5")
    same = BudgetedCache(model, "cache:28", "prefix-kv:every=1,distance=5")
    with torch.no_grad():
        for each in (cache, same):
            model(input_ids=ids, past_key_values=each)
            model(input_ids=more[:, :1], past_key_values=each)
            model(input_ids=more[:, 1:40], past_key_values=each)
        seen = TOKENS + 40
        lists = [held_slots(same, layer, seen) for layer in range(3)]
        assert all(each[-1] == seen - 1 for each in lists)
        for step in range(10):
            model(input_ids=more[:, 40 + step : 41 + step], past_key_values=cache)
        for layer, each in enumerate(lists):
            stay = max(len(each) - 5 if len(each) > 5 else len(each) // 2, 4)
            whole = each + [seen + step for step in range(10)]
            assert held_slots(cache, layer, seen + 10) == whole[:stay] + whole[stay:][-(len(each) - stay) :]


@pytest.mark.parametrize("options", ["distance=25", "every=1,distance=-1"])
def test_a_distance_that_means_nothing_is_refused(options: str) -> None:
    with pytest.raises(InvalidInput, match="give distance=25 and every=1"):
        BudgetedCache(llama(), "25%", f"prefix-kv:{options}")


def test_what_a_token_sees_in_blocks_against_loops() -> None:
    tokens, block = 150, 64  # 2 sinks, 32 tokens of the block before
    seen = blockwise(tokens, block)
    for query in range(tokens):
        start = query // block * block
        wanted = {key for key in range(query + 1) if key >= start - 32 or key < 2}
        assert set(seen[query].nonzero()[:, 0].tolist()) == wanted


def test_layers_whose_keys_change_most_in_blocks_get_most() -> None:
    model = llama()
    found = similarity(model, texts(1, 160)[0])
    assert found[0] == pytest.approx(1.0)  # keys of the first layer see no other token
    assert min(found[1:]) < 0.999
    # the same by hand: two readings, and the cosine of keys of 100 and 60 tokens
    mask = torch.zeros(160, 160).masked_fill(~blockwise(160, 40), torch.finfo(torch.float32).min)[None, None]
    caches = []
    for given in ({}, {"attention_mask": mask}):
        cache = transformers.DynamicCache(config=model.config)
        with torch.no_grad():
            model(input_ids=texts(1, 160), past_key_values=cache, **given)
        caches.append(cache)
    for layer in range(3):
        cosines = []
        for head in range(2):
            for start, stop in ((0, 100), (100, 160)):
                a, b = (cache.layers[layer].keys[0, head, start:stop].flatten().double() for cache in caches)
                cosines.append(float(a @ b / (a.norm() * b.norm())))
        assert found[layer] == pytest.approx(sum(cosines) / 4, abs=1e-5)


def test_sizes_by_sensitivity_against_numbers_worked_by_hand(monkeypatch) -> None:
    """Similarities 1, 0.75 and 0.5: weights 0, 1/4 and 1 with power 2, of 3 r places 0, 0.6 r and 2.4 r."""
    monkeypatch.setattr("budgeteer.lab.cache_profile.similarity", lambda model, text: [1.0, 0.75, 0.5])
    found = sensitivity_sizes(llama(), texts(2), 2.0)
    np.testing.assert_allclose(found["shares"], SHARES)
    # at least r / 4: 0.25 r, 0.6 r, 2.4 r are 0.25 r too many, taken from 0.35 r and 2.15 r: a tenth of each
    for place in range(4):  # up to a quarter
        r = SHARES[place]
        mine = [row[place] for row in found["sizes"]]
        assert mine == pytest.approx([0.25 * r, 0.565 * r, 2.185 * r])
    # at a half: 0.125, 0.3 and 1 (of 1.2) lack 0.075 of the 0.875 + 0.7 that have room
    assert [row[5] for row in found["sizes"]] == pytest.approx([0.125 + 0.875 / 21, 0.3 + 0.7 / 21, 1.0])
    even = sensitivity_sizes(llama(), texts(2), 0.0)
    np.testing.assert_allclose(even["sizes"], [list(SHARES)] * 3)
    monkeypatch.setattr("budgeteer.lab.cache_profile.similarity", lambda model, text: [0.5, 0.5, 0.5])
    np.testing.assert_allclose(sensitivity_sizes(llama(), texts(2), 2.0)["sizes"], [list(SHARES)] * 3)


def test_files_that_are_no_sizes_other_models_and_sliding_layers_are_refused(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="give sizes=FILE"):
        profile()
    with pytest.raises(CheckpointError, match="cannot read sizes"):
        profile(sizes=str(tmp_path / "none"))
    for given in ({}, {"shares": [], "sizes": [[]]}, {"shares": [0.5], "sizes": [["a"]]}):
        with pytest.raises(InvalidInput, match="give"):
            profile(sizes=given)
    for rows in ([[0.5], [0.6]], [[-0.1], [1.1]]):
        with pytest.raises(InvalidInput, match=r"shares in \[0, 1\] whose mean"):
            profile(sizes={"shares": [0.5], "sizes": rows})
    with pytest.raises(InvalidInput, match="sizes of 2 layers for 3"):
        profile(FOUND).sizes(Groups((torch.rand(1, 1, 9),), (torch.tensor([3]),), (torch.tensor([9]),), 0, 3))
    with pytest.raises(InvalidInput, match="give a --length of 96 or more"):
        prefix_sizes(llama(), texts(1, 80))
    with pytest.raises(InvalidInput, match="give a power >= 0"):
        sensitivity_sizes(llama(), texts(1), -1.0)
    sliding = transformers.MistralForCausalLM(
        transformers.MistralConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, sliding_window=16,
        )
    )  # fmt: skip
    for measure in (prefix_sizes, lambda model, ids: sensitivity_sizes(model, ids, 2.0)):
        with pytest.raises(InvalidInput, match="layers with a sliding window"):
            measure(sliding, texts(1))


@pytest.mark.parametrize("kind", ["prefix", "epi-cache"])
def test_the_command_writes_what_a_cache_reads(tmp_path, capsys, kind: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    letters = tokenizers.Tokenizer(tokenizers.models.BPE({chr(i): i - 32 for i in range(32, 96)}, []))
    transformers.PreTrainedTokenizerFast(tokenizer_object=letters, unk_token=" ").save_pretrained(tmp_path / "model")
    llama().save_pretrained(tmp_path / "model")
    file = tmp_path / "texts.txt"
    file.write_text("THE SUN IS YELLOW, AND THE NUMBER IS 1234. " * 20)
    asked = ["cache", "train", kind, f"hf:{tmp_path / 'model'}", "--texts", str(file), "--length", "100"]
    assert cli.main(asked) == 0
    path = tmp_path / "model" / "gates" / f"{kind}.json"
    assert f"split=profile:sizes={path}" in capsys.readouterr().out
    assert json.loads(path.read_text())["texts"] == [8, 100]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    cache = BudgetedCache(loaded, "50%", f"knorm:split=profile:sizes={path}")
    loaded(input_ids=texts(1, 30), past_key_values=cache)
    assert cache.account().share == 0.5
    other = llama()
    other.get_input_embeddings().weight.data += 1
    with pytest.raises(InvalidInput, match="trained on a model with fingerprint"):
        BudgetedCache(other, "50%", f"knorm:split=profile:sizes={path}")
