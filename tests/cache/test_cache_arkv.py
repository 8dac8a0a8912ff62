"""ARKV's layers, which differ in how many entries stay as they are: by hand, against loops, inside a model."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer.cache import BudgetedCache, Cells, selection
from budgeteer.cache.outcome import Cost, Layer, states
from budgeteer.cache.score import arkv
from budgeteer.cache.score._arkv import spread
from budgeteer.core.errors import InvalidInput
from helpers import cells

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
SIZES = {
    "vocab_size": 97, "hidden_size": 256, "head_dim": 64, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def test_two_queries_by_hand() -> None:
    """Keys of nothing: the first query reads 1 of the first entry, the second a half of each."""
    nothing = torch.zeros(1, 1, 2, 4)
    both = torch.arange(2)
    made = Cells(
        nothing, nothing, both[None, None], torch.ones(1, 1, 2, dtype=torch.bool), nothing, both,
        torch.ones(1, 2, dtype=torch.bool), 1.0, torch.tensor([1]), 0, 1,
    )  # fmt: skip
    entropy, variance, kurtosis = (float(each) for each in spread(made))
    assert entropy == pytest.approx(math.log(2))  # 0, and 2 x -0.5 ln 0.5
    assert variance == pytest.approx(0.25)  # 2 x 0.25^2 / 1 for each entry: (1, 0.5) and (0, 0.5)
    assert kurtosis == pytest.approx(2.0)  # 0.25^4 / (0.25^2)^2 for each
    precision = arkv(taus=(1.0, 2.0, 0.5)).precision
    assert precision is not None
    assert float(precision(made)) == pytest.approx(math.log(2) * 0.5 * 4.0)


def attended(query: list[float], keys: list[list[float]], scaling: float) -> list[float]:
    logits = [scaling * sum(a * b for a, b in zip(query, key, strict=True)) for key in keys]
    raised = [math.exp(logit - max(logits)) for logit in logits]
    return [each / sum(raised) for each in raised]


@pytest.mark.parametrize("padded", [0, 5])
def test_entropy_variance_and_kurtosis_are_those_of_loops_over_numbers(padded: int) -> None:
    count, rng = 17, torch.Generator().manual_seed(2)
    made = Cells(**cells.fields(rng, count, count, padded, 6, drawn=count))
    found = spread(made)
    for row, first in ((0, padded), (1, 0)):
        entropy = variance = kurtosis = 0.0
        for head in range(cells.HEADS):
            keys = made.keys[row, head // cells.GROUP, first:].tolist()
            queries = made.queries[row, head, first:].tolist()
            reads = [attended(query, keys[: q + 1], 0.6) for q, query in enumerate(queries)]
            entropy -= sum(a * math.log(a) for read in reads for a in read)
            for i in range(len(keys)):
                column = [read[i] if i < len(read) else 0.0 for read in reads]
                mean = sum(column) / len(column)
                apart = [a - mean for a in column]
                variance += sum(d**2 for d in apart) / (len(apart) - 1)
                second, fourth = (sum(d**power for d in apart) / len(apart) for power in (2, 4))
                kurtosis += fourth / max(second, 1e-8) ** 2
        wanted = entropy, variance, kurtosis
        assert [float(each[row]) for each in found] == pytest.approx(wanted, rel=1e-4)


def test_states_by_hand() -> None:
    """An entry is 10 bytes, in fewer bits 2, and a head has 4 beside; layers that need 1 and a half."""
    cost = Cost(10, 2, 4)
    layers = [Layer(10, 1, 4, 6.0, cost), Layer(10, 1, 4, 3.0, cost)]
    # 80 bytes; m = 3: 4 entries each, 1 + 3 and 1 + round(1.5) as they are: 40 + 30 + 2 + 4; m = 4: 50 + 30 + 2 x 2 + 4
    assert states(layers, 0.0) == [(4, 0), (3, 1)]
    # 160 bytes: both hold all, 10 and 1 + round(9 / 2) as they are, would be 100 + 50 + 10 + 4 = 164 > 160; of m = 8:
    # 9 and 5 of 9: 90 + 50 + 8 + 4 = 152
    assert states([layer._replace(size=8) for layer in layers], 0.0) == [(9, 0), (5, 4)]
    # 180 bytes: all have a place, and what is left makes m = 13: the second layer has 1 + round(6.5) = 7, of 3 in
    # fewer bits: 100 + 70 + 6 + 4
    assert states([layer._replace(size=9) for layer in layers], 0.0) == [(10, 0), (7, 3)]
    assert states([layer._replace(size=10) for layer in layers], 0.0) == [(10, 0), (10, 0)]
    # a least share: the half of 4 entries as they are even where nothing is needed
    none = [layers[0], Layer(10, 1, 4, 0.0, cost)]
    assert states(none, 0.5)[1][0] == 2
    assert states(none, 0.0)[1][0] == 1
    assert states([layer._replace(precision=0.0) for layer in layers], 0.0) == [(4, 0), (4, 0)]  # layers are alike
    dear = Cost(10, 10, 4)
    assert states([layer._replace(cost=dear) for layer in layers], 0.0) == [(4, 0), (4, 0)]


def model(**changes):
    torch.manual_seed(3)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SIZES, **changes})).eval()
    for name, weight in made.named_parameters():  # layers whose attention differs
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 1 + 2 * int(name.split(".")[2])
    return made


def ids(tokens: int, rows: int = 1):
    return torch.randint(3, 97, (rows, tokens), generator=torch.Generator().manual_seed(1))


def needs(attention: torch.Tensor, taus: tuple[float, float, float]) -> float:
    """The product of one layer [1, H, q, n], from the attention that the model itself gives."""
    a = attention[0].double()
    apart = a - a.mean(1, keepdim=True)
    second, fourth = apart.square().mean(1), (apart**4).mean(1)
    numbers = -(a * (a + 1e-10).log()).sum(), a.var(1).sum(), (fourth / second.clamp(min=1e-8).square()).sum()
    return math.prod(float(each) ** (1 / tau) for each, tau in zip(numbers, taus, strict=True))


@pytest.mark.parametrize("budget", ["25%", "40%"])
def test_a_model_holds_in_each_layer_what_its_attention_asks_for(budget: str) -> None:
    """Which m it is, is found anew here, one number after the other."""
    made, prompt, taus = model(attn_implementation="eager"), ids(200), (1.5, 2.0, 3.0)
    with torch.no_grad():
        given = made(prompt, output_attentions=True).attentions
        cache = BudgetedCache(made, budget, "arkv:window=8,taus=[1.5, 2.0, 3.0]")
        made(prompt, past_key_values=cache)
    wanted = [needs(each, taus) for each in given]
    shares = [each / max(wanted) for each in wanted]
    assert min(shares) < 0.8  # layers do differ
    size, entry = 200 * int(budget[:-1]) // 100, 2 * 64 * 4 + 4 + 1
    low, head = 2 * 64 + 4 * 64 // 32 + 4 * 2 + 4 + 1, 4 * 64 + 8
    best = []
    for m in range(193):
        numbers = [(8 + round(share * m), m - round(share * m)) for share in shares]
        if sum(first * entry + rest * low + head * bool(rest) for first, rest in numbers) <= 4 * size * entry:
            best = numbers
    found = []
    for layer in cache.layers:
        entries, packs = layer.entries() // 2, layer.packed() // 2
        found.append((entries - packs, packs))
    assert found == best
    assert len({first + rest for first, rest in found}) == 1  # equally many entries in every layer
    account = cache.account()
    assert account.bytes <= 1.02 * size * entry * 8
    assert account.bytes > 0.95 * size * entry * 8
    with torch.no_grad():  # and goes on, layer by layer as it was
        before = [layer.precision.clone() for layer in cache.layers]
        logits = made(torch.tensor([[5]]), past_key_values=cache).logits
    assert torch.isfinite(logits).all()
    assert all(torch.equal(layer.precision, was) for layer, was in zip(cache.layers, before, strict=True))


def test_a_padded_row_gets_what_it_gets_alone_and_tokens_keep_the_prompts_shares() -> None:
    made, tokens, method = model(), ids(60, rows=2), "arkv:window=4,every=2"
    mask = torch.ones_like(tokens)
    tokens[0, :13], mask[0, :13] = 0, 0
    both, row = BudgetedCache(made, "40%", method), BudgetedCache(made, "40%", method)
    with torch.no_grad():
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        made(tokens, attention_mask=mask, position_ids=places, past_key_values=both)
        made(tokens[:1, 13:], past_key_values=row)
        shares = [layer.precision.clone() for layer in both.layers]
        for one, other in zip(both.layers, row.layers, strict=True):
            torch.testing.assert_close(one.precision[0], other.precision[0], rtol=1e-4, atol=0.0)
            slots = one.storage.slots(60)[0]
            alone = other.storage.slots(47)[0]
            assert [head[head >= 0].tolist() for head in slots] == [(head[head >= 0] + 13).tolist() for head in alone]
        for token in (5, 6):
            made(torch.tensor([[token]]), past_key_values=row)
    assert row.account().packed > 0
    assert row.account().share < 0.9
    assert all(
        float(layer.precision[0]) == pytest.approx(float(was[0]), rel=1e-4)
        for layer, was in zip(row.layers, shares, strict=True)
    )


def test_layers_that_slide_keep_what_they_kept() -> None:
    torch.manual_seed(3)
    kinds = ["sliding_attention", "full_attention"] * 2
    wide = {**SIZES, "sliding_window": 16, "layer_types": kinds}
    made = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**wide)).eval()
    cache = BudgetedCache(made, "40%", "arkv:window=4")
    with torch.no_grad():
        made(ids(60), past_key_values=cache)
        made(torch.tensor([[5]]), past_key_values=cache)
    packs = [layer.packed() for layer in cache.layers]
    assert packs[0] == packs[2] == 0
    assert packs[1] + packs[3] > 0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidInput, match="layers=false"):
        BudgetedCache(model(), "50%", "arkv:split=pyramid")
    BudgetedCache(model(), "50%", "arkv:split=pyramid,layers=false")
    BudgetedCache(model(), "50%", "arkv:split=pyramid,rest=drop")  # nothing is held in fewer bits
    for taus in ([1, 2], [1, 2, 0]):
        with pytest.raises(InvalidInput, match="three numbers above 0"):
            selection(f"arkv:taus={taus}")
