"""Tokens a second of our sampler against transformers' generate: same weights, same prompts, same machine.

    python benchmarks/sampler.py            # writes benchmarks/results/sampler.json
    python benchmarks/sampler.py --quick    # smoke test: small, few repetitions, writes nothing without --out

All variants run in one process and take turns, in an order that reverses every repetition. Only sampled tokens up to
and including the end-of-sequence token count. With trl installed, one GRPO step (generate, verify, update) is timed
against ours, too. Use an idle machine: other jobs change ratios, not only levels.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from budgeteer.core.environment import Item
from budgeteer.engine.llama import Llama
from budgeteer.lab import pool
from budgeteer.lab.heldout import rewards
from budgeteer.lab.results import installed, machine, to_json, write_text
from budgeteer.models.policy import REASONER, LlamaPolicy, load_policy
from budgeteer.rl import recipes
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.sampler import sample
from budgeteer.rl.trainer import Trainer

OUT = Path(__file__).parent / "results" / "sampler.json"
PACKAGES = ("torch", "transformers", "trl", "numba", "numpy")


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of a measurement.

    Attributes:
        batches: (prompts, rollouts of each).
        threads: of all numeric libraries.
        max_tokens: cap of a rollout.
        warmup, repetitions: rounds of each variant, without and with the clock.
        steps: timed GRPO steps of each trainer.
        train_batch: (prompts, rollouts of each) of a GRPO step.
    """

    batches: tuple[tuple[int, int], ...] = ((8, 8), (32, 8))
    threads: tuple[int, ...] = (1, 2)
    max_tokens: int = 96
    warmup: int = 2
    repetitions: int = 7
    steps: int = 5
    train_batch: tuple[int, int] = (32, 8)


QUICK = Settings(((2, 4),), (1,), 16, 1, 2, 1, (2, 4))


def set_threads(n: int) -> None:
    """Threads of torch and of the compiled kernels."""
    torch.set_num_threads(n)
    try:
        import numba

        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
    except ImportError:
        pass


