"""A synthetic results.json of realistic shape: four arms over seeds, made up and labelled so; shared by tests."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from budgeteer.lab import results as rs

ARMS = {  # label -> (tokens a step, final accuracy, share wasted, share trained, tokens a second)
    "grpo@100%": (18_000, 0.62, 0.0, 0.55, 9_000),
    "grpo@50%": (9_000, 0.51, 0.0, 0.55, 8_800),
    "uniform-stop@50%": (9_000, 0.54, 0.16, 0.48, 7_900),
    "duet@50%": (9_000, 0.615, 0.05, 0.74, 8_300),
}
STEPS = 40
LEVELS = ("2", "3", "4", "5", "6")


def make(seeds: int = 3, *, diagnostics: bool = True) -> rs.Results:
    """Results with ``seeds`` runs an arm; the numbers are invented."""
    runs = [_run(name, seed, diagnostics) for name in ARMS for seed in range(seeds)]
    pairs = [(name, "grpo@100%") for name in ARMS if name != "grpo@100%"]
    return {
        "schema": rs.SCHEMA,
        "runs": runs,
        "comparisons": rs.compare(runs, pairs),
        "config": {"task": "chains", "steps": STEPS, "prompts": 16, "note": "synthetic, for tests", "lr": 1e-3},
        "versions": rs.versions(),
    }


def _run(name: str, seed: int, diagnostics: bool) -> dict[str, Any]:
    recipe, budget = name.split("@")
    per_step, final, wasted, trained, speed = ARMS[name]
    rng = np.random.default_rng([seed, *name.encode()])
    luck = 0.02 * np.random.default_rng(seed).standard_normal()
    curve, used = [], 0
    for step in range(0, STEPS + 1, 4):
        accuracy = 0.2 + luck + (final - 0.2) * (1 - math.exp(-3.5 * step / STEPS)) + 0.008 * rng.standard_normal()
        curve.append({"tokens": used, "seconds": used / speed, "accuracy": float(np.clip(accuracy, 0, 1))})
        used += int(4 * per_step * rng.uniform(0.97, 1.0)) if step < STEPS else 0
    run: dict[str, Any] = {
        "recipe": recipe,
        "budget": budget,
        "seed": seed,
        "accuracy": curve[-1]["accuracy"],
        "tokens": {
            "planned": per_step * STEPS,
            "used": used,
            "trained": int(used * trained),
            "wasted": int(used * wasted),
        },
        "seconds": used / speed + rng.uniform(0, 4),
        "curve": curve,
    }
    if diagnostics:
        run["diagnostics"] = _diagnostics(name, run["seconds"], used, wasted, rng)
    return run


def _diagnostics(name: str, seconds: float, used: int, wasted: float, rng: np.random.Generator) -> dict[str, Any]:
    share = np.array([0.08, 0.14, 0.2, 0.26, 0.32])
    levels = {
        level: {"used": int(used * s), "wasted": int(used * s * wasted), "rollouts": int(used * s / 40)}
        for level, s in zip(LEVELS, share, strict=True)
    }
    histogram = []
    for step in range(STEPS):
        if name.startswith("duet"):
            spread = rng.choice([0, 2, 4, 8, 12, 16], 16, p=np.roll([0.1, 0.2, 0.3, 0.2, 0.1, 0.1], step // 14))
        else:
            spread = np.full(16, 16 if "100" in name else 8)
        counts = {str(n): int((spread == n).sum()) for n in sorted(set(spread.tolist()))}
        histogram.append({"step": step, "counts": counts})
    traces = [
        {
            "prompt": "start 7; +4; *3; -5; mod 10?",
            "completion": "<think>7+4=11; 11*3=33; 33-5=28; 28 mod 10=8</think>8",
            "status": "ended",
            "reward": 1.0,
            "tokens": 31,
        },
        {
            "prompt": "start 3; *9; +8; *2; *7; mod 10?",
            "completion": "<think>3*9=27; 27+8=36; wait 27+8=36; 27+8=36; wait",
            "status": "aborted",
            "reward": 0.0,
            "tokens": 36,
        },
        {
            "prompt": "start 1; +1; +1; mod 10?",
            "completion": "<think>1+1=2; 2+1=3; is <script>alert(1)</script> & co </think>3",
            "status": "finished",
            "reward": 1.0,
            "tokens": 22,
        },
        {
            "prompt": "start 9; *9; *9; *9; *9; mod 10?",
            "completion": "<think>9*9=81; 81*9=729; 729*9=6561; 6561*9=",
            "status": "cut",
            "reward": 0.0,
            "tokens": 48,
        },
    ]
    return {
        "tokens_by_level": levels,
        "rollouts_per_prompt": histogram,
        "steps": STEPS,
        "allocation_seconds": 0.21,
        "stopping_seconds": 0.4 if wasted else 0.0,
        "sampling_seconds": 0.68 * seconds,
        "training_seconds": 0.27 * seconds,
        "traces": traces if "stop" in name or "duet" in name else [t for t in traces if t["status"] != "aborted"],
    }
