"""The budget notation: ``500k``, ``output:1m``, ``$5``, ``50%``, parsed and printed in one place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from budgeteer.errors import InvalidInput

_SUFFIX = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_AMOUNT = re.compile(r"^(?:(?P<kind>[a-z][a-z_]*):)?(?P<money>\$)?(?P<number>\d+(?:\.\d+)?)(?P<suffix>[kmb%]?)$")
PICO = 10**12
"""Pico-dollars in a dollar: money is an integer everywhere."""


@dataclass(frozen=True, slots=True)
class Budget:
    """An absolute amount of integer units of one kind, or a fraction of a reference budget.

    Attributes:
        kind: ``"all"`` or ``"output"`` (tokens), ``"money"`` (pico-dollars).
        amount: integer units, or None for a fraction.
        fraction: share of a reference, > 0, or None for an absolute amount.

    >>> Budget.parse("output:1m")
    Budget(kind='output', amount=1000000, fraction=None)
    >>> Budget.parse("50%").of(569_000)
    284500
    >>> str(Budget.parse("$2.50"))
    '$2.5'
    """

    kind: str = "all"
    amount: int | None = None
    fraction: Fraction | None = None

    def __post_init__(self) -> None:
        if (self.amount is None) == (self.fraction is None):
            raise InvalidInput("a Budget has an amount or a fraction, exactly one of the two")
        if self.amount is not None and self.amount < 0:
            raise InvalidInput(f"a Budget of {self.amount} is negative; give 0 or more")
        if self.fraction is not None and self.fraction <= 0:
            raise InvalidInput(f"a Budget of {self.fraction} of its reference is not positive")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``[kind:]number[k|m|b]``, ``$number`` or ``[kind:]number%``.

        Raises:
            InvalidInput: the text is not in the notation, or is not a whole number of units.
        """
        kind_text, colon, amount_text = text.strip().lower().rpartition(":")
        match = _AMOUNT.match(kind_text + colon + amount_text.replace("_", "").replace(",", ""))
        if match is None:
            raise InvalidInput(f"budget {text!r} is not in the notation; write 500k, output:1m, $5 or 50%")
        number, suffix = Fraction(match["number"]), match["suffix"]
        kind = match["kind"] or ("money" if match["money"] else "all")
        if match["money"] and (match["kind"] or suffix == "%"):
            raise InvalidInput(f"budget {text!r} mixes money with a kind or a percentage; write $5 alone")
        if suffix == "%":
            return cls(kind, fraction=number / 100)
        units = number * _SUFFIX[suffix] * (PICO if match["money"] else 1)
        if units.denominator != 1:
            raise InvalidInput(f"budget {text!r} is {float(units)} units; units are whole, so use a finer number")
        return cls(kind, amount=int(units))

    def of(self, reference: int) -> int:
        """Integer units of this budget, given the reference that a fraction is a share of (rounded down)."""
        if self.amount is not None:
            return self.amount
        assert self.fraction is not None
        return int(self.fraction * reference)

    def __str__(self) -> str:
        if self.fraction is not None:
            percent = self.fraction * 100
            shown = str(int(percent)) if percent.denominator == 1 else str(float(percent))
            return (f"{self.kind}:" if self.kind != "all" else "") + shown + "%"
        assert self.amount is not None
        if self.kind == "money":
            whole, rest = divmod(self.amount, PICO)
            return f"${whole}" + (f".{rest:012d}".rstrip("0") if rest else "")
        prefix = f"{self.kind}:" if self.kind != "all" else ""
        for suffix in ("b", "m", "k"):
            if self.amount and self.amount % _SUFFIX[suffix] == 0:
                return f"{prefix}{self.amount // _SUFFIX[suffix]}{suffix}"
        return f"{prefix}{self.amount}"
