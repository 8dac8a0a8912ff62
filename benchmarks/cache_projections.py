"""MatryoshkaKV on the embedded thinking model: trained projections and searched ranks against principal components.

    python benchmarks/cache_projections.py           # writes benchmarks/results/cache_projections.json
    python benchmarks/cache_projections.py --quick   # smoke test; writes nothing without --out

For each seed other conversations of the model's training stream, a fifth of them held out, other draws, and other
texts that the ranks are searched on. ``lost`` is KL(model || model with projected entries) on the held-out texts,
nats a token, of four variants: principal components or trained bases, with even or searched ranks. Differences are
paired by seed, with 95 % t intervals. A seed that the file has is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from budgeteer.cache.projections import save_projections
from budgeteer.core.files import write_text
from budgeteer.lab.cache_eval import opened
from budgeteer.lab.cache_projections import Fitting, train_projections
from budgeteer.lab.cache_ranks import lost, search
from budgeteer.lab.stats import mean_ci, paired
from budgeteer.lab.thinker.conversations import conversations
from budgeteer.lab.thinker.tokens import render

OUT = Path(__file__).parent / "results" / "cache_projections.json"
SHARES = (0.75, 0.625, 0.5, 0.375)
LENGTH = 128
VARIANTS = ("components", "components, searched", "trained", "trained, searched")


def measured(seed: int, texts: int, fitting: Fitting, save: Path | None) -> dict[str, list[float]]:
    """Losses of each variant at each share."""
    model, encode = opened("thinker")
    model.float()  # half precision is slow on a CPU
    stream = "".join(render(each) for each in conversations(1_000 + seed, 0, 4 * texts))
    ids = encode(stream, True)[: texts * LENGTH]
    rows = torch.tensor(ids).reshape(texts, LENGTH)
    done = train_projections(model, rows, fitting)
    if save is not None:
        save_projections(done.projections, save)
    held = rows[torch.arange(texts) % 5 == 4]
    train = rows[torch.arange(texts) % 5 != 4]
    cuts = search(model, done.components, train[: fitting.calibration], fitting.together)
    found = (
        done.components,
        replace(done.components, cuts=cuts),
        replace(done.projections, cuts=done.components.cuts),
        done.projections,
    )
    return {
        name: [lost(model, each, held, share) for share in SHARES] for name, each in zip(VARIANTS, found, strict=True)
    }


def table(seeds: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Means, and what training and searching gain, with intervals."""
    rows: dict[str, Any] = {}
    for place, share in enumerate(SHARES):
        of = {name: [seeds[seed][name][place] for seed in sorted(seeds)] for name in VARIANTS}
        rows[str(share)] = {
            "lost": {name: asdict(mean_ci(values)) for name, values in of.items()},
            "training gains, even ranks": asdict(paired(of["components"], of["trained"])),
            "training gains, searched ranks": asdict(paired(of["components, searched"], of["trained, searched"])),
            "searching gains, trained": asdict(paired(of["trained"], of["trained, searched"])),
        }
    return rows


def main() -> int:
    """Measure seeds that are missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=40)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--quick", action="store_true", help="two seeds of few texts and steps")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--save", type=Path, help="of the first seed's projections")
    args = parser.parse_args()
    count, texts, steps = (2, 10, 2) if args.quick else (args.seeds, args.texts, args.steps)
    out = args.out or (None if args.quick else OUT)
    together = 0.5
    settings = {"texts": texts, "steps": steps, "rate": args.rate, "length": LENGTH, "together": together}
    before = json.loads(out.read_text()) if out is not None and out.exists() else {}
    seeds = before["seeds"] if before.get("settings") == settings else {}
    for seed in range(count):
        if str(seed) not in seeds:
            fitting = Fitting(steps=steps, rate=args.rate, batch=2, calibration=2, together=together, seed=seed)
            seeds[str(seed)] = measured(seed, texts, fitting, args.save if seed == 0 else None)
            sys.stderr.write(f"seed {seed}: {seeds[str(seed)]}\n")
        if out is not None and len(seeds) > 1:
            made = {"settings": settings, "shares": SHARES, "seeds": seeds, "rows": table(seeds)}
            write_text(json.dumps(made, indent=1) + "\n", out)
    if out is None:
        sys.stdout.write(json.dumps(table(seeds), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
