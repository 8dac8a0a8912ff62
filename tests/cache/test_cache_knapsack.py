"""Sizes of layers by measured losses: against all choices, and losses of a model whose layers differ."""

from __future__ import annotations

import itertools
import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer.cache import BudgetedCache, Groups
from budgeteer.cache.split import knapsack
from budgeteer.core.errors import CheckpointError, InvalidInput, UnknownName
from budgeteer.lab.cache_losses import losses

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
SHARES = (0.1, 0.25, 0.6, 1.0)


@pytest.mark.parametrize("seed", range(8))
def test_no_choice_of_shares_within_the_budget_loses_less(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    layers, tokens, size = 4, 40, (9, 17)
    table = torch.rand(layers, 4, generator=rng).sort(-1, descending=True).values.tolist()  # falling, unevenly
    split = knapsack({"shares": SHARES, "losses": table})
    scores = torch.rand(2, 3, tokens, generator=rng)
    found = []
    for layer in range(layers):
        groups = Groups((scores,), (torch.tensor(size),), (torch.tensor([tokens, tokens]),), layer, layers)
        (sizes,) = split.sizes(groups)
        assert bool((sizes == sizes[:, :1]).all())
        found.append(sizes[:, 0].tolist())
    counts = [int(share * tokens) for share in SHARES]
    for row in range(2):
        best = min(
            sum(table[layer][k] for layer, k in enumerate(choice))
            for choice in itertools.product(range(4), repeat=layers)
            if sum(counts[k] for k in choice) <= size[row] * layers
        )
        mine = [sizes[row] for sizes in found]
        assert sum(mine) <= size[row] * layers
        nearest = [max(k for k, count in enumerate(counts) if count <= entries) for entries in mine]
        assert sum(table[layer][k] for layer, k in enumerate(nearest)) <= best + 1e-9


def test_what_is_always_kept_is_kept_and_a_budget_below_the_least_share_is_divided_equally() -> None:
    split = knapsack({"shares": SHARES, "losses": [[3.0, 2.0, 1.0, 0.0], [0.3, 0.2, 0.1, 0.0]]})
    scores = torch.rand(1, 2, 40)
    scores[..., -15:] = float("inf")
    for size, wanted in ((20, [24, 15]), (15, [15, 15])):  # 15 is more than two of the shares are
        given = [Groups((scores,), (torch.tensor([size]),), (torch.tensor([40]),), layer, 2) for layer in (0, 1)]
        assert [split.sizes(each)[0][0].tolist() for each in given] == [[count] * 2 for count in wanted]
    low = Groups((torch.rand(1, 2, 40),), (torch.tensor([3]),), (torch.tensor([40]),), 0, 2)
    assert split.sizes(low)[0].tolist() == [[3, 3]]


def test_another_allocator_of_menus_divides_by_its_own_rule() -> None:
    table = {"shares": [0.25, 0.5, 1.0], "losses": [[3.0, 1.0, 0.0], [1.0, 0.9, 0.0]]}

    def sizes(**options) -> list[int]:
        split, count = knapsack(table, **options), (torch.tensor([50]), torch.tensor([100]))
        given = [Groups((torch.rand(1, 1, 100),), (count[0],), (count[1],), layer, 2) for layer in (0, 1)]
        return [int(split.sizes(each)[0]) for each in given]

    # 50 places beyond 25 each; layer 0 gains 2 for 25 and 3 for 75, layer 1 0.1 for 25 and 1 for 75
    assert sizes() == [50, 50]
    assert sizes(by="max-min") == [50, 50]
    # 2 / 25 first; then 1 / 50 and 1 / 75 are each too large for the 25 that are left, which all layers share
    assert sizes(by="greedy-marginal") == [62, 37]
    with pytest.raises(InvalidInput, match=r"by=.proportional. takes no menus: .*; give menu-knapsack, greedy"):
        knapsack(table, by="proportional")
    with pytest.raises(UnknownName, match="unknown allocator 'greedy'"):
        knapsack(table, by="greedy")


def llama():
    torch.manual_seed(3)
    made = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0,
        )
    ).eval()  # fmt: skip
    for name, weight in made.named_parameters():
        weight.data *= 6 if "q_proj" in name or "k_proj" in name else 1
    made.model.layers[1].self_attn.o_proj.weight.data.zero_()  # whatever it reads, nothing comes of it
    return made


def test_a_layer_of_which_nothing_comes_loses_nothing_and_gets_the_least(tmp_path) -> None:
    model, texts = llama(), torch.randint(3, 64, (3, 60), generator=torch.Generator().manual_seed(0))
    found = losses(model, texts, "recent", shares=(0.125, 0.5, 1.0), last=8)
    table = torch.tensor(found["losses"])
    assert float(table[1].abs().max()) < 1e-6
    assert float(table[[0, 2], 0].abs().min()) > 1e-4
    assert float(table[:, -1].abs().max()) == 0
    # 20 + 5 + 20 of 60 places lose 2, 40 + 5 + 5 lose 3; the 15 places left go to all
    file = tmp_path / "losses.json"
    file.write_text(json.dumps({"shares": [0.125, 0.5, 1.0], "losses": [[3, 1, 0], [0, 0, 0], [3, 1, 0]]}))
    cache = BudgetedCache(model, "50%", f"recent:split=knapsack:losses={file}")
    with torch.no_grad():
        model(input_ids=texts[:1, :40], past_key_values=cache)
    assert [int((layer.storage.slots(40) >= 0).sum(-1)[0, 0]) for layer in cache.layers] == [25, 10, 25]


def test_losses_of_another_model_and_models_with_sliding_layers_are_refused(tmp_path) -> None:
    model, texts = llama(), torch.randint(3, 64, (1, 40), generator=torch.Generator().manual_seed(0))
    file = tmp_path / "losses.json"
    file.write_text(json.dumps(losses(model, texts, "recent", shares=(0.5, 1.0), last=4)))
    BudgetedCache(model, "50%", f"recent:split=knapsack:losses={file}")
    other = llama()
    other.get_input_embeddings().weight.data += 1
    with pytest.raises(InvalidInput, match="trained on a model with fingerprint"):
        BudgetedCache(other, "50%", f"recent:split=knapsack:losses={file}")
    sliding = transformers.MistralForCausalLM(
        transformers.MistralConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, sliding_window=16,
        )
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="layers with a sliding window"):
        losses(sliding, texts, "recent", last=4)


def test_files_that_are_no_losses_are_refused(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="give losses=FILE"):
        knapsack()
    with pytest.raises(CheckpointError, match="cannot read losses"):
        knapsack(losses=str(tmp_path / "none"))
    for given in ({}, {"shares": [0.5, 1.0], "losses": []}, {"shares": [0.5, 0.9], "losses": [[1, 0]]},
                  {"shares": [0.5, 1.0], "losses": [[1]]}, {"shares": [0.5, 1.0], "losses": [["a", 0]]}):  # fmt: skip
        with pytest.raises(InvalidInput, match="give"):
            knapsack(losses=given)
    groups = Groups((torch.rand(1, 1, 9),), (torch.tensor([3]),), (torch.tensor([9]),), 0, 2)
    one = knapsack(losses={"shares": [0.5, 1.0], "losses": [[1, 0]]})
    with pytest.raises(InvalidInput, match="losses of 1 layers for 2"):
        one.sizes(groups)
    with pytest.raises(InvalidInput, match="give longer texts"):
        losses(llama(), torch.ones(1, 8, dtype=torch.long), "recent", last=8)
