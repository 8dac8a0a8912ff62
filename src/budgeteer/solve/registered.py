"""Strategies by what a command line says: ``NAME`` or ``NAME:key=value,...``."""

from __future__ import annotations

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.spec import Spec, parse
from budgeteer.solve.runner import Together
from budgeteer.solve.strategy import Strategy


def build(named: Spec | str) -> Strategy | Together:
    """Make a strategy, or what answers many questions together.

    Where it takes a part, such as ``scorer=verifier``, or another strategy, such as ``inner=elastic``, that is meant by
    its registered name.

    Raises:
        UnknownName: no strategy of this name, or no option of this name.
        InvalidInput: the method is no strategy, or refuses its options.

    >>> build("self-consistency:n=8").needs
    frozenset()
    """
    spec = parse(named, "strategy") if isinstance(named, str) else named
    if spec.name in registry.of("many"):
        together: Together = registry.make("many", spec.name, **spec.values)
        return together
    made = registry.make("strategy", spec.name, **spec.values)
    if not isinstance(made, Strategy):
        raise InvalidInput(f"{spec.name} makes a {type(made).__name__}, no Strategy")
    return made