def peak_flops(size: int = 2048, repetitions: int = 5) -> float:
    """Floating-point operations a second of the best float32 matrix product of ``size`` cubed."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    times = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def flops_per_token(model: Llama, context: float) -> float:
    """Of decoding one token with ``context`` tokens before it: the matrices once, and attention over the context."""
    c = model.config
    matrices = sum(w.numel() for w in model.parameters() if w.ndim == 2)  # the tied embedding serves as the head
    attention = 4 * c.num_hidden_layers * c.num_attention_heads * c.head_dim * context
    return 2 * matrices + attention


def left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, attention mask) as transformers wants prompts of unequal length."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt)
        mask[i, width - len(prompt) :] = 1
    return ids, mask


def variants(
    policy: LlamaPolicy, items: Sequence[Item], group: int, max_tokens: int
) -> dict[str, Callable[[int], np.ndarray[Any, Any]]]:
    """Name -> function of a seed that samples the batch and gives the [n] lengths of its rollouts."""
    from transformers import AutoModelForCausalLM

    prompts = policy.encode([item.prompt for item in items])
    keys, units = [item.key for item in items], np.full(len(items), group)
    hf_model = AutoModelForCausalLM.from_pretrained(REASONER, dtype=torch.float32).eval()
    pad, eos = policy.model.config.pad_token_id, policy.markers.eos
    ids, mask = left_padded(prompts, pad)

    def ours(compiled: bool) -> Callable[[int], np.ndarray[Any, Any]]:
        def run(seed: int) -> np.ndarray[Any, Any]:
            rollouts, _ = sample(
                policy.model, keys, prompts, units, max_tokens=max_tokens, markers=policy.markers, seed=seed,
                slots=256, compiled=compiled,
            )  # fmt: skip
            return rollouts.length

        return run

    def generate(seed: int) -> np.ndarray[Any, Any]:
        torch.manual_seed(seed)
        with torch.inference_mode():
            out = hf_model.generate(
                ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=max_tokens, num_return_sequences=group, eos_token_id=eos, pad_token_id=pad,
            )  # fmt: skip
        new = (out[:, ids.shape[1] :] == eos).numpy()
        return np.where(new.any(1), new.argmax(1) + 1, new.shape[1])

    return {"budgeteer": ours(True), "budgeteer, torch only": ours(False), "transformers generate": generate}


def take_turns(
    runs: dict[str, Callable[[int], Any]], warmup: int, repetitions: int
) -> dict[str, list[tuple[float, Any]]]:
    """(seconds, result) of every repetition of every variant."""
    timed: dict[str, list[tuple[float, Any]]] = {name: [] for name in runs}
    for repetition in range(-warmup, repetitions):
        names = list(runs) if repetition % 2 else list(runs)[::-1]
        for name in names:
            start = time.perf_counter()
            result = runs[name](1000 + repetition)
            seconds = time.perf_counter() - start
            if repetition >= 0:
                timed[name].append((seconds, result))
    return timed


def generation(settings: Settings) -> list[dict[str, Any]]:
    """One entry a (batch, threads, variant)."""
    policy = load_policy()
    problems = pool.build("real", 0, 512, 64).train
    rows = []
    for threads in settings.threads:
        set_threads(threads)
        peak = peak_flops()
        for count, group in settings.batches:
            items = problems[:count]
            prompt_mean = float(np.mean([len(p) for p in policy.encode([item.prompt for item in items])]))
            runs = variants(policy, items, group, settings.max_tokens)
            timed = take_turns(runs, settings.warmup, settings.repetitions)
            speed = {n: np.array([lengths.sum() / seconds for seconds, lengths in t]) for n, t in timed.items()}
            for name, results in timed.items():
                mean_length = float(np.mean([lengths.mean() for _, lengths in results]))
                # a row of n tokens computes n - 1 decoding steps over prompt + 1 .. prompt + n - 1 tokens
                flops = flops_per_token(policy.model, prompt_mean + mean_length / 2)
                ratio = speed["budgeteer"] / speed[name]
                median = float(np.median(speed[name]))
                rows.append({
                    "batch": count * group,
                    "prompts": count,
                    "threads": threads,
                    "variant": name,
                    "tokens_per_second": median,
                    "tokens_per_second_all": speed[name].tolist(),
                    "seconds": float(np.median([seconds for seconds, _ in results])),
                    "mean_length": mean_length,
                    "budgeteer_is_times_faster": {
                        "median": float(np.median(ratio)), "low": float(ratio.min()), "high": float(ratio.max()),
                    },
                    "peak_gflops": peak / 1e9,
                    "share_of_peak": median * flops / peak,
                })  # fmt: skip
    return rows


def our_steps(settings: Settings, policy: LlamaPolicy, problems: pool.Pool, seed: int) -> Trainer:
    """A trainer of plain GRPO with a fixed group and one update a step."""
    count, group = settings.train_batch
    config = TrainConfig(
        steps=10**6, prompts=count, group=group, max_tokens=settings.max_tokens, lr=3e-4, minibatches=1, warmup=1,
        eval_every=0, seed=seed, device="cpu",
    )  # fmt: skip
    items = problems.train[:count]

    def verify(index: Any, rows: list[list[int]]) -> Any:
        return rewards(policy, problems.environment, [items[i] for i in index], rows)

    recipe = replace(recipes.get("grpo"), allocator=recipes.fixed_group(group))
    prompts = policy.encode([item.prompt for item in items])
    return Trainer(recipe, config, policy.model, prompts, [item.key for item in items], verify, policy.markers)


def trl_steps(settings: Settings, problems: pool.Pool, folder: Path) -> list[tuple[float, float]]:
    """(seconds, mean length) of trl's steps, the first one (warm-up) left out."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    count, group = settings.train_batch
    items = list(problems.train[:count])
    policy = load_policy()
    lengths: list[float] = []
    marks: list[float] = []

    def reward(prompts: Any, completions: Any, completion_ids: Any, index: Any, **_: Any) -> list[float]:
        lengths.append(float(np.mean([len(row) for row in completion_ids])))
        return rewards(policy, problems.environment, [items[i] for i in index], completion_ids).tolist()

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            marks.append(time.perf_counter())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            marks[-1] = time.perf_counter() - marks[-1]

    arguments = GRPOConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, per_device_train_batch_size=count * group,
        gradient_accumulation_steps=1, num_generations=group, num_iterations=1, beta=0.0, loss_type="dapo",
        epsilon=0.2, epsilon_high=0.28, learning_rate=3e-4, temperature=1.0, top_p=1.0, top_k=0,
        max_completion_length=settings.max_tokens, max_steps=settings.steps + 1, gradient_checkpointing=False,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=0,
        dataloader_pin_memory=False, max_grad_norm=1.0,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(REASONER, dtype=torch.float32),
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list(
            [{"prompt": "<bos>" + item.prompt, "index": i} for i, item in enumerate(items)]
        ),
        processing_class=AutoTokenizer.from_pretrained(REASONER),
        callbacks=[Clock()],
    )
    trainer.train()
    return list(zip(marks, lengths, strict=True))[1:]


