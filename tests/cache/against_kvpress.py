"""What is kept, against kvpress, in an environment of its own that has it: ``python tests/cache/against_kvpress.py``.

kvpress needs transformers below 5.3, so that this is no test of the suite: ``make test-kvpress`` makes the environment.
Random models of three architectures read a random prompt; each press and the method here have to keep the same entries
of every layer and head. The sizes are those at which both round to the same number of entries.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import transformers
from kvpress import (
    AdaKVPress,
    CompactorPress,
    ExpectedAttentionPress,
    KeyDiffPress,
    KnormPress,
    KVzapPress,
    KVzipPress,
    MergingPress,
    ObservedAttentionPress,
    PyramidKVPress,
    SnapKVPress,
    StreamingLLMPress,
    TOVAPress,
)
from kvpress.presses.kvzap_press import KVzapConfig, KVzapModel

from budgeteer.cache import BudgetedCache
from budgeteer.cache.gates import fingerprint, save_gates, untrained

TOKENS = 200
SIZES = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip
PRESSES: dict[str, tuple[Any, str]] = {
    "knorm": (KnormPress, "sdpa"),
    "keydiff": (KeyDiffPress, "sdpa"),
    "streaming-llm": (StreamingLLMPress, "sdpa"),
    "tova": (TOVAPress, "sdpa"),
    "snapkv:window=16": (lambda ratio: SnapKVPress(ratio, window_size=16), "sdpa"),
    "snapkv:window=8,kernel=7": (lambda ratio: SnapKVPress(ratio, window_size=8, kernel_size=7), "sdpa"),
    "snapkv:window=8,split=pyramid": (lambda ratio: PyramidKVPress(ratio, window_size=8), "sdpa"),
    "snapkv:window=8,split=pyramid:beta=3": (lambda ratio: PyramidKVPress(ratio, window_size=8, beta=3), "sdpa"),
    "expected-attention": (ExpectedAttentionPress, "sdpa"),
    "expected-attention:sinks=2,future=64": (
        lambda ratio: ExpectedAttentionPress(ratio, n_sink=2, n_future_positions=64), "sdpa",
    ),
    # all of 192 entries in whole chunks, since kvpress lets queries read the padding of the last one
    "compactor:recent=0,chunk=64": (
        lambda ratio: CompactorPress(ratio, sink_size_end=0, chunk_size=64, sketch_dimension=16, blending=0.5), "sdpa",
    ),
    "compactor:sinks=0,recent=0,chunk=50,blend=0.2": (
        lambda ratio: CompactorPress(
            ratio, sink_size_start=0, sink_size_end=0, chunk_size=50, sketch_dimension=16, blending=0.2
        ),
        "sdpa",
    ),
    # heads of all layers compete there, too; ``layerwise``: those of a layer
    "kvzip": (KVzipPress, "sdpa"),
    "kvzip:sinks=2,split=ada-kv:safe=0": (lambda ratio: KVzipPress(ratio, n_sink=2, layerwise=True), "sdpa"),
    "knorm:split=ada-kv": (lambda ratio: AdaKVPress(KnormPress(ratio)), "sdpa"),
    "snapkv:window=16,split=ada-kv": (lambda ratio: AdaKVPress(SnapKVPress(ratio, window_size=16)), "sdpa"),
    "snapkv:window=16,split=ada-kv:safe=0.5": (
        lambda ratio: AdaKVPress(SnapKVPress(ratio, window_size=16), alpha_safeguard=0.5), "sdpa",
    ),
}  # fmt: skip
"""Method here -> the press, and the attention that it wants."""
WORDS = "kvpress.presses.kvzip_press.AutoTokenizer"


def models() -> Iterator[Any]:
    for kind in ("Llama", "Qwen3", "Phi3"):
        extra = {"head_dim": 16} if kind == "Qwen3" else {}
        torch.manual_seed(5)
        configuration = getattr(transformers, f"{kind}Config")(**SIZES, **extra)
        model = getattr(transformers, f"{kind}ForCausalLM")(configuration).eval()
        for name, weight in model.named_parameters():  # attention that is not nearly uniform
            if "q_proj" in name or "k_proj" in name or "qkv_proj" in name:
                weight.data *= 5
            if "k_norm" in name:  # with weights of 1 all keys have one norm
                weight.data += torch.randn_like(weight) / 4
        yield model


def of_kvpress(model: Any, press: Any, ids: torch.Tensor) -> list[list[list[int]]]:
    """For each layer and head the entries that a press keeps."""
    full, cut = transformers.DynamicCache(), transformers.DynamicCache()
    silent = SimpleNamespace(from_pretrained=wordless)
    with torch.no_grad():
        model(ids, past_key_values=full)
        with mock.patch("torch.randn", unsketched), mock.patch(WORDS, silent), press(model):
            model(ids, past_key_values=cut)
    found = []
    modules = [layer.self_attn for layer in model.model.layers]
    for whole, kept, module in zip(full.layers, cut.layers, modules, strict=True):
        masked = getattr(module, "masked_key_indices", None)
        heads = []
        for head in range(whole.keys.shape[1]):
            if masked is None:
                same = (kept.keys[0, head][:, None] == whole.keys[0, head][None]).all(-1)
                heads.append(sorted(same.nonzero()[:, 1].tolist()))
            else:
                gone = {int(i) for h, i in zip(*masked[1:], strict=True) if int(h) == head}
                heads.append([i for i in range(TOKENS) if i not in gone])
        module.masked_key_indices = None
        found.append(heads)
    return found


def wordless(name: str) -> Any:
    """In the place of a tokenizer: kvpress's kvzip says no word between the prompt and its repetition, as we do not."""
    return SimpleNamespace(chat_template=None, encode=lambda text, **kwargs: torch.zeros(1, 0, dtype=torch.long))


