"""Cut thinking on the embedded reasoner: forced answers against hard truncation at equal measured tokens.

300 questions a seed: 150 arithmetic chains modulo 11 (1 to 8 steps), 75 each of reasoning-gym's chain_sum and gcd. Each
question has its own budget, of output tokens or of input and output ("all"). Hard truncation (``direct``) at budget b
is the first b tokens of the whole trace, since the reasoner samples the same trace under every cap; so all of its
budgets are read off one run, and one of them is run for real to check that. "Equal tokens": the cheapest truncation
that uses at least as many tokens as the strategy did on the same questions. Truncation samples at the strategy's own
temperature; what samples is compared with greedy truncation at the same budget, too, which is the stronger baseline.

    python benchmarks/think.py [--seeds 5] [--size 300] [--out benchmarks/results/think.json]
    python benchmarks/think.py --only budget-guidance     # renews the rows of one strategy in the file
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core.environment import Environment, Item
from budgeteer.core.plan import F64
from budgeteer.lab import metrics
from budgeteer.lab.simulated import play
from budgeteer.lab.stats import mean_ci
from budgeteer.lab.tasks.base import THINK_END
from budgeteer.lab.tasks.chains import Chains
from budgeteer.lab.tasks.gym import Gym
from budgeteer.models.reasoner import Reasoner
from budgeteer.solve import Strategy, Style
from budgeteer.strategies import (
    budget_forcing,
    budget_guidance,
    convergence,
    direct,
    elastic,
)

STYLE = Style(
    prompt=lambda question: question,
    answer=lambda rest: rest.partition("\n")[0] or None,
    close=THINK_END,
    stop=("\n",),
    answer_tokens=5,  # a sign, three digits at most and the newline
)
CAP, AMPLE, CHECKED = 192, 10_000, 24
Asked = list[tuple[Environment, Item]]
Measured = dict[str, float]


def cases() -> list[tuple[str, float, str, int, Strategy]]:
    """(strategy, temperature, kind, budget, how)."""
    compared: list[tuple[str, float, str, int, Strategy]] = [
        ("budget-forcing", temperature, "output", budget, budget_forcing(CAP, 0, temperature))
        for temperature in (0.0, 1.0)
        for budget in (16, 24, 32, 48)
    ]
    compared.append(("elastic", 0.0, "output", 24, elastic(CAP)))
    for budget in (120, 160):
        compared.append(("budget-forcing", 0.0, "all", budget, budget_forcing(CAP)))
        compared.append(("elastic", 0.0, "all", budget, elastic(CAP)))
    compared.append(("convergence", 0.0, "output", 48, convergence(every=16, thinking=CAP)))
    compared += [
        ("budget-guidance", temperature, "output", budget, budget_guidance(temperature=temperature, max_tokens=CAP))
        for temperature in (0.0, 1.0)
        for budget in (16, 24, 32, 48)
    ]
    return compared


def questions(size: int, seed: int) -> Asked:
    """The questions of a seed, each with the environment that verifies it."""
    quarter = size // 4
    parts: list[Environment] = [
        Chains(2 * quarter, seed), Gym("chain_sum", quarter, seed), Gym("gcd", quarter, seed)
    ]  # fmt: skip
    return [(part, item) for part in parts for item in part.items]


def right(answers: Sequence[str | None], asked: Asked) -> F64:
    """1 for each answer that its verifier takes for right; partial credit is none."""
    pairs = zip(asked, answers, strict=True)
    return np.array([float(answer is not None and env.verify(item, answer) >= 1.0) for (env, item), answer in pairs])


def summary(score: F64, spent: F64, answers: Sequence[str | None]) -> Measured:
    """Means over the questions of one seed."""
    answered = [answer is not None for answer in answers]
    return {
        "accuracy": float(score.mean()),
        "tokens": float(spent.mean()),
        "answered": float(np.mean(answered)),
        "wasted": metrics.wasted(spent, answered),
        "e3": metrics.efficiency(score, spent).e3 if spent.any() else 0.0,
    }


def measure(model: Reasoner, strategy: Strategy, asked: Asked, budget: int, kind: str, seed: int) -> Measured:
    """One strategy on the questions of one seed."""
    run = play(strategy, [item.prompt for _, item in asked], STYLE, model, budget=budget, kind=kind, seed=seed)
    spent = run.output + (run.input if kind == "all" else 0.0)
    if spent.max() > budget:
        raise AssertionError(f"a question spent {spent.max()} of {budget} tokens")
    answers = [a.answer for a in run.answers]
    return summary(right(answers, asked), spent, answers) | {"calls": float(run.calls.mean())}


class Truncation:
    """Hard truncation at every cap, from one run of whole traces."""

    def __init__(self, model: Reasoner, asked: Asked, temperature: float, seed: int) -> None:
        run = play(
            direct(CAP, temperature), [item.prompt for _, item in asked], STYLE, model,
            budget=AMPLE, kind="output", seed=seed,
        )  # fmt: skip
        self.asked, self.input = asked, run.input
        self.length = run.output
        encode, self.decode = model.policy.tokenizer.encode, model.policy.decode
        self.traces = [encode(a.traces[0], add_special_tokens=False).ids for a in run.answers]
        self.whole = [a.answer for a in run.answers]
        self.natural = summary(right(self.whole, asked), self.length, self.whole)

    def at(self, budget: int, kind: str) -> Measured:
        """What ``direct`` does with this budget a question."""
        read = self.input if kind == "all" else np.zeros_like(self.input)
        caps = budget - read
        texts = self.decode([trace[: max(0, int(cap))] for trace, cap in zip(self.traces, caps, strict=True)])
        answers = [
            whole if length <= cap else STYLE.read(text) if cap > 0 else None
            for whole, length, cap, text in zip(self.whole, self.length, caps, texts, strict=True)
        ]
        spent = np.where(caps > 0, np.minimum(self.length, caps) + read, 0.0)
        return summary(right(answers, self.asked), spent, answers)

    def equal(self, tokens: float, kind: str) -> Measured:
        """The cheapest that uses at least so many tokens, or the whole traces."""
        for budget in range(4, 4 * CAP, 2):
            if (measured := self.at(budget, kind))["tokens"] >= tokens:
                return measured | {"budget": float(budget)}
        return self.at(AMPLE, kind) | {"budget": float(AMPLE)}


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean, 95 % t interval and the values of all seeds."""
    over = mean_ci(values)
    limits = [over.low, over.high] if over.n > 1 else None
    return {"mean": over.mean, "interval": limits, "seeds": [round(v, 4) for v in values]}


