"""Sentences about the result of a comparison: against the full budget, and against the strongest plain baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from budgeteer.lab.arms import FULL
from budgeteer.lab.report import CONTROL, START
from budgeteer.lab.results import GREEDY, Results, by_seed
from budgeteer.lab.run import REFERENCE
from budgeteer.lab.stats import paired

MARGIN, SHARE = 0.01, 0.25
"""The claim "not worse", fixed before it was measured: the lower end of the interval lies above minus 1 point, or minus
a quarter of what the reference gains over the untrained policy where that is less."""


def claim(results: Results) -> str:
    """One or two sentences about each arm that used fewer tokens than the reference."""
    against = {(c["a"], c["b"]): c for c in results["comparisons"]}
    gain = against.get((START, REFERENCE))
    margin = MARGIN if gain is None else min(MARGIN, SHARE * max(0.0, -gain["mean"]))
    sentences = []
    for (arm, base), c in against.items():
        recipe, _, budget = arm.partition("@")
        stop = f"{CONTROL}@{budget}"
        if base != REFERENCE or budget in ("100%", "0"):
            continue
        said = f"{arm} against {base}: {points(c)}, {faster(results, arm):.1f} times as fast; {_verdict(c, margin)}."
        full = against.get((arm, FULL[1]))
        if full is not None:
            said += f"\n  Against {FULL[1]}, the strongest plain baseline at the full budget: {points(full)}"
            said += f"; {_verdict(full, MARGIN)}."
        control = against.get((arm, stop))
        if control is not None:
            said += f"\n  Against {stop}, the same tokens: {points(control)}."
        elif recipe != CONTROL:
            said += f"\n  Not compared with the strongest plain baseline; add the arm {stop}."
        sentences.append(said)
    if sentences and gain is not None:
        gained = 0.0 - 100 * gain["mean"]  # and no minus 0
        said = f"{REFERENCE} gains {gained:.1f} points over the untrained policy."
        sentences.insert(0, said + _without_training(results))
    return "\n".join(sentences)


def _without_training(results: Results) -> str:
    """The baseline that costs no training: the untrained policy decoded greedily, against the reference as it is drawn;
    empty where it was not measured."""
    start, base = by_seed(results["runs"], START), by_seed(results["runs"], REFERENCE)
    pairs = [(start[s].get(GREEDY), base[s]["accuracy"]) for s in start.keys() & base.keys()]
    known = np.array([pair for pair in pairs if None not in pair], np.float64)
    if not known.size:
        return ""
    difference = paired(*known.T)
    return (
        f" Without any training, decoded greedily, the policy is right on {100 * known[:, 0].mean():.1f} %: "
        f"{points(asdict(difference))} against {REFERENCE} as it is drawn."
    )


def _verdict(comparison: Mapping[str, Any], margin: float) -> str:
    """Whether it is shown that the arm is not worse by as much as the margin."""
    if not _known(comparison["low"]):
        verdict = "one seed gives no interval"
    else:
        verdict = "shown" if comparison["low"] > -margin else f"not shown by {comparison['n']} seeds"
    return f"{f'less than {100 * margin:.1f} points worse' if margin else 'not worse at all'}: {verdict}"


def points(comparison: Mapping[str, Any]) -> str:
    """A difference in points with its interval, such as ``+1.1 points [+0.5, +1.7]``."""
    low, high = comparison["low"], comparison["high"]
    interval = f" [{100 * low:+.1f}, {100 * high:+.1f}]" if _known(low) else ""
    return f"{100 * comparison['mean']:+.1f} points{interval}"


def faster(results: Results, arm: str) -> float:
    """How many times as fast as the reference's its training is, mean over seeds."""
    ours, base = by_seed(results["runs"], arm), by_seed(results["runs"], REFERENCE)
    return fmean(base[seed]["seconds"] / ours[seed]["seconds"] for seed in ours)


def _known(bound: float | None) -> bool:
    """Whether an interval has this end; one seed gives none."""
    return bound is not None and math.isfinite(bound)
