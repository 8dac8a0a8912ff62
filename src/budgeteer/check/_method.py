"""The check of a registered method: that of its part, with what its entry says about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from budgeteer import check
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.method import TAKES, Method


def check_method(method: Method, *, seed: int = 0, **options: Any) -> None:
    """Run a registered method through the check of its part.

    Args:
        method: of this package or of another one.
        seed: of what the check draws.
        options: of the check, such as ``model`` for a strategy that needs internals; without it, such a strategy runs
            on the embedded reasoner, with few budgets.

    Raises:
        CheckFailed: names the broken rule.
        MissingExtra: the method or its check needs a package that is not installed.
        InvalidInput: the part has no check.
    """
    if method.part not in CHECKS:
        raise InvalidInput(f"{method.part} {method.name!r}: there is no check of this part")
    CHECKS[method.part](method, seed=seed, **options)


def example(method: Method) -> Any:
    """The method, made with the arguments of its entry; names of parts stand for the parts."""
    given = method.arguments
    arguments = {}
    for key, value in (registry.resolve(given)() if isinstance(given, str) else given).items():
        part = TAKES.get(key) if isinstance(value, str) else None
        arguments[key] = registry.part_of(part, value) if part else value
    return registry.made(method, **arguments)


def _plain(name: str) -> Callable[..., None]:
    """The check that needs nothing but the method."""

    def run(method: Method, **options: Any) -> None:
        getattr(check, name)(example(method), **options)

    return run


def _facts(method: Method) -> dict[str, Any]:
    """What the entry says of an allocator, or of a recipe's."""
    objective = registry.resolve(method.objective) if method.objective else None
    return {"ordered": "ordered" in method.traits, "objective": objective}


def _allocator(method: Method, **options: Any) -> None:
    check.check_allocator(example(method), menu="menu" in method.traits, **_facts(method), **options)


def _recipe(method: Method, **options: Any) -> None:
    check.check_recipe(example(method), **_facts(method), **options)


def _strategy(method: Method, **options: Any) -> None:
    from budgeteer.models.load import load_model
    from budgeteer.models.model import INTERNALS

    factory = partial(example, method)
    if options.get("model") is not None or INTERNALS not in getattr(factory(), "needs", ()):
        check.check_strategy(factory, **options)
        return
    model = load_model("reasoner", slots=8)
    try:
        check.check_strategy(factory, **{"budgets": 2, **options, "model": lambda: model})
    finally:
        asyncio.run(model.aclose())


def _task(method: Method, **options: Any) -> None:
    arguments = (
        dict(method.arguments) if isinstance(method.arguments, Mapping) else registry.resolve(method.arguments)()
    )
    check.check_task(partial(registry.made, method, **arguments), **options)


def _policy(method: Method, **options: Any) -> None:
    from budgeteer.check._policy import policy_of

    settings = method.arguments if isinstance(method.arguments, Mapping) else registry.resolve(method.arguments)()
    make = policy_of(registry.load(method), settings)
    check.check_policy(make, **options)


CHECKS: Mapping[str, Callable[..., None]] = {
    "allocator": _allocator,
    "online": _plain("check_online"),
    "joint": _plain("check_joint"),
    "rounding": _plain("check_rounding"),
    "matching": _plain("check_matching"),
    "router": _plain("check_router"),
    "allowance": _plain("check_allowance"),
    "steer": _plain("check_steer"),
    "meter": _plain("check_meter"),
    "strategy": _strategy,
    "many": _plain("check_many"),
    "aggregator": _plain("check_aggregator"),
    "scorer": _plain("check_scorer"),
    "verifier": _plain("check_verifier"),
    "reward": _plain("check_reward"),
    "advantage": _plain("check_advantage"),
    "importance": _plain("check_importance"),
    "ratio": _plain("check_ratio"),
    "stream": _plain("check_stream"),
    "carry": _plain("check_carry"),
    "variant": _plain("check_variant"),
    "schedule": _plain("check_schedule"),
    "weight": _plain("check_weight"),
    "recipe": _recipe,
    "tuning": _plain("check_tuning"),
    "style": _plain("check_style"),
    "task": _task,
    "score": _plain("check_score"),
    "split": _plain("check_split"),
    "reducer": _plain("check_reducer"),
    "route": _plain("check_route"),
    "rest": _plain("check_rest"),
    "policy": _policy,
}
"""Part -> its check of a method."""
