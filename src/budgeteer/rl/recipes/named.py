"""Recipes by what a command line says: ``NAME`` or ``NAME:option=value,...``."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.spec import Spec, parse
from budgeteer.rl.recipe import Recipe

__all__ = ["UNTRAINED", "get"]

UNTRAINED = "untrained"
"""The recipe that trains nothing."""
SLOTS = {
    "allocator": "allocator",
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
    (``grpo:reward=overlong``, ``duet:advantage=tempo,lr=rex``), with options of its own
    (``grpo:reward=overlong:share=0.3``; several of them in quotes: ``grpo:steer="marker-gate:first=9,last=20"``).

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
        _refuse_option_of_a_part(spec, unknown)
        raise UnknownName(f"option of {spec.name}", unknown, [*taken, *SLOTS])
    slots = {key: registry.part_of(SLOTS[key], str(value)) for key, value in spec.values.items() if key not in options}
    made = registry.make("recipe", spec.name, **options)
    if not isinstance(made, Recipe):
        raise InvalidInput(f"recipe {text!r}: {method.path} makes a {type(made).__name__}; return a Recipe")
    if "ratio" in slots:
        slots["loss"] = made.loss._replace(ratio=slots.pop("ratio"))
    if schedules := {key: slots.pop(key) for key in ("temperature", "max_tokens", "lr") if key in slots}:
        slots["schedules"] = replace(made.schedules, **schedules)
    return replace(made, name=text, **slots)


def _refuse_option_of_a_part(spec: Spec, option: str) -> None:
    """Say how an option is written that is not the recipe's, but that of a part which fills one of its slots.

    Raises:
        InvalidInput: it is such an option.
    """
    for slot, given in spec.values.items():
        if slot in SLOTS and isinstance(given, str):
            part = parse(given, SLOTS[slot])
            if option in registry.options_of(registry.get(SLOTS[slot], part.name)):
                value = dict(spec.options)[option]
                written = f"{slot}={part.name}:{option}={value}"
                raise InvalidInput(f"{option} is an option of {part.name}, not of {spec.name}; write {written}")