def main() -> None:
    """Measure all and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/think.json"))
    parser.add_argument("--only", help="a strategy: the file's rows of others stay as they are")
    options = parser.parse_args()
    wanted = [case for case in cases() if options.only in (None, case[0])]
    kept = json.loads(options.out.read_text()) if options.only else None
    if not wanted or (kept and (kept["seeds"], kept["questions"]) != (options.seeds, options.size)):
        parser.error(f"--only {options.only}: no such strategy, or the file is of other seeds and questions")
    model, started = Reasoner(), time.time()
    natural: dict[float, list[Measured]] = {0.0: [], 1.0: []}
    measured: dict[tuple[str, float, str, int], list[tuple[Measured, Measured, Measured, Measured]]] = {}
    for seed in range(options.seeds):
        asked = questions(options.size, 100 + seed)
        cut = {temperature: Truncation(model, asked, temperature, seed) for temperature in natural}
        real, read = measure(model, direct(CAP), asked, CHECKED, "output", seed), cut[0.0].at(CHECKED, "output")
        if any(abs(real[key] - read[key]) > 1e-9 for key in ("accuracy", "tokens", "answered")):
            raise AssertionError(f"truncation at {CHECKED} tokens: run {real}, read off the whole traces {read}")
        for temperature, truncation in cut.items():
            natural[temperature].append(truncation.natural)
        for name, temperature, kind, budget, strategy in wanted:
            ours = measure(model, strategy, asked, budget, kind, seed)
            same, equal = cut[temperature].at(budget, kind), cut[temperature].equal(ours["tokens"], kind)
            greedy = cut[0.0].at(budget, kind)
            measured.setdefault((name, temperature, kind, budget), []).append((ours, same, equal, greedy))
        print(f"{time.time() - started:.0f} s: seed {seed}", flush=True)
    asyncio.run(model.aclose())
    rows = []
    for (name, temperature, kind, budget), sides in measured.items():
        ours, same, equal, greedy = (list(column) for column in zip(*sides, strict=True))
        row: dict[str, Any] = {"strategy": name, "temperature": temperature, "kind": kind, "budget": budget}
        row |= {key: interval([m[key] for m in ours]) for key in ("accuracy", "tokens", "answered")}
        row |= {key: float(np.mean([m[key] for m in ours])) for key in ("calls", "wasted", "e3")}
        others_of = {"equal tokens": equal, "the same budget": same}
        if temperature > 0:
            others_of["temperature 0 and the same budget"] = greedy
        for label, others in others_of.items():
            row[f"truncated at {label}"] = {
                key: float(np.mean([m[key] for m in others]))
                for key in ("accuracy", "tokens", "answered", "wasted", "e3")
            }
            gains = [m["accuracy"] - o["accuracy"] for m, o in zip(ours, others, strict=True)]
            row[f"gain at {label}"] = interval(gains)
        rows.append(row)
    whole = {
        f"temperature {t}": {key: interval([m[key] for m in ms]) for key in ("accuracy", "tokens", "answered")}
        for t, ms in natural.items()
    }
    result = {
        "seeds": options.seeds,
        "questions": options.size,
        "python": platform.python_version(),
        "seconds": round(time.time() - started),
        "whole traces": whole,
        "rows": rows,
    }
    if kept:
        result = kept | {"rows": [row for row in kept["rows"] if row["strategy"] != options.only] + rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written {options.out}")


if __name__ == "__main__":
    main()
