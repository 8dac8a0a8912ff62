"""Rewards against the papers' formulas once more, row by row in plain Python, on drawn groups.

Eight were drawn from all that have a published formula; the others are those of the efforts, and some more.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from budgeteer.core import registry
from budgeteer.core.plan import CUT, ENDED
from budgeteer.rl.reward import Columns
from budgeteer.rl.reward._adathink_med import Usual

CAP = 40


def drawn(seed):
    """Four groups of four as columns, and the same rows as dictionaries."""
    rng = np.random.default_rng(seed)
    n = 16
    length = rng.integers(2, CAP + 1, n)
    values = {
        "correct": rng.choice([0.0, 1.0], n),
        "length": length,
        "group": np.repeat(np.arange(4), 4),
        "max_tokens": np.full(n, CAP),
        "status": np.where(length == CAP, CUT, ENDED),
        "closed": np.where(rng.random(n) < 0.7, rng.integers(1, length + 1), -1),
        "answered": np.where(rng.random(n) < 0.7, length, -1),
        "entropy": rng.exponential(0.5, (n, CAP)),
        "repeated": rng.random(n),
        "target": np.repeat(rng.integers(5, CAP, 4), 4),
        "effort": np.repeat(rng.choice([0.25, 0.5, 1.0], 4), 4),
        "leaks": rng.integers(0, 2, n),
        "reflections": rng.integers(0, 100, n),
        "deliberate": rng.integers(0, 2, n),
        "looping": rng.integers(0, 2, n),
        "reference_length": np.repeat(rng.integers(5, CAP, 4), 4),
        "reference_rate": np.repeat(rng.random(4), 4),
        "sampled": (np.arange(CAP) < length[:, None]) * 1,
    }
    texts = [str(text) for text in rng.choice(["[Easy] </think>", "[Hard] </think>", "</think></think>"], n)]
    rows = [{name: column[i] for name, column in values.items()} | {"text": texts[i]} for i in range(n)]
    for row in rows:
        row["others"] = [other for other in rows if other["group"] == row["group"]]
        row["rate"] = sum(other["correct"] for other in row["others"]) / 4
    return Columns(**values, text=texts), rows


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def standard(row, name):
    """Among the right rows of the prompt, with the deviation of a sample."""
    values = [other[name] for other in row["others"] if other["correct"]]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 1.0
    return (row[name] - mean) / (spread + 1e-6)


def pear(row):
    n, closed = row["length"], row["closed"]
    before = row["entropy"][: closed - 1] if closed >= 0 else row["entropy"][:n]
    behind = row["entropy"][closed:n] if closed >= 0 else []
    think, answer = (sum(part) / len(part) if len(part) else 0.0 for part in (before, behind))
    return max(1 - max(0, think - answer), 0) if row["correct"] else 0


def adactrl_hard(row):
    label = "[Easy]" if row["rate"] > 0.625 else "[Hard]"
    tag = row["text"][:6]
    part = row["length"] / max(other["length"] for other in row["others"])
    of_length = {"[Easy]": (1 + math.cos(math.pi * part)) / 2, "[Hard]": (1 - math.cos(math.pi * part)) / 2}
    length = of_length[tag] if tag == label else 0
    calibration = 1 if tag == label else 0 if tag in of_length else -1
    near = min(0, -(row["length"] - 5 / 6 * CAP) / (CAP / 6))
    return (1 if row["correct"] else -1) + near + 0.5 * length + 0.5 * calibration


def o1_pruner(row):
    return row["reference_length"] / row["length"] - 1 + 2 * (row["correct"] - row["reference_rate"])


def l1(row):
    return row["correct"] - 1.2 * abs(row["target"] - row["length"]) / CAP


def cosine(row):
    if row["length"] >= CAP:
        return -10
    short, long = (2, 1) if row["correct"] else (-10, 0)
    return long + (short - long) / 2 * (1 + math.cos(math.pi * row["length"] / CAP))


def kimi(row):
    lengths = [other["length"] for other in row["others"]]
    if max(lengths) == min(lengths):
        return row["correct"]
    x = 0.5 - (row["length"] - min(lengths)) / (max(lengths) - min(lengths))
    return row["correct"] + (x if row["correct"] else min(0, x))


def hbpo(row):
    n, b = row["length"], row["target"]
    if not row["correct"]:
        return 0
    within = 4 * math.cos(math.pi * b / (2 * CAP))
    return within if n <= b else 4 * math.cos(math.pi * n / (2 * CAP)) - abs(n - b) / CAP


def thinkdial(row):
    same = [other["length"] for other in row["others"]]
    wide = max(same) - min(same)
    x = 0.5 - (row["length"] - min(same)) / wide if wide else 0.0
    length = x if row["correct"] else min(0, x)
    alpha = {1.0: 0, 0.5: 0.5, 0.25: 1}[row["effort"]]
    return row["correct"] + alpha * length + (-0.5 if row["leaks"] else 0.5)


def e1(row):
    def thinking(other):
        return other["closed"] - 1 if other["closed"] >= 0 else other["length"]

    usual = sum(map(thinking, row["others"])) / 4
    within = row["effort"] == 1 or thinking(row) <= row["effort"] * usual
    return row["correct"] if within else 0


def arlcp(row):
    if not row["correct"] or row["text"].count("</think>") != 1:
        return 0
    words = row["reflections"]
    first = 0.05 if words <= 40 else 0.1 if words <= 80 else 0.15
    return 1 - first * sigmoid(standard(row, "reflections")) - (0.2 - first) * sigmoid(standard(row, "length"))


def visionthink(row):
    at_once = sum(1 for other in row["others"] if other["correct"] and not other["deliberate"])
    good = sum(1 for other in row["others"] if other["correct"])
    rho = at_once / good if good else 0.0
    charged = bool(row["deliberate"]) == (rho >= 0.2)
    return row["correct"] + (0.5 if row["answered"] >= 0 else 0) - (0.1 if charged else 0)


def laser(row):
    if row["answered"] < 0:
        return -1
    short = row["length"] <= 0.4 * CAP
    return (1 if row["correct"] else -0.5) + (0.5 if row["correct"] and short else 0)


ROW_BY_ROW = {
    "pear": pear, "adactrl:hard=true": adactrl_hard, "o1-pruner": o1_pruner, "l1": l1, "cosine": cosine, "kimi": kimi,
    "hbpo": hbpo, "thinkdial": thinkdial, "e1": e1, "arlcp": arlcp, "visionthink": visionthink,
    "laser:target=0.4": laser,
}  # fmt: skip


METHODS = {name: registry.part_of("reward", name) for name in ROW_BY_ROW}  # all of them: each declares its columns


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_a_reward_is_its_formula_row_by_row(name):
    method = METHODS[name]
    for seed in range(30):
        columns, rows = drawn(seed)
        expected = [float(ROW_BY_ROW[name](row)) for row in rows]
        assert method.score(method.init(), columns).tolist() == pytest.approx(expected, abs=1e-5), seed


def test_adathink_med_is_its_formula_row_by_row():
    method = registry.part_of("reward", "adathink-med")
    for seed in range(30):
        columns, rows = drawn(seed)
        for row in rows:
            top = sorted(row["entropy"][: row["length"]])[-max(int(row["length"]) // 5, 1) :]
            row["e"] = math.log1p(sum(top) / len(top))
        low, high = min(row["e"] for row in rows), max(row["e"] for row in rows)
        for row in rows:
            row["k"] = 1 - (row["e"] - low) / (high - low)
        expected = []
        for row in rows:
            solved = [other["correct"] * (0.5 * other["k"] + 0.5) for other in row["others"]]
            hard = 1 - sum(solved) / 4 >= 0.6
            x = row["length"] / (25.0 if hard else 15.0) * (0.5 + 0.5 * row["k"])
            length = 0.0
            if row["correct"] and not hard:
                length = max(0.0, 1 - x)
            elif not row["correct"] and hard:
                length = min(1.0, x - 1)
            tidy = 1 if row["answered"] >= 0 else 0
            expected.append(row["correct"] + 0.5 * tidy + 0.5 * (length - 0.05 * row["repeated"]))
        got = method.score(Usual(0.6, np.array([15.0, 25.0])), columns)
        assert got.tolist() == pytest.approx(expected), seed
