"""The budget notation, parsed and printed in one place: ``500k``, ``output:1m``, ``$5/day``, ``50%``, lists of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from budgeteer.core.amounts import MONEY, PICO, exact_number
from budgeteer.core.errors import InvalidInput
from budgeteer.core.meter import canonical, exact
from budgeteer.core.usage import count
from budgeteer.core.zones import zone_named

_SUFFIX = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_GROUPED = r"[1-9][0-9]{0,2}(?:,[0-9]{3}){1,9}"
_AMOUNT = re.compile(
    rf"(?P<money>\$)?(?P<number>(?:{_GROUPED}|[0-9][0-9_]{{0,39}})(?:\.[0-9][0-9_]{{0,39}})?)(?P<suffix>[kmb%]?)"
)
_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9])")
_ROLLING = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[smhd])")
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SEPARATOR = re.compile(r"(?<![0-9]),|,(?![0-9])")
CALENDAR = ("hour", "day", "month")
"""Windows that begin at a full hour, at midnight and on the first of the month: in UTC, or in a time zone."""
_MOST = 10**40


@dataclass(frozen=True, slots=True)
class Window:
    """The time after which a budget is whole again.

    Attributes:
        unit: ``"hour"``, ``"day"``, ``"month"`` (of the calendar) or ``"rolling"`` (the last ``seconds``).
        seconds: length of a rolling window, 0 for the others.
        zone: name of the time zone of a calendar window, such as ``"Europe/Berlin"``; ``""`` is UTC.

    >>> Window.parse("day"), Window.parse("90m")
    (Window(unit='day', seconds=0, zone=''), Window(unit='rolling', seconds=5400, zone=''))
    >>> str(Window.parse("day@europe/berlin"))
    'day@Europe/Berlin'
    """

    unit: str
    seconds: int = 0
    zone: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", count("Window.seconds", self.seconds))
        if self.unit not in (*CALENDAR, "rolling"):
            raise InvalidInput(f"window {self.unit!r} is none of {', '.join(CALENDAR)}, rolling")
        if (self.unit == "rolling") != (self.seconds > 0):
            raise InvalidInput(f"a {self.unit} window of {self.seconds} s; a rolling one has seconds, no other has")
        if self.zone and self.unit == "rolling":
            raise InvalidInput(f"a rolling window has no time zone; leave @{self.zone} out")
        if self.zone:
            zone = zone_named(self.zone)
            object.__setattr__(self, "zone", "" if zone == "UTC" else zone)

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read ``hour``, ``day``, ``month``, perhaps with ``@`` and a time zone, or a rolling ``90s``, ``15m``, ``7d``.

        Raises:
            InvalidInput: the text is not in the notation.
            UnknownZone: this machine's database does not have the time zone.
        """
        name, at, zone = text.partition("@")
        if at and not zone:
            raise InvalidInput(f"window {text!r} lacks its time zone; write /day@Europe/Berlin, or /day for UTC")
        if name in CALENDAR:
            return cls(name, zone=zone)
        match = _ROLLING.fullmatch(name)
        if match is None or int(match["number"]) == 0:
            raise InvalidInput(
                f"window {text!r} is not in the notation; write /hour, /day, /month, /day@Europe/Berlin, or /90s, "
                "/15m, /7d"
            )
        return cls("rolling", int(match["number"]) * _SECONDS[match["unit"]], zone)

    def __str__(self) -> str:
        if self.unit == "rolling":
            return f"{self.seconds}s"
        return f"{self.unit}@{self.zone}" if self.zone else self.unit


