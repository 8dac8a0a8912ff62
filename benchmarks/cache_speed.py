"""Time and bytes of decoding with a quarter of the cache, beside the full cache and kvpress, in one process.

    make bench-cache                                      # in kvpress's environment, since it pins transformers
    python benchmarks/cache_speed.py --quick --out FILE   # smoke test; without kvpress its rows are left out
    python benchmarks/cache_speed.py --table              # writes the tables of docs/cache.md from the file, no more

A model with random weights and the shape of SmolLM2-135M reads 8,192 random tokens, once a variant; then all variants
decode in turns, so that what else the machine does hits all of them. With fewer ``--layers`` its vocabulary is smaller
in proportion, so that a layer has the same share of the time. ``step`` is the time of tokens over that of the full
cache in the same turns: the middle one of three parts of the turns, and the lowest and highest; methods that choose at
every 16th token do so once in each part. ``prefill`` is the time of reading the prompt over that of the full cache.
Both as CPU time of the process, the steadier one, and as wall time.
``bytes`` are those of the storages that keys and values hold after the prompt, over those of the full cache, and
``cold`` those in cold memory, from which methods that retrieve take what a token reads. kvpress's
AdaKV masks what it does not keep, so that it holds all of it.

``methods`` is the same for every score that needs no training, and for presses of kvpress, on a model of
``--few`` layers; there the prompt is read in ``--rounds`` turns of all variants, and ``prefill`` is the median of the
ratios within a turn.

About half an hour on an idle core. The first table is written when it is there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from budgeteer.cache import BudgetedCache
from budgeteer.cache.storage import held
from budgeteer.core import registry
from budgeteer.lab.results import installed, machine, to_json, write_text
from pages import between

try:
    import kvpress
except ImportError:
    kvpress = None

OUT = Path(__file__).parent / "results" / "cache_speed.json"
PAGE = Path(__file__).parents[1] / "docs" / "cache.md"
SHAPE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
    "num_key_value_heads": 3, "max_position_embeddings": 16384,
}  # fmt: skip
LAYERS, VOCABULARY = 30, 49152
METHODS = ("snapkv", "snapkv:split=ada-kv", "defensive", "knorm")
PRESSES = ("SnapKV", "AdaKV of SnapKV", "Knorm")
"""Those of kvpress that are decoded with in the first table."""
SELDOM = ("recent:every=16", "streaming-llm:every=16", "tova:every=16")
"""Methods that choose at every token otherwise."""
PACKED = ('recent:every=0,rest="quantise:bits=4,full=0"', "recent:every=0,rest=rotate-kv")
FULL = "full cache"
TABLES = ("variants", "methods")


def presses(gone: float) -> dict[str, Any]:
    """Those of kvpress whose method is here, by name, without what needs a model of its own or a second reading."""
    if kvpress is None:
        return {}
    snap = kvpress.SnapKVPress(gone, window_size=32)
    return {
        "SnapKV": snap, "AdaKV of SnapKV": kvpress.AdaKVPress(kvpress.SnapKVPress(gone, window_size=32)),
        "Knorm": kvpress.KnormPress(gone), "PyramidKV": kvpress.PyramidKVPress(gone, window_size=32),
        "Random": kvpress.RandomPress(gone), "StreamingLLM": kvpress.StreamingLLMPress(gone),
        "TOVA": kvpress.TOVAPress(gone), "ExpectedAttention": kvpress.ExpectedAttentionPress(gone),
        "KeyDiff": kvpress.KeyDiffPress(gone), "Compactor": kvpress.CompactorPress(gone),
    }  # fmt: skip


def built(layers: int) -> Any:
    """A random model whose attention is not nearly uniform."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **SHAPE, num_hidden_layers=layers, vocab_size=VOCABULARY * layers // LAYERS
    )  # fmt: skip
    made = transformers.LlamaForCausalLM(config).eval()
    for name, weight in made.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.data *= 5
    return made