COMPARABLE = (
    "Same machine, threads, weights, prompts, verifier, 8 rollouts a prompt, cap, temperature 1, group-normalised "
    "advantages, token-mean loss with clip 0.2 / 0.28, no KL term, AdamW, one update a step on the whole batch."
)
NOT_COMPARABLE = (
    "trl's step also does what any trainer for large models needs (data loading, accelerate, metrics, text decoding); "
    "it trains on rows with advantage 0, which ours leaves out; its learning rate decays. Sampled rollouts differ."
)


def training(settings: Settings, threads: int) -> dict[str, Any] | None:
    """Seconds of one GRPO step, ours and trl's; None without trl."""
    try:
        import trl  # noqa: F401
    except ImportError:
        return None
    set_threads(threads)
    problems = pool.build("real", 0, 512, 64)
    count, group = settings.train_batch
    settings_shown: dict[str, Any] = {
        "threads": threads,
        "batch": count * group,
        "comparable": COMPARABLE,
        "not_comparable": NOT_COMPARABLE,
    }
    trainer = our_steps(settings, load_policy(), problems, seed=0)

    def step() -> float:
        start = time.perf_counter()
        trainer.step()
        return time.perf_counter() - start

    step()
    # ours before and after theirs, so that a drift of the machine's speed shows
    before = [step() for _ in range(settings.steps)]
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = trl_steps(settings, problems, Path(folder))
    except Exception as error:  # other people's releases move: say so instead of failing
        return {**settings_shown, "error": f"trl did not run: {type(error).__name__}: {error}"}
    after = [step() for _ in range(settings.steps)]
    log = trainer.progress.steps_log[1:]
    ours_s, theirs_s = np.array(before + after), np.array([seconds for seconds, _ in theirs])
    return {
        **settings_shown,
        "budgeteer_seconds": float(np.median(ours_s)),
        "budgeteer_seconds_all": ours_s.tolist(),
        "budgeteer_mean_length": float(np.mean([row["used"] / row["rollouts"] for row in log])),
        "trl_seconds": float(np.median(theirs_s)),
        "trl_seconds_all": theirs_s.tolist(),
        "trl_mean_length": float(np.mean([length for _, length in theirs])),
        "budgeteer_is_times_faster": {
            "median": float(np.median(theirs_s) / np.median(ours_s)),
            "low": float(theirs_s.min() / ours_s.max()),
            "high": float(theirs_s.max() / ours_s.min()),
        },
    }


def _times(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.1f}x ({ratio['low']:.1f}-{ratio['high']:.1f})"


def table(results: dict[str, Any]) -> str:
    """The results for people."""
    lines = [
        f"{results['machine']['cpu']}, {results['machine']['cores']} cores",
        "batch threads  variant                  tokens/s    ours is faster by  length  of peak",
    ]
    for row in results["generation"]:
        ratio = _times(row["budgeteer_is_times_faster"]) if row["variant"] != "budgeteer" else ""
        lines.append(
            f"{row['batch']:>5} {row['threads']:>7}  {row['variant']:<22} {row['tokens_per_second']:>10,.0f} "
            f"{ratio:>20} {row['mean_length']:>7.1f} {row['share_of_peak']:>8.1%}"
        )
    for entry in results["training"]:
        if "error" in entry:
            lines.append(entry["error"])
            continue
        lines.append(
            f"GRPO step of {entry['batch']} rollouts, {entry['threads']} thread(s): "
            f"ours {entry['budgeteer_seconds']:.2f} s, trl {entry['trl_seconds']:.2f} s: "
            f"{_times(entry['budgeteer_is_times_faster'])}"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke test; the numbers mean nothing")
    parser.add_argument("--out", type=Path, help=f"results file (default: {OUT.name} beside this file; none if quick)")
    parser.add_argument("--no-trl", action="store_true", help="leave the GRPO step out")
    args = parser.parse_args(argv)
    settings = QUICK if args.quick else Settings()
    before = machine()
    entries = [] if args.no_trl else [training(settings, threads) for threads in settings.threads]
    results = {
        "quick": args.quick,
        "machine": before,
        "versions": installed(PACKAGES),
        "settings": {name: getattr(settings, name) for name in Settings.__dataclass_fields__},
        "generation": generation(settings),
        "training": [entry for entry in entries if entry is not None],
    }
    print(table(results))
    out = args.out or (None if args.quick else OUT)
    if out is not None:
        write_text(json.dumps(to_json(results), indent=1) + "\n", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
