"""Compactor, TriAttention and GUI-KV against their formulas, in numpy and in loops over numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np
import torch
import transformers

from budgeteer.cache import BudgetedCache, Cells
from budgeteer.cache.score import compactor, expected_attention, gui_kv, snapkv, token_select, tri_attention
from budgeteer.core.errors import InvalidInput
from helpers import cells
from helpers.cells import GROUP, KV_HEADS, ROWS, WIDTH

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
TOKENS, MODEL = 29, 5
FREQUENCIES = (0.7, 0.05)
NOTHING = torch.empty(0)


def made(seed: int = 0, *, padded: int = 0, queries: int = TOKENS, size: int = 12) -> Cells:
    """A prompt that was just read; row 0 begins with ``padded`` tokens of padding."""
    rng = torch.Generator().manual_seed(seed)
    return Cells(
        **cells.fields(rng, TOKENS, queries, padded, size, drawn=TOKENS),
        frequencies=torch.tensor(FREQUENCIES),
        hidden=torch.randn(ROWS, queries, MODEL, generator=rng),
    )


def paired(vectors: np.ndarray, slots: range) -> np.ndarray:
    """Rotated vectors [n, 4] as two complex numbers each, [n, 2], before their rotation."""
    return (vectors[:, :2] + 1j * vectors[:, 2:]) * np.exp(-1j * np.outer(list(slots), FREQUENCIES))


def standardised(scores: np.ndarray) -> np.ndarray:
    return (scores - scores.mean()) / scores.std(ddof=1)


@pytest.mark.parametrize(("padded", "window"), [(0, None), (5, None), (0, 4), (5, 4), (0, 40)])
def test_compactor_blends_leverage_and_what_a_chunk_reads(padded: int, window: int | None) -> None:
    cells, sinks, chunk = made(1, padded=padded), 2, 7
    if window is not None:  # of a sliding layer; one that is longer than the text changes nothing
        cells = replace(cells, window=window, valid=cells.valid & (cells.slots > TOKENS - window - 8))
    reach = TOKENS if window is None else window
    gone = TOKENS - reach - 7 if window == 4 else 0  # entries beyond the window; more are left here than in a cache
    score = compactor(sinks=sinks, chunk=chunk, blend=0.3)
    memory = score.observe(cells, torch.zeros(ROWS, KV_HEADS, TOKENS, 1))
    found = score.score(cells, memory)
    for b in range(ROWS):
        places = range(max(gone, sinks + (padded if b == 0 else 0)), TOKENS)
        leverage, attention = [], []
        for k in range(KV_HEADS):
            keys = cells.keys[b, k].double().numpy()
            plain = paired(keys[places], places)
            plain = np.concatenate([plain.real, plain.imag], axis=1)
            left, sizes, _ = np.linalg.svd(plain - plain.mean(0), full_matrices=False)
            leverage.append((left**2 * sizes**2 / (sizes**2 + 0.01)).sum(1))
            read = np.zeros(TOKENS)
            for start in range(places.start, TOKENS, chunk):
                piece = range(start, min(start + chunk, TOKENS))
                for h in range(k * GROUP, (k + 1) * GROUP):
                    for q in piece:
                        near = np.array([abs(i - q) < reach for i in piece])
                        raised = near * np.exp(keys[piece] @ cells.queries[b, h, q].double().numpy())
                        read[piece] += raised / raised.sum() / GROUP
            worth = read * np.linalg.norm(cells.values[b, k].double().numpy(), axis=1)
            inside = np.concatenate([[0.0], worth[places], [0.0]])
            attention.append((inside[:-2] + inside[1:-1] + inside[2:]) / 3)
        wanted = standardised(np.array(attention)) + 0.3 * standardised(np.array(leverage))
        np.testing.assert_allclose(found[b][:, places].numpy(), wanted, atol=1e-4)
    assert (score.first, score.recent, score.rotation) == (sinks, 4, True)


def test_a_sliding_layer_that_has_forgotten_its_beginning_has_no_sinks() -> None:
    cells = made(4, queries=8)
    slid = replace(cells, window=20, valid=cells.valid & (cells.slots > TOKENS - 20))
    makers = lambda n: compactor(sinks=n), lambda n: expected_attention(sinks=n), lambda n: token_select(n, recent=1)
    for maker in makers:
        found, alike = [], []
        for given, scores in ((slid, found), (cells, alike)):
            for sinks in (0, 4):
                score = maker(sinks)
                memory = torch.zeros(ROWS, KV_HEADS, TOKENS, 1)
                memory = score.observe(given, memory) if score.observe else memory
                scores.append(torch.where(given.valid, score.score(given, memory), 0.0))
        assert torch.equal(*found)
        assert not torch.equal(*alike)


def test_compactor_counts_the_chunks_of_each_call_and_keeps_what_earlier_ones_read() -> None:
    cells, score = made(2), compactor(sinks=1, chunk=4)
    last = replace(
        cells,
        queries=cells.queries[:, :, -6:],
        query_slots=cells.query_slots[-6:],
        query_valid=cells.query_valid[:, -6:],
    )
    memory = score.observe(last, torch.full((ROWS, KV_HEADS, TOKENS, 1), 9.0))
    assert bool((memory[:, :, :-6] == 9.0).all())
    first, second = memory[:, :, -6:-2].sum(2), memory[:, :, -2:].sum(2)  # each query's attention sums to 1
    torch.testing.assert_close(first, torch.full_like(first, 4.0))
    torch.testing.assert_close(second, torch.full_like(second, 2.0))


def test_compactor_where_a_call_brings_a_row_nothing_to_look_at() -> None:
    """A row of padding only, a prompt that is no longer than the sinks, and the first pieces of one in small chunks."""
    cells = made(3, padded=TOKENS)
    memory = compactor(sinks=2, chunk=7).observe(cells, torch.zeros(ROWS, KV_HEADS, TOKENS, 1))
    alone = compactor(sinks=2, chunk=7).observe(made(3), torch.zeros(ROWS, KV_HEADS, TOKENS, 1))
    assert not memory[0].any()
    assert torch.equal(memory[1:], alone[1:])
    assert not compactor(sinks=TOKENS).observe(made(3), torch.zeros(ROWS, KV_HEADS, TOKENS, 1)).any()
    assert bool(torch.isfinite(compactor().score(cells, memory)).all())


@pytest.mark.parametrize("padded", [0, 5])
def test_tri_attention_is_the_series_of_the_mean_query_and_the_key(padded: int) -> None:
    window, reach = 20, 12
    cells = made(3, padded=padded, queries=window)
    score = tri_attention(window=window, reach=reach)
    found = score.score(cells, NOTHING)
    asked = range(TOKENS - window, TOKENS)
    for b in range(ROWS):
        there = range(padded if b == 0 else 0, TOKENS)
        for k in range(KV_HEADS):
            keys, by_head = paired(cells.keys[b, k].double().numpy()[there], there), []
            for h in range(k * GROUP, (k + 1) * GROUP):
                queries = paired(cells.queries[b, h].double().numpy(), asked)
                if b == 0:
                    queries = queries[max(padded - (TOKENS - window), 0) :]
                mean, size = queries.mean(0), np.abs(queries).mean(0)
                raw = []
                for place, key in zip(there, keys, strict=True):
                    ahead = [TOKENS - place + offset for offset in (1, 2, 4, 8)]
                    series = [np.sum(mean * key.conj() * np.exp(1j * np.array(FREQUENCIES) * a)).real for a in ahead]
                    raw.append(np.mean(series) + np.sum((size - np.abs(mean)) * np.abs(key)))
                by_head.append(standardised(np.array(raw)))
            np.testing.assert_allclose(found[b, k][there].numpy(), np.max(by_head, axis=0), atol=1e-4)
    assert (score.window, score.every, tri_attention(every=128).every) == (window, 0, 128)


def test_tri_attention_ranks_as_the_later_queries_read_where_queries_do_not_vary() -> None:
    """All queries are one vector before rotation, so that the score is the mean product with those to come."""
    cells, heads = made(4), torch.randn(1, KV_HEADS, 1, WIDTH, generator=torch.Generator().manual_seed(1))

    def at(position: int) -> torch.Tensor:
        angle = position * torch.tensor(FREQUENCIES)
        a, b = heads[..., :2], heads[..., 2:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    queries = torch.cat([at(slot) for slot in range(TOKENS)], dim=2).expand(ROWS, -1, -1, -1)
    found = tri_attention(reach=4).score(replace(cells, queries=queries), NOTHING)
    products = sum(at(TOKENS + offset) @ cells.keys.transpose(-1, -2) for offset in (1, 2, 4))[:, :, 0]
    assert torch.equal(found.argsort(-1), products.argsort(-1))


@pytest.mark.parametrize("padded", [0, 3])
def test_gui_kv_step_by_step(padded: int) -> None:
    window, kernel, alpha, temperature, size = 5, 3, 0.4, 1.7, 12
    images = [[3, 9], [10, 15], [17, 20]]  # the newest has 3 tokens: fewer directions than a key has numbers
    cells = made(5, padded=padded, size=size)
    last = replace(
        cells, queries=cells.queries[:, :, -window:], query_slots=cells.query_slots[-window:],
        query_valid=cells.query_valid[:, -window:],
    )  # fmt: skip
    score = gui_kv(images=images, window=window, kernel=kernel, alpha=alpha, temperature=temperature)
    found = score.score(last, score.observe(cells, torch.zeros(ROWS, KV_HEADS, TOKENS, 1)))
    plain = snapkv(window=window, kernel=kernel).score(last, NOTHING)
    zeroed = 0
    for b in range(ROWS):
        norms = np.linalg.norm(cells.hidden[b, 17:20].double().numpy(), axis=1)
        raised = np.exp(standardised(norms) / temperature)
        for k in range(KV_HEADS):
            wanted = window * plain[b, k].double().numpy()  # the sum over queries, not their mean
            wanted[17:20] += alpha * raised / raised.sum()
            keys = cells.keys[b, k].double().numpy()
            earlier = [i for start, stop in images[:2] for i in range(start, stop) if cells.valid[b, k, i]]
            apart = {}
            for i in earlier:
                fit = np.linalg.lstsq(keys[17:20].T, keys[i], rcond=None)[0]
                apart[i] = np.linalg.norm(keys[i] - keys[17:20].T @ fit)
            entries = TOKENS - (padded if b == 0 else 0)
            for i in sorted(earlier, key=apart.__getitem__)[: int((1 - size / entries) * len(earlier))]:
                wanted[i], zeroed = 0.0, zeroed + 1
            start = padded if b == 0 else 0
            np.testing.assert_allclose(found[b, k, start : TOKENS - window], wanted[start : TOKENS - window], atol=1e-5)
    assert zeroed > 10


def test_gui_kv_takes_screens_one_behind_the_other_and_refuses_what_is_none() -> None:
    gui_kv(images=[[0, 20], [20, 46]])
    for images in ([[4, 4]], [[9, 4]], [[-3, 4]], [[4, 20], [19, 30]], [[1, 2, 3]]):
        with pytest.raises(InvalidInput, match="give first slot and end"):
            gui_kv(images=images)


def test_gui_kv_takes_the_main_directions_of_the_newest_screen() -> None:
    """Keys of the newest screen lie nearly along one axis, so that with one direction a key along it is known."""
    cells = made(6, size=20)
    keys = cells.keys.clone()
    keys[:, :, 20:24] = torch.tensor([0.0, 0.0, 0.0, 1.0]) + 0.01 * keys[:, :, 20:24]
    keys[:, :, 5:10], keys[:, :, 7] = torch.tensor([3.0, 0.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.0, 9.0])
    cells = replace(cells, keys=keys, size=torch.tensor([23, 23]))  # a fifth of five entries is dropped
    score = gui_kv(images=[[5, 10], [20, 24]], window=4, rank=1)
    found = score.score(cells, score.observe(cells, torch.zeros(ROWS, KV_HEADS, TOKENS, 1)))
    assert bool((found[:, :, 7] == 0).all())
    assert bool((found[:, :, [5, 6, 8, 9]] > 0).all())


def llama():
    torch.manual_seed(3)
    configuration = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(configuration).eval()


def test_gui_kv_sees_what_the_attention_of_a_layer_is_given() -> None:
    model, given = llama(), []
    for layer in model.model.layers:
        layer.input_layernorm.register_forward_hook(lambda module, args, output: given.append(output))
    cache = BudgetedCache(model, "100%", "gui-kv:window=4")
    ids = torch.randint(3, 97, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model(ids[:, :12], past_key_values=cache)
        model(ids[:, 12:], past_key_values=cache)
    for index, layer in enumerate(cache.layers):
        wanted = torch.cat([given[index], given[2 + index]], dim=1).norm(dim=-1)
        torch.testing.assert_close(layer.memory()[..., 0], wanted[:, None].expand(-1, 2, -1))


def test_gui_kv_without_screens_keeps_what_snapkv_keeps_and_drops_a_screen_that_is_shown_again() -> None:
    model = llama()
    ids = torch.randint(3, 97, (1, 60), generator=torch.Generator().manual_seed(2))

    def held(method: str) -> list:
        cache = BudgetedCache(model, "50%", method)
        with torch.no_grad():
            model(ids, past_key_values=cache)
        slots = [layer.storage.slots(layer.seen)[0] for layer in cache.layers]
        return [set(head[head >= 0].tolist()) for layer in slots for head in layer]

    assert held("gui-kv:window=8") == held("snapkv:window=8")
    ids[0, 30:45] = ids[0, 10:25]  # the second screen is the first one again
    spans = "images=[[10,25],[30,45]]"
    kept, without = held(f"gui-kv:window=8,{spans}"), held("gui-kv:window=8")
    first = set(range(10, 25))
    assert sum(len(head & first) for head in kept) < sum(len(head & first) for head in without)


@pytest.mark.parametrize(
    "make",
    [
        lambda: compactor(chunk=0), lambda: compactor(blend=-1.0), lambda: tri_attention(window=0),
        lambda: tri_attention(reach=0), lambda: gui_kv(kernel=4), lambda: gui_kv(temperature=0.0),
        lambda: gui_kv(images=[[4, 9], [8, 12]]), lambda: gui_kv(images=[[4]]), lambda: gui_kv(images=[[4, 4]]),
        lambda: gui_kv(images=[5]),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(make) -> None:
    with pytest.raises(InvalidInput, match="give"):
        make()
