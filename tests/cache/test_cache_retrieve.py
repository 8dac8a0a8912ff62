"""Scores for entries in cold memory, in loops over numbers, and each token's choice inside a model."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from statistics import pstdev

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from budgeteer.cache import BudgetedCache, Cells
from budgeteer.cache.protocol import Asked
from budgeteer.cache.rest import flexi_cache, offload
from budgeteer.cache.score import adamas, arkv, keydiff, quest, token_select
from budgeteer.cache.stability import corrected, stability, unstable
from budgeteer.core.errors import InvalidInput
from helpers import cells
from helpers.cells import GROUP, HEADS, KV_HEADS, ROWS, WIDTH

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
TOKENS = 21
NOTHING = torch.empty(0)


def made(seed: int = 0, *, padded: int = 0, queries: int = 1) -> Cells:
    """Entries of a layer when its last ``queries`` tokens came; row 0 begins with ``padded`` tokens of padding."""
    return Cells(**cells.fields(torch.Generator().manual_seed(seed), TOKENS, queries, padded, size=9))


def dot(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def softmax(logits: list[float]) -> list[float]:
    raised = [math.exp(logit - max(logits)) for logit in logits]
    return [each / sum(raised) for each in raised]


def voted(queries, keys, of: list[int], scaling: float, first: int, recent: int) -> dict[int, float]:
    """Votes for the entries ``of`` a row, which all heads hold, without the first and the newest."""
    votes = dict.fromkeys(of, 0.0)
    middle = of[first : len(of) - recent]
    for h, query in enumerate(queries):
        group = len(queries) // len(keys)
        shares = softmax([scaling * dot(query, keys[h // group][i]) for i in middle])
        for i, share in zip(middle, shares, strict=True):
            votes[i] += share
    return votes


@pytest.mark.parametrize("padded", [0, 4])
def test_token_select_counts_votes_and_not_logits(padded: int) -> None:
    cells = made(padded=padded)
    found = token_select(first=2, recent=3).score(cells, NOTHING)
    for b in range(ROWS):
        of = [i for i in range(TOKENS) if cells.valid[b, 0, i]]
        wanted = voted(cells.queries[b, :, 0].tolist(), cells.keys[b].tolist(), of, 0.6, 2, 3)
        for k in range(KV_HEADS):
            assert [float(found[b, k, i]) for i in of] == pytest.approx([wanted[i] for i in of], abs=1e-5)
    # a head with logits that are ten times as large still has one vote
    loud = cells.queries.clone()
    loud[:, 0] *= 10
    again = token_select(first=2, recent=3).score(replace(cells, queries=loud), NOTHING)
    assert float(again[1, 0].sum()) == pytest.approx(HEADS, abs=1e-4)


H4 = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]


def rotated(vector: list[float]) -> list[float]:
    return [dot(row, vector) / 2 for row in H4]


def code(number: float, spread: float) -> int:
    return sum(number > threshold for threshold in (-spread, 0.0, spread))


def distance(queries, keys, i: int, of: list[int]) -> int:
    numbers = [x for j in of for x in rotated(keys[j])]
    mean = sum(numbers) / len(numbers)
    spread = math.sqrt(sum((x - mean) ** 2 for x in numbers) / len(numbers))  # pstdev takes seconds
    theirs = [code(x, spread) for x in rotated(keys[i])]
    of_heads = []
    for query in queries:
        turned = rotated(query)
        ours = [code(x, pstdev(turned)) for x in turned]
        of_heads.append(sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)))
    return min(of_heads)


@pytest.mark.parametrize("padded", [0, 4])
def test_adamas_counts_steps_between_codes(padded: int) -> None:
    cells = made(1, padded=padded)
    found = adamas().score(cells, NOTHING)
    for b in range(ROWS):
        of = [i for i in range(TOKENS) if cells.valid[b, 0, i]]
        for k in range(KV_HEADS):
            queries = cells.queries[b, k * GROUP : (k + 1) * GROUP, 0].tolist()
            wanted = [-distance(queries, cells.keys[b, k].tolist(), i, of) for i in of]
            assert [float(found[b, k, i]) for i in of] == wanted


@pytest.mark.parametrize("padded", [0, 6])
def test_quest_bounds_what_a_page_can_hold(padded: int) -> None:
    cells = made(2, padded=padded)
    found = quest(page=4).score(cells, NOTHING)
    for b in range(ROWS):
        for k in range(KV_HEADS):
            keys = cells.keys[b, k].tolist()
            queries = cells.queries[b, k * GROUP : (k + 1) * GROUP, 0].tolist()
            for i in range(TOKENS):
                if not cells.valid[b, k, i]:
                    continue
                begins = i - (i - (padded if b == 0 else 0)) % 4
                page = [j for j in range(begins, min(begins + 4, TOKENS)) if cells.valid[b, k, j]]
                bounds = [
                    sum(
                        max(q[c] * min(keys[j][c] for j in page), q[c] * max(keys[j][c] for j in page))
                        for c in range(4)
                    )
                    for q in queries
                ]
                assert float(found[b, k, i]) == pytest.approx(max(bounds), abs=1e-5)
                assert max(bounds) >= max(dot(q, keys[i]) for q in queries) - 1e-6
    alone = quest(page=1).score(cells, NOTHING)  # a page of one entry is worth its best product
    wanted = max(dot(q, cells.keys[1, 0, 5].tolist()) for q in cells.queries[1, :GROUP, 0].tolist())
    assert float(alone[1, 0, 5]) == pytest.approx(wanted, abs=1e-5)


def test_keydiff_is_the_cosine_to_the_mean_direction() -> None:
    cells = made(3, padded=4)
    found = keydiff().score(cells, NOTHING)
    for b in range(ROWS):
        of = [i for i in range(TOKENS) if cells.valid[b, 0, i]]
        keys = cells.keys[b, 1].tolist()
        unit = {i: [x / math.sqrt(dot(keys[i], keys[i])) for x in keys[i]] for i in of}
        mean = [sum(unit[i][c] for i in of) / len(of) for c in range(WIDTH)]
        for i in of:
            assert float(found[b, 1, i]) == pytest.approx(-dot(unit[i], mean) / math.sqrt(dot(mean, mean)), abs=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_arkv_is_the_mean_and_the_variance_of_what_was_read(gamma: float) -> None:
    cells = made(4, padded=4, queries=TOKENS)
    found = arkv(gamma=gamma, window=3, kernel=3).score(cells, NOTHING)
    for b, first in ((0, 4), (1, 0)):
        for k in range(KV_HEADS):
            raw = [0.0] * TOKENS
            for h in range(k * GROUP, (k + 1) * GROUP):
                read = []
                for q in range(first, TOKENS):
                    query, keys = cells.queries[b, h, q].tolist(), cells.keys[b, k].tolist()
                    logits = [0.6 * dot(query, keys[i]) for i in range(first, q + 1)]
                    read.append([0.0] * first + softmax(logits) + [0.0] * (TOKENS - 1 - q))
                n = len(read)
                for i in range(TOKENS - 3):
                    mean = sum(row[i] for row in read) / n
                    variance = sum((row[i] - mean) ** 2 for row in read) / (n - 1)
                    raw[i] += (mean + gamma * variance) / GROUP
            for i in range(first, TOKENS - 3):
                wanted = sum(raw[j] for j in (i - 1, i, i + 1) if 0 <= j < TOKENS) / 3
                assert float(found[b, k, i]) == pytest.approx(wanted, abs=1e-5)
    one = made(4)
    assert torch.isfinite(arkv(window=3).score(one, NOTHING)).all()  # of one query there is no variance
    assert (arkv().rest, arkv(layers=False).rest) == ("quantise:bits=8,full=0", "quantise:bits=8")


def test_who_chooses_anew() -> None:
    queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 2.0]]])
    before = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, -1.0], [0.0, 2.0]]])
    asked = Asked(queries, before, torch.tensor([[1, 3], [3, 3]]), 0)
    assert offload(every=2).renew(asked).tolist() == [[False, True], [True, True]]
    # cosines of the rows: 1, and (1 - 1 + 4) / (sqrt 6 sqrt 6) = 2 / 3
    assert offload(alike=0.9).renew(asked).tolist() == [[False, False], [True, True]]
    assert offload(alike=0.6).renew(asked).tolist() == [[False, False], [False, False]]
    for options in ({"every": 0}, {"alike": 0.0}, {"alike": 1.1}):
        with pytest.raises(InvalidInput, match="give every"):
            offload(**options)


# inside a model

SIZES = {
    "vocab_size": 97, "hidden_size": 16, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def model(kind: str = "Llama", **changes):
    torch.manual_seed(3)
    configuration = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(kind, f"{kind}Config"))
    given = getattr(transformers, f"{kind}ForCausalLM")(configuration(**{**SIZES, **changes})).eval()
    for name, weight in given.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 6
    return given


def ids(tokens: int = 30, rows: int = 2):
    return torch.randint(3, 97, (rows, tokens), generator=torch.Generator().manual_seed(2))


def best(scores: dict[int, float], places: int, always: set[int]) -> set[int]:
    left = sorted((i for i in scores if i not in always), key=lambda i: (-scores[i], i))
    return always | set(left[: places - len(always)])


def by_adamas(queries, keys, scaling: float, places: int) -> list[set[int]]:
    n, group = len(keys[0]), len(queries) // len(keys)
    return [
        best(
            {i: -distance(queries[k * group : (k + 1) * group], keys[k], i, list(range(n))) for i in range(n)},
            places,
            {n - 1},
        )
        for k in range(len(keys))
    ]


def by_token_select(queries, keys, scaling: float, places: int) -> list[set[int]]:
    n = len(keys[0])
    scores = voted(queries, keys, list(range(n)), scaling, 2, 3)
    return [best(scores, places, {0, 1, n - 3, n - 2, n - 1})] * len(keys)


def by_tova(queries, keys, scaling: float, places: int) -> list[set[int]]:
    n, group = len(keys[0]), len(queries) // len(keys)
    read = [softmax([scaling * dot(q, keys[h // group][i]) for i in range(n)]) for h, q in enumerate(queries)]
    scores = {i: sum(row[i] for row in read) for i in range(n)}
    return [best(scores, places, {n - 1})] * len(keys)


def oracle(given, choose, places: int):
    """The model with an attention that reads, for one query, only what a function of numbers chooses."""
    reference = copy.deepcopy(given)
    for layer in reference.modules():
        if hasattr(layer, "layer_idx"):
            layer.config = copy.copy(layer.config)
            layer.config._attn_implementation_internal = "retrieving_reference"

    def attend(module, query, key, value, attention_mask, scaling=None, **kwargs):
        rows, heads, asked, _ = query.shape
        group, n = heads // key.shape[1], key.shape[2]
        out = torch.zeros_like(query)
        for b in range(rows):
            seen = torch.ones(key.shape[1], asked, n, dtype=torch.bool).tril(n - asked)
            if asked == 1 and n > places:
                seen[:] = False
                for k, chosen in enumerate(choose(query[b, :, 0].tolist(), key[b].tolist(), scaling, places)):
                    seen[k, 0, sorted(chosen)] = True
            for h in range(heads):
                logits = (query[b, h] @ key[b, h // group].T) * scaling
                read = torch.softmax(logits.masked_fill(~seen[h // group], -1e30), -1)
                out[b, h] = read @ value[b, h // group]
        return out.transpose(1, 2).contiguous(), None

    ALL_ATTENTION_FUNCTIONS.register("retrieving_reference", attend)
    return reference


@pytest.mark.parametrize(
    ("method", "choose"),
    [("adamas", by_adamas), ("token-select:first=2,recent=3", by_token_select), ("tova:rest=offload", by_tova)],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_each_token_reads_what_its_query_chooses_and_nothing_is_lost(
    method: str, choose, compiled, monkeypatch
) -> None:
    if not compiled:
        monkeypatch.setattr("budgeteer.cache.attend.kernels", None)
    if method == "adamas" and not compiled:
        pytest.skip("its reference takes seconds")
    given, full = model(), transformers.DynamicCache()
    reference, cache = oracle(given, choose, 12), BudgetedCache(given, "cache:12", method)
    tokens = ids()
    with torch.no_grad():
        given(tokens, past_key_values=cache)
        reference(tokens, past_key_values=full)
        account = cache.account()
        assert (account.kept, account.cold_bytes) == (0, account.full_bytes)
        for step in range(3):
            token = torch.tensor([[5 + step], [9 + step]])
            found = given(token, past_key_values=cache).logits
            wanted = reference(token, past_key_values=full).logits
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)
            account = cache.account()
            assert account.kept == 2 * 2 * 3 * 12
            assert account.total == 2 * 2 * 3 * (31 + step)
            assert account.cold_bytes == account.full_bytes
        entry = 2 * 4 * 4 + 4
        assert account.bytes <= account.kept * entry + 3 * 2 * 2 * 16
        # a further turn reads everything, and then each token chooses again
        turn = ids(6) + 1
        found, wanted = given(turn, past_key_values=cache).logits, reference(turn, past_key_values=full).logits
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)
        token = torch.tensor([[7], [8]])
        found, wanted = given(token, past_key_values=cache).logits, reference(token, past_key_values=full).logits
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


def slots(cache, layer: int = 0, row: int = 0) -> list[set[int]]:
    found = cache.layers[layer].storage.slots(cache.layers[layer].seen)[row]
    return [set(head[head >= 0].tolist()) for head in found]


def test_between_two_choices_a_head_reads_what_it_chose_and_what_came_since() -> None:
    given = model()
    cache = BudgetedCache(given, "cache:12", "quest:page=1,rest=offload:every=3")
    with torch.no_grad():
        given(ids(), past_key_values=cache)
        found = []
        for step in range(7):
            given(torch.tensor([[5 + step], [9 + step]]), past_key_values=cache)
            found.append(slots(cache))
    for step, head in ((s, h) for s in range(7) for h in range(2)):
        now = found[step][head]
        assert 30 + step in now
        if step % 3:
            assert now == found[step - 1][head] | {30 + step}
        else:
            assert len(now) == 12


def test_stable_heads_choose_seldom_and_the_others_at_every_token() -> None:
    asked = Asked(torch.zeros(1, 4, 2), torch.zeros(1, 4, 2), torch.tensor([[2, 16]]), 3)
    assert flexi_cache(every=16, unstable=[[3, 0], [1, 1]]).renew(asked).tolist() == [[True, True]]
    assert flexi_cache(every=16, unstable=[[1, 0]]).renew(asked).tolist() == [[False, True]]
    given = model()
    cache = BudgetedCache(given, "cache:12", 'quest:page=1,rest="flexi-cache:every=4,unstable=[[0, 1]]"')
    with torch.no_grad():
        given(ids(), past_key_values=cache)
        for step in range(8):
            given(torch.tensor([[5 + step], [9 + step]]), past_key_values=cache)
            sizes = [[len(head) for head in slots(cache, layer)] for layer in (0, 1)]
            assert sizes == [[12 + step % 4, 12], [12 + step % 4, 12 + step % 4]]
    for options in ({"every": 0}, {"unstable": [[1]]}, {"unstable": [["a", 1]]}):
        with pytest.raises(InvalidInput, match="pairs of a layer and a head"):
            flexi_cache(**options)


def test_what_choices_have_in_common_beyond_chance() -> None:
    first = torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]).bool()
    later = torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]]).bool()
    # chance 2 / 8: (1 - 1/4) / (3/4), (1/2 - 1/4) / (3/4), (0 - 1/4) / (3/4)
    assert corrected(first, later, 8).tolist() == pytest.approx([1, 1 / 3, -1 / 3])
    rng = torch.Generator().manual_seed(0)
    drawn = [torch.rand(4000, 20, generator=rng).argsort(-1) < 5 for _ in range(2)]
    assert float(corrected(drawn[0], drawn[1], 20).mean()) == pytest.approx(0, abs=0.02)
    # a choice that does not look at the query is the same but for the newest entry
    given = model()
    found = stability(given, ids(60), "cache:20", "knorm", tokens=6, apart=2)
    assert found.shape == (3, 2)
    assert float(found.min()) > 0.8
    assert float(stability(given, ids(60), "cache:20", "quest:page=1", tokens=6, apart=2).min()) < float(found.min())
    assert unstable(torch.tensor([[0.9, torch.nan, 0.2, 0.4], [0.5, 0.7, 0.1, 0.8]]), 0.3) == [[0, 2], [1, 2]]
    with pytest.raises(InvalidInput, match="give more tokens than apart"):
        stability(given, ids(), "cache:20", tokens=4, apart=4)


def test_a_row_beside_others_and_behind_padding_is_the_row_alone() -> None:
    given, tokens = model(), ids()
    mask = torch.ones_like(tokens)
    tokens[0, :7], mask[0, :7] = 0, 0
    methods = "adamas", "token-select:first=2,recent=3", "quest:page=5", "knorm:rest=quantise", "arkv:window=4"
    options = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    options |= {"max_new_tokens": 8, "min_new_tokens": 8}
    for method in methods:
        both = given.generate(
            tokens, attention_mask=mask, past_key_values=BudgetedCache(given, "60%", method), **options
        )
        for row, padded in enumerate([7, 0]):
            cache = BudgetedCache(given, "60%", method)
            alone = given.generate(tokens[row : row + 1, padded:], past_key_values=cache, **options)
            torch.testing.assert_close(
                torch.stack(alone.logits)[:, 0], torch.stack(both.logits)[:, row], atol=3e-4, rtol=1e-3
            )


def test_a_full_budget_offloads_nothing_and_sliding_layers_stay() -> None:
    given = model()
    cache, full = BudgetedCache(given, "100%", "adamas"), transformers.DynamicCache()
    with torch.no_grad():
        for tokens in (ids(), torch.tensor([[5], [6]])):
            found = given(tokens, past_key_values=cache).logits
            assert torch.equal(found, given(tokens, past_key_values=full).logits)
    assert cache.account().cold_bytes == 0
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    given = model("Gemma3", head_dim=8, sliding_window=16, layer_types=kinds)
    cache = BudgetedCache(given, "cache:9", "adamas")
    with torch.no_grad():
        given(ids(), past_key_values=cache)
        given(torch.tensor([[5], [6]]), past_key_values=cache)
    assert [len(slots(cache, layer)[0]) for layer in range(3)] == [15, 9, 15]


def test_what_cannot_be_retrieved_is_refused() -> None:
    given = model()
    for method in ("h2o:rest=offload", "tova:rest=offload,split=layers", "kvzip:rest=offload"):
        with pytest.raises(InvalidInput, match="entries are retrieved before the attention of each layer"):
            BudgetedCache(given, "50%", method)
    for make in (
        lambda: token_select(recent=0), lambda: adamas(recent=0), lambda: quest(page=0), lambda: arkv(kernel=2),
    ):  # fmt: skip
        with pytest.raises(InvalidInput, match="give"):
            make()
