"""The rules of meters."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from budgeteer.check._common import CheckFailed
from budgeteer.core.meter import Meter
from budgeteer.core.usage import Usage


def check_meter(meter: Meter, *, counts: Mapping[str, int] | None = None, seed: int = 0) -> None:
    """Measure made-up usages, and raise :class:`CheckFailed` at the first broken rule.

    Rules: the kind is a text that is not empty; units are whole and 0 or more; the same usage gives the same units;
    more of everything never gives fewer units; the worst case is at least what was consumed.

    Args:
        meter: the meter to check.
        counts: kinds in ``Usage.counts`` -> their units; None = the meter's own kind.
        seed: of the sizes.
    """
    if not isinstance(getattr(meter, "kind", None), str) or not meter.kind:
        raise CheckFailed(f"the kind of the meter is {getattr(meter, 'kind', None)!r}; give a text")
    before, rng = 0, Random(seed)
    for size in (0, 1, *sorted(rng.randrange(2, 10_000) for _ in range(6))):
        counted = {meter.kind: size} if counts is None else {kind: units * size for kind, units in counts.items()}
        usage = Usage(input=2 * size, output=size, cached=size // 2, reasoning=size // 3, counts=tuple(counted.items()))
        units, again, worst = meter(usage), meter(usage), meter.worst(usage)
        for measured in (units, worst):
            if type(measured) is not int or measured < 0:
                raise CheckFailed(f"the meter measured {measured!r} of {usage!r}; units are whole numbers, 0 or more")
        if units != again:
            raise CheckFailed(f"the meter measured {units} and then {again} of {usage!r}; it keeps no memory")
        if worst < units:
            raise CheckFailed(f"the worst case {worst} of {usage!r} is below the {units} that were consumed")
        if units < before:
            raise CheckFailed(f"{usage!r} measures {units}, a smaller one {before}; more is never fewer units")
        before = units
