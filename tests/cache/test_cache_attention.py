"""The compiled attention of one query over heads of unequal lengths, against loops and against torch's own way."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("numba")

import numpy as np
import torch
import transformers

from budgeteer.cache import BudgetedCache, attend, kernels

pytestmark = pytest.mark.filterwarnings("ignore:.past_key_values.:FutureWarning")


def by_hand(query, entries, scaling):
    """softmax(scaling q.k) v over a list of (key, value)."""
    products = [scaling * sum(a * b for a, b in zip(query, key, strict=True)) for key, _ in entries]
    raised = [math.exp(each - max(products)) for each in products]
    return [
        sum(r * value[j] for r, (_, value) in zip(raised, entries, strict=True)) / sum(raised)
        for j in range(len(entries[0][1]))
    ]


@pytest.mark.parametrize("lengths", [[[3, 0], [1, 7]], [[0, 0], [0, 5]], [[4, 4], [4, 4]]])
def test_one_query_reads_what_its_head_holds_and_what_came_since(lengths: list[list[int]]) -> None:
    rng = np.random.default_rng(0)
    rows, kv_heads, group, width, wide, since = 2, 2, 3, 5, 4, 2
    lengths, total = np.array(lengths), int(np.sum(lengths))
    made = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in {
            "query": (rows, kv_heads * group, width), "keys": (total, width), "values": (total, wide),
            "tail_keys": (rows, kv_heads, since, width), "tail_values": (rows, kv_heads, since, wide),
        }.items()
    }  # fmt: skip
    made["query"] *= 4
    ends, out = lengths.ravel().cumsum(), np.full((rows, kv_heads * group, wide), np.nan, np.float32)
    kernels.decode(made["query"], made["keys"], made["values"], ends, made["tail_keys"], made["tail_values"], 0.7, out)
    for b in range(rows):
        for h in range(kv_heads * group):
            k = h // group
            end = ends[b * kv_heads + k]
            held = range(end - lengths[b, k], end)
            entries = [(made["keys"][i].tolist(), made["values"][i].tolist()) for i in held]
            entries += list(zip(made["tail_keys"][b, k].tolist(), made["tail_values"][b, k].tolist(), strict=True))
            np.testing.assert_allclose(out[b, h], by_hand(made["query"][b, h].tolist(), entries, 0.7), atol=2e-5)


def model(dtype=torch.float32):
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, pad_token_id=0,
    )  # fmt: skip
    made = transformers.LlamaForCausalLM(config).eval()
    for name, weight in made.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 6
    return made.to(dtype)


def steps(made, method: str, ids) -> list[torch.Tensor]:
    """Logits of tokens that are decoded after a prompt, one at a time."""
    cache = BudgetedCache(made, "25%", method)
    with torch.no_grad():
        made(input_ids=ids[:, :40], past_key_values=cache)
        return [made(input_ids=ids[:, i : i + 1], past_key_values=cache).logits[:, -1] for i in range(40, 46)]


@pytest.mark.parametrize("method", ["snapkv:window=4", "knorm:split=ada-kv", "snapkv:window=4,split=layers,every=2"])
def test_with_and_without_numba_the_logits_are_the_same(method: str, monkeypatch) -> None:
    made, ids = model(), torch.randint(3, 97, (2, 46), generator=torch.Generator().manual_seed(1))
    calls, compiled = [], kernels.decode
    monkeypatch.setattr(kernels, "decode", lambda *given: (calls.append(1), compiled(*given)))
    found = steps(made, method, ids)
    assert len(calls) == 6 * 3  # each token in each layer
    monkeypatch.setattr(attend, "kernels", None)
    wanted = steps(made, method, ids)
    assert len(calls) == 6 * 3
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [4, 3])
@pytest.mark.parametrize("method", ["knorm", "knorm:split=ada-kv", "snapkv:window=4,every=2"])
def test_packed_entries_are_read_where_they_lie(method: str, bits: int, group: int, monkeypatch) -> None:
    """Groups of 3 keys, the last one shorter, and of 1 channel of values, which for 2 and 4 bits ends within a byte."""
    made, ids = model(), torch.randint(3, 97, (2, 46), generator=torch.Generator().manual_seed(1))
    calls, compiled = [], kernels.decode_packed
    monkeypatch.setattr(kernels, "decode_packed", lambda *given: (calls.append(1), compiled(*given)))
    spec = f'{method}{"," if ":" in method else ":"}rest="quantise:bits={bits},full=0.3,group={group}"'
    found = steps(made, spec, ids)
    assert len(calls) == (6 * 3 if group == 4 or bits == 8 else 0)
    monkeypatch.setattr(attend, "kernels", None)
    for a, b in zip(found, steps(made, spec, ids), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_half_precision_takes_torch_s_way(monkeypatch) -> None:
    monkeypatch.setattr(kernels, "decode", None)
    ids = torch.randint(3, 97, (1, 46), generator=torch.Generator().manual_seed(1))
    found = steps(model(torch.bfloat16), "knorm:split=ada-kv", ids)
    assert all(torch.isfinite(logits).all() for logits in found)


def test_one_thread_of_torch_stays_one() -> None:
    """Kernels take as many threads as torch has; starting them set torch's number to that of the cores."""
    script = """
import numba, torch
from budgeteer.cache import kernels
torch.set_num_threads(1)
kernels.follow_torch()
q, kv = torch.ones(1, 2, 4), torch.ones(6, 4)
tail, ends, out = torch.ones(1, 2, 1, 4), torch.tensor([3, 6]), torch.empty(1, 2, 4)
kernels.decode(*(x.numpy() for x in (q, kv, kv, ends, tail, tail)), 1.0, out.numpy())
assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
torch.set_num_threads(2)
kernels.follow_torch()
assert (torch.get_num_threads(), numba.get_num_threads()) == (2, 2)
torch.set_num_threads(5)
kernels.follow_torch()
assert (torch.get_num_threads(), numba.get_num_threads()) == (5, 2)
"""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    subprocess.run([sys.executable, "-c", script], check=True, env={**environment, "NUMBA_NUM_THREADS": "2"})