@dataclass(frozen=True, slots=True)
class Budget:
    """An absolute amount of integer units of one kind, or a fraction of a reference budget, once or in every window.

    Attributes:
        kind: ``"all"`` or ``"output"`` (tokens), ``"money"`` (pico-dollars), a formula of :mod:`budgeteer.core.meter`.
        amount: integer units, or None for a fraction.
        fraction: share of a reference, > 0, or None for an absolute amount.
        window: when it starts anew, or None for never.

    >>> Budget.parse("output:1m")
    Budget(kind='output', amount=1000000, fraction=None, window=None)
    >>> Budget.parse("50%").of(569_000)
    284500
    >>> str(Budget.parse("$2.50")), str(Budget.parse("input*0.1+output:500k/day"))
    ('$2.5', 'input*0.1+output:500k/day')
    >>> str(Budget.parse("$5/day@Europe/Berlin"))
    '$5/day@Europe/Berlin'
    """

    kind: str = "all"
    amount: int | None = None
    fraction: Fraction | None = None
    window: Window | None = None

    def __post_init__(self) -> None:
        if (self.amount is None) == (self.fraction is None):
            raise InvalidInput("a Budget has an amount or a fraction, exactly one of the two")
        if self.amount is not None:
            object.__setattr__(self, "amount", count("the amount of a Budget", self.amount, _MOST))
        if self.fraction is not None:
            if isinstance(self.fraction, bool) or not isinstance(self.fraction, int | Fraction):
                raise InvalidInput(f"a Budget's fraction is {self.fraction!r}; give a fractions.Fraction")
            if self.fraction <= 0:
                raise InvalidInput(f"a Budget of {self.fraction} of its reference is not positive; give more than 0")
        object.__setattr__(self, "kind", canonical(self.kind))

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``[kind:]number[k|m|b|%]`` or ``$number[k|m|b]``, each with an optional ``/window``.

        A point separates decimals; commas only group thousands, as in ``1,000``.

        Raises:
            InvalidInput: the text is not in the notation, or is not a whole number of units.
            UnknownZone: the window is in a time zone that this machine's database does not have.
        """
        written, at, zone = text.strip().partition("@")
        kind_text, colon, rest = written.lower().rpartition(":")
        amount_text, slash, window_text = rest.partition("/")
        match = _AMOUNT.fullmatch(amount_text)
        if match is None and _COMMA.search(amount_text):
            raise InvalidInput(
                f"budget {text!r}: commas only group thousands, as in 1,000; decimals have a point: write $0.50, not "
                f"$0,50, and between several budgets a comma with a space"
            )
        if match is None or (colon and not kind_text) or (at and not slash):
            raise InvalidInput(
                f"budget {text!r} is not in the notation; write 500k, output:1m, $5, 50%, $5/day or "
                "$5/day@Europe/Berlin"
            )
        number, suffix = Fraction(match["number"].replace("_", "").replace(",", "")), match["suffix"]
        if match["money"] and (colon or suffix == "%"):
            raise InvalidInput(f"budget {text!r} mixes money with a kind or a percentage; write $5 alone")
        kind = MONEY if match["money"] else kind_text or "all"
        window = Window.parse(window_text + at + zone) if slash else None
        if suffix == "%":
            return cls(kind, fraction=number / 100, window=window)
        units = number * _SUFFIX[suffix] * (PICO if match["money"] else 1)
        if units.denominator != 1:
            raise InvalidInput(f"budget {text!r} is {float(units)} units; units are whole, so use a finer number")
        return cls(kind, amount=int(units), window=window)

    def of(self, reference: int) -> int:
        """Integer units of this budget, given the reference that a fraction is a share of (rounded down)."""
        if self.amount is not None:
            return self.amount
        assert self.fraction is not None
        return int(self.fraction * reference)

    def __str__(self) -> str:
        after = f"/{self.window}" if self.window else ""
        prefix = f"{self.kind}:" if self.kind != "all" else ""
        if self.fraction is not None:
            percent = Fraction(self.fraction) * 100
            return f"{prefix}{exact(percent) or float(percent)}%{after}"
        assert self.amount is not None
        if self.kind == MONEY:
            return f"${exact_number(self.amount)}{after}"
        for suffix in ("b", "m", "k"):
            if self.amount and self.amount % _SUFFIX[suffix] == 0:
                return f"{prefix}{self.amount // _SUFFIX[suffix]}{suffix}{after}"
        return f"{prefix}{self.amount}{after}"


class Budgets(tuple[Budget, ...]):
    """Several budgets that hold at once, such as ``output:1m, $5/day``; at most one of a kind and window.

    A comma between two digits groups thousands, as in ``1,000``, or is refused; any other one separates. So write a
    space after a separating comma, as it is printed.

    >>> print(Budgets.parse("output:1m,$5/day"))
    output:1m, $5/day
    """

    __slots__ = ()

    def __new__(cls, budgets: Iterable[Budget]) -> Self:
        members = super().__new__(cls, budgets)
        seen: set[tuple[str, Window | None]] = set()
        for budget in members:
            key = (budget.kind, budget.window)
            if key in seen:
                raise InvalidInput(f"two budgets of kind {budget.kind!r} for the same window; keep the smaller one")
            seen.add(key)
        if not members:
            raise InvalidInput("no budget given; write one or several, such as output:1m, $5/day")
        return members

    @classmethod
    def parse(cls, text: str) -> Budgets:
        """Read a list of budgets, each as :meth:`Budget.parse` does.

        Raises:
            InvalidInput: one of them is not in the notation, or two are of the same kind and window.
        """
        return cls(Budget.parse(part) for part in _SEPARATOR.split(text))

    def __str__(self) -> str:
        return ", ".join(map(str, self))
