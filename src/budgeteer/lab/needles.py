"""Texts with something to find, in the manner of RULER (arXiv 2404.06654): needles, keys, chains of variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from budgeteer.core.bisection import largest
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.plan import F64

FILLER = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
    "The river runs to the sea.",
    "It rained in the night.",
    "A dog barks far away.",
    "The train was late.",
)
KEYS = (
    "apple", "bridge", "candle", "desert", "engine", "forest", "garden", "harbor", "island", "jacket", "kitchen",
    "ladder", "mirror", "needle", "orange", "pencil", "quarry", "ribbon", "saddle", "tunnel", "violin", "window",
    "yellow", "zebra",
)  # fmt: skip
INTRODUCTION = "Some numbers are hidden in the following text. Remember them.\n"


class Sample(NamedTuple):
    """One text with its question.

    Attributes:
        task: its name.
        context: the text.
        question: what is asked, up to where the answer begins.
        answer: the answer, as it continues the question.
    """

    task: str
    context: str
    question: str
    answer: str


def single(rng: np.random.Generator) -> tuple[list[str], str, str]:
    """One needle."""
    return _keyed(rng, 1)


def multikey(rng: np.random.Generator) -> tuple[list[str], str, str]:
    """Four needles that differ in their key; one is asked for."""
    return _keyed(rng, 4)


def variables(rng: np.random.Generator) -> tuple[list[str], str, str]:
    """A number that is handed on over two variables, beside another such chain; the last variable is asked for."""
    names = [f"V{letter}" for letter in rng.permutation(list("ABCDEFGHKLMN"))[:6]]
    chains = [_number(rng), _number(rng)]
    lines = []
    for place, number in enumerate(chains):
        first, second, third = names[3 * place : 3 * place + 3]
        lines.append((f"VAR {first} = {number}.", f"VAR {second} = VAR {first}.", f"VAR {third} = VAR {second}."))
    order = [line for pair in zip(*lines, strict=True) for line in pair]
    return order, f"\nThe number that VAR {names[2]} holds is", f" {chains[0]}"


TASKS: dict[str, Callable[[np.random.Generator], tuple[list[str], str, str]]] = {
    "single": single,
    "multikey": multikey,
    "variables": variables,
}
"""Name -> function of random numbers that gives the needles in their order, the question and the answer."""


def _number(rng: np.random.Generator) -> str:
    return str(rng.integers(1000, 10_000))


def _keyed(rng: np.random.Generator, needles: int) -> tuple[list[str], str, str]:
    keys = rng.permutation(KEYS)[:needles]
    numbers = [_number(rng) for _ in keys]
    lines = [f"The special magic number for {key} is {number}." for key, number in zip(keys, numbers, strict=True)]
    asked = int(rng.integers(needles))
    return lines, f"\nThe special magic number for {keys[asked]} is", f" {numbers[asked]}"


def samples(task: str, count: int, length: int, size: Callable[[str], int], *, seed: int = 0) -> list[Sample]:
    """Made-up texts of about ``length`` tokens, the needles at places that are drawn at random.

    Args:
        task: one of :data:`TASKS`.
        count: how many, >= 1.
        length: tokens of context and question together; a text has at most as many, and at least nine tenths.
        size: tokens of a text, such as ``lambda text: len(tokenizer(text)["input_ids"])``.
        seed: of the draws; a sample depends on task, seed and its number alone.

    Raises:
        UnknownName: no such task.
        InvalidInput: a length that does not hold the needles.
    """
    if task not in TASKS:
        raise UnknownName("task of a cache", task, TASKS)
    return [
        _sample(task, length, size, np.random.default_rng([seed, sorted(TASKS).index(task), i])) for i in range(count)
    ]


def _sample(task: str, length: int, size: Callable[[str], int], rng: np.random.Generator) -> Sample:
    needles, question, answer = TASKS[task](rng)

    def text(sentences: int, places: F64) -> str:
        filler = [FILLER[i % len(FILLER)] for i in range(sentences)]
        for needle, place in zip(reversed(needles), sorted((places * sentences).astype(int))[::-1], strict=True):
            filler.insert(place, needle)
        return INTRODUCTION + " ".join(filler)

    places = rng.random(len(needles))
    if size(text(0, places) + question) > length:
        raise InvalidInput(f"{length} tokens do not hold the needles of {task}; give a larger length")
    sentences = largest(lambda count: size(text(count, places) + question) <= length, length)
    return Sample(task, text(sentences, places), question, answer)
