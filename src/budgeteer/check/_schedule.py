"""The rules of schedules of a run's settings."""

from __future__ import annotations

import math

from budgeteer.check._common import CheckFailed
from budgeteer.core.schedule import Schedule


def check_schedule(schedule: Schedule, *, seed: int = 0) -> None:
    """Evaluate a schedule over a run, and raise :class:`CheckFailed` at the first broken rule.

    Rules: a finite number of 0 or more for every share of the run that is done, above 0 at its start; the same share
    gives the same number.

    Args:
        schedule: the schedule to check; it gives factors of a setting.
        seed: not used; all checks take one.
    """
    for i in range(101):
        value, again = schedule(i / 100), schedule(i / 100)
        if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
            raise CheckFailed(f"at {i} % of the run the schedule gives {value!r}; a finite number, 0 or more")
        if value != again:
            raise CheckFailed(f"at {i} % of the run the schedule gives {value} and then {again}; it keeps no memory")
    if not schedule(0.0) > 0:
        raise CheckFailed("the schedule starts at 0, and nothing would begin")
