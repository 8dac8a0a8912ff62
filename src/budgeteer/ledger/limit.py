"""Limits, paths of scopes and amounts: what a ledger's input may look like, checked in one place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from budgeteer.core.amounts import LEARNT, OF
from budgeteer.core.budget import CALENDAR, Budget, Window
from budgeteer.core.errors import InvalidInput

MAX_UNITS = 2**62
"""Largest amount or limit, in units; 4.6 million dollars in pico-dollars. Sums stay exact beyond it."""
LAST = 253_402_300_799_999
"""The last millisecond of the year 9999, in milliseconds since 1970 (UTC): no time is later."""
MAX_SCOPES = 16

Amounts = tuple[tuple[str, int], ...]
"""Units per kind, sorted by kind."""

_SEEN: set[str] = set()
"""Kinds that were checked."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_KIND = re.compile(r"[a-z][a-z0-9_.*/+-]{0,127}(:[a-z0-9][a-z0-9_.-]{0,63})?")
_SCOPE = re.compile(r"[\w.@:+=-]{1,128}")
_ID = re.compile(r"[\w.@:+=/-]{1,256}")


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``amount`` units of one kind in a window.

    Attributes:
        kind: such as all, input, output (tokens) or money (pico-dollars).
        amount: integer units; None counts the kind without limiting it.
        window: None (for the account's life), "hour", "day", "month" (calendar, UTC), one of these in a time zone, such
            as "day@Europe/Berlin", or rolling seconds.

    >>> Limit.parse("$5/day")
    Limit(kind='money', amount=5000000000000, window='day')
    >>> [str(Limit.parse(text)) for text in ("500k", "output:1m/3600s", "all:unlimited", "$5/day@Europe/Berlin")]
    ['500k', 'output:1m/3600s', 'all:unlimited', '$5/day@Europe/Berlin']
    >>> Limit.parse("learnt 500k").kind, str(Limit.parse("learnt $5/day"))
    ('learnt.all', 'learnt $5/day')
    """

    kind: str
    amount: int | None
    window: str | int | None = None

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if self.amount is not None:
            check_units(self.amount, f"the limit of {self.kind}")
        window = self.window
        if isinstance(window, str) and window.partition("@")[0] in CALENDAR:
            object.__setattr__(self, "window", str(Window.parse(window)))  # as the time zone is spelt
        elif window is not None and (
            isinstance(window, bool) or not isinstance(window, int) or not 0 < window <= 10 * 366 * 86_400
        ):
            raise InvalidInput(
                f"window {window!r} is none of hour, day, month (or one of these in a time zone, such as "
                "day@Europe/Berlin), None (no window) or a whole number of seconds up to ten years"
            )
        if self.amount is None and window is not None:
            raise InvalidInput(f"an unlimited {self.kind} has no window; leave the window out")

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read a budget in the notation of :class:`budgeteer.Budget`, such as ``500k`` or ``$5/day``; or
        ``KIND:unlimited``; or one of these after ``learnt``."""
        first, _, rest = text.strip().partition(" ")
        if first.lower() == "learnt" and rest:
            limit = cls.parse(rest)
            return cls(LEARNT + limit.kind, limit.amount, limit.window)
        kind, colon, word = text.strip().rpartition(":")
        if word.lower() == "unlimited" and colon:
            return cls(kind, None)
        budget = Budget.parse(text)
        if budget.amount is None:
            raise InvalidInput(f"limit {text!r} is a share; a ledger's limit is absolute, such as 500k or $5/day")
        window = (budget.window.seconds or str(budget.window)) if budget.window else None
        return cls(budget.kind, budget.amount, window)

    def __str__(self) -> str:
        plain, of, model = self.kind.partition(OF)
        if of:
            return f"{Limit(plain, self.amount, self.window)} of {model}"
        if self.kind.startswith(LEARNT):
            return f"learnt {Limit(self.kind.removeprefix(LEARNT), self.amount, self.window)}"
        if self.amount is None:
            return f"{self.kind}:unlimited"
        if isinstance(self.window, int):
            window: Window | None = Window("rolling", self.window)
        else:
            window = Window.parse(self.window) if self.window else None
        return str(Budget(self.kind, self.amount, window=window))


def check_kind(kind: object) -> str:
    """Return the kind if it is a name or a formula in the form that :func:`budgeteer.core.meter.canonical` writes.

    Raises:
        InvalidInput: it is neither.
    """
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise InvalidInput(
            f"kind {kind!r} is not a name such as all, output or money, nor a meter such as input*0.1+output"
        )
    return kind


def check_name(name: object) -> str:
    """Return the name of a ledger in a store that holds several; InvalidInput if it is not a valid one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(f"name {name!r} is not 1 to 32 of a-z, 0-9 and _, beginning with a letter")
    return name


def check_units(units: object, subject: str) -> int:
    """Return units if they are an integer from 0 to MAX_UNITS; InvalidInput, which begins with ``subject``, if not."""
    if type(units) is not int:
        raise InvalidInput(f"{subject} is {units!r} ({type(units).__name__}); units are whole, give an int")
    if not 0 <= units <= MAX_UNITS:
        raise InvalidInput(f"{subject} is {units:,}; give 0 to {MAX_UNITS:,}")
    return units


def check_amounts(amounts: Mapping[str, int]) -> Amounts:
    """Amounts as a tuple sorted by kind; InvalidInput if there are none, or a kind or its units are not valid."""
    if type(amounts) is dict and len(amounts) == 1:  # the most frequent case, and one that is timed
        for kind, units in amounts.items():
            if type(units) is int and type(kind) is str and 0 <= units <= MAX_UNITS and kind in _SEEN:
                return ((kind, units),)
    if not isinstance(amounts, Mapping) or not amounts:
        raise InvalidInput(f"amounts are {amounts!r}; give units per kind, such as {{'all': 500}}")
    for kind, units in amounts.items():
        if type(units) is not int or type(kind) is not str or not 0 <= units <= MAX_UNITS or kind not in _SEEN:
            check_units(units, f"the amount of {check_kind(kind)}")
    if len(_SEEN) < 1000:
        _SEEN.update(amounts)
    return tuple(sorted(amounts.items()))


def check_path(path: object) -> tuple[str, ...]:
    """The scopes of a path, outermost first; InvalidInput if it is not a valid path.

    >>> check_path("acme/search/key-7")
    ('acme', 'acme/search', 'acme/search/key-7')
    """
    if type(path) is not str:
        raise InvalidInput(f"path {path!r} is no string; write scopes as 'org/team/key'")
    return _scopes(path)


@lru_cache(100_000)  # every call names its path
def _scopes(path: str) -> tuple[str, ...]:
    parts = path.split("/")
    if len(parts) > MAX_SCOPES:
        raise InvalidInput(f"path {path[:60]!r}... has {len(parts)} scopes; at most {MAX_SCOPES}")
    for part in parts:
        if not _SCOPE.fullmatch(part):
            raise InvalidInput(
                f"path {path[:200]!r} has the scope {part[:140]!r}; scopes are 1 to 128 letters, digits or "
                ". _ @ : + = -, separated by /"
            )
    return tuple("/".join(parts[: depth + 1]) for depth in range(len(parts)))


def check_id(name: object) -> str:
    """Return the id of a reservation if it is a valid one; InvalidInput if not."""
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise InvalidInput(f"id {name!r} is not 1 to 256 letters, digits or . _ @ : + = - /")
    return name


def known_id(name: object) -> str:
    """Return an id to look up. Unlike :func:`check_id` it lets unusual ids pass: the look-up will not find them."""
    return name if type(name) is str and name.isascii() else check_id(name)


def check_limits(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """The limits of one account, sorted by kind and window; InvalidInput if two have the same kind and window."""
    given = tuple(limits)
    for limit in given:
        if not isinstance(limit, Limit):
            raise InvalidInput(f"{limit!r} is no Limit; write Limit('all', 500_000) or Limit.parse('500k/day')")
    seen = [(limit.kind, limit.window) for limit in given]
    for kind, window in seen:
        if seen.count((kind, window)) > 1:
            raise InvalidInput(f"two limits of {kind} for the window {window}; give one")
    return tuple(sorted(given, key=lambda limit: (limit.kind, str(limit.window or ""))))


def encode_limits(limits: tuple[Limit, ...]) -> str:
    """Limits as one text, such as ``all 500 -,money 5 day,output - -``: kind, amount and window; ``-`` for none."""
    return ",".join(
        f"{limit.kind} {'-' if limit.amount is None else limit.amount} {limit.window or '-'}" for limit in limits
    )


@lru_cache(4096)
def decode_limits(text: str) -> tuple[Limit, ...]:
    """The inverse of :func:`encode_limits`."""
    limits = []
    for part in text.split(",") if text else ():
        kind, amount, window = part.split(" ")
        span = None if window == "-" else int(window) if window.isdigit() else window
        limits.append(Limit(kind, None if amount == "-" else int(amount), span))
    return tuple(limits)
