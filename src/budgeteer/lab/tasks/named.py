"""One way to name a task, for train, compare, solve, frontier and lab profile.

A task is ``NAME`` or ``NAME:key=value,key=value`` (:mod:`budgeteer.core.spec`), where NAME is

- a registered task (``budgeteer methods task``), of this package or another one: ``chains``; ``real``, ``hard`` and
  ``homogeneous``, pools without options; ``gym:FAMILY`` of reasoning-gym, whose options are the family's settings;
- a file: ``.jsonl``, ``.json``, ``.csv``, ``.parquet``, all but the last also with ``.gz``; ``-`` is JSON lines on
  standard input. Options: ``question`` and ``answer``, the names of the fields;
- an Environment in Python, or what makes one: ``package.module:NAME``, ``python:FILE.py:NAME``. A function or class is
  called with the options, and with ``size`` and ``seed`` if it takes them.

Every task takes the option ``verifier`` (:mod:`budgeteer.verify`): how answers are compared with the references,
instead of the task's own verifier, which for files is ``auto``.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from budgeteer import verify
from budgeteer.core import registry
from budgeteer.core.environment import Environment, Item
from budgeteer.core.errors import BudgeteerError, InvalidInput, UnknownName
from budgeteer.core.methods import METHODS
from budgeteer.core.spec import Spec, no_option
from budgeteer.core.spec import parse as parse_spec
from budgeteer.lab.tasks import files, python
from budgeteer.lab.tasks.gym import FAMILIES
from budgeteer.lab.tasks.mixture import MIXES
from budgeteer.solve.tool import Tool

HELP = (
    "real, hard, homogeneous, chains, thinking, gym:FAMILY or another registered task (budgeteer methods task), a file "
    "(.jsonl, .json, .csv, .parquet; .gz) or an Environment in Python (package.module:NAME, python:FILE.py:NAME); "
    "options follow, as in chains:min_steps=4,max_steps=6"
)


def parse(text: str) -> tuple[Spec, str | None]:
    """A task's name with its options, and the name of its verifier, None for the task's own.

    >>> spec, verifier = parse("gym:chain_sum:min_terms=2,verifier=number")
    >>> str(spec), verifier
    ('gym:chain_sum:min_terms=2', 'number')
    """
    spec = parse_spec(text, "task", source=True)
    return spec.without("verifier"), spec.text("verifier")


def with_options(text: str, *, question: str | None, answer: str | None, verifier: str | None) -> str:
    """A task's name with what ``--question-field``, ``--answer-field`` and ``--verifier`` say.

    >>> with_options("my.csv", question="prompt", answer=None, verifier="choice")
    'my.csv:question=prompt,verifier=choice'
    """
    spec = parse_spec(text, "task", source=True)
    given = [key for key, field in (("question", question), ("answer", answer)) if field is not None]
    if given and not files.is_file(spec.name):
        raise InvalidInput(f"--{given[0]}-field names a field of a file; {text!r} is none")
    own = spec.text("verifier")
    fields = spec.without("verifier").given(question=question, answer=answer)
    return str(fields.given(verifier=own if verifier is None else verifier))


@dataclass(frozen=True, slots=True)
class Task:
    """A task's problems and its verifier; an :class:`~budgeteer.core.environment.Environment`.

    Attributes:
        source: its name, options included.
        name: short, such as ``"chains"``; what styles and reports call it.
        items: with distinct keys.
        identity: what, beside the items, decides the scores.
        counted: as many problems are made as are asked for, all with an answer.
        tools: problem -> tools for it; None: it is answered without.
    """

    source: str
    name: str
    items: tuple[Item, ...]
    identity: str
    counted: bool
    _verify: Callable[[Item, str | None], float] = field(repr=False, compare=False)
    tools: Callable[[Item], Sequence[Tool]] | None = field(default=None, repr=False, compare=False)

    def verify(self, item: Item, answer: str | None) -> float:
        """Reward in [0, 1] of an extracted answer; None = the model gave none."""
        return self._verify(item, answer)

    def digest(self) -> str:
        """16 hexadecimal digits that change when a prompt, an answer, what the verifier sees or the verifier does."""
        return digest(self.items, self.identity)


def digest(items: tuple[Item, ...], identity: str) -> str:
    """Fingerprint of problems, in their order, and of their verifier."""
    rows = [[item.key, item.prompt, item.answer, item.level, item.entry] for item in items]
    text = json.dumps([identity, rows], sort_keys=True, default=lambda value: type(value).__qualname__)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def known() -> list[str]:
    """Names of registered tasks, and of the families of reasoning-gym that the embedded reasoner knows."""
    return [*registry.of("task"), *(f"gym:{family}" for family in FAMILIES)]


def load(text: str, *, size: int, seed: int = 0, limit: int | None = None) -> Task:
    """The task of this name.

    Args:
        text: see the module.
        size: problems of a generated task.
        seed: of a generated task.
        limit: of a file, the first so many rows.

    Raises:
        UnknownName: no such task, family, option or verifier, with the nearest names.
        InvalidInput: options that do not fit, a file that cannot be read, too few distinct problems.
    """
    spec, verifier = parse(text)
    grade = None if verifier is None else verify.named(verifier)
    name, colon, rest = spec.name.partition(":")
    counted = True
    if name in registry.of("task"):
        environment, own = _registered(text, Spec(name, spec.options), rest if colon else None, size, seed)
    elif files.is_file(spec.name):
        return _file(text, spec, verifier, grade or verify.named("auto"), limit)
    elif python.is_python(spec.name):
        environment, own = python.load(spec, size=size, seed=seed, known=known())
        counted = False
    else:
        raise UnknownName("task or file", text, known())
    items, tools = _items(text, environment), getattr(environment, "tools", None)
    if grade is None:
        options = json.dumps(dict(spec.options), sort_keys=True)
        return Task(text, environment.name, items, f"{own} {options}", counted, environment.verify, tools)
    return Task(text, environment.name, items, _identity(verifier), counted, by_reference(grade), tools)


def stamp(text: str) -> tuple[tuple[str, int, int], ...]:
    """(path, time of the last change, size) of each file that a task names: for the keys of caches of tasks."""
    spec, verifier = parse(text)
    paths = [spec.name] if files.is_file(spec.name) else []
    for part in (spec.name, verifier or ""):
        if part.startswith("python:"):
            path, colon, _ = part.removeprefix("python:").rpartition(":")
            paths.append(path if colon and path.endswith(".py") else part.removeprefix("python:"))
    stats = ((path, Path(path).stat()) for path in paths if Path(path).is_file())
    return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats)


def _registered(text: str, spec: Spec, family: str | None, size: int, seed: int) -> tuple[Environment, str]:
    """The environment of a registered task, and what identifies its verifier beside its options.

    Args:
        text: the whole name, for messages.
        spec: the registered name with its options.
        family: what follows the name after a colon, as in ``gym:lcm``; None = no colon.
        size, seed: of the problems.
    """
    method = registry.get("task", spec.name)
    later: dict[str, Any] = {"size": size, "seed": seed}
    if "family" in inspect.signature(registry.load(method)).parameters:
        if not family:
            raise InvalidInput(f"task {text!r} names no family; write {spec.name}:FAMILY, such as gym:chain_sum")
        later["family"], colon, rest = family.partition(":")
        family = rest if colon else None
    if family is not None:
        raise InvalidInput(no_option("task", text, family))
    try:
        made = registry.made(method, **later, **registry.arguments_of(method, spec.values))
    except BudgeteerError:
        raise
    except Exception as error:  # the families check their settings by assertions and errors of all kinds
        raise InvalidInput(f"task {text!r}: {error or type(error).__name__}") from error
    environment = python.environment(text, spec.name, made)
    if method not in METHODS:
        module = importlib.import_module(method.path.partition(":")[0])
        return environment, f"task {method.path} {python.content_of(module)}"
    own = ":".join(filter(None, (spec.name, later.get("family"))))
    return environment, f"pool {own}" if own in MIXES else own


def _items(text: str, environment: Environment) -> tuple[Item, ...]:
    """The problems of an environment, looked at."""
    items = tuple(environment.items)
    if not items:
        raise InvalidInput(f"task {text!r} has no problems")
    for item in items:
        if not isinstance(item, Item) or not isinstance(item.prompt, str) or not item.prompt.strip():
            raise InvalidInput(f"task {text!r}: {item!r} is no Item with a prompt")
    if len({item.key for item in items}) < len(items):
        raise InvalidInput(f"task {text!r} gives two problems the same key; make keys distinct")
    return items


def by_reference(grade: verify.Verifier) -> Callable[[Item, str | None], float]:
    """Compare with the item's reference; without one, every answer counts 0."""

    def scored(item: Item, answer: str | None) -> float:
        return 0.0 if item.answer is None else grade(answer, item.answer)

    return scored


def _identity(verifier: str | None) -> str:
    return f"verifier {verify.identity(verifier or 'auto')}"


def _file(text: str, spec: Spec, verifier: str | None, grade: verify.Verifier, limit: int | None) -> Task:
    unknown = [key for key, _ in spec.options if key not in ("question", "answer")]
    if unknown:
        raise UnknownName(f"option of the file {spec.name}", unknown[0], ["question", "answer", "verifier"])
    question, answer = spec.text("question") or "question", spec.text("answer") or "answer"
    short, items = files.read(spec.name, question, answer, limit)
    return Task(text, short, tuple(items), _identity(verifier), False, by_reference(grade))
