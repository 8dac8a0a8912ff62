"""Texts with something to find: a reader that knows the task finds the answer, and nothing else would do."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.lab.needles import KEYS, TASKS, TOPICS, Sample, samples


def words(text: str) -> int:
    return len(text.split())


def _single(sample: Sample) -> str:
    key = re.search(r"number for (\w+) is$", sample.question)[1]
    (number,) = re.findall(rf"number for {key} is ([0-9]+)", sample.context)
    assert sample.context.count("special magic number") == (1 if sample.task == "single" else 4)
    return number


def _multivalue(sample: Sample) -> str:
    key = re.search(r"numbers for (\w+), in the order of the text", sample.question)[1]
    numbers = re.findall(rf"number for {key} is ([0-9]+)", sample.context)
    assert len(numbers) == 4
    return ", ".join(numbers)


def _multiquery(sample: Sample) -> str:
    keys = re.search(r"numbers for (.*), in this order", sample.question)[1].split(", ")
    numbers = dict(re.findall(r"number for (\w+) is ([0-9]+)", sample.context))
    assert sorted(keys) == sorted(numbers)
    return ", ".join(numbers[key] for key in keys)


def _variables(sample: Sample) -> str:
    value = dict(re.findall(r"VAR (\w+) = (?:VAR )?(\w+)\.", sample.context))
    assert len(value) == 6
    found = re.search(r"VAR (\w+) holds", sample.question)[1]
    while found in value:
        found = value[found]
    return found


def _counted(sample: Sample) -> list[tuple[str, int]]:
    counts = Counter(sample.context.split("\n")[1].split())
    assert set(counts) <= set(KEYS)
    return counts.most_common()


def _common(sample: Sample) -> str:
    counts = _counted(sample)
    assert counts[0][1] == counts[2][1] >= 2 * counts[3][1]
    return ", ".join(sorted(word for word, _ in counts[:3]))


def _frequent(sample: Sample) -> str:
    counts = _counted(sample)
    assert counts[0][1] > counts[1][1] > counts[2][1] > counts[3][1]
    return ", ".join(word for word, _ in counts[:3])


def _instructions(sample: Sample) -> str:
    head = sample.context.split("\n")[1]
    assert sample.context.startswith(f"Follow these rules when you answer.\n{head}\n")
    says = dict(re.findall(r"when asked about (\w+), say (\w+)\.", head))
    assert len(says) == 4
    return says[re.search(r"Asked about (\w+),", sample.question)[1]]


def _episodes(sample: Sample) -> str:
    told = dict(re.findall(r"They talk about (\w+)\.\n((?:(?:Ann|Ben): .*(?:\n|$))*)", sample.context))
    assert sorted(told) == sorted(TOPICS)
    sizes = [text.count(": ") for text in told.values()]
    assert max(sizes) - min(sizes) <= 1
    (number,) = re.findall(
        r"Remember the number ([0-9]+)\.", told[re.search(r"talk about (\w+) is$", sample.question)[1]]
    )
    return number


def _generation(sample: Sample) -> str:
    assert sample.question == "The same numbers again, in the same order:"
    numbers = re.search(r"^Numbers: (.*)\.\n$", sample.context)[1]
    assert len(set(numbers.split(", "))) == numbers.count(",") + 1 > 4
    return numbers


READERS = {
    "single": _single, "multikey": _single, "variables": _variables, "multivalue": _multivalue,
    "multiquery": _multiquery, "common": _common, "frequent": _frequent, "instructions": _instructions,
    "episodes": _episodes, "generation": _generation,
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_a_reader_finds_the_answer_and_texts_are_as_long_as_asked(task: str) -> None:
    made = samples(task, 40, 150, words, seed=2)
    assert made == samples(task, 60, 150, words, seed=2)[:40]
    assert made != samples(task, 40, 150, words, seed=3)
    places = []
    for sample in made:
        assert sample.task == task
        written = sample.answer if task == "generation" else ""  # as long as the text
        assert 0.9 * 150 <= words(sample.context + sample.question + written) <= 150
        assert sample.answer == " " + READERS[task](sample)
        places.append(sample.context.index(sample.answer.split(",")[0].strip()) / len(sample.context))
    if task not in ("common", "frequent", "instructions", "generation"):  # whose answers are everywhere, or begin
        assert min(places) < 0.25 < 0.4 < max(places)


def test_the_first_samples_are_those_of_the_published_results() -> None:
    """Rows of the benchmark know a text by task, seed and number: a change of the draws would mix two texts."""
    wanted = {"single": " 7374", "multikey": " 4804", "variables": " 9570"}
    assert {task: samples(task, 1, 90, words)[0].answer for task in wanted} == wanted


def test_what_no_text_can_be_is_refused() -> None:
    with pytest.raises(UnknownName, match="multikey"):
        samples("multikeys", 1, 100, words)
    for task in TASKS:
        with pytest.raises(InvalidInput, match="larger length"):
            samples(task, 1, 10, words)
