"""How far each limit is spent, and the messages that say so."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from budgeteer.core import amounts
from budgeteer.core.budget import Window
from budgeteer.gateway.alerts.rules import Rule
from budgeteer.gateway.dashboard.amounts import amount
from budgeteer.ledger import core
from budgeteer.ledger.limit import LAST, Limit
from budgeteer.ledger.windows import bucket, moment, start, unit_of

_LATER = 86_400_000
"""Milliseconds for which a mark outlives its window, so that replicas with other clocks still see it."""
Refusal = tuple[str, str, int]
"""A limit that refused a request: path, kind and units."""


@dataclass(frozen=True, slots=True)
class Level:
    """How far a limit is spent, for one share of one rule.

    Attributes:
        rule, share: the rule's name, and a share of the limit that it names.
        path, limit: the account, and one of its limits.
        spent: units settled in the limit's window.
        held: units reserved by requests that are running.
        resets: when a calendar window ends, in milliseconds since 1970 (UTC); None for other windows.
        refused: whether the limit refused a request that it would admit if nothing were spent.
        at: when the limit was looked at, in milliseconds since 1970 (UTC).
    """

    rule: str
    share: Fraction
    path: str
    limit: Limit
    spent: int
    held: int
    resets: int | None
    refused: bool
    at: int

    @property
    def reached(self) -> bool:
        """Whether an alert is due."""
        return self.spent >= self.share * (self.limit.amount or 0) or (self.refused and self.share == 1)

    @property
    def name(self) -> str:
        """The name of the alert: one for each rule, account, limit, share and calendar window."""
        begun = "" if self.resets is None else f" {bucket(self.limit.window or '', self.at)}"
        return f"{self.rule} {self.path} {self.limit} {float(self.share):g}{begun}"

    @property
    def until(self) -> int:
        """Until when the alert is not sent again; for a rolling window, its length from now on."""
        if self.resets is not None:
            return self.resets + _LATER
        return self.at + self.limit.window * 1000 if isinstance(self.limit.window, int) else LAST

    def text(self, label: str) -> str:
        """The message, one line.

        Args:
            label: the account's path, with names of keys.
        """
        kind, units, window = self.limit.kind, self.limit.amount or 0, self.limit.window
        per = "" if window is None else f"/{window if isinstance(window, str) else _rolling(window)}"
        refused = " and a request was refused" if self.refused else ""
        if self.resets is not None:
            again = f"resets {moment(self.resets, window, '%Y-%m-%d %H:%M' if unit_of(window) == 'month' else '%H:%M')}"
        else:
            again = "never resets" if window is None else "a rolling window"
        spent = (
            f"{amount(kind, self.spent)} of {amounts.amount(kind, units)}{per} spent ({100 * self.spent // units} %)"
        )
        return f"{label}: {spent}{refused}, {again}"

    def as_json(self, label: str) -> dict[str, Any]:
        """The body for a webhook; units are integers, money is in pico-dollars."""
        return {
            "event": "budget_alert",
            "id": self.name,
            "alert": self.rule,
            "share": float(self.share),
            "path": self.path,
            "label": label,
            "kind": self.limit.kind,
            "limit": str(self.limit),
            "amount": self.limit.amount,
            "window": self.limit.window,
            "spent": self.spent,
            "held": self.held,
            "refused": self.refused,
            "resets": self.resets,
            "at": self.at,
            "text": self.text(label),
        }


def levels(rule: Rule, state: core.State, clock: int, refused: Collection[Refusal] = ()) -> Iterator[Level]:
    """The level of each limit that a rule watches, for each share of the rule.

    Args:
        rule: the rule.
        state: accounts of the ledger.
        clock: milliseconds since 1970 (UTC).
        refused: limits that have refused a request since the last look.
    """
    now = max(state.now, clock)
    for path, account in state.accounts.items():
        if not rule.covers(path):
            continue
        for limit in account.limits:
            if not limit.amount or limit.kind not in rule.kinds:
                continue
            book, window = account.book(limit.kind), limit.window
            counted = next((counter for counter in book.windows if counter.name == window), None)
            spent = book.spent if counted is None else counted.used(now)
            resets = start(window, bucket(window, now) + 1) if isinstance(window, str) else None
            hit = (path, limit.kind, limit.amount) in refused
            for share in rule.shares:
                yield Level(rule.name, share, path, limit, spent, book.held, resets, hit, now)


def _rolling(seconds: int) -> str:
    """A rolling window's length, in its largest whole unit, as limits are written.

    >>> _rolling(86_400), _rolling(5400), _rolling(90)
    ('1d', '90m', '90s')
    """
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return str(Window("rolling", seconds))
