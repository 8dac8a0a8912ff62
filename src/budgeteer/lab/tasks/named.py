"""One way to name a task, for train, compare, solve, frontier and lab profile.

A task is ``NAME`` or ``NAME:key=value,key=value``, where NAME is

- ``chains``, or ``gym:FAMILY`` of reasoning-gym; the settings are the family's;
- a pool: ``real``, ``hard``, ``homogeneous``; no settings;
- a file: ``.jsonl``, ``.json``, ``.csv``, ``.parquet``, all but the last also with ``.gz``; ``-`` is JSON lines on
  standard input. Settings: ``question`` and ``answer``, the names of the fields;
- an Environment in Python, or what makes one: ``package.module:NAME``, ``python:FILE.py:NAME``. A function or class is
  called with the settings, and with ``size`` and ``seed`` if it takes them.

Every task takes the setting ``verifier`` (:mod:`budgeteer.verify`): how answers are compared with the references,
instead of the task's own verifier, which for files is ``auto``.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from budgeteer import verify
from budgeteer.core.errors import BudgeteerError, InvalidInput, UnknownName
from budgeteer.core.registry import value_of
from budgeteer.lab.tasks import files
from budgeteer.lab.tasks.base import Environment, Item
from budgeteer.lab.tasks.chains import Chains
from budgeteer.lab.tasks.gym import FAMILIES, Gym
from budgeteer.lab.tasks.mixture import MIXES, mix
from budgeteer.verify._named import module_of

HELP = (
    "real, hard, homogeneous, chains, gym:FAMILY, a file (.jsonl, .json, .csv, .parquet; .gz) or an Environment in "
    "Python (package.module:NAME, python:FILE.py:NAME); settings follow, as in chains:min_steps=4,max_steps=6"
)
_SETTINGS = re.compile(r"(.*?):((?:\w+=).*)", re.DOTALL)
_NEXT = re.compile(r",(?=\w+=)")
_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Name:
    """A task's name, taken apart.

    Attributes:
        source: the name without settings.
        settings: of the source.
        verifier: by name, None = the task's own.
    """

    source: str
    settings: Mapping[str, str]
    verifier: str | None

    @classmethod
    def parse(cls, text: str) -> Name:
        """From ``SOURCE:key=value,...``.

        >>> Name.parse("gym:chain_sum:min_terms=2,max_terms=3,verifier=number")
        Name(source='gym:chain_sum', settings={'min_terms': '2', 'max_terms': '3'}, verifier='number')
        """
        found = _SETTINGS.fullmatch(text)
        if found is None:
            return cls(text, {}, None)
        settings = {}
        for part in _NEXT.split(found[2]):
            key, _, value = part.partition("=")
            if key in settings:
                raise InvalidInput(f"task {text!r} sets {key} twice")
            settings[key] = value
        return cls(found[1], settings, settings.pop("verifier", None))

    def __str__(self) -> str:
        settings = {**self.settings, **({} if self.verifier is None else {"verifier": self.verifier})}
        return self.source + (":" if settings else "") + ",".join(f"{key}={value}" for key, value in settings.items())


def with_options(text: str, *, question: str | None, answer: str | None, verifier: str | None) -> str:
    """A task's name with what ``--question-field``, ``--answer-field`` and ``--verifier`` say.

    >>> with_options("my.csv", question="prompt", answer=None, verifier="choice")
    'my.csv:question=prompt,verifier=choice'
    """
    name = Name.parse(text)
    fields = {"question": question, "answer": answer}
    given = {key: value for key, value in fields.items() if value is not None}
    if given and not files.is_file(name.source):
        raise InvalidInput(f"--{next(iter(given))}-field names a field of a file; {text!r} is none")
    return str(Name(name.source, {**name.settings, **given}, name.verifier if verifier is None else verifier))


@dataclass(frozen=True, slots=True)
class Task:
    """A task's problems and its verifier; an :class:`~budgeteer.lab.tasks.base.Environment`.

    Attributes:
        source: its name, settings included.
        name: short, such as ``"chains"``; what styles and reports call it.
        items: with distinct keys.
        identity: what, beside the items, decides the scores.
        counted: as many problems are made as are asked for, all with an answer.
    """

    source: str
    name: str
    items: tuple[Item, ...]
    identity: str
    counted: bool
    _verify: Callable[[Item, str | None], float] = field(repr=False, compare=False)

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


def load(text: str, *, size: int, seed: int = 0, limit: int | None = None) -> Task:
    """The task of this name.

    Args:
        text: see the module.
        size: problems of a generated task.
        seed: of a generated task.
        limit: of a file, the first so many rows.

    Raises:
        UnknownName: no such task, family or verifier, with the nearest names.
        InvalidInput: settings that do not fit, a file that cannot be read, too few distinct problems.
    """
    name = Name.parse(text)
    grade = None if name.verifier is None else verify.named(name.verifier)
    if name.source in MIXES:
        if name.settings:
            raise InvalidInput(f"task {text!r}: a pool has no settings; its parts have, such as chains")
        return _task(text, mix(name.source, size, seed), name, f"pool {name.source}", grade)
    if name.source == "chains" or name.source.startswith("gym:") or name.source == "gym":
        return _task(text, _generated(text, name, size, seed), name, name.source, grade)
    if files.is_file(name.source):
        return _file(text, name, limit)
    if name.source.startswith("python:") or _MODULE.fullmatch(name.source):
        return _task(text, *_of_python(text, name, size, seed), grade=grade, counted=False)
    families = [f"gym:{family}" for family in FAMILIES]
    raise UnknownName("task or file", text, [*MIXES, "chains", *families])


def stamp(text: str) -> tuple[tuple[str, int, int], ...]:
    """(path, time of the last change, size) of each file that a task names: for the keys of caches of tasks."""
    name = Name.parse(text)
    paths = [name.source] if files.is_file(name.source) else []
    for part in (name.source, name.verifier or ""):
        if part.startswith("python:"):
            path, colon, _ = part.removeprefix("python:").rpartition(":")
            paths.append(path if colon and path.endswith(".py") else part.removeprefix("python:"))
    found = ((path, Path(path)) for path in paths)
    return tuple((path, s.st_mtime_ns, s.st_size) for path, file in found if file.is_file() for s in (file.stat(),))


def _task(
    text: str, environment: Environment, name: Name, own: str, grade: verify.Verifier | None, counted: bool = True
) -> Task:
    items = tuple(environment.items)
    if not items:
        raise InvalidInput(f"task {text!r} has no problems")
    for item in items:
        if not isinstance(item, Item) or not isinstance(item.prompt, str) or not item.prompt.strip():
            raise InvalidInput(f"task {text!r}: {item!r} is no Item with a prompt")
    if len({item.key for item in items}) < len(items):
        raise InvalidInput(f"task {text!r} gives two problems the same key; make keys distinct")
    if grade is None:
        settings = json.dumps(dict(name.settings), sort_keys=True)
        return Task(text, environment.name, items, f"{own} {settings}", counted, environment.verify)
    return Task(text, environment.name, items, _identity(name.verifier), counted, by_reference(grade))


def by_reference(grade: verify.Verifier) -> Callable[[Item, str | None], float]:
    """Compare with the item's reference; without one, every answer counts 0."""

    def scored(item: Item, answer: str | None) -> float:
        return 0.0 if item.answer is None else grade(answer, item.answer)

    return scored


