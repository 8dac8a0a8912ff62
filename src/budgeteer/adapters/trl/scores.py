"""What a reward function may return: a number, or None, for each completion."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from torch import nn
from trl.trainer.utils import is_async_callable

from budgeteer.core.errors import InvalidInput


def checked(function: Any, name: str) -> Any:
    """The reward function, which raises a clear error where it returns something else.

    Args:
        function: as TRL takes them; models are returned as they are.
        name: for the error.
    """
    if isinstance(function, nn.Module):
        return function
    plain: Callable[..., Any] = function
    if is_async_callable(function):

        @functools.wraps(plain)
        async def awaited(**given: Any) -> Any:
            return require_scores(await plain(**given), name, len(given["completions"]))

        return awaited

    @functools.wraps(plain)
    def scored(**given: Any) -> Any:
        return require_scores(plain(**given), name, len(given["completions"]))

    return scored


def require_scores(scores: Any, name: str, n: int) -> Sequence[Any]:
    """The scores of n completions as they are.

    Args:
        scores: what the reward function returned.
        name: of the function.
        n: completions that it was given.

    Raises:
        InvalidInput: says what to return instead.
    """
    try:
        count = -1 if isinstance(scores, str | bytes | Mapping | Set) else len(scores)
        for score in scores:
            if isinstance(score, str | bytes):  # which float() would read, and TRL does not
                raise TypeError(score)
            if score is not None:
                float(score)
    except (TypeError, ValueError):
        count = -1
    if count != n:
        given = f"{count} values" if count >= 0 else f"{scores!r:.60}"
        raise InvalidInput(
            f"the reward function {name!r} returned {given} for {n} completions; return a list with a number, or None, "
            "for each"
        )
    made: Sequence[Any] = scores
    return made
