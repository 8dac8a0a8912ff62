"""Strategies by name, as a command line gives them: ``NAME`` or ``NAME:key=value,...``."""

from __future__ import annotations

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.slots import options_and_slots
from budgeteer.core.spec import Spec, parse
from budgeteer.solve.runner import Together
from budgeteer.solve.steered import steered, steered_together
from budgeteer.solve.strategy import Strategy


def build(named: Spec | str) -> Strategy | Together:
    """Make a registered strategy, or a registered method that answers many questions together.

    An option that takes another part, such as ``scorer=verifier``, or another strategy, such as ``inner=elastic``,
    is given its registered name. Any of them takes a registered steer for its traces, with the steer's options:
    ``direct:steer=answered``, ``self-consistency:n=8,steer="budget-forcing:most=60,reserve=8"``.

    Raises:
        UnknownName: there is no strategy with this name, or it has no option with this name.
        InvalidInput: the method makes no Strategy, or it or its steer refuses its options.
        CheckpointError: the steer's head cannot be read.

    >>> build("self-consistency:n=8").needs
    frozenset()
    >>> build("self-consistency:n=8,steer=truncate:most=60").needs
    frozenset({'internals'})
    """
    spec = parse(named, "strategy") if isinstance(named, str) else named
    part = "many" if spec.name in registry.of("many") else "strategy"
    options, slots = options_and_slots(spec, part)
    made = registry.make(part, spec.name, **options)
    if part == "many":
        together: Together = made
        return steered_together(together, slots["steer"]) if slots else together
    if not isinstance(made, Strategy):
        raise InvalidInput(f"{spec.name} makes a {type(made).__name__}, no Strategy")
    return steered(made, slots["steer"]) if slots else made
