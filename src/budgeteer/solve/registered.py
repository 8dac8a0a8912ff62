"""Registered strategies by what a command line says: ``NAME`` or ``NAME:param=value,...``."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from functools import partial
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.method import TAKES
from budgeteer.solve.runner import Together
from budgeteer.solve.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Spec:
    """One strategy with its parameters.

    Attributes:
        name: as registered.
        params: for its factory; values are JSON where they parse as such, else text.
    """

    name: str
    params: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        shown = ",".join(
            f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in self.params
        )
        return f"{self.name}:{shown}" if shown else self.name


def parse(text: str) -> Spec:
    """Read one strategy.

    Raises:
        InvalidInput: none or several.

    >>> str(parse("self-consistency:n=8,temperature=0.7"))
    'self-consistency:n=8,temperature=0.7'
    """
    found = parse_all(text)
    if len(found) != 1:
        raise InvalidInput(f"{text!r} names {len(found)} strategies; give one, as NAME:param=value,param=value")
    return found[0]


def parse_all(text: str) -> list[Spec]:
    """Read strategies separated by commas; ``key=value`` belongs to the strategy before it.

    Raises:
        InvalidInput: an empty name, or a parameter before any strategy.

    >>> [str(spec) for spec in parse_all("direct,vote:n=8,temperature=0.7,best")]
    ['direct', 'vote:n=8,temperature=0.7', 'best']
    """
    found: list[Spec] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, colon, rest = part.partition(":")
        if not colon and "=" in part:
            name, rest = "", part
        if name:
            found.append(Spec(name))
        if not found or (colon and not name):
            raise InvalidInput(f"{text!r} names no strategy before {part!r}; write NAME:param=value,param=value")
        if rest:
            key, equals, value = rest.partition("=")
            if not equals or not key.isidentifier():
                raise InvalidInput(f"{rest!r} is no parameter; write NAME:param=value,param=value")
            found[-1] = Spec(found[-1].name, (*found[-1].params, (key, registry.value_of(value))))
    return found


def build(spec: Spec) -> Strategy | Together:
    """Make a strategy, or what answers many questions together.

    Where it takes a part, such as ``scorer=verifier``, or another strategy, such as ``inner=elastic``, that is meant by
    its registered name.

    Raises:
        UnknownName: no strategy of this name, or no parameter of this name.
        InvalidInput: the method is no strategy, or refuses its parameters.
    """
    many = registry.of("many")
    factory = registry.load(registry.get("many" if spec.name in many else "strategy", spec.name))
    parameters = dict(inspect.signature(factory).parameters)
    if spec.name in many:
        del parameters["tasks"]
    given = dict(spec.params)
    for key, value in spec.params:
        if key not in parameters:
            raise UnknownName(f"parameter of {spec.name}", key, parameters)
        if key in TAKES and isinstance(value, str):
            try:
                given[key] = registry.load(registry.get(TAKES[key], value))()
            except TypeError as error:
                raise InvalidInput(f"{key}={value} needs arguments ({error}); make it in Python") from error
        elif isinstance(value, str) and str(parameters[key].annotation).startswith("Strategy"):
            given[key] = build(Spec(value))
        else:
            _refuse(spec.name, key, value, str(parameters[key].annotation), get_type_hints(factory)[key])
    missing = [k for k, p in parameters.items() if p.default is p.empty and k not in given]
    if missing:
        names = registry.of(TAKES.get(missing[0], ""))
        hint = f"one of {', '.join(names)}" if names else "a value"
        raise InvalidInput(f"{spec.name} needs {missing[0]}; give {spec.name}:{missing[0]}=, {hint}")
    if spec.name in many:
        return partial(factory, **given)
    try:
        made = factory(**given)
    except TypeError as error:
        raise InvalidInput(f"strategy {str(spec)!r}: {error}") from error
    if not isinstance(made, Strategy):
        raise InvalidInput(f"{spec.name} makes a {type(made).__name__}, no Strategy")
    return made


def _refuse(name: str, key: str, value: Any, written: str, hint: Any) -> None:
    """Refuse a number, a word or none where the parameter takes no such thing."""
    takes = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    words = [word for one in takes if get_origin(one) is Literal for word in get_args(one)]
    kinds: dict[type, tuple[type, ...]] = {int: (int, float)}
    plain = value is None or isinstance(value, bool | int | float | str)
    if plain and value not in words and not any(kind in takes for kind in kinds.get(type(value), (type(value),))):
        raise InvalidInput(f"{name}:{key}={value} is not possible: {key} is {' or '.join(words) or written}")
