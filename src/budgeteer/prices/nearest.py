"""The names nearest to one that a table does not hold: an index of runs of three letters, then a few comparisons."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

import numpy as np

from budgeteer.core.plan import F64, I64

COMPARED = 16
"""Names that share the most runs of letters with the one given; only these are compared letter by letter."""
LONGEST = 200
"""Letters of a given name that are looked at."""


class Nearest:
    """Finds names that are similar to a given one, the nearest first; the index is made when it is first needed.

    Args:
        names: all that can be suggested.
    """

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self._all = names
        self._names: list[str] | None = None

    def __call__(self, wanted: str, most: int = 3) -> list[str]:
        """At most so many names, without ``wanted`` itself."""
        names = self._index()
        wanted = wanted[:LONGEST]
        grams = _grams(wanted)
        rows = [self._rows[gram] for gram in grams if gram in self._rows]
        if not rows:
            return []
        shared = np.bincount(np.concatenate(rows), minlength=len(names))
        likeness = 2 * shared / (len(grams) + self._sizes)
        likest = np.argsort(-likeness, kind="stable")[:COMPARED]
        near = [names[i] for i in likest.tolist() if shared[i] and names[i] != wanted]
        return difflib.get_close_matches(wanted, near, n=most, cutoff=0.4)

    def __len__(self) -> int:
        return len(self._index())

    def _index(self) -> list[str]:
        if self._names is None:
            names = sorted(set(self._all()))
            rows: dict[str, list[int]] = {}
            sizes = []
            for i, name in enumerate(names):
                grams = _grams(name)
                sizes.append(len(grams))
                for gram in grams:
                    rows.setdefault(gram, []).append(i)
            self._rows: dict[str, I64] = {gram: np.array(at, dtype=np.int64) for gram, at in rows.items()}
            self._sizes: F64 = np.array(sizes, dtype=np.float64)
            self._names = names
        return self._names


def _grams(name: str) -> set[str]:
    text = f"  {name.lower()} "
    return {text[i : i + 3] for i in range(len(text) - 2)}
