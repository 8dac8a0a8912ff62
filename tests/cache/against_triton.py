"""Attention over heads of unequal lengths by the kernel for GPUs, against torch; ``make test-triton`` runs it.

TRITON_INTERPRET=1 python tests/cache/against_triton.py   # the same on the CPU, in Triton's interpreter
python tests/cache/against_triton.py --compile            # compile it for GPUs; nothing is run, none is needed
"""

from __future__ import annotations

import sys

import torch
import transformers
from torch import Tensor

from budgeteer.cache import BudgetedCache, attend, gpu
from budgeteer.cache.storage import Ragged, kept

CASES = (
    # rows, key-value heads, query heads of each, widths of keys and values, entries, since, type, error
    (1, 1, 1, 8, 8, 5, 1, torch.float32, 1e-6),
    (2, 3, 3, 24, 20, 300, 7, torch.float32, 1e-6),
    (2, 2, 4, 64, 64, 513, 1, torch.bfloat16, 1e-2),
    (1, 3, 2, 16, 16, 127, 1, torch.float16, 1e-3),
    (1, 2, 2, 16, 16, 128, 128, torch.float32, 1e-6),
)


def read(queries: Tensor, storage: Ragged, seen: int, scaling: float) -> Tensor:
    """What :func:`gpu.decode` is to return, over a rectangle."""
    whole, slots = storage.whole(), storage.slots(seen)
    each = queries.shape[1] // slots.shape[1]
    keys, values = (whole[name].float().repeat_interleave(each, 1) for name in ("keys", "values"))
    logits = torch.einsum("bhd,bhnd->bhn", queries.float(), keys) * scaling
    logits = logits.masked_fill((slots < 0).repeat_interleave(each, 1), float("-inf"))
    return torch.einsum("bhn,bhne->bhe", logits.softmax(-1), values)


def random_heads() -> None:
    """Heads of random lengths, one of them empty but for what came since."""
    rng = torch.Generator().manual_seed(0)
    for rows, kv_heads, group, width, wide, count, since, dtype, error in CASES:
        keep = torch.rand(rows, kv_heads, count, generator=rng) < torch.rand(rows, kv_heads, 1, generator=rng)
        keep[0, 0] = False
        wide_by = {"keys": width, "values": wide}
        old, new = (
            {name: torch.randn(rows, kv_heads, n, w, generator=rng).to(dtype) for name, w in wide_by.items()}
            for n in (count, since)
        )
        storage = kept(old, torch.arange(count).expand(rows, kv_heads, count), keep)
        storage.append(new)
        queries = torch.randn(rows, kv_heads * group, width, generator=rng).to(dtype)
        found, wanted = gpu.decode(queries, storage, 0.3), read(queries, storage, count + since, 0.3)
        apart = float((found.float() - wanted).abs().max())
        print(f"{dtype}, heads of {storage.lengths.tolist()} and {since}: {apart:.1e} apart")
        assert found.dtype == dtype
        assert apart < error


def whole_model() -> None:
    """The logits of a model that decodes through the kernel, and through a rectangle."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        num_hidden_layers=2, vocab_size=99, hidden_size=48, intermediate_size=64, num_attention_heads=6,
        num_key_value_heads=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    text, more = torch.randint(0, 99, (2, 200)), torch.randint(0, 99, (2, 5))
    logits, took = [], list[bool]()
    kernel, decode = attend.gpu, gpu.decode
    for there in (kernel, None):
        attend.gpu, attend.kernels = there, None
        gpu.decode = lambda *given: took.append(True) or decode(*given)
        cache = BudgetedCache(model, "25%", "knorm:split=ada-kv")
        with torch.no_grad():
            model(text, past_key_values=cache)
            steps = [model(more[:, i : i + 1], past_key_values=cache).logits for i in range(5)]
        logits.append(torch.cat(steps, 1))
    apart = float((logits[0] - logits[1]).abs().max())
    print(f"a model's logits: {apart:.1e} apart, {len(took)} calls")
    assert len(took) == 10
    assert apart < 1e-5


def compiled() -> None:
    """The kernel for GPUs of two kinds and both widths of numbers."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for kind in (80, 90):
        for number in ("*fp32", "*bf16"):
            tensors = dict.fromkeys(("query", "keys", "values", "tail_keys", "tail_values"), number)
            signature = {**tensors, "ends": "*i64", "best": "*fp32", "total": "*fp32", "read": "*fp32"}
            signature |= {"scaling": "fp32", "since": "i32"}
            fixed = {"GROUP": 3, "WIDTH": 64, "WIDE": 64, "KEYS": 64, "VALUES": 64, "PART": gpu.HELD // 64}
            types = {name: signature.get(name, "constexpr") for name in gpu._part.arg_names}
            source = ASTSource(gpu._part, types, constexprs=fixed)
            made = triton.compile(source, target=GPUTarget("cuda", kind, 32))
            print(f"sm_{kind}, {number[1:]}: {len(made.asm['ptx'])} characters of PTX")
            assert f"sm_{kind}" in made.asm["ptx"]


if __name__ == "__main__":
    if "--compile" in sys.argv:
        compiled()
    else:
        random_heads()
        whole_model()
