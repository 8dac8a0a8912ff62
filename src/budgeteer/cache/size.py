"""How many entries a budget is: tokens, bytes or a share, converted in this one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from budgeteer.core.bisection import largest
from budgeteer.core.budget import Budget
from budgeteer.core.errors import InvalidInput

KINDS = ("all", "cache", "bytes", "prompt")
"""Kinds of budgets of a cache: tokens (two names of one thing), bytes of the whole cache, a share of the prompt."""


class Footprint(NamedTuple):
    """What one token takes of one layer.

    Attributes:
        bytes: of all rows and heads, with what a score remembers and the entry's slot.
        most: entries that the layer can use: the window of a sliding layer without the next token, None = all.
    """

    bytes: int
    most: int | None


def parsed(budget: Budget | str) -> Budget:
    """A budget that a cache can have.

    Raises:
        InvalidInput: it is none of tokens, bytes or a share of at most 100 %, or it has a window of time.
    """
    if not isinstance(budget, str | Budget):
        raise InvalidInput(
            f"a cache has no budget of {budget!r}; write it as a text, such as '25%', '2k' or 'bytes:64m'"
        )
    try:
        given = Budget.parse(budget) if isinstance(budget, str) else budget
    except InvalidInput as error:
        raise InvalidInput(
            f"{error}; a cache takes 25%, prompt:25%, 2k or bytes:64m (k, m and b are powers of 1,000)"
        ) from error
    if given.kind not in KINDS or given.window is not None:
        raise InvalidInput(
            f"a cache has no budget of {given}; give tokens (2k or cache:2k), bytes (bytes:64m) or a share (25% of the "
            "text so far, prompt:25%)"
        )
    if given.kind == "prompt" and given.fraction is None:
        raise InvalidInput(f"a cache has no budget of {given}; give a share of the prompt (prompt:25%), or tokens (2k)")
    if given.fraction is not None and (given.kind == "bytes" or given.fraction > 1):
        raise InvalidInput(f"a cache has no budget of {given}; a share is of the full cache, up to 100%")
    return given


def sizes(budget: Budget, tokens: Tensor, layers: Sequence[Footprint], prompt: Tensor | None = None) -> Tensor:
    """[B] int64: the entries that a head may keep on the mean, given the ``tokens`` [B] that each row has.

    A share is of the row's tokens, or of those that it had when its ``prompt`` [B] had been read (None = that is now),
    rounded down. Tokens are those of each head. Bytes are of the whole cache, all rows having equally many entries.
    """
    if budget.fraction is not None:
        of = tokens if prompt is None or budget.kind != "prompt" else prompt
        return (of * budget.fraction.numerator) // budget.fraction.denominator
    assert budget.amount is not None
    limit = budget.amount if budget.kind != "bytes" else _of_bytes(budget.amount, int(tokens.max()), layers)
    return tokens.clamp(max=limit)


def _of_bytes(amount: int, most: int, layers: Sequence[Footprint]) -> int:
    """The most entries a head, up to ``most``, that fit into so many bytes."""

    def taken(size: int) -> int:
        return sum(layer.bytes * (size if layer.most is None else min(size, layer.most)) for layer in layers)

    return largest(lambda size: taken(size) <= amount, most)


def capped(size: Tensor, layer: Footprint) -> Tensor:
    """The sizes of one layer: a sliding layer keeps no more than it can use."""
    return size if layer.most is None else torch.clamp(size, max=layer.most)
