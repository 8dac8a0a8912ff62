"""Recipes by what a command line says: ``NAME`` or ``NAME:option=value,...``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.rl.recipe import Recipe

__all__ = ["UNTRAINED", "get"]

UNTRAINED = "untrained"
"""The recipe that trains nothing."""
SLOTS = {
    "reward": "reward",
    "advantage": "advantage",
    "importance": "importance",
    "token_weight": "weight",
    "ratio": "ratio",
    "stream": "stream",
    "carry": "carry",
    "temperature": "schedule",
    "max_tokens": "schedule",
    "lr": "schedule",
}
"""Slot of a recipe that an option may fill by the name of a method -> its part."""


def get(text: str) -> Recipe:
    """The recipe of that name, of this package or another one.

    Options are those of the recipe's factory (``duet:stop_answered=false``), or name a part for one of :data:`SLOTS`
    (``grpo:reward=overlong``, ``duet:advantage=tempo,lr=rex``).

    Raises:
        UnknownName: no recipe, option or part of this name; with the nearest names.
        InvalidInput: a factory refuses its options, or does not make a recipe.

    >>> get("duet:stop_answered=false,thinned=false").thin is None
    True
    """
    name, options = registry.parse(text)
    method = registry.get("recipe", name)
    factory = registry.load(method)
    taken = registry.parameters(factory)
    given: dict[str, Any] = {}
    slots: dict[str, Any] = {}
    for key, value in options.items():
        if key in taken:
            given[key] = value
        elif key in SLOTS:
            slots[key] = registry.make(SLOTS[key], str(value))
        else:
            raise UnknownName(f"option of {name}", key, [*taken, *SLOTS])
    registry.require_bools(name, factory, given)
    try:
        made = factory(**given)
    except TypeError as error:
        raise InvalidInput(f"recipe {text!r}: {method.path} cannot be called so: {error}") from error
    if not isinstance(made, Recipe):
        raise InvalidInput(f"recipe {text!r}: {method.path} makes a {type(made).__name__}; return a Recipe")
    if "ratio" in slots:
        slots["loss"] = made.loss._replace(ratio=slots.pop("ratio"))
    if schedules := {key: slots.pop(key) for key in ("temperature", "max_tokens", "lr") if key in slots}:
        slots["schedules"] = replace(made.schedules, **schedules)
    return replace(made, name=text, **slots)
