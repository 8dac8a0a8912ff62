"""A fitted router in a file: models, features, state and price."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from budgeteer.core import registry
from budgeteer.core.allocator import State, dump_state, load_state
from budgeteer.core.errors import BudgeteerError, InvalidInput
from budgeteer.core.files import write_text
from budgeteer.core.plan import F64, I64
from budgeteer.route.evaluate import outcomes_of, prices_of
from budgeteer.route.features import PROMPT, Features, learnt
from budgeteer.route.protocol import Outcomes, Route
from budgeteer.route.table import Table

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Router:
    """A fitted route.

    Attributes:
        method: its name with options.
        route: made from it.
        models: their names, in the order of the state's columns.
        cost: [m] mean dollars of a request on the table.
        features: of requests.
        state: what was learnt.
        price: scores a dollar.
    """

    method: str
    route: Route
    models: tuple[str, ...]
    cost: F64
    features: Features
    state: State
    price: float

    def choose(self, fields: Mapping[str, Sequence[Any]], price: float | None = None) -> I64:
        """The number of the model of each request, by its columns.

        Args:
            fields: column -> values, such as ``{"prompt": ["..."]}``.
            price: another one than that of the file.

        Raises:
            InvalidInput: a column is missing, or the route looks at answers first.
        """
        if not self.route.before:
            raise InvalidInput(f"{self.method} looks at an answer before it chooses; it cannot choose beforehand")
        x = self.features.of(fields)
        none = np.full((len(x), len(self.models)), np.nan)
        return self.route.route(self.state, x, none)(self.price if price is None else price).final


def fitted(method: str, table: Table, budget: float, *, without: Sequence[str] = (), seed: int = 0) -> Router:
    """Fit a route on a table, with the price that keeps it within a budget.

    Args:
        method: name with options.
        table: of scores and costs.
        budget: dollars a request on the mean.
        without: columns that are no features.
        seed: of the fit.
    """
    route: Route = registry.part_of("route", method)
    features = learnt(table.fields, without)
    outcomes = outcomes_of(table, features.of(table.fields))
    price = prices_of(route, outcomes, [budget], seed)[0]
    state = route.fit(outcomes, np.random.default_rng([seed, 8]))
    return Router(method, route, table.models, table.cost.mean(axis=0), features, state, price)


def save(router: Router, path: Path) -> None:
    """Write a router as JSON."""
    data = {
        "budgeteer_router": FORMAT,
        "method": router.method,
        "models": list(router.models),
        "cost": router.cost.tolist(),
        "features": router.features.to_json(),
        "state": dump_state(router.state),
        "price": router.price,
    }
    write_text(json.dumps(data) + "\n", path)


def load(path: str | Path) -> Router:
    """Read a router that :func:`save` wrote.

    Raises:
        InvalidInput: the file cannot be read, or is no router of this version.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read a router in {path}: {error}; budgeteer route fit writes one") from error
    if not isinstance(data, dict) or data.get("budgeteer_router") != FORMAT:
        raise InvalidInput(f"{path} is no router of this version; budgeteer route fit writes one")
    try:
        route: Route = registry.part_of("route", data["method"])
        features, models = Features.from_json(data["features"]), tuple(map(str, data["models"]))
        cost, price = np.array(data["cost"], np.float64), float(data["price"])
        state = load_state(_like(route, len(models)), data["state"])
    except (BudgeteerError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"{path} is a damaged router ({error}); write it anew with budgeteer route fit") from error
    if cost.shape != (len(models),) or not (
        np.all(np.isfinite(cost) & (cost >= 0)) and np.isfinite(price) and price >= 0
    ):
        raise InvalidInput(f"{path} is a damaged router (costs or price); write it anew with budgeteer route fit")
    router = Router(str(data["method"]), route, models, cost, features, state, price)
    _check_state(router, path)
    return router


def _like(route: Route, models: int) -> State:
    """A state of the route, for its types."""
    x, steps = np.ones((4, 1)), np.arange(models, dtype=np.float64)
    score = np.tile(np.linspace(0, 1, models), (4, 1))
    signal = np.tile(steps, (4, 1))
    return route.fit(Outcomes(x, score, np.tile(1.0 + steps, (4, 1)), signal), np.random.default_rng(0))


def _check_state(router: Router, path: str | Path) -> None:
    """Refuse a state that was learnt from other models or features than the file names, by routing one request.

    Raises:
        InvalidInput: it was, or a model is named twice.
    """
    models, features = router.models, router.features
    fields: dict[str, list[Any]] = {**{name: [0.0] for name in features.numbers}, PROMPT: [""]}
    x = features.of({**fields, **{name: [""] for name in features.categories}})
    try:
        paid = router.route.route(router.state, x, np.zeros((1, len(models))))(router.price).paid
        right = paid.shape == (1, len(models)) and len(set(models)) == len(models)
    except (InvalidInput, IndexError, ValueError):
        right = False
    if not right:
        raise InvalidInput(
            f"{path} is a damaged router: what it learnt is not of the models {', '.join(models)} and the columns that "
            "it names; write it anew with budgeteer route fit"
        )


def reads_prompts_only(router: Router) -> bool:
    """Whether a router needs nothing of a request but its text."""
    return router.features.prompt and not router.features.numbers and not router.features.categories


__all__ = ["FORMAT", "PROMPT", "Router", "fitted", "load", "reads_prompts_only", "save"]
