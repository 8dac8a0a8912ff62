"""Tasks that are Environments in Python: ``package.module:NAME`` and ``python:FILE.py:NAME``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from budgeteer.core.environment import Environment
from budgeteer.core.errors import BudgeteerError, InvalidInput, UnknownName
from budgeteer.core.spec import Spec

_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_python(name: str) -> bool:
    """Whether a task's name is that of an object in Python."""
    return name.startswith("python:") or _MODULE.fullmatch(name) is not None


def load(spec: Spec, *, size: int, seed: int, known: Iterable[str]) -> tuple[Environment, str]:
    """The environment, and a text that identifies its verifier by the content of its module.

    Args:
        spec: of the task, without ``verifier``.
        size, seed: given to a function or class that takes them, unless the options set them.
        known: names of tasks, for the message about a module that is not there.

    Raises:
        UnknownName: no such module, or no such name in it.
        InvalidInput: the module or what it makes cannot be used.
    """
    text = str(spec)
    module, where, name = _module(spec, known)
    made = getattr(module, name, None)
    if made is None:
        raise UnknownName(f"name in {where}", name, [key for key in vars(module) if not key.startswith("_")])
    if callable(made):
        made = _called(spec, made, spec.values, {"size": size, "seed": seed})
    elif spec.options:
        raise InvalidInput(f"task {text!r}: {name} is an object and takes no options; a function or class does")
    return environment(text, name, made), f"python {name} {content_of(module)}"


def environment(text: str, name: str, made: Any) -> Environment:
    """The object ``made``, if it is an Environment.

    Raises:
        InvalidInput: it is none; the message names the task ``text`` and the object's ``name``.
    """
    if not all(hasattr(made, part) for part in ("name", "items", "verify")):
        raise InvalidInput(f"task {text!r}: {name} is {type(made).__name__} and no Environment (name, items, verify)")
    return cast("Environment", made)


def content_of(module: ModuleType) -> str:
    """A fingerprint of a module's file, ``""`` where it has none."""
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


def _module(spec: Spec, known: Iterable[str]) -> tuple[ModuleType, str, str]:
    """The module, its path or dotted name, and the name in it."""
    text = str(spec)
    if spec.name.startswith("python:"):
        where, colon, name = spec.name.removeprefix("python:").rpartition(":")
        if not colon or not where.endswith(".py"):
            raise InvalidInput(f"task {text!r}: write python:FILE.py:NAME, the name of an Environment in the file")
        return _module_of(Path(where), f"task {text!r}"), where, name
    where, _, name = spec.name.partition(":")
    try:
        return importlib.import_module(where), where, name
    except ModuleNotFoundError as error:
        if error.name is None or not where.startswith(error.name):
            raise InvalidInput(f"task {text!r}: {where} cannot be imported ({error})") from error
        raise UnknownName("task or module", text, known) from error
    except (Exception, SystemExit) as error:
        raise InvalidInput(f"task {text!r}: {where} raised {error!r} when it was imported") from error


def _module_of(path: Path, subject: str) -> Any:
    """The module of a Python file, which is run once as long as its content stays the same.

    Raises:
        InvalidInput: it cannot be read or raises when it runs; ``subject`` begins the message.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{subject}: cannot read {path}: {error}") from error
    return _run(path.resolve(), hashlib.sha256(content).hexdigest(), subject)


@lru_cache(maxsize=64)
def _run(path: Path, digest: str, subject: str) -> Any:
    name = f"budgeteer_user_{path.stem}_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"{subject}: {path} is no Python file; its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles of the file look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that ends by sys.exit would end the command
        del sys.modules[name]
        raise InvalidInput(f"{subject}: {path} raised {error!r} when it was loaded") from error
    return module


def _called(spec: Spec, make: Callable[..., Any], options: Mapping[str, Any], own: Mapping[str, int]) -> Any:
    try:
        parameters = inspect.signature(make).parameters.values()
        anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        takes = {parameter.name for parameter in parameters}
        return make(**{**{key: number for key, number in own.items() if anything or key in takes}, **options})
    except BudgeteerError:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidInput(f"task {str(spec)!r}: {spec.name} raised {error!r}") from error
