"""Slots of a method that the command line fills by the name of another method: ``grpo:reward=overlong``."""

from __future__ import annotations

from typing import Any

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.method import SLOTS, is_sum
from budgeteer.core.spec import Spec, parse


def options_and_slots(spec: Spec, part: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a method's own factory, and the methods that fill its slots, by slot.

    A slot takes the name of a method of its part (:data:`budgeteer.core.method.SLOTS`), with options of its own
    (``direct:steer=truncate:most=60``; several of them in quotes: ``direct:steer="budget-forcing:most=60,reserve=8"``),
    and that of a reward a sum of several (``grpo:reward=laser+0.5*pear``).
    An option of the factory that has the name of a slot is the factory's.

    Args:
        spec: the method and all that is given to it.
        part: of the method.

    Raises:
        UnknownName: there is no such method, or none that fills a slot.
        InvalidInput: an option of the method in a slot is given to the method itself, or cannot be read.
    """
    slots, taken = SLOTS[part], registry.options_of(registry.get(part, spec.name))
    named = {key: str(value) for key, value in spec.values.items() if key in slots and key not in taken}
    for key in spec.values:
        if key not in taken and key not in named:
            _refuse_option_of_a_part(spec, named, slots, key)
    options = {key: value for key, value in spec.values.items() if key not in named}
    return options, {key: registry.part_of(slots[key], text) for key, text in named.items()}


def _refuse_option_of_a_part(spec: Spec, named: dict[str, str], slots: dict[str, str], option: str) -> None:
    """Say how an option is written that is not the method's own, but that of a method in one of its slots.

    Raises:
        InvalidInput: it is such an option.
    """
    for slot, text in named.items():
        if is_sum(slots[slot], text):
            continue
        part = parse(text, slots[slot])
        if option in registry.options_of(registry.get(slots[slot], part.name)):
            written = f"{slot}={part.name}:{option}={dict(spec.options)[option]}"
            raise InvalidInput(f"{option} is an option of {part.name}, not of {spec.name}; write {written}")
