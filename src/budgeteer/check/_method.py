"""The check of a registered method: that of its part, with what its entry says about it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from budgeteer.check._allocator import check_allocator
from budgeteer.check._online import check_online
from budgeteer.check._stopper import check_stopper
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.method import TAKES, Method


def check_method(method: Method, *, seed: int = 0, **options: Any) -> None:
    """Run a registered method through the check of its part.

    Args:
        method: of this package or of another one.
        seed: of what the check draws.
        options: of the check, such as ``model`` for a strategy that looks inside its model.

    Raises:
        CheckFailed: names the broken rule.
        InvalidInput: the part has no check.
    """
    if method.part not in CHECKS:
        raise InvalidInput(f"{method.part} {method.name!r}: this part has no check yet")
    CHECKS[method.part](method, seed=seed, **options)


def example(method: Method) -> Any:
    """What the method's factory makes with the arguments of its entry; names of parts stand for the parts."""
    given = method.arguments
    arguments = {}
    for key, value in (registry.resolve(given)() if isinstance(given, str) else given).items():
        part = TAKES.get(key) if isinstance(value, str) else None
        arguments[key] = registry.make(part, value) if part else value
    return registry.load(method)(**arguments)


def _allocator(method: Method, seed: int) -> None:
    objective = registry.resolve(method.objective) if method.objective else None
    menu, ordered = "menu" in method.traits, "ordered" in method.traits
    check_allocator(example(method), seed=seed, menu=menu, ordered=ordered, objective=objective)


def _online(method: Method, seed: int) -> None:
    check_online(example(method), seed=seed)


def _stopper(method: Method, seed: int) -> None:
    check_stopper(example(method), seed=seed)


def _strategy(method: Method, seed: int, **options: Any) -> None:
    from budgeteer.check._strategy import check_strategy

    check_strategy(partial(example, method), seed=seed, **options)


CHECKS: dict[str, Callable[..., None]] = {
    "allocator": _allocator,
    "online": _online,
    "stopper": _stopper,
    "strategy": _strategy,
}
"""Part -> its check of a method."""