def of_gates(model: Any, folder: Path) -> tuple[Callable[[float], Any], str]:
    """A press of kvzap with random gates, and the method here with the same: every head keeps equally many."""
    shape = model.config.num_hidden_layers, model.config.hidden_size, model.config.num_key_value_heads
    gates = untrained("kvzap", shape, 12, 0.0, fingerprint(model), 7)
    gates.weights["b1"] += torch.randn(gates.weights["b1"].shape, generator=torch.Generator().manual_seed(8))
    save_gates(gates, folder / "kvzap.safetensors")
    theirs = KVzapModel(KVzapConfig(input_dim=shape[1], hidden_dim=12, output_dim=shape[2], n_modules=shape[0]))
    for index, (first, _, second) in enumerate(theirs.layers):
        for linear, layer in ((first, "1"), (second, "2")):
            linear.weight.data = gates.weights[f"w{layer}"][index].T.clone()
            linear.bias.data = gates.weights[f"b{layer}"][index].clone()

    def press(ratio: float) -> Any:
        made = KVzapPress(ratio)
        made.kvzap_model = theirs
        made.post_init_from_model = lambda model: None  # it would download gates by the model's name
        return made

    return press, f"kvzap:gates={folder / 'kvzap.safetensors'},sinks=0,split=uniform"


def unsketched(*shape: int, **kwargs: Any) -> torch.Tensor:
    """In the place of the random sketch of kvpress's leverage, which has as many columns as a key has numbers."""
    return torch.eye(shape[-1], **kwargs).expand(shape) * shape[-1] ** 0.5


def of_budgeteer(model: Any, method: str, ids: torch.Tensor, budget: str) -> list[list[list[int]]]:
    cache = BudgetedCache(model, budget, method)
    with torch.no_grad():
        model(ids, past_key_values=cache)
    slots = [layer.storage.slots(layer.seen)[0] for layer in cache.layers if layer.storage is not None]
    return [[head[head >= 0].tolist() for head in layer] for layer in slots]