def variants(
    model: Any, keep: float, methods: Sequence[str], theirs: Sequence[str]
) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Name -> (a new cache, the context in which the prompt is read); ``theirs`` are presses of kvpress."""

    def plain() -> Any:
        return transformers.DynamicCache(config=model.config)

    found: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {FULL: (plain, nullcontext)}
    for method in methods:
        found[method] = (lambda method=method: BudgetedCache(model, f"{keep:.2%}", method), nullcontext)
    for name, press in presses(1 - keep).items():
        if name in theirs:
            found[f"kvpress {name}"] = (plain, lambda press=press: press(model))
    return found


def bytes_of(cache: Any) -> int:
    """Bytes that are held by a cache."""
    if isinstance(cache, BudgetedCache):
        return cache.account().bytes
    return held([tensor for layer in cache.layers for tensor in (layer.keys, layer.values)])


def cold_of(cache: Any) -> int:
    """Bytes in cold memory, which methods that retrieve choose from."""
    return cache.account().cold_bytes if isinstance(cache, BudgetedCache) else 0


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """CPU and wall seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.process_time() - cpu, time.perf_counter() - wall


def measure(
    model: Any, tokens: int, steps: int, keep: float, methods: Sequence[str], theirs: Sequence[str], rounds: int = 1
) -> list[dict[str, Any]]:
    """One row a variant."""
    vocabulary = model.config.vocab_size
    ids = torch.randint(3, vocabulary, (1, tokens), generator=torch.Generator().manual_seed(1))
    given = variants(model, keep, methods, theirs)
    caches, modules, size, cold = {}, {}, {}, {}
    prefill: dict[str, list[tuple[float, float]]] = {name: [] for name in given}
    attentions = [layer.self_attn for layer in model.model.layers]
    with torch.no_grad():
        model(ids[:, :64])  # the first call of a process takes longer
    for turn in range(rounds):
        for name in list(given)[:: -1 if turn % 2 else 1]:
            make, context = given[name]
            caches[name] = make()
            with torch.no_grad(), context():
                prefill[name].append(
                    timed(lambda name=name: model(ids, past_key_values=caches[name], logits_to_keep=1))
                )
            size[name], cold[name] = bytes_of(caches[name]), cold_of(caches[name])
            modules[name] = [getattr(each, "masked_key_indices", None) for each in attentions]
            for each in attentions:
                each.masked_key_indices = None
            sys.stderr.write(f"{name}: read in {prefill[name][-1][1]:.1f} s\n")
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in given}
    for step in range(-1, steps):
        for name in list(given) if step % 2 else list(given)[::-1]:
            for each, masked in zip(attentions, modules[name], strict=True):
                each.masked_key_indices = masked  # kvpress keeps it in the module
            where = torch.tensor([[tokens + step + 1]])
            with torch.no_grad():
                seconds = timed(
                    lambda name=name, where=where: model(ids[:, :1], past_key_values=caches[name], position_ids=where)
                )
            if step >= 0:
                took[name].append(seconds)
    rows = []
    for name in given:
        row: dict[str, Any] = {"variant": name, "bytes": size[name] / size[FULL], "cold": cold[name] / size[FULL]}
        for place, clock in enumerate(("cpu", "wall")):
            mine, full = (np.array([each[place] for each in took[which]]) for which in (name, FULL))
            parts = [float(mine[part].sum() / full[part].sum()) for part in np.array_split(np.arange(len(mine)), 3)]
            reading = [mine[place] / full[place] for mine, full in zip(prefill[name], prefill[FULL], strict=True)]
            row[clock] = {
                "step": float(np.median(parts)), "low": min(parts), "high": max(parts),
                "step_ms": float(np.median(mine) * 1e3), "prefill": float(np.median(reading)),
                "prefill_low": min(reading), "prefill_high": max(reading),
            }  # fmt: skip
        rows.append(row)
    return rows


