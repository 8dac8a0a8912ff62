"""Texts with something to find, in the manner of RULER (arXiv 2404.06654).

Its needles (single, multikey, multivalue, multiquery), chains of variables, common and frequent words; and three more:
rules at the beginning of a prompt, a conversation whose episodes say different things in the same words, and a list
that is written again, so that half of the text is generated. Its questions about paragraphs are in ``paragraphs``. An
answer with several parts has them in an order that the question asks for, separated by commas.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
TOPICS = {
    "cooking": ("The soup needs more salt.", "Bread takes an hour.", "I burnt the onions.", "Use the small pan."),
    "travel": ("The ferry leaves at noon.", "We missed the bus.", "The hotel has a garden.", "Take the coast road."),
    "music": ("The choir sings on Friday.", "I play the second part.", "Tune it once more.", "That song is old."),
    "gardening": ("The roses want water.", "It is too cold for beans.", "Cut the hedge in May.", "The soil is dry."),
}
"""Topic of an episode -> what is said in it."""


class Sample(NamedTuple):
    """One text with its question.

    Attributes:
        task: its name.
        context: the text.
        question: what is asked, up to where the answer begins.
        answer: the answer, as it continues the question; its parts are separated by commas.
    """

    task: str
    context: str
    question: str
    answer: str


class Asked(NamedTuple):
    """What a task draws.

    Attributes:
        text: ``(n) -> text``, longer for larger n, from n = 0.
        question, answer: as a :class:`Sample` has them.
        written: ``(n) -> answer`` in the place of ``answer``, where it is as long as the text; it counts as length.
    """

    text: Callable[[int], str]
    question: str
    answer: str
    written: Callable[[int], str] | None = None

    def sample(self, task: str, length: int, size: Callable[[str], int]) -> Sample | None:
        """The longest text of at most ``length`` tokens with its question; None if not even the shortest fits."""

        def taken(n: int) -> int:
            return size(self.text(n) + self.question + ("" if self.written is None else self.written(n)))

        if taken(0) > length:
            return None
        n = largest(lambda n: taken(n) <= length, length)
        return Sample(task, self.text(n), self.question, self.answer if self.written is None else self.written(n))


def single(rng: np.random.Generator) -> Asked:
    """One needle."""
    return _keyed(rng, 1, 1)


def multikey(rng: np.random.Generator) -> Asked:
    """Four needles that differ in their key; one is asked for."""
    return _keyed(rng, 4, 1)


def multiquery(rng: np.random.Generator) -> Asked:
    """Four needles that differ in their key; all are asked for, in an order of the question's own."""
    return _keyed(rng, 4, 4)


def multivalue(rng: np.random.Generator) -> Asked:
    """Four numbers for one key; all are asked for, in the order of the text."""
    key, numbers = str(rng.choice(KEYS)), [_number(rng) for _ in range(4)]
    lines = [f"A special magic number for {key} is {number}." for number in numbers]
    question = f"\nThe four special magic numbers for {key}, in the order of the text, are"
    return _hidden(rng, lines, question, " " + ", ".join(numbers))


def variables(rng: np.random.Generator) -> Asked:
    """A number that is handed on over two variables, beside another such chain; the last variable is asked for."""
    names = [f"V{letter}" for letter in rng.permutation(list("ABCDEFGHKLMN"))[:6]]
    chains = [_number(rng), _number(rng)]
    lines = []
    for place, number in enumerate(chains):
        first, second, third = names[3 * place : 3 * place + 3]
        lines.append((f"VAR {first} = {number}.", f"VAR {second} = VAR {first}.", f"VAR {third} = VAR {second}."))
    order = [line for pair in zip(*lines, strict=True) for line in pair]
    return _hidden(rng, order, f"\nThe number that VAR {names[2]} holds is", f" {chains[0]}")


def common(rng: np.random.Generator) -> Asked:
    """A list of words, three of which come again and again; they are asked for, in alphabetical order."""
    words = [str(word) for word in rng.permutation(KEYS)]
    often, seldom, seed = words[:3], words[3:], int(rng.integers(2**31))

    def text(rounds: int) -> str:
        order, listed = np.random.default_rng(seed), []
        for turn in range(rounds + 1):
            others = [seldom[(3 * turn + i) % len(seldom)] for i in range(3)]
            listed += [str(word) for word in order.permutation([*often, *others])]
        return "Some of these words come more often than the others.\n" + " ".join(listed)

    return Asked(text, "\nThe three most common words, in alphabetical order, are", " " + ", ".join(sorted(often)))


def frequent(rng: np.random.Generator) -> Asked:
    """Words whose numbers fall with the square of their rank; the first three are asked for, most frequent first."""
    words, seed = [str(word) for word in rng.permutation(KEYS)], int(rng.integers(2**31))
    shares = 1.0 / np.arange(1, len(words) + 1) ** 2

    def text(more: int) -> str:
        counts = np.maximum((40 + more) * shares / shares.sum(), 1).astype(int)
        listed = np.repeat(words, counts)
        return "Count the words in the following text.\n" + " ".join(np.random.default_rng(seed).permutation(listed))

    return Asked(text, "\nThe three most frequent words, the most frequent first, are", " " + ", ".join(words[:3]))