def of_observed_attention(model: Any, ids: torch.Tensor) -> float:
    """How far the sums of h2o, each over its number of observers, are from kvpress's observed attention."""
    model.set_attn_implementation("eager")
    cache, worst = BudgetedCache(model, "100%", "h2o"), 0.0
    with torch.no_grad():
        model(ids, past_key_values=cache)
        attentions = model(ids, output_attentions=True, past_key_values=transformers.DynamicCache()).attentions
        for layer, read in zip(cache.layers, attentions, strict=True):
            keys = layer.storage.whole()["keys"] if layer.storage is not None else None
            wanted = ObservedAttentionPress(0.5).score(None, None, keys, None, read, None)
            found = layer.memory()[..., 0] / torch.arange(TOKENS, 0, -1)
            worst = max(worst, float((found - wanted).abs().max()))
    model.set_attn_implementation("sdpa")
    return worst


def of_merging(model: Any, ids: torch.Tensor, threshold: float) -> float:
    """How far the values of ``knorm:rest=merge`` are from those of kvpress's merging press."""
    full, cut = transformers.DynamicCache(), transformers.DynamicCache()
    cache, worst = BudgetedCache(model, "50%", f"knorm:rest=merge:threshold={threshold}"), 0.0
    with torch.no_grad():
        model(ids, past_key_values=full)
        with MergingPress(KnormPress(0.5), similarity_threshold=threshold)(model):
            model(ids, past_key_values=cut)
        model(ids, past_key_values=cache)
    for whole, theirs, layer in zip(full.layers, cut.layers, cache.layers, strict=True):
        assert layer.storage is not None
        slots, values = layer.storage.slots(layer.seen)[0], layer.storage.whole()["values"][0]
        for head in range(values.shape[0]):
            same = (theirs.keys[0, head][:, None] == whole.keys[0, head][None]).all(-1)
            order = same.nonzero()[:, 1].argsort()
            assert same.nonzero()[order, 1].tolist() == slots[head].tolist()
            worst = max(worst, float((theirs.values[0, head][order] - values[head]).abs().max()))
    return worst


def compare(model: Any, method: str, press: Callable[[float], Any], ids: torch.Tensor, name: str = "") -> int:
    """At how many of two budgets a method and a press keep other entries."""
    failed = 0
    for ratio, budget in ((0.5, "50%"), (0.75, "25%")):
        theirs = of_kvpress(model, press(ratio), ids)
        ours = of_budgeteer(model, method, ids, budget)
        pairs = [(set(a), set(b)) for x, y in zip(theirs, ours, strict=True) for a, b in zip(x, y, strict=True)]
        other, entries = sum(len(a ^ b) for a, b in pairs), sum(len(a) for a, _ in pairs)
        failed += other > 0
        said = f"{type(model).__name__:18} {name or method:40} {budget:4}"
        sys.stdout.write(f"{said} {entries:5} entries, {other} of one side only\n")
    return failed


def main() -> int:
    failed = 0
    # no token twice: in the first layer its keys would have one norm, and knorm's ties are anybody's
    ids = 3 + torch.randperm(509, generator=torch.Generator().manual_seed(1))[None, :TOKENS]
    for model in models():
        kind = type(model).__name__
        for method, (press, attention) in PRESSES.items():
            model.set_attn_implementation(attention)
            failed += compare(model, method, press, ids)
        with TemporaryDirectory() as folder:
            press, method = of_gates(model, Path(folder))
            failed += compare(model, method, press, ids, "kvzap with the same gates")
        for threshold in (0.0, 0.5):
            distance = of_merging(model, ids, threshold)
            failed += distance > 1e-4
            sys.stdout.write(f"{kind:18} knorm:rest=merge:threshold={threshold}: {distance:.1e} apart at most\n")
        distance = of_observed_attention(model, ids)
        failed += distance > 1e-4
        sys.stdout.write(f"{kind:18} h2o / observers against ObservedAttentionPress: {distance:.1e} apart at most\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