def printed(rows: Sequence[dict[str, Any]]) -> str:
    """A table of the rows."""
    width = max(len(row["variant"]) for row in rows)
    lines = [f"{'variant':{width}}  step (CPU)           wall   ms CPU  prefill             bytes"]
    for row in rows:
        cpu, wall = row["cpu"], row["wall"]
        lines.append(
            f"{row['variant']:{width}} {cpu['step']:5.2f} [{cpu['low']:.2f}, {cpu['high']:.2f}]  {wall['step']:8.2f}  "
            f"{cpu['step_ms']:7.1f}  {cpu['prefill']:5.2f} [{cpu['prefill_low']:.2f}, {cpu['prefill_high']:.2f}]  "
            f"{row['bytes']:6.1%}"
        )
    return "\n".join(lines) + "\n"


def shown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of the page as Markdown, the full cache left out, which is 1 everywhere."""
    heads = ["variant", "a token", "lowest, highest part", "wall", "prompt", "bytes held"]
    lines = []
    for row in rows:
        if row["variant"] == FULL:
            continue
        name, cpu, theirs = row["variant"], row["cpu"], row["variant"].startswith("kvpress")
        cells = [name if theirs else f"`{name}`", f"{cpu['step']:.2f}", f"{cpu['low']:.2f}, {cpu['high']:.2f}"]
        cells += [f"{row['wall']['step']:.2f}", f"{cpu['prefill']:.2f}", f"{100 * row['bytes']:.1f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n\n" + "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines]) + "\n\n"


def write_tables(results: Mapping[str, Any]) -> None:
    """Both tables of the page."""
    page = PAGE.read_text(encoding="utf-8")
    for table in TABLES:
        begin, end = f"<!-- written by benchmarks/cache_speed.py --table: {table} -->", f"<!-- end of {table} -->"
        page = between(page, shown(results[table]), begin, end)
    write_text(page, PAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192, help="of the prompt (default %(default)s)")
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the model (default %(default)s)")
    parser.add_argument("--steps", type=int, default=48, help="tokens that are decoded (default %(default)s)")
    parser.add_argument("--keep", type=float, default=0.25, help="share of the cache (default %(default)s)")
    parser.add_argument("--few", type=int, default=3, help="layers of the model for all methods (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="readings of its prompt (default %(default)s)")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, help="others of the file are kept")
    parser.add_argument("--table", action="store_true", help="write the tables of the page, no more")
    parser.add_argument("--quick", action="store_true", help="smoke test; the numbers mean nothing")
    parser.add_argument("--out", type=Path, help=f"results file (default: {OUT.name} beside this file; none if quick)")
    args = parser.parse_args(argv)
    if args.table:
        write_tables(json.loads((args.out or OUT).read_text(encoding="utf-8")))
        return 0
    if args.quick:
        args.tokens, args.layers, args.steps, args.few, args.rounds = 256, 2, 3, 2, 1
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    before = machine()
    out = args.out or (None if args.quick else OUT)
    asked = ("tokens", "layers", "steps", "keep", "few", "rounds")
    kept = json.loads(out.read_text(encoding="utf-8")) if out is not None and out.exists() else {}
    results = {
        **{table: kept[table] for table in TABLES if table in kept and table not in args.tables},
        "quick": args.quick,
        "machine": before,
        "versions": installed(("torch", "transformers", "numba", "kvpress")),
        "settings": {name: getattr(args, name) for name in asked} | {"threads": 1},
    }
    every = [name for name, method in registry.of("score").items() if not method.arguments]
    every += ["snapkv:split=ada-kv", "snapkv:split=pyramid", "defensive:split=layers", *SELDOM, *PACKED]
    tables = {
        "variants": (args.layers, METHODS, PRESSES, 1),
        "methods": (args.few, every, list(presses(0.5)), args.rounds),
    }
    for table in args.tables:
        layers, methods, theirs, rounds = tables[table]
        results[table] = measure(built(layers), args.tokens, args.steps, args.keep, methods, theirs, rounds)
        sys.stdout.write(printed(results[table]) + "\n")
        if out is not None:
            write_text(json.dumps(to_json(results), indent=1) + "\n", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
