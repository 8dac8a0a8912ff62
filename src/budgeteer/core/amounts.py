"""Write units for people: money in dollars, tokens as tokens, and what a refusal has to say of a limit."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

MONEY = "money"
LEARNT = "learnt."
"""Before a kind: the same units, of which a call holds what is learnt instead of its worst case."""
OF = ".of."
"""Between a kind and the model or group of models that a limit of it counts: ``money.of.gpt-4o``."""
PICO = 10**12
"""Pico-dollars in a dollar: money is an integer everywhere."""
_BUCKETS = ("input", "output", "reasoning", "cached", "written", "written_long", "audio_input", "audio_output")
_NOUNS = {
    "all": "tokens",
    MONEY: "dollars",
    "parallel": "requests at once",
    **{bucket: f"{bucket.replace('_', ' ')} tokens" for bucket in _BUCKETS},
}


def dollars(units: float, rounding: str = ROUND_HALF_EVEN) -> str:
    """Pico-dollars (10**-12 dollars) in dollars: cents, and three significant digits below a dollar.

    Args:
        units: pico-dollars.
        rounding: of :mod:`decimal`.

    >>> dollars(0), dollars(1_234_560_000_000_000), dollars(12_345_000_000), dollars(-5e9), dollars(999_999_999_999)
    ('$0', '$1,234.56', '$0.0123', '-$0.005', '$1.00')
    >>> dollars(9_871_000_000, ROUND_CEILING), dollars(9_871_000_000, ROUND_FLOOR)
    ('$0.00988', '$0.00987')
    """
    if units < 0:
        mirrored = {ROUND_CEILING: ROUND_FLOOR, ROUND_FLOOR: ROUND_CEILING}
        return "-" + dollars(-units, mirrored.get(rounding, rounding))
    value = Decimal(units) / PICO
    if value == 0:
        return "$0"
    digits = 2 if value >= 1 else 2 - value.adjusted()
    rounded = value.quantize(Decimal(1).scaleb(-digits), rounding)
    if rounded >= 1:
        return f"${rounded:,.2f}"
    return f"${rounded:f}".rstrip("0")


def exact_dollars(units: int) -> str:
    """Pico-dollars in dollars, exactly.

    >>> exact_dollars(5 * 10**12), exact_dollars(-25 * 10**9)
    ('$5', '-$0.025')
    """
    sign, whole, rest = _exact(units)
    return f"{sign}${whole:,}{rest}"


def exact_number(units: int) -> str:
    """The same as programs read numbers, without the sign of dollars and without groups.

    >>> exact_number(4_990_000_000_000), exact_number(-25 * 10**9), exact_number(0)
    ('4.99', '-0.025', '0')
    """
    sign, whole, rest = _exact(units)
    return f"{sign}{whole}{rest}"


def _exact(units: int) -> tuple[str, int, str]:
    """Pico-dollars as a sign, whole dollars, and what follows them."""
    whole, rest = divmod(abs(units), PICO)
    return "-" if units < 0 else "", whole, f".{rest:012d}".rstrip("0") if rest else ""


def base(kind: str) -> str:
    """The kind of units without the model or group that it is limited for.

    >>> base("money.of.gpt-4o"), base("all")
    ('money', 'all')
    """
    return kind.partition(OF)[0]


def is_money(kind: str) -> bool:
    """Whether units of a kind are pico-dollars, be it that of a learnt limit or of one model.

    >>> is_money("learnt.money.of.gpt-4o"), is_money("learnt.all")
    (True, False)
    """
    return base(kind).removeprefix(LEARNT) == MONEY


def noun(kind: str) -> str:
    """What units of a kind are called.

    >>> [noun(kind) for kind in ("all", "output", "requests", "input*0.1+output", "money.of.gpt-4o")]
    ['tokens', 'output tokens', 'requests', 'units of input*0.1+output', 'dollars of gpt-4o']
    """
    kind, _, model = kind.removeprefix(LEARNT).partition(OF)
    name = _NOUNS.get(kind) or (f"units of {kind}" if any(sign in kind for sign in "*+/") else kind)
    return f"{name} of {model}" if model else name


def amount(kind: str, units: float, rounding: str = ROUND_HALF_EVEN) -> str:
    """Units with their noun; money in dollars.

    >>> amount("all", 1234567), amount("money", 5 * 10**12), amount("requests.of.o3", 1)
    ('1,234,567 tokens', '$5.00', '1 requests of o3')
    """
    if not is_money(kind):
        return f"{units:,.0f} {noun(kind)}"
    _, _, model = kind.partition(OF)
    return dollars(units, rounding) + (f" of {model}" if model else "")


def limit(kind: str, units: int, window: str | int | None) -> str:
    """A limit as its owner wrote it, such as "$5/day" or "500,000/3600s"; without the noun of its kind.

    >>> limit("money", 5 * 10**12, "day"), limit("requests", 60, 60), limit("all", 500_000, None)
    ('$5/day', '60/60s', '500,000')
    """
    each = "" if window is None or window == "" else f"/{window}s" if isinstance(window, int) else f"/{window}"
    return (exact_dollars(units) if is_money(kind) else f"{units:,}") + each


def left_of(kind: str, left: int, most: int, window: str | int | None) -> str:
    """What is left of a limit; rounded down, and never below 0.

    >>> left_of("money", 1_000_000_000, 5 * 10**12, "day"), left_of("requests.of.o3", -3, 60, 60)
    ('$0.001 left of $5/day', '0 requests of o3 left of 60/60s')
    """
    _, _, model = kind.partition(OF)
    left = max(0, left)
    if not is_money(kind):
        return f"{left:,} {noun(kind)} left of {limit(kind, most, window)}"
    return f"{dollars(left, ROUND_FLOOR)} left of {limit(kind, most, window)}" + (f" of {model}" if model else "")


def shortage(kind: str, left: int, requested: int, most: int, window: str | int | None) -> str:
    """Why a limit refuses a request, in units that people use.

    What is left is rounded down and what is requested up, so that the two can be compared as they are shown.

    >>> shortage("money", 1_000_000_000, 9_871_000_000, 5 * 10**12, "day")
    '$0.001 left of $5/day, this request may cost $0.00988'
    >>> shortage("all", -3, 1200, 500_000, None)
    '0 tokens left of 500,000, this request may use 1,200'
    """
    money = is_money(kind)
    asked = f"cost {dollars(requested, ROUND_CEILING)}" if money else f"use {requested:,}"
    return f"{left_of(kind, left, most, window)}, this request may {asked}"
