"""Questions to solve, from a file or a generated task, with the references that tell right from wrong."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from budgeteer.errors import InvalidInput, UnknownName
from budgeteer.lab.tasks.base import Environment, Item
from budgeteer.lab.tasks.chains import Chains
from budgeteer.lab.tasks.gym import FAMILIES, Gym
from budgeteer.lab.tasks.jsonl import agrees, final
from budgeteer.solve.strategy import Question
from budgeteer.solve.styles import Asked, Example, normal

SIZE = 100
"""Questions of a generated task, unless a limit is given."""
_SHOTS = 4


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions with their references.

    Attributes:
        questions: with distinct ids.
        references: id -> reference answer; a question without one is not graded.
        asked: what a style has to know.
        environment: verifies generated items; None: answers are compared with the reference.
        items: id -> generated item.
    """

    questions: tuple[Question, ...]
    references: Mapping[str, str]
    asked: Asked
    environment: Environment | None = None
    items: Mapping[str, Item] | None = None

    def grade(self, question: Question, answer: str | None) -> float | None:
        """Score in [0, 1], None without a reference."""
        if self.environment is not None and self.items is not None:
            item = self.items[question.id]
            return float(self.environment.verify(item, answer)) if answer is not None else 0.0
        reference = self.references.get(question.id)
        return None if reference is None else float(agrees(answer, reference))

    def score(self, question: Question, answer: str) -> float:
        """The references as a verifier: 0 without one. An oracle, for what a perfect verifier would be worth."""
        return self.grade(question, answer) or 0.0


def load(source: str, *, limit: int | None = None, seed: int = 0) -> QuestionSet:
    """Questions of a file, of standard input or of a task.

    Args:
        source: a file of JSON lines (``.jsonl``, ``.jsonl.gz``) or ``-``, each line with ``question`` and, as known,
            ``id`` and ``answer`` (what follows ``####`` if it has that, as in GSM8K); or a task: ``chains``,
            ``gym:FAMILY`` of reasoning-gym, either with settings, such as ``chains:min_steps=4,max_steps=6``.
        limit: the first so many; of a generated task, how many (default 100).
        seed: of a generated task.

    Raises:
        InvalidInput: the file cannot be read, a line lacks a question, ids repeat, settings are wrong.
        UnknownName: no such task or file.
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"the limit is {limit} questions; give at least 1")
    name, _, rest = source.partition(":")
    if source == "-":
        return _of_lines(sys.stdin, "standard input", "stdin", limit)
    if name in ("chains", "gym"):
        return _of_task(source, name, rest, limit or SIZE, seed)
    path = Path(source)
    if not path.exists() and path.suffix not in (".jsonl", ".json", ".gz"):
        raise UnknownName("file or task", source, ["chains", *(f"gym:{family}" for family in FAMILIES)])
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            return _of_lines(lines, str(path), path.name.split(".")[0], limit)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}") from error


def _of_lines(lines: Iterable[str], where: str, name: str, limit: int | None) -> QuestionSet:
    questions: dict[str, Question] = {}
    references: dict[str, str] = {}
    for number, line in islice(((n, line) for n, line in enumerate(lines, 1) if line.strip()), limit):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidInput(f"{where}, line {number}: not a JSON object a line ({error})") from error
        text = row.get("question") if isinstance(row, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise InvalidInput(f"{where}, line {number}: no field 'question' with text")
        key = str(row.get("id", f"{name}:{number}"))
        if key in questions:
            raise InvalidInput(f"{where}, line {number}: the id {key!r} is there already; make ids distinct")
        questions[key] = Question(key, text)
        if row.get("answer") is not None:
            references[key] = final(str(row["answer"]))
    if not questions:
        raise InvalidInput(f"{where} holds no questions; give one JSON object a line")
    numeric = bool(references) and all(_is_number(answer) for answer in references.values())
    return QuestionSet(tuple(questions.values()), references, Asked(name, numeric))


def _of_task(source: str, name: str, rest: str, size: int, seed: int) -> QuestionSet:
    family, _, settings_text = rest.partition(":") if name == "gym" else (name, "", rest)
    if not family:
        raise InvalidInput(f"task {source!r} names no family; write gym:chain_sum")
    settings = _settings(settings_text, source)
    try:
        environment: Environment = (
            Chains(size, seed, **settings) if name == "chains" else Gym(family, size, seed, **settings)
        )
    except (TypeError, ValueError, AssertionError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"task {source!r}: {error}") from error
    items = {item.key: item for item in environment.items}
    references = {item.key: item.answer for item in environment.items}
    examples: tuple[Example, ...] = ()
    if name == "gym" and family not in FAMILIES:  # others have no worked examples of ours: answers of other problems
        others = Gym(family, _SHOTS + size, seed + 1, **settings).items
        asked = {item.prompt for item in environment.items}
        examples = tuple(Example(i.prompt, "", i.answer) for i in others if i.prompt not in asked)[:_SHOTS]
    numeric = all(_is_number(answer) for answer in references.values())
    questions = tuple(Question(item.key, item.prompt) for item in environment.items)
    return QuestionSet(questions, references, Asked(family, numeric, examples), environment, items)


def _is_number(text: str) -> bool:
    shown = normal(text)
    return shown.removeprefix("-").replace(".", "", 1).isdecimal()


def _settings(text: str, source: str) -> dict[str, Any]:
    found = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.isidentifier():
            raise InvalidInput(f"task {source!r}: {part!r} is no setting; write min_steps=4,max_steps=6")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
