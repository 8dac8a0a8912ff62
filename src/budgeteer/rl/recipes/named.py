"""Recipes by what a command line says: ``NAME`` or ``NAME:option=value,...``."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.spec import parse
from budgeteer.rl.recipe import Recipe, always

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
    "steer": "steer",
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
    spec = parse(text, "recipe")
    method = registry.get("recipe", spec.name)
    taken = registry.options_of(method)
    options = {key: value for key, value in spec.values.items() if key in taken or key not in SLOTS}
    if unknown := next((key for key in options if key not in taken), None):
        raise UnknownName(f"option of {spec.name}", unknown, [*taken, *SLOTS])
    slots = {key: registry.part_of(SLOTS[key], str(value)) for key, value in spec.values.items() if key not in options}
    made = registry.make("recipe", spec.name, **options)
    if not isinstance(made, Recipe):
        raise InvalidInput(f"recipe {text!r}: {method.path} makes a {type(made).__name__}; return a Recipe")
    if "steer" in slots:
        slots["steer"] = always(slots["steer"])
    if "ratio" in slots:
        slots["loss"] = made.loss._replace(ratio=slots.pop("ratio"))
    if schedules := {key: slots.pop(key) for key in ("temperature", "max_tokens", "lr") if key in slots}:
        slots["schedules"] = replace(made.schedules, **schedules)
    return replace(made, name=text, **slots)
