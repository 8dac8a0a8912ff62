"""TCA-Attention: the order of entries against configurations in loops over numbers, sizes of heads, and a model."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np
import torch
import transformers

from budgeteer import cli
from budgeteer.cache import BudgetedCache, Cells, Groups
from budgeteer.cache.score import tca_attention
from budgeteer.cache.split import knapsack, profile
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.cache_profile import SHARES, head_sizes
from helpers import cells

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
TOKENS, RECENT, BLOCK = 43, 3, 8


def made(seed: int, padded: int = 0) -> Cells:
    """A prompt that was just read, of which the last query is seen."""
    rng = torch.Generator().manual_seed(seed)
    return Cells(**cells.fields(rng, TOKENS, 1, padded, 12, drawn=TOKENS))


def read(of: Cells, row: int, head: int) -> list[float]:
    """What the last query reads on the mean over the query heads of a group."""
    total = [0.0] * TOKENS
    for query_head in range(head * cells.GROUP, (head + 1) * cells.GROUP):
        query = of.queries[row, query_head, 0].double()
        logits = [float(query @ key.double()) * of.scaling for key in of.keys[row, head]]
        raised = [math.exp(x) * bool(known) for x, known in zip(logits, of.valid[row, head], strict=True)]
        for i, each in enumerate(raised):
            total[i] += each / sum(raised) / cells.GROUP
    return total


def kept(weights: list[float], there: list[int], centre: float, balance: float, width: float) -> set[int]:
    """The entries that a configuration keeps: counts for shares of the blocks, given to the blocks by their worth."""
    blocks: dict[int, list[int]] = {}
    for slot in there:
        blocks.setdefault((TOKENS - 1 - RECENT - slot) // BLOCK, []).append(slot)
    worth = {}
    for block, slots in blocks.items():
        mass = sum(weights[i] for i in slots)
        worth[block] = (1 - balance) * mass + balance * (1 - sum(weights[i] ** 2 for i in slots) / mass**2)
    counts = [1, 2, 4, 8]
    heights = [-((math.log2(k) - centre) ** 2) / (2 * width**2) for k in counts]
    bells = [math.exp(height - max(heights)) for height in heights]
    chosen = set[int]()
    for place, block in enumerate(sorted(blocks, key=lambda each: -worth[each])):
        at_least = [sum(bells[c:]) / sum(bells) > (place + 0.5) / len(blocks) for c in range(4)]
        count = max(k for k, enough in zip(counts, at_least, strict=True) if enough)
        chosen |= set(sorted(blocks[block], key=lambda i: -weights[i])[:count])
    return chosen


@pytest.mark.parametrize("padded", [0, 5])
@pytest.mark.parametrize(("balance", "width"), [(0.5, 1.0), (0.0, 0.6), (1.0, 2.5)])
def test_a_head_of_any_size_keeps_what_a_configuration_keeps(padded: int, balance: float, width: float) -> None:
    of = made(7, padded)
    found = tca_attention(block=BLOCK, balance=balance, width=width, recent=RECENT).score(of, torch.empty(0))
    sizes = set()
    for row in range(found.shape[0]):
        for head in range(found.shape[1]):
            weights = read(of, row, head)
            there = [i for i in range(TOKENS - RECENT) if of.valid[row, head, i]]
            best = sorted(there, key=lambda i: -float(found[row, head, i]))
            for centre in np.linspace(-30, 33, 127):
                wanted = kept(weights, there, centre, balance, width)
                assert set(best[: len(wanted)]) == wanted
                sizes.add(len(wanted))
    assert len(sizes) >= 8
    assert {5, TOKENS - RECENT} <= sizes  # from one entry a block to all of them


def test_sizes_of_heads_by_hand() -> None:
    # two layers of two heads, shares 0.25 and 0.5
    found = {"shares": [0.25, 0.5], "sizes": [[[0.1, 0.2], [0.2, 0.4]], [[0.3, 0.6], [0.4, 0.8]]]}

    def sizes(size: int, must: int = 0) -> list[list[int]]:
        scores = torch.rand(1, 2, 100)
        scores[..., 100 - must :] = float("inf")
        given = [Groups((scores,), (torch.tensor([size]),), (torch.tensor([100]),), layer, 2) for layer in (0, 1)]
        return [profile(found).sizes(each)[0].tolist()[0] for each in given]

    assert sizes(25) == [[10, 20], [30, 40]]
    assert sizes(75) == [[60, 70], [80, 90]]  # half way from the larger share to all
    assert sizes(25, must=20) == [[20, 20], [27, 33]]  # 10 too many: of the 10 and 20 beyond 20 a third each goes
    for wrong, says in (
        ({"compete": True}, "do not compete"),
        ({"sizes": {**found, "sizes": [[[0.1, 0.2]], [[0.4, 0.8], [0.2, 0.4]]]}}, "different numbers of heads"),
        ({"sizes": {**found, "sizes": [[], []]}}, "rising shares"),
    ):
        with pytest.raises(InvalidInput, match=says):
            profile(**{"sizes": found, **wrong})
    with pytest.raises(InvalidInput, match="one list a layer, and these are one a head"):
        knapsack({"shares": [0.5, 1.0], "losses": [[[1.0, 0.0], [2.0, 0.0]]]})
    three = Groups((torch.rand(1, 3, 100),), (torch.tensor([25]),), (torch.tensor([100]),), 0, 2)
    with pytest.raises(InvalidInput, match="sizes of 2 heads a layer for 3"):
        profile(found).sizes(three)


def llama():
    torch.manual_seed(3)
    configuration = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        attn_implementation="eager",
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(configuration).eval()
    for name, weight in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 6
    return model


def test_heads_hold_the_same_share_of_the_attention_at_each_share_of_the_entries() -> None:
    model, tokens = llama(), 560
    ids = torch.randint(3, 64, (1, tokens), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attentions = model(ids, output_attentions=True).attentions
    found = head_sizes(model, ids)
    assert np.shape(found["sizes"]) == (2, 2, len(SHARES))
    shares = np.mean(found["sizes"], axis=(0, 1))
    np.testing.assert_allclose(shares, [int(share * tokens) / tokens for share in SHARES])
    assert found["shares"] == pytest.approx(shares)
    assert np.ptp(np.reshape(found["sizes"], (4, -1)), axis=0).max() > 0.02  # heads do differ
    place = SHARES.index(0.25)
    cache = BudgetedCache(model, "25%", "tca-attention")
    cache.selected = cache.selected._replace(split=profile(found))
    with torch.no_grad():
        model(ids, past_key_values=cache)
    assert cache.account().share == pytest.approx(0.25, abs=1e-3)
    for layer, attention in enumerate(attentions):
        columns = attention[0].double().sum(1) / torch.arange(tokens, 0, -1)  # the mean over those that can read it
        for head in range(2):
            slots = cache.layers[layer].storage.slots(tokens)[0, head]
            slots = slots[slots >= 0]
            assert len(slots) == round(found["sizes"][layer][head][place] * tokens)
            mean = columns[2 * head : 2 * head + 2].mean(0)
            share = mean[slots].sum() / mean.sum()
            assert float(share) == pytest.approx(found["held"][place], abs=0.02)


def test_the_command_writes_what_a_cache_reads_and_options_are_checked(tmp_path, capsys) -> None:
    texts, out = tmp_path / "text.txt", tmp_path / "sizes.json"
    texts.write_text("the cat sat on the mat and looked at the dog. " * 400)
    given = ["cache", "train", "tca-attention", "thinker", "--texts", str(texts), "--out", str(out), "--limit", "5"]
    assert cli.main([*given, "--length", "256"]) == 2
    assert "give a --length of 528 or more" in capsys.readouterr().err
    assert cli.main([*given, "--length", "560"]) == 0
    said = capsys.readouterr().out
    assert "layer   0, head   0:" in said
    assert f"use it as tca-attention:split=profile:sizes={out}" in said
    for wrong in ({"block": 6}, {"block": 1}, {"recent": 0}, {"balance": 1.5}, {"width": 0.0}, {"width": math.inf}):
        with pytest.raises(InvalidInput, match="tca-attention: "):
            tca_attention(**wrong)
