"""Recipes by what a command line says: ``NAME`` or ``NAME:option=value,...``."""

from __future__ import annotations

from dataclasses import replace

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.method import SLOTS, Method
from budgeteer.core.slots import options_and_slots
from budgeteer.core.spec import parse
from budgeteer.rl.recipe import Recipe

__all__ = ["UNTRAINED", "get"]

UNTRAINED = "untrained"
"""The recipe that trains nothing."""


def get(text: str) -> Recipe:
    """The recipe of that name, of this package or another one.

    Options are those of the recipe's factory (``duet:stop_answered=false``), or name a method for one of the slots of a
    recipe (``grpo:reward=overlong``, ``duet:advantage=tempo,lr=rex``), with options of its own
    (``grpo:reward=overlong:share=0.3``; several of them in quotes: ``grpo:steer="marker-gate:first=9,last=20"``).

    Raises:
        UnknownName: no recipe, option or part of this name; with the nearest names.
        InvalidInput: a factory refuses its options, or does not make a recipe; or the name is that of a part.

    >>> get("duet:stop_answered=false,thinned=false").thin is None
    True
    """
    spec = parse(text, "recipe")
    method = _method(spec.name)
    options, slots = options_and_slots(spec, "recipe")
    made = registry.make("recipe", spec.name, **options)
    if not isinstance(made, Recipe):
        raise InvalidInput(f"recipe {text!r}: {method.path} makes a {type(made).__name__}; return a Recipe")
    if "ratio" in slots:
        slots["loss"] = made.loss._replace(ratio=slots.pop("ratio"))
    if schedules := {key: slots.pop(key) for key in ("temperature", "max_tokens", "lr") if key in slots}:
        slots["schedules"] = replace(made.schedules, **schedules)
    return replace(made, name=text, **slots)


def _method(name: str) -> Method:
    """The recipe's entry of the registry.

    Raises:
        UnknownName: there is none.
        InvalidInput: it is the name of a method that fills a slot of recipes.
    """
    try:
        return registry.get("recipe", name)
    except UnknownName:
        for slot, part in SLOTS["recipe"].items():
            if name in registry.of(part):
                raise InvalidInput(f"{name!r} is no recipe, but a part of one; write grpo:{slot}={name}") from None
        raise
