"""What becomes of dropped entries: merging and exponential means against loops over numbers, and inside a model."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from budgeteer.cache import BudgetedCache, Leaving
from budgeteer.cache.rest import ema, merge
from budgeteer.core.errors import InvalidInput, UnknownName

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")
TOKENS, WIDTH = 14, 4
FREQUENCIES = (0.7, 0.05)


def leaving(seed: int = 0) -> Leaving:
    """One row of two heads; the first one lacks its first two entries."""
    rng = torch.Generator().manual_seed(seed)
    valid = torch.ones(1, 2, TOKENS, dtype=torch.bool)
    valid[0, 0, :2] = False
    keep = (torch.rand(1, 2, TOKENS, generator=rng) < 0.4) & valid
    keep[:, :, 2:4] = True
    return Leaving(
        keys=torch.randn(1, 2, TOKENS, WIDTH, generator=rng),
        values=torch.randn(1, 2, TOKENS, WIDTH, generator=rng),
        slots=torch.arange(5, TOKENS + 5).expand(1, 2, TOKENS),
        valid=valid,
        keep=keep,
        frequencies=torch.tensor(FREQUENCIES),
    )


def norm(vector: list[float]) -> float:
    return math.sqrt(sum(x * x for x in vector))


@pytest.mark.parametrize("threshold", [-1.0, 0.3, 0.99])
def test_merge_moves_values_to_the_most_similar_key(threshold: float) -> None:
    given = leaving(1)
    keys, values = merge(threshold=threshold).fold(given)
    assert torch.equal(keys, given.keys)
    moved = 0
    for h in range(2):
        k, v = given.keys[0, h].tolist(), given.values[0, h].tolist()
        kept = [i for i in range(TOKENS) if given.keep[0, h, i]]
        total, weights = {c: [0.0] * WIDTH for c in kept}, dict.fromkeys(kept, 0.0)
        for i in range(TOKENS):
            if i in kept or not given.valid[0, h, i]:
                continue
            cosines = {c: sum(a * b for a, b in zip(k[i], k[c], strict=True)) / (norm(k[i]) * norm(k[c])) for c in kept}
            c = max(cosines, key=cosines.__getitem__)
            if cosines[c] < threshold or cosines[c] <= 0:
                continue
            weight = cosines[c] * norm(v[i]) / (norm(v[i]) + norm(v[c]))
            total[c] = [t + weight * x for t, x in zip(total[c], v[i], strict=True)]
            weights[c] += weight
            moved += 1
        for c in kept:
            wanted = [(x + t) / (1 + weights[c]) for x, t in zip(v[c], total[c], strict=True)]
            torch.testing.assert_close(values[0, h, c], torch.tensor(wanted), atol=1e-5, rtol=1e-5)
    assert (moved > 0) == (threshold < 0.99)


def test_merging_helps_more_where_keys_repeat_than_where_they_have_nothing_in_common() -> None:
    """Clusters of keys with similar values, one kept of each: reading the merged ones is nearer to reading all.

    With unrelated keys the error falls a little, too: means of values are smaller than values.
    """
    rng = torch.Generator().manual_seed(0)
    found = []
    for noise in (0.05, 50.0):
        centres = 3 * torch.randn(8, 16, generator=rng)
        keys = centres.repeat(6, 1) + noise * torch.randn(48, 16, generator=rng)
        values = centres.flip(1).repeat(6, 1) + torch.randn(48, 16, generator=rng)
        keep = torch.arange(48) < 8
        shaped = [x[None, None] for x in (keys, values, torch.arange(48), torch.ones(48, dtype=torch.bool), keep)]
        merged = merge().fold(Leaving(*shaped))[1][0, 0, :8]
        queries = keys[torch.randint(48, (200,), generator=rng)] / 10
        whole = torch.softmax(queries @ keys.T, -1) @ values
        read = torch.softmax(queries @ keys[:8].T, -1)
        found.append(float((read @ merged - whole).norm() / (read @ values[:8] - whole).norm()))
    assert found[0] < 0.6
    assert found[1] > 0.75


def rotated(vector: list[float], steps: int) -> list[float]:
    pairs = [complex(vector[i], vector[i + 2]) for i in range(2)]
    pairs = [z * complex(math.cos(f * steps), math.sin(f * steps)) for z, f in zip(pairs, FREQUENCIES, strict=True)]
    return [z.real for z in pairs] + [z.imag for z in pairs]


def test_ema_folds_one_entry_after_the_other_into_its_sink() -> None:
    given, alpha = leaving(2), 0.8
    keys, values = ema(alpha=alpha, sinks=2).fold(given)
    first = int(given.valid[0].any(0).nonzero()[0])  # of the row, behind its padding
    for h in range(2):
        kept = [i for i in range(TOKENS) if given.keep[0, h, i]]
        k, v = given.keys[0, h].tolist(), given.values[0, h].tolist()
        for i in range(TOKENS):
            if i in kept or not given.valid[0, h, i]:
                continue
            sink = kept[(i - first) % 2]
            turned = rotated(given.keys[0, h, i].tolist(), sink - i)
            k[sink] = [alpha * a + (1 - alpha) * b for a, b in zip(k[sink], turned, strict=True)]
            v[sink] = [
                alpha * a + (1 - alpha) * b for a, b in zip(v[sink], given.values[0, h, i].tolist(), strict=True)
            ]
        for c in kept:
            torch.testing.assert_close(keys[0, h, c], torch.tensor(k[c]), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(values[0, h, c], torch.tensor(v[c]), atol=1e-5, rtol=1e-5)
    nothing = ema(alpha=1.0).fold(given)
    assert torch.equal(nothing[0], given.keys)
    assert torch.equal(nothing[1], given.values)
    assert ema().rotation


def test_a_running_mean_in_the_sinks_follows_a_stream_that_drifts() -> None:
    """Decoding: one entry leaves at a time; the sink's value is nearer to the stream's mean than the first entry's."""
    rng, alpha = torch.Generator().manual_seed(0), 0.9
    level = torch.cumsum(0.2 + 0.05 * torch.randn(100, generator=rng), 0)
    keys, values = torch.zeros(1, 1, 100, WIDTH), level[None, None, :, None].expand(1, 1, 100, WIDTH).clone()
    sink = values[:, :, :1]
    for t in range(1, 91):  # a window of ten behind
        pair = torch.cat([sink, values[:, :, t : t + 1]], dim=2)
        valid, keep = torch.ones(1, 1, 2, dtype=torch.bool), torch.tensor([[[True, False]]])
        slots = torch.tensor([[[0, t]]])
        sink = ema(alpha=alpha, sinks=1).fold(
            Leaving(keys[:, :, :2], pair, slots, valid, keep, torch.tensor(FREQUENCIES))
        )[1][:, :, :1]
    wanted = float(level[0]) * alpha**90 + sum(float(level[t]) * 0.1 * alpha ** (90 - t) for t in range(1, 91))
    assert float(sink[0, 0, 0, 0]) == pytest.approx(wanted, rel=1e-4)
    assert abs(float(sink[0, 0, 0, 0]) - float(level[90])) < abs(float(level[0]) - float(level[90])) / 4


