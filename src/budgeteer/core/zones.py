"""Names of time zones, as the time zone database of this machine, or else the package tzdata, has them."""

from __future__ import annotations

import difflib
from functools import lru_cache

from budgeteer.core.errors import UnknownZone

_NO_PLACES = ("localtime", "Factory")
"""Entries of some databases whose meaning depends on the machine, or that are there to be replaced."""


@lru_cache(1024)
def zone_named(text: str) -> str:
    """The name of a time zone as the database spells it; capital letters do not count.

    Raises:
        UnknownZone: the database has none of this name, or there is no database.

    >>> zone_named("europe/berlin"), zone_named("utc")
    ('Europe/Berlin', 'UTC')
    """
    known = _names()
    name = known.get(text.casefold())
    if name is not None:
        return name
    if not known:
        raise UnknownZone(f"no time zone {text!r}: this machine has no time zone database; pip install tzdata")
    near = difflib.get_close_matches(text.casefold(), known, n=3)
    hint = f"did you mean {' or '.join(known[match] for match in near)}?" if near else "write one such as Europe/Berlin"
    raise UnknownZone(f"no time zone {text!r} in this machine's database; {hint}")


@lru_cache(1)
def _names() -> dict[str, str]:
    """Names of zones by how they are compared. Reading them takes some milliseconds, and nobody without zones waits."""
    from zoneinfo import available_timezones

    return {name.casefold(): name for name in sorted(available_timezones()) if name not in _NO_PLACES}
