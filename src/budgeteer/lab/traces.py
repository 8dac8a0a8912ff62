"""Imperfect reasoning traces for pretraining the embedded reasoner.

A trace works a problem in short steps, closes with ``</think>`` and answers on the first line after it. On purpose
some steps are wrong, re-checked or followed by a detour, some traces never end, and some go on after the answer,
so that quality and length vary as they do in a real base model. How often a step is wrong depends on the fact it
needs: most facts are known, some are shaky, some are mostly wrong. Thus prompts differ in difficulty.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache

from budgeteer.lab.tasks import chains
from budgeteer.lab.tasks.base import THINK_END


@dataclass(frozen=True, slots=True)
class Style:
    """How imperfect traces are; all are probabilities.

    Attributes:
        shaky, wrong: share of facts that are shaky or mostly wrong.
        shaky_rate, wrong_rate: how often such a fact comes out wrong.
        recheck, detour: per step.
        endless: per trace: it checks for ever and never answers.
        junk: per trace: it goes on after the answer.
        more: a detour, or what follows an answer, goes on for one more step.
    """

    shaky: float = 0.10
    wrong: float = 0.07
    shaky_rate: float = 0.55
    wrong_rate: float = 0.93
    recheck: float = 0.08
    detour: float = 0.05
    endless: float = 0.05
    junk: float = 0.50
    more: float = 0.88


@lru_cache(maxsize=65536)
def _error_rate(fact: str, style: Style) -> float:
    u = random.Random(fact).random()
    if u < style.wrong:
        return style.wrong_rate
    return style.shaky_rate if u < style.wrong + style.shaky else 0.0


class _Writer:
    """Writes one trace: facts that may come out wrong, and the habits of the style."""

    def __init__(self, rng: random.Random, style: Style) -> None:
        self.rng, self.style, self.parts = rng, style, list[str]()

    def slips(self, fact: str) -> bool:
        """Whether this fact comes out wrong this time."""
        rate = _error_rate(fact, self.style)
        return rate > 0 and self.rng.random() < rate

    def near(self, value: int) -> int:
        """A wrong value close to the right one."""
        return value + self.rng.choice((-2, -1, 1, 2))

    def step(self, text: str) -> None:
        """Add a step; perhaps check it again; perhaps wander off and come back."""
        self.parts.append(text)
        if self.rng.random() < self.style.recheck:
            self.parts.append("?" + text)
        if self.rng.random() < self.style.detour:
            self.parts += [self._check() for _ in range(self._steps())]

    def _steps(self) -> int:
        return 1 + int(math.log(1 - self.rng.random()) / math.log(self.style.more))

    def _check(self) -> str:
        done = [p for p in self.parts if p[0] != "?"]
        return "?" + self.rng.choice(done)

    def finish(self, answer: str) -> str:
        """The whole completion, ended by the end-of-sequence marker only when the trace ends by itself."""
        if self.rng.random() < self.style.endless:
            keep = self.rng.randrange(1, len(self.parts) + 1)
            self.parts = self.parts[:keep]
            return "".join(self.parts + [self._check() for _ in range(60)])
        text = "".join(self.parts) + THINK_END + answer
        if self.rng.random() < self.style.junk:
            text += "\n" + "".join(self._check() for _ in range(self._steps()))
        return text + "<eos>"


def chain(rng: random.Random, style: Style, steps: int) -> tuple[str, str]:
    """(prompt, completion) of an arithmetic chain modulo 11."""
    value, ops = chains.draw(rng, steps)
    prompt, w = chains.prompt_of(value, ops), _Writer(rng, style)
    for op, b in ops:
        result = chains.apply(value, op, b)
        if w.slips(f"chain {value}{op}{b}"):
            result = w.near(result) % chains.MODULUS
        w.step(f"{value}{op}{b}={result};")
        value = result
    return prompt, w.finish(str(value))


def chain_sum(rng: random.Random, style: Style, terms: int) -> tuple[str, str]:
    """(prompt, completion) in the form of reasoning-gym's chain_sum."""
    numbers = [rng.randrange(10) for _ in range(terms)]
    ops = [rng.choice("+-") for _ in range(terms - 1)]
    text = str(numbers[0]) + "".join(f" {op} {b}" for op, b in zip(ops, numbers[1:], strict=True))
    w, value = _Writer(rng, style), numbers[0]
    for op, b in zip(ops, numbers[1:], strict=True):
        result = value + b if op == "+" else value - b
        if w.slips(f"sum {value % 10}{op}{b}"):
            result = w.near(result)
        w.step(f"{value}{op}{b}={result};")
        value = result
    return f"State the final answer to the following arithmetic problem: {text} =", w.finish(str(value))


def gcd(rng: random.Random, style: Style, top: int) -> tuple[str, str]:
    """(prompt, completion) in the form of reasoning-gym's gcd, solved by Euclid's algorithm."""
    for _ in range(3):
        a, b = rng.randint(1, top), rng.randint(1, top)
        if math.gcd(a, b) > 1:
            break
    w, x, y = _Writer(rng, style), max(a, b), min(a, b)
    while y:
        r = x % y
        if w.slips(f"mod {x}%{y}"):
            r = max(0, min(y - 1, w.near(r)))
        w.step(f"{x}%{y}={r};")
        x, y = y, r
    prompt = (
        f"Find the Greatest Common Divisor (GCD) of these numbers: {a}, {b}. Give only the GCD as your final answer."
    )
    return prompt, w.finish(str(x))


def number_filtering(rng: random.Random, style: Style, top: int) -> tuple[str, str]:
    """(prompt, completion) in the form of reasoning-gym's number_filtering, one comparison a step."""
    numbers = [round(rng.uniform(-20, 20)) for _ in range(top)]
    bound = round(rng.uniform(min(numbers), max(numbers)))
    keep, larger = rng.random() < 0.5, rng.random() < 0.5
    w, kept = _Writer(rng, style), list[str]()
    for n in numbers:
        beyond = n > bound if larger else n < bound
        stays = beyond == keep
        if w.slips(f"filter {bound} {n}"):
            stays = not stays
        if stays:
            kept.append(str(n))
        w.step(f"{n}{'y' if stays else 'n'};")
    prompt = (
        f"{'Keep' if keep else 'Remove'} all numbers {'larger' if larger else 'smaller'} than {bound} "
        f"in this list: {[str(n) for n in numbers]}\nReturn the new list in the same format."
    )
    return prompt, w.finish(str(kept))


def example(rng: random.Random, style: Style) -> tuple[str, str]:
    """One (prompt, completion) of the pretraining mixture."""
    family = rng.random()
    if family < 0.35:
        return chain(rng, style, rng.choice((1, 2, 3, 4, 5, 6, 7, 8)))
    if family < 0.60:
        return chain_sum(rng, style, rng.randrange(2, 9))
    if family < 0.75:
        return gcd(rng, style, 30)
    return number_filtering(rng, style, rng.randrange(2, 7))
