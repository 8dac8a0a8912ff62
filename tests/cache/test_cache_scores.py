"""Each score and split against a slow reference of its formula, in loops over numbers, on random tensors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

pytest.importorskip("torch")

import numpy as np
import torch

from budgeteer.cache import Cells, Groups, kit
from budgeteer.cache.score import (
    defensive,
    ems,
    expected_attention,
    h2o,
    knorm,
    prefix_kv,
    random,
    recent,
    snapkv,
    streaming_llm,
    tova,
)
from budgeteer.cache.split import ada_kv, layers, prefix, pyramid, uniform
from budgeteer.core.errors import InvalidInput
from helpers import cells
from helpers.cells import GROUP, HEADS, KV_HEADS, ROWS, WIDTH

TOKENS, MODEL = 23, 5
NOTHING = torch.empty(0)


def made(seed: int = 0, *, padded: int = 0, queries: int = TOKENS, size: int = 12) -> Cells:
    """A prompt that was just read; the first ``padded`` tokens of row 0 are padding."""
    rng = torch.Generator().manual_seed(seed)
    return Cells(
        **cells.fields(rng, TOKENS, queries, padded, size, drawn=TOKENS),
        output=torch.randn(HEADS, WIDTH, MODEL, generator=rng),
        frequencies=torch.tensor([0.7, 0.05]),
    )


def read(cells: Cells, row: int, head: int, query: int) -> list[float]:
    """Softmax attention of one query, in Python numbers."""
    kv_head, place = head // GROUP, int(cells.query_slots[query])
    logits = []
    for i in range(TOKENS):
        if i > place or not cells.valid[row, kv_head, i] or not cells.query_valid[row, query]:
            logits.append(-math.inf)
        else:
            pairs = zip(cells.queries[row, head, query].tolist(), cells.keys[row, kv_head, i].tolist(), strict=True)
            logits.append(cells.scaling * sum(a * b for a, b in pairs))
    if max(logits) == -math.inf:
        return [0.0] * TOKENS
    raised = [math.exp(logit - max(logits)) for logit in logits]
    return [each / sum(raised) for each in raised]


@pytest.mark.parametrize("window", [None, 6])
def test_attention_in_blocks_is_that_of_each_query(monkeypatch, window: int | None) -> None:
    """Blocks of 5 queries, which see the first entries only; heads whose entries are of other slots."""
    monkeypatch.setattr(kit, "BLOCK", 5)
    cells = replace(made(padded=3), window=window)
    slots = cells.slots.clone()
    slots[1, 0, :4], slots[0, 1, 2] = torch.tensor([0, 2, 2, 3]), 1  # two entries of one slot
    cells = replace(cells, slots=slots)
    sums = sum(kit.blocks(cells, lambda block: block.sum(2)))
    whole, queries, keys, where = kit.attention(cells), cells.queries.tolist(), cells.keys.tolist(), slots.tolist()
    assert whole.shape == (ROWS, HEADS, TOKENS, TOKENS)
    for row in range(ROWS):
        for head in range(HEADS):
            kv_head, wanted = head // GROUP, [0.0] * TOKENS
            for query in range(TOKENS):
                raised = [0.0] * TOKENS
                for i in range(TOKENS):
                    age = query - where[row][kv_head][i]
                    there = cells.valid[row, kv_head, i] and cells.query_valid[row, query]
                    if there and age >= 0 and (window is None or age < window):
                        pairs = zip(queries[row][head][query], keys[row][kv_head][i], strict=True)
                        raised[i] = math.exp(cells.scaling * sum(a * b for a, b in pairs))
                of = [each / (sum(raised) or 1.0) for each in raised]
                assert whole[row, head, query].tolist() == pytest.approx(of, abs=1e-5)
                wanted = [a + b for a, b in zip(wanted, of, strict=True)]
            assert sums[row, head].tolist() == pytest.approx(wanted, abs=1e-4)


def neighbours(values: list[float], kernel: int) -> list[float]:
    half = kernel // 2
    return [
        sum(values[j] for j in range(i - half, i + half + 1) if 0 <= j < len(values)) / kernel
        for i in range(len(values))
    ]


def close(found: torch.Tensor, wanted: list[list[list[float]]], cells: Cells) -> None:
    torch.testing.assert_close(
        found[cells.valid].double(), torch.tensor(wanted, dtype=torch.float64)[cells.valid], atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("padded", [0, 5])
def test_h2o_sums_what_every_query_read(padded: int) -> None:
    cells = made(1, padded=padded)
    wanted = [
        [
            [
                sum(read(cells, b, h, q)[i] for h in range(k * GROUP, (k + 1) * GROUP) for q in range(TOKENS)) / GROUP
                for i in range(TOKENS)
            ]
            for k in range(KV_HEADS)
        ]
        for b in range(ROWS)
    ]
    score = h2o()
    memory = score.observe(cells, torch.zeros(ROWS, KV_HEADS, TOKENS, 1))
    close(score.score(cells, memory), wanted, cells)
    twice = score.observe(cells, memory)
    torch.testing.assert_close(twice, 2 * memory)


@pytest.mark.parametrize("padded", [0, 5])
def test_snapkv_is_the_smoothed_mean_of_the_window(padded: int) -> None:
    cells, window = made(2, padded=padded, queries=7), 7
    wanted = []
    for b in range(ROWS):
        rows = []
        for k in range(KV_HEADS):
            total = [0.0] * TOKENS
            for h in range(k * GROUP, (k + 1) * GROUP):
                mean = [sum(read(cells, b, h, q)[i] for q in range(window)) / window for i in range(TOKENS - window)]
                for i, value in enumerate(neighbours(mean, 3)):
                    total[i] += value / GROUP
            rows.append(total)
        wanted.append(rows)
    found = snapkv(window=window, kernel=3).score(cells, NOTHING)
    close(found[..., : TOKENS - window], [[k[: TOKENS - window] for k in b] for b in wanted], _cut(cells, window))
    assert snapkv(window=window).recent == window


def _cut(cells: Cells, window: int) -> Cells:
    return replace(cells, valid=cells.valid[..., : TOKENS - window])


def test_tova_is_the_mean_of_all_heads_even_where_they_hold_different_entries() -> None:
    cells = made(3, queries=1)
    wanted = [[sum(read(cells, b, h, 0)[i] for h in range(HEADS)) / HEADS for i in range(TOKENS)] for b in range(ROWS)]
    close(tova().score(cells, NOTHING), [[row] * KV_HEADS for row in wanted], cells)
    # the second head holds every entry but slot 3, behind a place without one
    order = torch.tensor([3, *(i for i in range(TOKENS) if i != 3)])
    keys, slots, valid = cells.keys.clone(), cells.slots.clone(), cells.valid.clone()
    keys[:, 1], slots[:, 1] = keys[:, 1, order], slots[:, 1, order]
    slots[:, 1, 0], valid[:, 1, 0] = -1, False
    found = tova().score(replace(cells, keys=keys, slots=slots, valid=valid), NOTHING)
    for b in range(ROWS):
        for i in range(TOKENS):
            of_first = sum(read(cells, b, h, 0)[i] for h in range(GROUP))
            kept = [j for j in range(TOKENS) if j != 3]
            for_all = 0.0
            for h in range(GROUP, HEADS):
                whole = read(cells, b, h, 0)
                for_all += whole[i] / sum(whole[j] for j in kept) if i != 3 else 0.0
            assert float(found[b, 0, i]) == pytest.approx((of_first + for_all) / HEADS, abs=1e-5)


def test_knorm_recent_and_streaming_llm_by_hand() -> None:
    cells = made(4)
    wanted = [
        [[-math.sqrt(sum(x * x for x in cells.keys[b, k, i].tolist())) for i in range(TOKENS)] for k in range(KV_HEADS)]
        for b in range(ROWS)
    ]
    close(knorm().score(cells, NOTHING), wanted, cells)
    for score in (recent(), streaming_llm(sinks=3)):
        assert score.score(cells, NOTHING)[0, 1].tolist() == list(range(TOKENS))
    assert (streaming_llm(sinks=3).first, recent().first) == (3, 0)


def test_random_is_uniform_differs_by_seed_layer_and_head_and_stays() -> None:
    long = replace(made(), slots=torch.arange(20_000).expand(1, 2, -1), keys=torch.zeros(1, 2, 20_000, 1))
    found = random().score(long, NOTHING)
    for head in found[0]:
        assert abs(float(head.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / 20_000)
        parts = torch.histc(head.float(), 10, 0, 1) - 2000
        assert float((parts**2 / 2000).sum()) < 27.9  # chi-square, 9 degrees of freedom, p = 0.001
        assert abs(float(torch.corrcoef(torch.stack([head[1:], head[:-1]]))[0, 1])) < 0.03
    columns = [found[0, 0], found[0, 1]]
    columns += [random().score(replace(long, **{name: 9}), NOTHING)[0, 0] for name in ("seed", "layer")]
    assert float((torch.corrcoef(torch.stack(columns)) - torch.eye(4)).abs().max()) < 0.03
    some = replace(long, slots=long.slots[..., 5::7])
    assert torch.equal(random().score(some, NOTHING), found[..., 5::7])


@pytest.mark.parametrize(("mass", "size"), [(0.0, 12), (0.9, 12), (0.6, 20), (0.9, 7)])
@pytest.mark.parametrize("seed", range(3))
def test_defensive_step_by_step(seed: int, mass: float, size: int) -> None:
    window, kernel = 6, 3
    cells, prefix = made(seed, queries=window, size=size), TOKENS - window
    found = defensive(window=window, kernel=kernel, mass=mass).score(cells, NOTHING)[..., :prefix]
    for b in range(ROWS):
        risk, mean, norm = [], [], []
        for k in range(KV_HEADS):
            worst, total = [0.0] * prefix, [0.0] * prefix
            for h in range(k * GROUP, (k + 1) * GROUP):
                for q in range(window):
                    row = read(cells, b, h, q)[:prefix]
                    smooth = neighbours(row, kernel)
                    smooth = [x * sum(row) / sum(smooth) for x in smooth]
                    worst = [max(x, y) for x, y in zip(worst, smooth, strict=True)]
                    total = [x + y / (GROUP * window) for x, y in zip(total, row, strict=True)]
            floor = sum(worst) / prefix
            risk.append([max(x, floor) for x in worst])
            mean.append(total)
            of_values = []
            for i in range(prefix):
                moved = [cells.values[b, k, i] @ cells.output[h] for h in range(k * GROUP, (k + 1) * GROUP)]
                of_values.append(sum(float(x.abs().sum()) for x in moved) / GROUP)
            norm.append(of_values)
        shares = [[norm[k][i] / sum(n[i] for n in norm) for i in range(prefix)] for k in range(KV_HEADS)]
        worth = [[r * s for r, s in zip(risk[k], shares[k], strict=True)] for k in range(KV_HEADS)]
        best = max(max(row) for row in worth)
        threshold = mass - sum(1 - sum(m) for m in mean) / KV_HEADS
        for k in range(KV_HEADS):
            order, held, secured = sorted(range(prefix), key=lambda i, k=k: -mean[k][i]), 0.0, set()
            for place, i in enumerate(order):
                held += mean[k][i] / sum(mean[k])
                if held >= threshold or place >= size - window:
                    break
                secured.add(i)
            wanted = [best if i in secured else worth[k][i] for i in range(prefix)]
            torch.testing.assert_close(found[b, k].double(), torch.tensor(wanted).double(), atol=1e-5, rtol=1e-4)


def test_defensive_says_what_it_needs() -> None:
    with pytest.raises(InvalidInput, match="output projection"):
        defensive().score(replace(made(), output=None), NOTHING)


# splits


def groups(seed: int, sizes: list[int], *, count: int = 3, tokens: int = 11, must: int = 2) -> Groups:
    """Layers whose heads are unequally concentrated; the last ``must`` entries are always kept; a head lacks some."""
    rng = torch.Generator().manual_seed(seed)
    scores = []
    for layer in range(count):
        found = torch.rand(len(sizes), KV_HEADS, tokens, generator=rng) ** torch.tensor([1.0, 3.0 + layer])[:, None]
        found[0, 1, :3] = float("-inf")
        found[..., tokens - must :] = float("inf")
        scores.append(found)
    size = torch.tensor(sizes)
    return Groups(tuple(scores), (size,) * count, (torch.full_like(size, tokens),) * count, 0, count)


def winners(flat: list[tuple[float, int]], places: int) -> list[int]:
    """Heads of the best entries, by sorting."""
    return [head for value, head in sorted(flat, key=lambda pair: -pair[0])[:places] if value > -math.inf]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("safe", [0.0, 0.2, 0.7, 1.0])
def test_ada_kv_is_a_competition_behind_a_safeguard(seed: int, safe: float) -> None:
    given = groups(seed, [5, 8])
    for scores, found in zip(given.scores, ada_kv(safe).sizes(given), strict=True):
        for b, size in enumerate([5, 8]):
            flat = []
            for k in range(KV_HEADS):
                ranked = sorted(scores[b, k].tolist(), reverse=True)
                sure = int(size * safe)
                flat += [(math.inf if i < sure and x > -math.inf else x, k) for i, x in enumerate(ranked)]
            won = winners(flat, size * KV_HEADS)
            assert found[b].tolist() == [won.count(k) for k in range(KV_HEADS)]
    if safe == 1.0:
        assert found[1].tolist() == [8, 8]


@pytest.mark.parametrize("seed", range(4))
def test_layers_is_a_competition_of_all(seed: int) -> None:
    given = groups(seed, [5, 8])
    found = layers().sizes(given)
    for b, size in enumerate([5, 8]):
        flat = [
            (x, KV_HEADS * place + k)
            for place, scores in enumerate(given.scores)
            for k in range(KV_HEADS)
            for x in scores[b, k].tolist()
        ]
        won = winners(flat, size * KV_HEADS * 3)
        wanted = [[won.count(KV_HEADS * place + k) for k in range(KV_HEADS)] for place in range(3)]
        assert [sizes[b].tolist() for sizes in found] == wanted
        assert sum(map(sum, wanted)) == size * KV_HEADS * 3


@pytest.mark.parametrize("padded", [0, 5])
def test_expected_attention_is_the_mean_of_a_normal_query_at_the_next_positions(padded: int) -> None:
    """By complex numbers, and the closed form against queries that are drawn."""
    cells, sinks, future = made(6, padded=padded), 2, 7
    found = expected_attention(sinks=sinks, future=future).score(cells, NOTHING)
    turn = [sum(np.exp(1j * f * (TOKENS + step)) for step in range(future)) / future for f in (0.7, 0.05)]
    for b in range(ROWS):
        start = padded if b == 0 else 0
        for k in range(KV_HEADS):
            rest, total = range(start + sinks, TOKENS), np.zeros(TOKENS)
            keys = cells.keys[b, k].double().numpy()
            for h in range(k * GROUP, (k + 1) * GROUP):
                asked = cells.queries[b, h, start + sinks :].double().numpy()
                pairs = asked[:, :2] + 1j * asked[:, 2:]
                pairs = pairs * np.exp(-1j * np.outer(range(start + sinks, TOKENS), (0.7, 0.05)))  # before rotation
                plain = np.concatenate([pairs.real, pairs.imag], axis=1)
                rotation = np.zeros((4, 4))
                for i in range(2):
                    c, s = turn[i].real, turn[i].imag
                    rotation[i, i], rotation[i, i + 2], rotation[i + 2, i], rotation[i + 2, i + 2] = c, -s, s, c
                mean, spread = rotation @ plain.mean(0), rotation @ np.cov(plain.T, bias=True) @ rotation.T
                logits = np.array(
                    [0.6 * keys[i] @ mean + 0.18 * keys[i] @ spread @ keys[i] for i in rest]
                )  # 0.18 = 0.6^2 / 2
                raised = np.exp(logits - logits.max())
                total[start + sinks :] += raised / raised.sum() / GROUP
            wanted = total * np.linalg.norm(cells.values[b, k].double().numpy(), axis=1)
            np.testing.assert_allclose(found[b, k, start:].numpy(), wanted[start:], atol=1e-5, rtol=1e-4)
    drawn = np.random.default_rng(0).multivariate_normal(mean, spread, 400_000)
    sampled = np.exp(0.6 * drawn @ keys[TOKENS - 5]).mean()
    assert sampled == pytest.approx(np.exp(logits[-5]), rel=0.1)
    assert expected_attention().rotation


def test_ems_is_the_larger_of_what_all_and_the_last_queries_read() -> None:
    cells, window = made(7, padded=3), 6
    changes = {
        "queries": cells.queries[:, :, -window:], "query_slots": cells.query_slots[-window:],
        "query_valid": cells.query_valid[:, -window:],
    }  # fmt: skip
    last, score, prefix, wanted, larger = replace(cells, **changes), ems(window=window), TOKENS - window, [], set()
    for b in range(ROWS):
        rows = []
        for k in range(KV_HEADS):
            heads = range(k * GROUP, (k + 1) * GROUP)
            by = [[sum(column) / GROUP for column in zip(*(read(cells, b, h, q) for h in heads), strict=True)]
                  for q in range(TOKENS)]  # fmt: skip
            whole = [sum(row[i] for row in by) for i in range(prefix)]
            local = [sum(row[i] for row in by[prefix:]) / window for i in range(prefix)]
            scale = sum(local) / sum(whole)
            rows.append([max(x, y * scale) for x, y in zip(local, whole, strict=True)])
            larger |= {x > y * scale for x, y in zip(local, whole, strict=True)}
        wanted.append(rows)
    assert larger == {True, False}
    memory = score.observe(cells, torch.zeros(ROWS, KV_HEADS, TOKENS, 1))
    close(score.score(last, memory)[..., :prefix], wanted, _cut(cells, window))
    assert (score.recent, score.window, score.rest) == (window, window, "merge")


def test_prefix_kv_sums_what_all_heads_read() -> None:
    cells = made(5, padded=3)
    wanted = [
        [sum(read(cells, b, h, q)[i] for h in range(HEADS) for q in range(TOKENS)) / HEADS for i in range(TOKENS)]
        for b in range(ROWS)
    ]
    score = prefix_kv()
    memory = score.observe(cells, torch.zeros(ROWS, KV_HEADS, TOKENS, 1))
    close(score.score(cells, memory), [[row] * KV_HEADS for row in wanted], cells)
    assert (score.first, score.recent, score.split) == (4, 1, "prefix")


def bisected(layers: list[list[float]], total: int) -> list[int]:
    """The sizes of the paper: the largest p that the total allows, by bisection; what is left is not given out."""

    def sizes(p: float) -> list[int]:
        found = []
        for layer in layers:
            ordered, held, k = sorted(layer, reverse=True), 0.0, 0
            while k < len(ordered) and held / sum(layer) < p:
                held, k = held + ordered[k], k + 1
            found.append(k)
        return found

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(sizes(middle)) <= total else (low, middle)
    return sizes(low)


@pytest.mark.parametrize("size", [4, 6, 9])
def test_prefix_finds_one_share_for_all_layers(size: int) -> None:
    rng = torch.Generator().manual_seed(size)
    exponents, tokens, must = (0.1, 0.7, 1.5, 3.0), 12, 2
    scores = []
    for exponent in exponents:  # Zipf: the first layer reads widely, the last one a few entries
        mean = torch.arange(1, tokens + 1).double() ** -exponent
        mean = mean[torch.randperm(tokens, generator=rng)]
        layer = (mean + torch.tensor([[0.2], [-0.2]]) * mean).repeat(1, 1, 1)  # two heads with this mean
        layer[..., -must:] = float("inf")
        scores.append(layer)
    limit = torch.tensor([size])
    given = Groups(tuple(scores), (limit,) * 4, (torch.tensor([tokens]),) * 4, 0, 4)
    found = [sizes[0].tolist() for sizes in prefix().sizes(given)]
    assert all(a == b for a, b in found)
    sizes = [a for a, _ in found]
    assert sum(sizes) == 4 * size
    free = [layer[0, :, :-must].mean(0).tolist() for layer in scores]
    least = bisected(free, 4 * (size - must))
    assert all(k - must >= wanted for k, wanted in zip(sizes, least, strict=True))
    assert sum(sizes) - 4 * must - sum(least) < len(exponents)  # ties of the bisection, given out here

    def shares(counts: list[int]) -> list[float]:
        return [sum(sorted(f, reverse=True)[: k - must]) / sum(f) for f, k in zip(free, counts, strict=True)]

    assert min(shares(sizes)) > min(shares([size] * 4))
    assert sizes == sorted(sizes, reverse=True)


def test_uniform_gives_what_a_head_has_at_most() -> None:
    assert [sizes.tolist() for sizes in uniform().sizes(groups(0, [9, 4], count=1))] == [[[9, 8], [4, 4]]]


def test_pyramid_by_hand() -> None:
    # s = 10, beta = 2: low 5, high 15; of 5 layers: 15, 12.5, 10, 7.5, 5; 12.5 rounds to 12, and its mirror gets 8
    scores = torch.zeros(1, 1, 40)
    given = [Groups((scores,), (torch.tensor([10]),), (torch.tensor([40]),), layer, 5) for layer in range(5)]
    assert [int(pyramid(2.0).sizes(each)[0]) for each in given] == [15, 12, 10, 8, 5]
    # of 14 tokens high is 14 at most, so low is 6
    given = [each._replace(scores=(scores[..., :14],), tokens=(torch.tensor([14]),)) for each in given]
    assert [int(pyramid(2.0).sizes(each)[0]) for each in given] == [14, 12, 10, 8, 6]
    # seven are protected: 5 is too few, and all layers are equal; also where one layer is all
    scores[..., -7:] = float("inf")
    given = [each._replace(scores=(scores,), tokens=(torch.tensor([40]),)) for each in given]
    assert [int(pyramid(2.0).sizes(each)[0]) for each in given] == [10] * 5
    assert int(pyramid(2.0).sizes(given[0]._replace(layers=1))[0]) == 10


@pytest.mark.parametrize(
    "make",
    [
        lambda: snapkv(kernel=4), lambda: snapkv(window=0), lambda: defensive(mass=1.5), lambda: h2o(recent_share=2.0),
        lambda: expected_attention(future=0), lambda: ems(window=0),
        lambda: ada_kv(safe=-0.1), lambda: pyramid(beta=0.5),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(make) -> None:
    with pytest.raises(InvalidInput, match="give"):
        make()
