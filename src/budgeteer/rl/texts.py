"""What rollouts say, and where their tokens end in it: the columns that rewards read of texts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budgeteer.rl.compress import pieces_of
from budgeteer.rl.recipe import OFFSETS, TEXT


def written(
    needs: Collection[str], decode: Callable[[list[list[int]]], list[str]], rows: Sequence[Sequence[int]], width: int
) -> dict[str, NDArray[Any]]:
    """Those of the columns ``text`` [n] and ``offsets`` [n, width] that are needed.

    Args:
        needs: of the recipe.
        decode: rows of token ids -> their texts.
        rows: n rollouts.
        width: tokens of the longest.

    >>> decode = lambda rows: ["".join(map(chr, row)) for row in rows]
    >>> {name: column.tolist() for name, column in written({TEXT, OFFSETS}, decode, [[97, 98], [99]], 3).items()}
    {'text': ['ab', 'c'], 'offsets': [[1, 2, 0], [1, 0, 0]]}
    """
    made: dict[str, NDArray[Any]] = {}
    if TEXT in needs:
        made[TEXT] = np.array([*decode([list(row) for row in rows]), ""], object)[:-1]
    if OFFSETS in needs:
        ends = np.zeros((len(rows), width), np.int64)
        for own, row in zip(ends, rows, strict=True):
            own[: len(row)] = np.cumsum([len(piece) for piece in pieces_of(decode, row)])
        made[OFFSETS] = ends
    return made
