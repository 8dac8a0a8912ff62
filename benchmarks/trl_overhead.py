"""What the trainer for TRL costs beside TRL's own: the same steps by both, in pairs.

    python benchmarks/trl_overhead.py                   # SmolLM2-135M; writes benchmarks/results/trl_overhead.json
    python benchmarks/trl_overhead.py --model FOLDER    # of a causal language model with a chat template
    python benchmarks/trl_overhead.py --quick           # smoke test: writes nothing without --out

With the recipe grpo and no budget both trainers compute the same bits, so a pair differs by what ours does around them.
The trainers of a pair take turns in an order that alternates; each makes ``steps`` steps, of which the first is not
counted. CPU seconds of the process are what is compared, with one thread, so that other jobs matter less;
seconds of the clock are beside them. The interval is that of the mean log ratio over pairs (t).
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from budgeteer.adapters.trl import BudgetedGRPOTrainer
from budgeteer.lab.results import installed, machine, to_json, write_text
from budgeteer.lab.stats import mean_ci
from budgeteer.models.smollm2 import smollm2
from trl_recipes import load

OUT = Path(__file__).parent / "results" / "trl_overhead.json"
PACKAGES = ("torch", "transformers", "trl", "accelerate", "numpy")


class Clock(TrainerCallback):
    """CPU seconds and seconds of the clock at the end of each step."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.marks.append((time.process_time(), time.perf_counter()))


def problems(count: int) -> Dataset:
    """Sums as chats, with their answers."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(2, 60, (count, 2)).tolist()
    asked = [[{"role": "user", "content": f"What is {a} plus {b}?"}] for a, b in pairs]
    return Dataset.from_dict({"prompt": asked, "answer": [str(a + b) for a, b in pairs]})


def right(completions: list[Any], answer: list[str], **columns: Any) -> list[float]:
    """Whether the answer stands in a box."""
    return [float(f"boxed{{{a}}}" in c[0]["content"]) for c, a in zip(completions, answer, strict=True)]


def seconds(kind: Any, model: str, seed: int, steps: int, tokens: int) -> tuple[float, float]:
    """CPU and clock seconds of the steps after the first."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        args = GRPOConfig(
            out, per_device_train_batch_size=8, gradient_accumulation_steps=4, num_generations=4, max_steps=steps,
            max_completion_length=tokens, seed=seed, use_cpu=True, bf16=False, report_to=[], save_strategy="no",
            disable_tqdm=True, learning_rate=1e-5,
        )  # fmt: skip
        weights, tokenizer = load(model)
        weights.is_quantized = False  # those of a GGUF file were, and are no more; TRL would only train an adapter
        trainer = kind(
            weights, reward_funcs=right, args=args, train_dataset=problems(64), processing_class=tokenizer,
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    first, last = clock.marks[0], clock.marks[-1]
    return last[0] - first[0], last[1] - first[1]


def interval(ratios: list[float]) -> dict[str, float]:
    """Mean ratio and its 95 % interval, by logarithms; in percent above 1."""
    found = mean_ci(np.log(ratios))
    return {name: float(np.expm1(getattr(found, name)) * 100) for name in ("mean", "low", "high")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=str(smollm2()), help="folder of the model, or a GGUF file (default SmolLM2-135M)"
    )
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=96, help="of a completion")
    parser.add_argument("--quick", action="store_true", help="two pairs of two short steps")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    pairs, steps, tokens = (2, 2, 16) if args.quick else (args.pairs, args.steps, args.max_tokens)
    rows = []
    for seed in range(pairs):
        took = {}
        for kind in (GRPOTrainer, BudgetedGRPOTrainer)[:: 1 if seed % 2 else -1]:
            took[kind.__name__] = seconds(kind, args.model, seed, steps, tokens)
        rows.append({"seed": seed, **{name: {"cpu": cpu, "clock": clock} for name, (cpu, clock) in took.items()}})
        print(rows[-1], flush=True)

    def ratios(kind: str) -> list[float]:
        return [row["BudgetedGRPOTrainer"][kind] / row["GRPOTrainer"][kind] for row in rows]

    found = {
        "model": Path(args.model).name, "steps": steps - 1, "max_tokens": tokens, "pairs": rows,
        "percent above TRL": {kind: interval(ratios(kind)) for kind in ("cpu", "clock")},
        "machine": machine(), "packages": installed(PACKAGES),
    }  # fmt: skip
    print(found["percent above TRL"])
    if args.out or not args.quick:
        write_text(json.dumps(to_json(found), indent=1) + "\n", args.out or OUT)


if __name__ == "__main__":
    main()
