"""Energy that a machine used: counters of its processor (RAPL, in Linux's powercap folder) and of its GPUs (NVML)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from budgeteer.core.errors import InvalidInput, MissingExtra

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


def gpu_meter(gpus: Sequence[int] | None = None, nvml: Any = None) -> Callable[[], float]:
    """A stopwatch of the energy of NVIDIA GPUs: every call returns the joules since the one before it.

    NVML counts the millijoules of a whole GPU since its driver was loaded, so that other programs on it are counted,
    too.

    Args:
        gpus: their numbers, as ``nvidia-smi`` has them, whatever CUDA_VISIBLE_DEVICES says; None = all.
        nvml: the module; None = ``pynvml`` of nvidia-ml-py.

    Raises:
        MissingExtra: nvidia-ml-py is not installed.
        InvalidInput: there is no driver, no such GPU, or one without a counter (older than Volta, or parts of a GPU).
    """
    if nvml is None:
        try:
            import pynvml
        except ImportError as error:
            raise MissingExtra("nvidia-ml-py", "nvml") from error
        nvml = pynvml
    try:
        nvml.nvmlInit()
        count = int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError as error:
        raise InvalidInput(f"NVML cannot be used here: {error}; install NVIDIA's driver, or give --watts") from error
    numbers = list(range(count)) if gpus is None else list(gpus)
    if not count:
        raise InvalidInput("NVML sees no GPU here; give --watts, or read the processor's counters")
    if not numbers or (wrong := [number for number in numbers if not 0 <= number < count]):
        none = wrong[0] if numbers else "to read"
        raise InvalidInput(f"no GPU {none}: there are {count}, from 0 to {count - 1}; choose among these")
    if len(set(numbers)) < len(numbers):
        raise InvalidInput(f"GPUs {numbers} have one twice; name each once")
    handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in numbers]

    def read() -> int:
        return sum(int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in handles)

    try:
        before = read()
    except nvml.NVMLError as error:
        raise InvalidInput(
            f"a GPU of {numbers} has no energy counter that can be read: {error}; GPUs have one from Volta on, as a "
            "whole; leave it out, or give --watts"
        ) from error

    def since() -> float:
        nonlocal before
        now = read()
        used, before = now - before, now
        return used / 1e3

    return since


def together(meters: Sequence[Callable[[], float]]) -> Callable[[], float]:
    """A stopwatch of what several count: processor and GPUs."""
    return lambda: sum(one() for one in meters)
