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
    calls: dict[str, tuple[str, str, int]] = {}  # id -> path, status, units
    given: dict[str, dict[str, int]] = {}  # path -> part -> units
    for (name, path, held, _, status, _, actual, *_), tags in journal.entries(lines):
        amounts = dict(actual if status == core.SETTLED else held)
        if name and kind in amounts:
            calls[name] = (path, status, amounts[kind])
        if "part" in tags:
            told = _given(str(tags.get("given", "")))
            if kind in told:
                given.setdefault(path, {})[str(tags["part"])] = told[kind]
    nodes: dict[str, Node] = {}
    for path, status, units in calls.values():
        if status not in (core.SETTLED, core.OPEN):
            continue
        for scope in check_path(path):
            node = nodes.setdefault(scope, Node(scope))
            if status == core.SETTLED:
                node.calls, node.spent = node.calls + 1, node.spent + units
            else:
                node.held += units
    for path, parts in given.items():
        nodes[path].given, nodes[path].parts = sum(parts.values()), len(parts)
    roots: list[Node] = []
    for path in sorted(nodes):
        above = path.rpartition("/")[0]
        (nodes[above].children if above in nodes else roots).append(nodes[path])
    return roots


def _given(text: str) -> dict[str, int]:
    """The amounts of a tag; none of what cannot be read.

    >>> _given("all 8000 turns 5"), _given("much")
    ({'all': 8000, 'turns': 5}, {})
    """
    words: list[Any] = text.split(" ")
    pairs = zip(words[::2], words[1::2], strict=False)
    return {kind: int(units) for kind, units in pairs if units.isdecimal()}
