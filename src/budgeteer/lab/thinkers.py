"""Questions whose trace is known: when it closes by itself, and from when on a forced answer is right."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from budgeteer.lab.played import Simulated
from budgeteer.solve import Style

RIGHT = "R"


@dataclass(frozen=True, slots=True)
class Thought:
    """One question's trace.

    Attributes:
        closes: tokens of thinking after which it closes by itself.
        knows: tokens of thinking from which on its answer is right; infinite = never.
        lure: the wrong answer before that, always the same; "" = another one every 8 tokens.
    """

    closes: int
    knows: float
    lure: str = ""


STYLE = Style(
    prompt=lambda question: f"{question}:",
    answer=lambda rest: rest.partition("\n")[0] or None,
    close="|",
    stop=("\n",),
    answer_tokens=4,
    wait="w",
)
"""Thinking is dots; ``|`` closes it; an answer is a letter and a newline."""


def thinker(draw: Callable[[random.Random], Thought], seed: int, again: int = 20, size: int = 1) -> Simulated:
    """A model whose thought on a question is drawn from (seed, question), so that cutting never changes it.

    Args:
        again: tokens of thinking after a wait until it closes again.
        size: letters of an answer: the same letter, repeated.
    """

    def write(prompt: str, rng: random.Random) -> str:
        question, _, written = prompt.partition(":")
        thought = draw(random.Random(f"{seed} {question}"))
        thinking, closed, rest = written.partition("|")
        dots = (
            0 if closed else max(0, (again if "w" in thinking else thought.closes) - len(thinking.rpartition("w")[2]))
        )
        at = len(thinking) + dots
        if at >= thought.knows:
            letter = RIGHT
        else:
            letter = thought.lure or random.Random(f"{seed} {question} {at // 8}").choice("ABCDEFGH")
        return "." * dots + ("" if closed else "|") + (letter * size)[len(rest) :] + "\n"

    return Simulated(write)


def lognormal(rng: random.Random, median: float, spread: float) -> int:
    """A length, at least 1."""
    return max(1, round(median * math.exp(spread * rng.gauss(0, 1))))
