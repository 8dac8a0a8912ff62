"""Topics of a conversation: clusters by hand, what a topic's text reads, peaks, routes."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer.cache import BudgetedCache
from budgeteer.cache.episodes import clusters, episodes
from budgeteer.cache.prefill import Prefill
from budgeteer.cache.score import epi_cache
from budgeteer.core.errors import InvalidInput

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
KV_HEADS, SINKS = 2, 4


def model():
    torch.manual_seed(3)
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()
    for name, weight in made.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 6
    return made


def tokens(count: int, seed: int) -> list[int]:
    return torch.randint(3, 97, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def read_by(made, ids: list[int], text: list[int]):
    """For each layer [K, n]: the most that a token of a text reads of each entry before it."""
    made.set_attn_implementation("eager")
    with torch.no_grad():
        found = made(torch.tensor([ids + text]), output_attentions=True).attentions
    made.set_attn_implementation("sdpa")
    n = len(ids)
    return [each[0, :, n:, :n].reshape(KV_HEADS, 2, len(text), n).amax(dim=(1, 2)) for each in found]


def winners(read: torch.Tensor, places: int) -> list[list[int]]:
    """The best entries of a layer's heads together, the first ones of each being sure."""
    scores = read.clone()
    scores[:, :SINKS] = 9.0
    top = scores.flatten().topk(places).indices.tolist()
    return [sorted(i % read.shape[1] for i in top if i // read.shape[1] == head) for head in range(len(read))]


def held(cache) -> list[list[list[int]]]:
    slots = [layer.storage.slots(layer.seen)[0] for layer in cache.layers]
    return [[head[head >= 0].tolist() for head in layer] for layer in slots]


def test_what_the_text_reads_most_is_kept() -> None:
    made, ids, text = model(), tokens(30, 0), tokens(7, 1)
    wanted = [winners(layer, 2 * 12) for layer in read_by(made, ids, text)]
    method = f"epi-cache:ids={text}".replace(" ", "")
    cache = BudgetedCache(made, "40%", method)
    with torch.no_grad():
        made(torch.tensor([ids]), past_key_values=cache)
    assert held(cache) == wanted
    assert cache.get_seq_length() == 30
    other = BudgetedCache(made, "40%", f"epi-cache:ids={tokens(7, 2)}".replace(" ", ""))
    read = Prefill(made, torch.tensor([ids]))
    assert held(read.into(BudgetedCache(made, "40%", method))) == wanted
    assert held(read.into(other)) != wanted  # one prefill, another text
    # a padded batch: each row as alone
    rows = torch.tensor([[0] * 5 + ids[:25], ids])
    mask = (rows > 0).long()
    cache = BudgetedCache(made, "40%", method)
    with torch.no_grad():
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        made(rows, attention_mask=mask, position_ids=positions, past_key_values=cache)
    slots = [[head[head >= 0].tolist() for head in layer.storage.slots(30)[1]] for layer in cache.layers]
    assert slots == wanted


def test_with_chunks_what_was_read_before_does_not_count() -> None:
    """The second choice is by the second reading alone: as of a cache that held just what the first one left."""
    made, text = model(), tokens(7, 1)
    cache = BudgetedCache(made, "cache:12", f"epi-cache:ids={text}".replace(" ", ""))
    with torch.no_grad():
        made(torch.tensor([tokens(30, 0)]), past_key_values=cache)
        for layer in cache.layers:
            layer.storage.replace("memory", torch.full_like(layer.memory(), 100.0))  # it would win everything
        made(torch.tensor([tokens(10, 5)]), past_key_values=cache)
    assert all(0.0 < float(layer.memory().max()) <= 1.0 for layer in cache.layers)


def test_clusters_by_hand() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    labels, centres = clusters(rows[[0, 1, 4]], 2)
    assert labels[1] == labels[2] != labels[0]
    assert sorted(centres.tolist()) == [[0.0, 1.0], [1.0, 0.0]]
    labels, centres = clusters(rows, 1)
    np.testing.assert_allclose(centres, [rows.mean(0)])
    # the best of all ways to part five rows in two, by trying each
    least = min(
        sum(((rows[part == i] - rows[part == i].mean(0)) ** 2).sum() for i in (0, 1))
        for part in (np.array([int(c) for c in f"{n:05b}"]) for n in range(1, 31))
    )
    labels, centres = clusters(rows, 2)
    assert ((rows - centres[labels]) ** 2).sum() == pytest.approx(least)


def test_each_topic_has_a_cache_of_the_whole_conversation(tmp_path) -> None:
    made = model()
    windows = [tokens(6, seed) for seed in range(8)]
    vectors = [[1.0, 0.1 * i] if i % 2 else [0.1 * i, 1.0] for i in range(8)]
    found = episodes(made, windows, vectors, "cache:10", topics=2, medoids=2, chunk=16)
    even, odd = found.of([0.0, 2.0]), found.of([3.0, 0.0])
    assert {even, odd} == {0, 1}
    # the two windows of a topic next to its centre, in order: the cosines of 1, 3, 5, 7 to the mean of their directions
    for topic, members in ((even, (0, 2, 4, 6)), (odd, (1, 3, 5, 7))):
        unit = {i: np.array(vectors[i]) / np.linalg.norm(vectors[i]) for i in members}
        mean = np.mean(list(unit.values()), axis=0)
        near = sorted(sorted(members, key=lambda i, unit=unit, mean=mean: -float(unit[i] @ mean))[:2])
        assert list(found.texts[topic]) == [token for i in near for token in windows[i]]
    assert held(found.caches[0]) != held(found.caches[1])
    for cache in found.caches:
        account = cache.account()
        assert (account.kept, account.total) == (10 * 2 * 3, 48 * 2 * 3)
        entry = account.full_bytes / account.total + 4 + 4
        # all layers wait for the text; a part of a layer is there twice while it grows
        assert account.peak_bytes <= (10 + 16 + 12) * 2 * 3 * entry * 1.4
    with torch.no_grad():
        question = torch.tensor([[5, 6]])
        first = made(question, past_key_values=found.cache([3.0, 0.0])).logits
        again = made(question, past_key_values=found.cache([3.0, 0.0])).logits
    assert torch.equal(first, again)  # a question does not change the cache
    assert found.caches[odd].get_seq_length() == 48
    sizes = {"shares": [0.25], "sizes": [[0.1], [0.25], [0.4]]}  # by measured sensitivity
    file = tmp_path / "sizes.json"
    file.write_text(json.dumps(sizes))
    split = f"profile:compete=true,sizes={file}"
    for cache in episodes(made, windows, vectors, "cache:12", topics=2, medoids=2, chunk=48, split=split).caches:
        counts = [[len(head) for head in layer] for layer in held(cache)]
        assert [sum(layer) for layer in counts] == [2 * 5, 2 * 12, 2 * 19]  # of 48: 4.8, 12 and 19.2
        assert counts[2][0] != counts[2][1]  # heads compete


def test_what_cannot_be_is_refused() -> None:
    made, windows = model(), [tokens(3, 0), tokens(3, 1)]
    for options, says in (
        ({"windows": []}, "give windows"), ({"vectors": [[1.0]]}, "a vector for each"), ({"topics": 3}, "more topics"),
        ({"chunk": 0}, "numbers >= 1"), ({"windows": [[], [3]]}, "give windows"),
        ({"vectors": [[1.0, float("nan")], [0.0, 1.0]]}, "vectors of the windows are not finite"),
    ):  # fmt: skip
        given = {"windows": windows, "vectors": [[1.0, 0.0], [0.0, 1.0]], "topics": 2, **options}
        with pytest.raises(InvalidInput, match=says):
            episodes(made, budget="cache:10", **given)
    found = episodes(made, [[3, 4], [5, 6]], [[1.0, 0.0], [0.0, 1.0]], "cache:10", topics=2)
    for vector in ([1.0, 0.0, 0.0], 1.0, [float("nan"), 0.0]):
        with pytest.raises(InvalidInput, match="give a finite vector of 2 numbers"):
            found.of(vector)
    with pytest.raises(InvalidInput, match="give tokens"):
        epi_cache(["a"])
