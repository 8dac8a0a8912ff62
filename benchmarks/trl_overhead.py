"""What the trainer for TRL costs beside TRL's own: the same steps by both, in pairs.

    python benchmarks/trl_overhead.py                   # SmolLM2-135M; writes benchmarks/results/trl_overhead.json
    python benchmarks/trl_overhead.py --model FOLDER    # of a causal language model with a chat template
    python benchmarks/trl_overhead.py --quick           # smoke test: writes nothing without --out

With the recipe grpo and no budget both trainers compute the same bits, so a pair differs by what ours does around them.
A pair is one step of each: both trainers live in one process, take turns step by step and change places in the order
half way, so that what else the machine does falls on both. What is compared is CPU seconds of the trainer's own thread,
with one thread of arithmetic; seconds of the clock are beside them. The first step of each is not counted. The interval
is that of the mean log ratio over pairs (t).
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
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
CLOCKS = "cpu", "clock"
PATIENCE = 3600
"""Seconds that a trainer waits for the other's step."""
PACKAGES = ("torch", "transformers", "trl", "accelerate", "numpy")


class Turns(TrainerCallback):
    """Lets two trainers in two threads take turns, a step each, with random numbers of their own, and times each step.

    A turn reaches from the beginning of a step to the beginning of the next, so that logging is in it.
    """

    def __init__(self, mine: Semaphore, other: Semaphore) -> None:
        self.mine, self.other = mine, other
        self.took: list[tuple[float, float]] = []
        self.begin: tuple[float, float] | None = None
        self.random = torch.get_rng_state()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.done()
        if not self.mine.acquire(timeout=PATIENCE):
            raise TimeoutError("the other trainer has not made its step")
        torch.set_rng_state(self.random)
        self.begin = time.thread_time(), time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.done()

    def done(self) -> None:
        """Note how long the turn took, and hand over."""
        if self.begin is not None:
            self.took.append((time.thread_time() - self.begin[0], time.perf_counter() - self.begin[1]))
            self.random = torch.get_rng_state()
            self.other.release()


def problems(count: int) -> Dataset:
    """Sums as chats, with their answers."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(2, 60, (count, 2)).tolist()
    asked = [[{"role": "user", "content": f"What is {a} plus {b}?"}] for a, b in pairs]
    return Dataset.from_dict({"prompt": asked, "answer": [str(a + b) for a, b in pairs]})


def right(completions: list[Any], answer: list[str], **columns: Any) -> list[float]:
    """Whether the answer stands in a box."""
    return [float(f"boxed{{{a}}}" in c[0]["content"]) for c, a in zip(completions, answer, strict=True)]


def pairs(kinds: Sequence[type[GRPOTrainer]], model: str, seed: int, steps: int, tokens: int) -> list[dict[str, Any]]:
    """Seconds of each step but the first by trainers of two kinds, the first of which begins."""
    batons = Semaphore(1), Semaphore(0)
    turns, trainers = [], []
    with tempfile.TemporaryDirectory() as out, ThreadPoolExecutor(2) as threads:
        for place, kind in enumerate(kinds):
            args = GRPOConfig(
                out, per_device_train_batch_size=8, gradient_accumulation_steps=4, num_generations=4, max_steps=steps,
                max_completion_length=tokens, seed=seed, use_cpu=True, bf16=False, report_to=[], save_strategy="no",
                disable_tqdm=True, learning_rate=1e-5,
            )  # fmt: skip
            weights, tokenizer = load(model)
            trainers.append(
                kind(weights, reward_funcs=right, args=args, train_dataset=problems(64), processing_class=tokenizer)
            )
            turns.append(Turns(batons[place], batons[1 - place]))
            trainers[-1].add_callback(turns[-1])
        for run in [threads.submit(trainer.train) for trainer in trainers]:
            run.result()
    losses = [[row["loss"] for row in trainer.state.log_history if "loss" in row] for trainer in trainers]
    assert losses[0] == losses[1], "the trainers did not do the same work"
    names = [kind.__name__ for kind in kinds]
    return [
        {"seed": seed, **{name: dict(zip(CLOCKS, took, strict=True)) for name, took in zip(names, pair, strict=True)}}
        for pair in list(zip(*(turn.took for turn in turns), strict=True))[1:]
    ]


def interval(ratios: list[float]) -> dict[str, float]:
    """Mean ratio and its 95 % interval, by logarithms; in percent above 1."""
    found = mean_ci(np.log(ratios))
    return {name: float(np.expm1(getattr(found, name)) * 100) for name in ("mean", "low", "high")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=str(smollm2()), help="folder of the model, or a GGUF file (default SmolLM2-135M)"
    )
    parser.add_argument("--pairs", type=int, default=40, help="of steps; half of them in each order")
    parser.add_argument("--max-tokens", type=int, default=16, help="of a completion")
    parser.add_argument("--quick", action="store_true", help="four pairs of short steps")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    if args.quick:
        args.pairs, args.max_tokens = 4, 8
    rows = []
    for seed, order in enumerate(((GRPOTrainer, BudgetedGRPOTrainer), (BudgetedGRPOTrainer, GRPOTrainer))):
        rows += pairs(order, args.model, seed, args.pairs // 2 + 1, args.max_tokens)
        print(*rows[-(args.pairs // 2) :], sep="\n", flush=True)

    def ratios(kind: str) -> list[float]:
        return [row["BudgetedGRPOTrainer"][kind] / row["GRPOTrainer"][kind] for row in rows]

    found = {
        "model": Path(args.model).name, "max_tokens": args.max_tokens, "pairs": rows,
        "percent above TRL": {kind: interval(ratios(kind)) for kind in CLOCKS},
        "machine": machine(), "packages": installed(PACKAGES),
    }  # fmt: skip
    print(found["percent above TRL"])
    if args.out or not args.quick:
        write_text(json.dumps(to_json(found), indent=1) + "\n", args.out or OUT)


if __name__ == "__main__":
    main()
