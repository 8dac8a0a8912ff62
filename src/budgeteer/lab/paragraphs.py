"""Questions about paragraphs, in the manner of RULER (arXiv 2404.06654), from rows of your own.

A row has a question, its answers and paragraphs, some of which hold the answer. A text has these, and others up to the
first that does not fit: those of the row, and where they are too few, those of other rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from budgeteer.core import rows
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.needles import Asked, Sample

TASK = "qa"
"""Its name."""
PARAGRAPHS, GOLD = ("paragraphs", "candidate_sentences"), ("gold", "gold_sentences")
"""Names of a row's fields: the first that it has. The second ones are those of the sets that come with sentences."""
INTRODUCTION = "Some paragraphs follow. A question about them comes behind them.\n"


class Question(NamedTuple):
    """A question about paragraphs.

    Attributes:
        question: it.
        answer: the first of its answers.
        gold: the paragraphs that a text has to have.
        others: further ones, none of which is among ``gold``.
        answers: all of them; no paragraph of another row with one of them stands in a text.
    """

    question: str
    answer: str
    gold: tuple[str, ...]
    others: tuple[str, ...]
    answers: tuple[str, ...]


def read_questions(source: str) -> list[Question]:
    """The questions of a file: JSON lines, JSON or Parquet, the first two also gzipped.

    A row has ``question``; ``answers``, a list, or ``answer``; ``paragraphs``, a list; and, if it wants, ``gold``, the
    paragraphs that are needed. Without it they are those in which an answer stands. ``candidate_sentences`` and
    ``gold_sentences`` are other names of the last two.

    Raises:
        InvalidInput: the file cannot be read, or a row lacks something; names file and row.
    """
    where, found = rows.where(source), list[Question]()
    for place, row in rows.read(source):
        try:
            found.append(_question(row))
        except InvalidInput as error:
            raise InvalidInput(f"{where}, {place}: {error}") from error
    if not found:
        raise InvalidInput(f"{where} holds no questions; give rows with question, answers and paragraphs")
    return found


def _question(row: Any) -> Question:
    if not isinstance(row, Mapping):
        raise InvalidInput("no object; give one with question, answers and paragraphs")
    question = row.get("question")
    if not _is_text(question):
        raise InvalidInput("question is missing or no text; write it there")
    given = row.get("answers", row.get("answer"))
    answers = _texts("answers", [given] if isinstance(given, str) else given)
    paragraphs = _texts(PARAGRAPHS[0], _first(row, PARAGRAPHS))
    gold = _first(row, GOLD)
    needed = [each for each in paragraphs if _holds(each, answers)] if gold is None else _texts(GOLD[0], gold)
    if not needed:
        raise InvalidInput(f"{answers[0]!r} stands in no paragraph; name those that are needed in a field 'gold'")
    others = [each for each in paragraphs if each not in needed]
    return Question(" ".join(question.split()), answers[0], tuple(needed), tuple(others), tuple(answers))


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _texts(name: str, given: Any) -> list[str]:
    """A list of texts, each on one line and once.

    Raises:
        InvalidInput: it is none, or is empty.
    """
    if not isinstance(given, list) or not given or not all(map(_is_text, given)):
        raise InvalidInput(f'{name} is missing or no list of texts; give one text or more, such as ["..."]')
    return list(dict.fromkeys(" ".join(each.split()) for each in given))


def _is_text(value: Any) -> TypeGuard[str]:
    """Whether a value is a text that a tokenizer reads: not blank, and without half of a surrogate pair."""
    return isinstance(value, str) and bool(value.strip()) and not re.search("[\ud800-\udfff]", value)


def _holds(paragraph: str, answers: Sequence[str]) -> bool:
    return any(answer.casefold() in paragraph.casefold() for answer in answers)


def samples_of(
    questions: Sequence[Question], count: int, length: int, size: Callable[[str], int], *, seed: int = 0
) -> list[Sample]:
    """Texts of at most ``length`` tokens, each of another question; a paragraph more would not fit, or there is none.

    The order of the paragraphs is drawn, and which of the others stand beside the needed ones. The answer is the first
    of a row's answers.

    Args:
        questions: of :func:`read_questions`.
        count: how many, >= 1.
        length: tokens of context and question together.
        size: tokens of a text.
        seed: of the draws.

    Raises:
        InvalidInput: fewer questions than ``count`` fit into the length with the paragraphs that they need.
    """
    found = list[Sample]()
    for place in np.random.default_rng(seed).permutation(len(questions)).tolist():
        if len(found) == count:
            break
        asked = _asked(questions, place, length, np.random.default_rng([seed, place]))
        if (sample := asked.sample(TASK, length, size)) is not None:
            found.append(sample)
    if len(found) < count:
        raise InvalidInput(
            f"{len(found)} of {len(questions)} questions fit into {length} tokens with the paragraphs that they need; "
            f"give a larger length, {f'at most {len(found)} samples, ' if len(found) > 1 else ''}or more rows"
        )
    return found


def _asked(questions: Sequence[Question], place: int, most: int, rng: np.random.Generator) -> Asked:
    """A question with its paragraphs, and ``most`` of other rows."""
    mine = questions[place]
    others = [mine.others[i] for i in rng.permutation(len(mine.others))]
    known = {*mine.gold, *mine.others}
    foreign = (
        each
        for i in rng.permutation(len(questions)).tolist()
        for each in (*questions[i].gold, *questions[i].others)
        if each not in known and not _holds(each, mine.answers)
    )
    paragraphs = [*mine.gold, *others, *dict.fromkeys(islice(foreign, most))]
    order = rng.random(len(paragraphs))
    text = partial(_text, paragraphs, order, len(mine.gold))
    return Asked(text, f"\nQuestion: {mine.question}\nAnswer:", f" {mine.answer}")


def _text(paragraphs: Sequence[str], order: np.ndarray[Any, Any], needed: int, more: int) -> str:
    """The needed paragraphs, which come first, and so many more, in an order that is given."""
    count = min(needed + more, len(paragraphs))
    return INTRODUCTION + "\n".join(paragraphs[i] for i in np.argsort(order[:count], kind="stable"))