def instructions(rng: np.random.Generator) -> Asked:
    """Four rules at the beginning, then much text; one of them is to be followed."""
    keys, words = rng.permutation(KEYS)[:4], rng.permutation(KEYS)[-4:]
    rules = [f"Rule: when asked about {key}, say {word}." for key, word in zip(keys, words, strict=True)]
    asked = int(rng.integers(4))
    head = "Follow these rules when you answer.\n" + " ".join(rules) + "\n"
    return Asked(lambda n: head + " ".join(_filler(n)), f"\nAsked about {keys[asked]}, I say", f" {words[asked]}")


def episodes(rng: np.random.Generator) -> Asked:
    """A conversation with an episode a topic: the same words with other numbers; that of one episode is asked for."""
    topics = [str(topic) for topic in rng.permutation(list(TOPICS))]
    numbers, places = [_number(rng) for _ in topics], rng.random(len(topics))

    def text(turns: int) -> str:
        told = []
        for place, (topic, number) in enumerate(zip(topics, numbers, strict=True)):
            count = turns // len(topics) + (place < turns % len(topics))
            lines = [TOPICS[topic][i % len(TOPICS[topic])] for i in range(count)]
            lines.insert(int(places[place] * (count + 1)), f"Remember the number {number}.")
            said = [f"{('Ann', 'Ben')[i % 2]}: {line}" for i, line in enumerate(lines)]
            told.append(f"They talk about {topic}.\n" + "\n".join(said))
        return "\n".join(told)

    asked = int(rng.integers(len(topics)))
    return Asked(text, f"\nThe number in the talk about {topics[asked]} is", f" {numbers[asked]}")


def generation(rng: np.random.Generator) -> Asked:
    """A list of numbers, which is written once more: half of all tokens are generated, and each asks for its place."""
    numbers = [str(number) for number in rng.permutation(np.arange(1000, 10_000))]

    def listed(more: int) -> str:
        return ", ".join(numbers[: 4 + more])

    return Asked(
        lambda n: f"Numbers: {listed(n)}.\n",
        "The same numbers again, in the same order:",
        "",
        lambda n: " " + listed(n),
    )


TASKS: dict[str, Callable[[np.random.Generator], Asked]] = {
    "multikey": multikey,
    "single": single,
    "variables": variables,
    "multivalue": multivalue,
    "multiquery": multiquery,
    "common": common,
    "frequent": frequent,
    "instructions": instructions,
    "episodes": episodes,
    "generation": generation,
}
"""Name -> function of random numbers. Its place is part of the seed: new ones come last."""


def _number(rng: np.random.Generator) -> str:
    return str(rng.integers(1000, 10_000))


def _keyed(rng: np.random.Generator, needles: int, queries: int) -> Asked:
    keys = rng.permutation(KEYS)[:needles]
    numbers = [_number(rng) for _ in keys]
    lines = [f"The special magic number for {key} is {number}." for key, number in zip(keys, numbers, strict=True)]
    if queries == 1:
        asked = int(rng.integers(needles))
        return _hidden(rng, lines, f"\nThe special magic number for {keys[asked]} is", f" {numbers[asked]}")
    order = rng.permutation(needles)[:queries]
    names = ", ".join(keys[i] for i in order)
    question = f"\nThe special magic numbers for {names}, in this order, are"
    return _hidden(rng, lines, question, " " + ", ".join(numbers[i] for i in order))


def _filler(sentences: int) -> list[str]:
    return [FILLER[i % len(FILLER)] for i in range(sentences)]


def _hidden(rng: np.random.Generator, needles: list[str], question: str, answer: str) -> Asked:
    """Needles at places that are drawn, in their order, among sentences that repeat."""
    return Asked(partial(_among, needles, rng.random(len(needles))), question, answer)


def _among(needles: list[str], places: F64, sentences: int) -> str:
    filler = _filler(sentences)
    for needle, place in zip(reversed(needles), sorted((places * sentences).astype(int))[::-1], strict=True):
        filler.insert(place, needle)
    return INTRODUCTION + " ".join(filler)


def samples(task: str, count: int, length: int, size: Callable[[str], int], *, seed: int = 0) -> list[Sample]:
    """Made-up texts of about ``length`` tokens.

    Args:
        task: one of :data:`TASKS`.
        count: how many, >= 1.
        length: tokens of context and question together, and of the answer where it is as long as the text; a text has
            at most as many, and at least nine tenths.
        size: tokens of a text, such as ``lambda text: len(tokenizer(text)["input_ids"])``.
        seed: of the draws; a sample depends on task, seed and its number alone.

    Raises:
        UnknownName: no such task.
        InvalidInput: a length that does not hold what the task needs.
    """
    if task not in TASKS:
        raise UnknownName("task of a cache", task, TASKS)
    return [
        _sample(task, length, size, np.random.default_rng([seed, list(TASKS).index(task), i])) for i in range(count)
    ]


def _sample(task: str, length: int, size: Callable[[str], int], rng: np.random.Generator) -> Sample:
    found = TASKS[task](rng).sample(task, length, size)
    if found is None:
        raise InvalidInput(f"{length} tokens do not hold what {task} needs; give a larger length")
    return found
