"""Energy that a machine used, from the counters of its processor (RAPL, in Linux's powercap folder)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from budgeteer.core.errors import InvalidInput

POWERCAP = Path("/sys/class/powercap")
"""Where Linux has the counters. Reading them needs root on most systems."""


def counters(folder: Path = POWERCAP) -> tuple[Path, ...]:
    """The packages of the processor whose energy can be read; ``()`` if there are none.

    A package includes its cores; subzones (``intel-rapl:0:0``) are left out, or they would be counted twice.
    """
    readable = []
    for zone in sorted(folder.glob("intel-rapl:[0-9]*")):
        if zone.name.count(":") == 1:
            try:
                int((zone / "energy_uj").read_text())
            except (OSError, ValueError):
                continue
            readable.append(zone)
    return tuple(readable)


def meter(folder: Path = POWERCAP) -> Callable[[], float]:
    """A stopwatch of energy: every call returns the joules since the one before it; counters that wrap are minded.

    Other programs on the machine are counted, too.

    Raises:
        InvalidInput: no counter can be read.
    """
    zones = counters(folder)
    if not zones:
        raise InvalidInput(
            f"no energy counter can be read under {folder}; run as root on a machine that has them, or give --watts"
        )

    def read() -> list[int]:
        return [int((zone / "energy_uj").read_text()) for zone in zones]

    wraps = [int((zone / "max_energy_range_uj").read_text()) + 1 for zone in zones]
    before = read()

    def since() -> float:
        nonlocal before
        now = read()
        used = sum((b - a) % wrap for a, b, wrap in zip(before, now, wraps, strict=True))
        before = now
        return used / 1e6

    return since
