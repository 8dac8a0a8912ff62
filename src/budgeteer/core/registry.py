"""Every method by part and name, those of other installed packages included.

>>> get("allocator", "neyman").citation.arxiv
'2605.08441'
>>> make("allocator", "uniform", units=4).allocate.__name__
'allocate'
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.method import ITSELF, PARTS, Method
from budgeteer.core.methods import METHODS

GROUP = "budgeteer.methods"
"""Entry point group of methods outside this package; each entry point loads to a :class:`Method`."""


def methods() -> tuple[Method, ...]:
    """All methods: those of this package, then those of other installed packages, which may not take a name of ours.

    Raises:
        InvalidInput: another package declares what is no method; the message names its entry point.
    """
    from importlib.metadata import entry_points  # slow to import, and most callers only want METHODS

    found = {(method.part, method.name): method for method in METHODS}
    for entry in entry_points(group=GROUP):
        method = _declared(entry)
        if (method.part, method.name) in found:
            raise InvalidInput(
                f"entry point {entry.name!r} registers the {method.part} {method.name!r} a second time; choose another "
                "name"
            )
        found[method.part, method.name] = method
    return tuple(found.values())


def of(part: str) -> dict[str, Method]:
    """The methods of a part, by name."""
    return {method.name: method for method in methods() if method.part == part}


def get(part: str, name: str) -> Method:
    """The method of this part and name.

    Raises:
        UnknownName: no method has it; the message lists the nearest names.
    """
    for method in METHODS:
        if (method.part, method.name) == (part, name):
            return method
    known = of(part)
    if name not in known:
        raise UnknownName(part, name, known)
    return known[name]


def load(method: Method) -> Any:
    """Import a method's module and return what its path names: a factory, or the method itself."""
    return resolve(method.path)


def made(method: Method, **arguments: Any) -> Any:
    """The method: what its factory makes of the arguments, or, where the path names the method itself, that."""
    found = load(method)
    if method.part not in ITSELF:
        return found(**arguments)
    return partial(found, **arguments) if arguments else found


def make(part: str, name: str, **arguments: Any) -> Any:
    """The method of this part and name, made with these arguments.

    Raises:
        UnknownName: no method has this part and name.
        InvalidInput: the factory does not take these arguments.
    """
    method = get(part, name)
    factory = load(method)
    require_bools(name, factory, arguments)
    try:
        if part not in ITSELF:  # the others take some of their arguments later
            inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise InvalidInput(f"{name} does not take these arguments: {error}") from error
    return made(method, **arguments)


def resolve(path: str) -> Any:
    """What ``"package.module:name"`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def value_of(text: str) -> Any:
    """An argument as it is written on a command line: true, false, none in any case; JSON where it parses; else text.

    >>> [value_of(text) for text in ("False", "TRUE", "none", "0.5", "[1, 2]", "power")]
    [False, True, None, 0.5, [1, 2], 'power']
    """
    low = {"true": True, "false": False, "none": None}
    if text.lower() in low:
        return low[text.lower()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """``NAME:option=value,option=value`` as name and options.

    >>> parse("duet:stop_answered=false,thinned=true")
    ('duet', {'stop_answered': False, 'thinned': True})

    Raises:
        InvalidInput: an option without a value, or given twice.
    """
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.isidentifier() or key in options:
            raise InvalidInput(f"{text!r}: {part!r} is no option; write NAME:option=value,option=value, each once")
        options[key] = value_of(value)
    return name, options


def parameters(factory: Callable[..., Any]) -> tuple[str, ...]:
    """Names of a factory's parameters."""
    return tuple(inspect.signature(factory).parameters)


def require_bools(name: str, factory: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuse arguments that are no bool where the factory's default is one: any text would count as true."""
    for key, parameter in inspect.signature(factory).parameters.items():
        if isinstance(parameter.default, bool) and key in given and not isinstance(given[key], bool):
            raise InvalidInput(f"{name}: {key} is {given[key]!r}; give true or false")


def _declared(entry: Any) -> Method:
    """The method of another package's entry point, looked at."""
    try:
        method = entry.load()
        factory = load(method) if isinstance(method, Method) else None
    except Exception as error:  # whatever another package's import raises
        raise InvalidInput(
            f"entry point {entry.name!r} of group {GROUP!r} cannot be loaded ({type(error).__name__}: {error}); "
            "mend or remove the package that declares it"
        ) from error
    if not isinstance(method, Method):
        raise InvalidInput(f"entry point {entry.name!r} of group {GROUP!r} loads to {method!r}; load to a Method")
    if method.part not in PARTS or not callable(factory):
        raise InvalidInput(
            f"entry point {entry.name!r} registers {method.name!r} as {method.part!r} at {method.path!r}; the part "
            f"is one of {', '.join(sorted(PARTS))}, and the path names a function as package.module:function"
        )
    return method
