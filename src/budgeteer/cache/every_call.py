"""Every new cache of a model gets a budget, for as long as a ``with`` lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from budgeteer.core.budget import Budget
from budgeteer.core.errors import InvalidInput, MissingExtra

try:
    from transformers.cache_utils import DynamicCache
except ImportError as error:
    raise MissingExtra("transformers", "hf") from error

from budgeteer.cache.budgeted_cache import BudgetedCache
from budgeteer.cache.selecting import Selection
from budgeteer.models.inside import argument_of


@contextmanager
def budgeted(model: Any, budget: Budget | str, method: str | Selection = "snapkv", *, seed: int = 0) -> Iterator[None]:
    """Give every new cache of the model a budget: ``with budgeted(model, "25%"): model.generate(**inputs)``.

    A call without a cache, or with an empty one, gets a :class:`BudgetedCache`, which the model returns. A cache that
    already holds something is used as it is. An empty one of another kind, such as the one that
    ``cache_implementation="static"`` makes, is refused. Of two, one inside the other, the inner one counts. Arguments
    and errors are those of :class:`BudgetedCache`.
    """
    BudgetedCache(model, budget, method, seed=seed)  # refuses what cannot be before anything is computed
    wanted = argument_of(model)

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = next((kwargs[name] for name in (wanted, "past_key_values") if kwargs.get(name) is not None), None)
        empty = given is None or (type(given) is DynamicCache and given.get_seq_length() == 0)
        if given is not None and not empty and _other(given):
            raise InvalidInput(
                f"a budget takes the place of the model's own cache, and this call brings a {type(given).__name__}; "
                "leave out past_key_values, and cache_implementation in the call and in the model's generation_config"
            )
        if kwargs.get("use_cache") is not False and empty:
            others = {name: value for name, value in kwargs.items() if name != "past_key_values"}
            kwargs = {**others, wanted: BudgetedCache(model, budget, method, seed=seed)}
        return args, kwargs

    handle = model.register_forward_pre_hook(hook, with_kwargs=True, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def _other(cache: Any) -> bool:
    """Whether it is an empty cache of transformers, of a kind that cannot be exchanged for a budgeted one unseen."""
    return type(cache).__module__.startswith("transformers.") and not int(cache.get_seq_length())
