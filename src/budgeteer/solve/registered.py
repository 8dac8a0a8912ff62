"""Strategies by name, as a command line gives them: ``NAME`` or ``NAME:key=value,...``."""

from __future__ import annotations

from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.spec import Spec, parse
from budgeteer.solve.runner import Together
from budgeteer.solve.strategy import Strategy


def build(named: Spec | str) -> Strategy | Together:
    """Make a registered strategy, or a registered method that answers many questions together.

    An option that takes another part, such as ``scorer=verifier``, or another strategy, such as ``inner=elastic``,
    is given its registered name.

    Raises:
        UnknownName: there is no strategy with this name, or it has no option with this name.
        InvalidInput: the method makes no Strategy, or refuses its options.

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
