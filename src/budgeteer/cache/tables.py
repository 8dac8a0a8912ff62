"""Tables of what was measured for a model's layers, or heads, at several shares of its cache, and their JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from budgeteer.core.errors import CheckpointError, InvalidInput

KINDS = {"losses": "knapsack", "sizes": "prefix"}
"""Column -> what ``budgeteer cache train`` measures it by; sizes also by ``epi-cache`` and ``tca-attention``."""


class Table(NamedTuple):
    """A number for each layer, or head, and share.

    Attributes:
        shares: of the entries of a layer, rising, above 0, 1 at most.
        rows: [layers x heads][shares], finite; the heads of a layer one behind the other.
        fingerprint: of the model that it was measured on; empty = it is for any.
        heads: rows of a layer; 1 = one for all its heads.
    """

    shares: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    fingerprint: str = ""
    heads: int = 1


def table_of(given: str | Mapping[str, Any], column: str, split: str) -> Table:
    """The table of a split, from its JSON file (read anew when that has changed) or its content.

    Args:
        given: the file, or ``shares``, the rows under the name ``column``, and perhaps ``fingerprint``.
        column: such as ``losses``.
        split: its name, for errors.

    Raises:
        InvalidInput: nothing was given, or it holds no such table.
        CheckpointError: the file cannot be read.
    """
    if not isinstance(given, str):
        return _checked(given, column, column)
    if not given:
        raise InvalidInput(
            f"{split} needs measured {column}: give {column}=FILE; budgeteer cache train {KINDS[column]} MODEL "
            "--texts FILE measures them"
        )
    return _read(given, Path(given).stat().st_mtime_ns if Path(given).exists() else 0, column)


@lru_cache(8)
def _read(path: str, changed: int, column: str) -> Table:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot read {column} in {path}: {error}; measure them: budgeteer cache train {KINDS[column]}"
        ) from error
    return _checked(found, column, path)


def _checked(given: Any, column: str, where: str) -> Table:
    try:
        shares = tuple(float(share) for share in given["shares"])
        layers = list(given[column])
        by_head = any(isinstance(row, list) for row in layers[0]) if layers else False
        heads = len(layers[0]) if by_head else 1
        if by_head and {len(layer) for layer in layers} != {heads}:
            raise ValueError(f"layers with different numbers of heads; give {column} of equally many")
        each = [row for layer in layers for row in layer] if by_head else layers
        rows = tuple(tuple(float(number) for number in row) for row in each)
        fits = all(len(row) == len(shares) and np.isfinite(row).all() for row in rows)
        rising = all(low < high for low, high in zip((0.0, *shares), shares, strict=False))
    except (KeyError, TypeError, ValueError) as error:
        kind = f"{where} holds no {column}: it lacks {error}" if isinstance(error, KeyError) else f"{where}: {error}"
        raise InvalidInput(
            f"{kind}; give shares and {column}, as budgeteer cache train {KINDS[column]} writes"
        ) from error
    if not rows or not shares or not fits or not rising or shares[-1] > 1:
        raise InvalidInput(f"{where}: give rising shares up to 1, and as many finite {column} for each layer")
    return Table(shares, rows, str(given.get("fingerprint", "")), heads)