def model():
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def decoded(made, method: str) -> torch.Tensor:
    ids = torch.randint(3, 97, (2, 40), generator=torch.Generator().manual_seed(1))
    cache = BudgetedCache(made, "cache:12", method)
    with torch.no_grad():
        made(ids, past_key_values=cache)
        found = [made(ids[:, :1], past_key_values=cache).logits for _ in range(3)]
    return torch.cat(found)


@pytest.mark.parametrize("method", ["streaming-llm", "knorm:split=ada-kv"])
def test_inside_a_model_the_kept_entries_carry_the_rest(method: str) -> None:
    made = model()
    plain, join = decoded(made, method), "," if ":" in method else ":"
    assert torch.equal(decoded(made, f"{method}{join}rest=drop"), plain)
    assert torch.equal(decoded(made, f"{method}{join}rest=ema:alpha=1"), plain)
    for rest in ("ema:alpha=0.5", "merge"):
        assert (decoded(made, f"{method}{join}rest={rest}") - plain).abs().max() > 1e-4
    with pytest.raises(UnknownName, match="rest 'melt'"):
        BudgetedCache(made, "50%", f"{method}{join}rest=melt")
    for bad in ("merge:threshold=2", "ema:alpha=-1", "ema:sinks=0"):
        with pytest.raises(InvalidInput, match="give"):
            BudgetedCache(made, "50%", f"{method}{join}rest={bad}")
