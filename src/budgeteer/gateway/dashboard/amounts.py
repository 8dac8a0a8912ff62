"""Write units and durations for people."""

from __future__ import annotations

from budgeteer.core.amounts import dollars, is_money
from budgeteer.draw.svg import compact


def amount(kind: str, units: float) -> str:
    """Units of a kind; whole, but money in dollars as :func:`dollars` rounds it.

    >>> amount("all", 1234567), amount("money", 5 * 10**12), amount("learnt.money", 5 * 10**12)
    ('1,234,567', '$5.00', '$5.00')
    """
    return dollars(units) if is_money(kind) else f"{units:,.0f}"


def short(kind: str, units: float) -> str:
    """Units of a kind in few characters, for the axes of charts."""
    return dollars(units) if is_money(kind) else compact(units)


def lasting(ms: float | None) -> str:
    """A duration in milliseconds, in units that people read easily; "" for None.

    >>> lasting(None), lasting(40), lasting(12_345), lasting(4_000_000), lasting(9e8)
    ('', '40 ms', '12.3 s', '1 h 6 min', '10 d 10 h')
    """
    if ms is None:
        return ""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 120_000:
        return f"{ms / 1000:.3g} s"
    minutes = int(ms // 60_000)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