def _identity(verifier: str | None) -> str:
    return f"verifier {verify.identity(verifier or 'auto')}"


def _file(text: str, name: Name, limit: int | None) -> Task:
    unknown = [key for key in name.settings if key not in ("question", "answer")]
    if unknown:
        raise UnknownName(f"setting of the file {name.source}", unknown[0], ["question", "answer", "verifier"])
    question, answer = name.settings.get("question", "question"), name.settings.get("answer", "answer")
    short, items = files.read(name.source, question, answer, limit)
    verifier = verify.named(name.verifier or "auto")
    return Task(text, short, tuple(items), _identity(name.verifier), False, by_reference(verifier))


def _generated(text: str, name: Name, size: int, seed: int) -> Environment:
    family = name.source.removeprefix("gym").removeprefix(":")
    if not family:
        raise InvalidInput(f"task {text!r} names no family; write gym:chain_sum")
    if ":" in family:
        raise InvalidInput(f"task {text!r}: {family.partition(':')[2]!r} is no setting; write min_steps=4,max_steps=6")
    settings = {key: value_of(value) for key, value in name.settings.items()}
    try:
        return Chains(size, seed, **settings) if name.source == "chains" else Gym(family, size, seed, **settings)
    except BudgeteerError:
        raise
    except Exception as error:  # the families check their settings by assertions and errors of all kinds
        raise InvalidInput(f"task {text!r}: {error or type(error).__name__}") from error


def _of_python(text: str, name: Name, size: int, seed: int) -> tuple[Environment, Name, str]:
    """The environment, its name, and what identifies its verifier: the content of its module."""
    if name.source.startswith("python:"):
        where, colon, what = name.source.removeprefix("python:").rpartition(":")
        if not colon or not where.endswith(".py"):
            raise InvalidInput(f"task {text!r}: write python:FILE.py:NAME, the name of an Environment in the file")
        module = module_of(Path(where), f"task {text!r}")
    else:
        where, _, what = name.source.partition(":")
        try:
            module = importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name is None or not where.startswith(error.name):
                raise InvalidInput(f"task {text!r}: {where} cannot be imported ({error})") from error
            families = [f"gym:{family}" for family in FAMILIES]
            raise UnknownName("task or module", text, [*MIXES, "chains", *families]) from error
        except (Exception, SystemExit) as error:
            raise InvalidInput(f"task {text!r}: {where} raised {error!r} when it was imported") from error
    found = getattr(module, what, None)
    if found is None:
        names = [key for key in vars(module) if not key.startswith("_")]
        raise UnknownName(f"name in {where}", what, names)
    if callable(found):
        found = _called(text, found, name, size, seed)
    elif name.settings:
        raise InvalidInput(f"task {text!r}: {what} is an object and takes no settings; a function or class does")
    if not all(hasattr(found, part) for part in ("name", "items", "verify")):
        raise InvalidInput(f"task {text!r}: {what} is {type(found).__name__} and no Environment (name, items, verify)")
    file = getattr(module, "__file__", None)
    content = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    return found, name, f"python {what} {content}"


def _called(text: str, make: Callable[..., Any], name: Name, size: int, seed: int) -> Any:
    settings = {key: value_of(value) for key, value in name.settings.items()}
    try:
        parameters = inspect.signature(make).parameters.values()
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
        own = {"size": size, "seed": seed}
        takes = {p.name for p in parameters}
        return make(**{**{k: v for k, v in own.items() if anything or k in takes}, **settings})
    except BudgeteerError:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidInput(f"task {text!r}: {name.source} raised {error!r}") from error
