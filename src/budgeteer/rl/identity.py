"""The identity of a run: all that decides its result, to refuse results and checkpoints of other settings.

An identity is a flat mapping of JSON values: settings as they are, contents (weights, problems, code) as fingerprints.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

ALGORITHM = 1
"""Version of sampler and trainer: to be raised whenever equal settings give other results than before."""
_MARK = "content "


def digest(*contents: bytes) -> str:
    """A fingerprint of several contents, in order; it depends on where one ends and the next begins."""
    made = hashlib.sha256()
    for content in contents:
        made.update(len(content).to_bytes(8, "big") + content)
    return _MARK + made.hexdigest()[:16]


def fingerprint(value: Any) -> str:
    """A fingerprint of data and functions: what a function does, what it closes over, and its defaults.

    Of code outside budgeteer, the functions and constants of its own package that it names count too; inside budgeteer
    ``ALGORITHM`` says when those changed. What an object hides (in C, or in ``__slots__``) is not seen.
    """
    return digest(json.dumps(_parts(value, {}), sort_keys=True).encode())


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The differences of two identities, such as ``"problems; steps: 30 here, 20 there"``; ``""`` if they are equal."""
    said = []
    for name in sorted(mine.keys() | theirs.keys()):
        here, there = mine.get(name), theirs.get(name)
        if here != there:
            content = any(isinstance(value, str) and value.startswith(_MARK) for value in (here, there))
            said.append(name if content else f"{name}: {here} here, {there} there")
    return "; ".join(said)


def _parts(value: Any, seen: dict[int, Any]) -> Any:
    """``value`` as JSON data; ``seen`` holds the functions and objects visited, so that circles end."""
    if isinstance(value, StrEnum):
        value = value.value  # the word decides, not what its enum is called
    if value is None or isinstance(value, bool | int | float | str | bytes | np.generic):
        return repr(value)
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, digest(np.ascontiguousarray(value).tobytes())]
    if isinstance(value, list | tuple):
        return [_parts(part, seen) for part in value]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_parts(part, seen)) for part in value)
    if isinstance(value, Mapping):
        return sorted(([_parts(key, seen), _parts(part, seen)] for key, part in value.items()), key=repr)
    if isinstance(value, partial):
        return [_parts(part, seen) for part in (value.func, value.args, value.keywords)]
    if isinstance(value, MethodType):
        return [_parts(value.__func__, seen), _parts(value.__self__, seen)]
    name = _name(value if isinstance(value, type | FunctionType) else type(value))
    if isinstance(value, type) or id(value) in seen:
        return name
    seen[id(value)] = value
    if isinstance(value, FunctionType):
        return [name, _function(value, seen)]
    if dataclasses.is_dataclass(value):
        return [name, {f.name: _parts(getattr(value, f.name), seen) for f in dataclasses.fields(value)}]
    return [name, {key: _parts(part, seen) for key, part in getattr(value, "__dict__", {}).items()}]


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _function(function: FunctionType, seen: dict[int, Any]) -> Any:
    code, cells = function.__code__, {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            cells[name] = _parts(cell.cell_contents, seen)
        except ValueError:  # not filled yet
            continue
    named = {}
    root = function.__module__.partition(".")[0]
    for name in [] if root == "budgeteer" else sorted(_names(code)):
        value = function.__globals__.get(name)
        own = isinstance(value, FunctionType) and value.__module__.partition(".")[0] == root
        if own or isinstance(value, bool | int | float | str | tuple):
            named[name] = _parts(value, seen)
    defaults = [_parts(function.__defaults__, seen), _parts(function.__kwdefaults__, seen)]
    return [_code(code, function.__doc__), cells, named, defaults]


def _names(code: CodeType) -> set[str]:
    inner = [_names(part) for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*inner)


def _code(code: CodeType, doc: str | None) -> Any:
    """What the code does, without names of files, numbers of lines and its docstring."""
    constants = [
        _code(part, None) if isinstance(part, CodeType) else _parts(part, {})
        for i, part in enumerate(code.co_consts)
        if not (i == 0 and doc is not None and part == doc)
    ]
    return [code.co_code.hex(), constants, code.co_names]
