"""The trees of allowances in a gateway's ledger, kept up to date by reading only what is new in its journal."""

from __future__ import annotations

import threading

from budgeteer.ledger import Ledger
from budgeteer.ledger.tree import Node, Tree, below

_MOST = 4
"""Kinds of units whose trees are kept; the one that was looked at longest ago is dropped, and read anew when needed."""


class Trees:
    """The trees of one ledger, for any thread.

    The first look at a kind reads the whole journal; later ones read the lines that came since.

    Args:
        ledger: whose journal is read.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._lock = ledger, threading.Lock()
        self._kept: dict[str, Tree] = {}

    def at(self, kind: str, path: str = "") -> list[tuple[Node, int]]:
        """The accounts at a path and below it, each with its depth there, parents first; all of them for "".

        Raises:
            JournalBroken: a line of the journal cannot be read.
        """
        with self._lock:
            tree = self._kept.pop(kind, None) or Tree(kind)
            tree.read(self._ledger.lines(tree.seen))
            self._kept[kind] = tree
            if len(self._kept) > _MOST:
                self._kept.pop(next(iter(self._kept)))
            return below(tree.roots(), path)
