"""The tree of allowances as a journal shows it: what each agent was given, spent, and holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from budgeteer.ledger import core, journal
from budgeteer.ledger.limit import check_path


@dataclass(slots=True)
class Node:
    """An account and those below it, in units of one kind.

    Attributes:
        path: of the account.
        given: what its parts were given, all together; None: nobody said so. A part is an allowance whose settlements
            have the tags ``part`` (its name) and ``given``, such as ``"all 8000 turns 5"``.
        parts: how many there were; an agent that is asked twice gets two.
        calls: that were settled, here and below.
        spent: charged for them.
        held: reserved by calls under way, here and below.
        children: accounts right below it, by path.
    """

    path: str
    given: int | None = None
    parts: int = 0
    calls: int = 0
    spent: int = 0
    held: int = 0
    children: list[Node] = field(default_factory=list)

    @property
    def back(self) -> int | None:
        """What was given and is neither spent nor held: it went back when the parts ended, or is still left in one."""
        return None if self.given is None else self.given - self.spent - self.held


def tree(lines: Iterable[tuple[str, str]], kind: str) -> list[Node]:
    """The accounts of a journal in which units of a kind were reserved, as trees, by path.

    Args:
        lines: (line, hash) of the journal from its first line; hashes are not checked.
        kind: of units.

    Raises:
        JournalBroken: a line cannot be read.
    """
    grown = Tree(kind)
    grown.read(lines)
    return grown.roots()


def kinds(lines: Iterable[tuple[str, str]], path: str) -> list[str]:
    """The kinds of units that were reserved at a path or below it, in order.

    Raises:
        JournalBroken: a line cannot be read.
    """
    found: set[str] = set()
    for (_, scope, held, *_), _ in journal.entries(lines):
        if f"{scope}/".startswith(f"{path}/"):
            found |= dict(held).keys()
    return sorted(found)


@dataclass(slots=True)
class _Sum:
    """Of the calls at an account and below it."""

    known: int = 0
    calls: int = 0
    spent: int = 0
    held: int = 0


class Tree:
    """The same for whoever looks again and again: only the lines that are new are read.

    Kept are the sums of accounts, and those calls alone that a later line may change: open ones, and those that were
    charged because nobody settled them in time (:mod:`budgeteer.ledger.core`).

    Args:
        kind: of units.

    Attributes:
        seen: lines that were read.
    """

    def __init__(self, kind: str) -> None:
        self.kind, self.seen = kind, 0
        self._calls: dict[str, tuple[str, str, int]] = {}  # id -> path, status, units of a call that may change
        self._given: dict[str, dict[str, int]] = {}  # path -> part -> units
        self._sums: dict[str, _Sum] = {}

    def read(self, lines: Iterable[tuple[str, str]]) -> None:
        """Read further lines of the journal, the next one first.

        Raises:
            JournalBroken: a line cannot be read.
        """
        for (name, path, held, _, status, _, actual, _, _, detail), tags in journal.entries(lines):
            self.seen += 1
            amounts = dict(actual if status == core.SETTLED else held)
            if name and self.kind in amounts:
                before, now = self._calls.pop(name, None), (path, status, amounts[self.kind])
                if before is not None:
                    self._add(*before, sign=-1)
                self._add(*now)
                if status == core.OPEN or detail == core.ABANDONED:
                    self._calls[name] = now
            if "part" in tags:
                told = _given(str(tags.get("given", "")))
                if self.kind in told:
                    self._given.setdefault(path, {})[str(tags["part"])] = told[self.kind]

    def _add(self, path: str, status: str, units: int, *, sign: int = 1) -> None:
        if status not in (core.SETTLED, core.OPEN):
            return
        for scope in check_path(path):
            one = self._sums.setdefault(scope, _Sum())
            one.known += sign
            if status == core.SETTLED:
                one.calls, one.spent = one.calls + sign, one.spent + sign * units
            else:
                one.held += sign * units

    def roots(self) -> list[Node]:
        """The accounts of what was read so far, as trees, by path."""
        nodes = {
            path: Node(path, calls=one.calls, spent=one.spent, held=one.held)
            for path, one in sorted(self._sums.items())
            if one.known
        }
        for path, parts in self._given.items():
            nodes[path].given, nodes[path].parts = sum(parts.values()), len(parts)
        roots: list[Node] = []
        for path, node in nodes.items():
            above = path.rpartition("/")[0]
            (nodes[above].children if above in nodes else roots).append(node)
        return roots


def below(roots: list[Node], path: str) -> list[tuple[Node, int]]:
    """The nodes of trees at a path and below it, each with its depth there, parents first; all of them for ""."""
    found: list[tuple[Node, int]] = []
    waiting = [(node, 0) for node in reversed(roots)]
    while waiting:
        node, depth = waiting.pop()
        inside = not path or f"{node.path}/".startswith(f"{path}/")
        if inside:
            found.append((node, depth))
        waiting += [(child, depth + inside) for child in reversed(node.children)]
    return found


def _given(text: str) -> dict[str, int]:
    """The amounts of a tag; none of what cannot be read.

    >>> _given("all 8000 turns 5"), _given("much")
    ({'all': 8000, 'turns': 5}, {})
    """
    words: list[Any] = text.split(" ")
    pairs = zip(words[::2], words[1::2], strict=False)
    return {kind: int(units) for kind, units in pairs if units.isdecimal()}
