"""What a model can do in a given time on one machine: its latency, power and measured accuracy, kept in a file.

``budgeteer profile device`` and ``budgeteer profile accuracy`` write such files; ``budgeteer plan`` and the strategy
``deadline`` read them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.core.files import write_text
from budgeteer.models.latency import Decode, Latency

SCHEMA = 1


class Accuracy(NamedTuple):
    """How often the vote of ``parallel`` samples of at most ``tokens`` tokens each was right.

    Attributes:
        tokens: cap of a sample.
        parallel: samples at once; 1 is one greedy trace.
        right: share of right answers.
        low: of its interval of 95 %.
        high: of the same.
        used: mean tokens of a question, all samples together.
        longest: mean length of a question's longest sample.
    """

    tokens: int
    parallel: int
    right: float
    low: float
    high: float
    used: float
    longest: float


@dataclass(frozen=True, slots=True)
class Device:
    """A model on a machine.

    Attributes:
        model: as ``--model`` names it.
        latency: its curves.
        watts: power while reading prompts and while decoding; None = unknown.
        accuracy: what was measured on the questions of ``source``.
        source: the questions; ``""`` = none yet.
        prompt: most tokens of a prompt among them.
    """

    model: str
    latency: Latency
    watts: tuple[float, float] | None = None
    accuracy: tuple[Accuracy, ...] = ()
    source: str = ""
    prompt: int = 0

    def joules(self, prompt: int, tokens: int, parallel: int = 1) -> float:
        """Energy of a call, power times time of each phase; NaN where the power is unknown."""
        if self.watts is None:
            return math.nan
        first = self.latency.first(prompt)
        return self.watts[0] * first + self.watts[1] * (self.latency.seconds(prompt, tokens, parallel) - first)


class Configuration(NamedTuple):
    """A way to answer: the model, a cap of tokens and a number of samples.

    Attributes:
        device: the model on its machine.
        tokens: cap of each sample.
        parallel: samples at once.
        seconds: predicted time of the longest possible answer, with the margin of the fit's error.
        joules: predicted energy of it; NaN = unknown.
        right: measured accuracy; None = not measured.
    """

    device: Device
    tokens: int
    parallel: int
    seconds: float
    joules: float
    right: Accuracy | None


def configurations(
    devices: Iterable[Device],
    seconds: float,
    *,
    prompt: int | None = None,
    joules: float = math.inf,
    most: int = 1_000_000,
) -> list[Configuration]:
    """What fits a deadline and a budget of energy, the best first.

    Every measured pair of cap and number of samples whose longest answer is predicted to be done in time, the error of
    the fit included: ``predicted / (1 - error) <= seconds``. A device without measured accuracy has one configuration
    for each number of samples: the longest answer that fits. Order: measured ones by accuracy, then fewer samples, then
    fewer seconds; the unmeasured ones behind them as they are given.

    Args:
        devices: what can be chosen.
        seconds: the deadline of a call.
        prompt: tokens of the prompt; None = the most of the questions that accuracy was measured on.
        joules: most energy of a call; devices of unknown power are left out if it is finite.
        most: tokens that a sample may have at all.

    Raises:
        InvalidInput: no deadline above 0, or the length of prompts is unknown.
    """
    if not seconds > 0 or not joules > 0:
        raise InvalidInput(f"a deadline of {seconds} s and {joules} joules; give more than 0 of both")
    fitting = []
    for device in devices:
        length = device.prompt if prompt is None else prompt
        if length < 1:
            raise InvalidInput(
                f"the profile of {device.model} does not say how long prompts are; give --prompt-tokens, or measure "
                "its accuracy: budgeteer profile accuracy"
            )
        slack = 1 - device.latency.error
        pairs: list[tuple[int, int, Accuracy | None]]
        if device.accuracy:
            timed = {entry.parallel for entry in device.latency.decode}
            pairs = [(a.tokens, a.parallel, a) for a in device.accuracy if a.parallel in timed and a.tokens <= most]
        else:
            pairs = [
                (device.latency.most_tokens(length, seconds * slack, entry.parallel, most), entry.parallel, None)
                for entry in device.latency.decode
            ]
        for tokens, parallel, right in pairs:
            if tokens < 1:
                continue
            took = device.latency.seconds(length, tokens, parallel) / slack
            energy = device.joules(length, tokens, parallel)
            if took <= seconds and (energy <= joules or joules == math.inf):
                fitting.append(Configuration(device, tokens, parallel, took, energy, right))
    measured = sorted(
        (option for option in fitting if option.right),
        key=lambda option: (-_right(option), option.parallel, option.seconds),
    )
    return [*measured, *(option for option in fitting if not option.right)]


def _right(option: Configuration) -> float:
    return option.right.right if option.right else 0.0


def _published(name: str, prefill: tuple[float, float, float], step: float) -> Device:
    """A fit of the paper's; its step grows by 3.1 % from 1,024 to 4,096 tokens of context."""
    grows = 0.031 * step / (4096 - 1024)
    return Device(name, Latency(prefill, 128, (Decode(1, step - 1024 * grows, grows),)))


PUBLISHED = {
    device.model: device
    for device in (
        _published("jetson-orin-1.5b", (1.56e-7, 2.31e-6, 0.046), 0.024),
        _published("jetson-orin-8b", (6.65e-7, 2.90e-4, 0.104), 0.10),
        _published("jetson-orin-14b", (1.23e-6, 5.3e-4, 0.189), 0.186),
    )
}
"""DeepSeek-R1-Distill in FP16 with vLLM on a Jetson AGX Orin 64 GB, as EdgeReasoning (arXiv 2511.01866) has it."""


def save(device: Device, path: Path) -> None:
    """Write a profile.

    Raises:
        InvalidInput: the file cannot be written.
    """
    write_text(json.dumps({"schema": SCHEMA, **asdict(device)}, indent=1) + "\n", path)


def load(path: Path) -> Device:
    """Read a profile.

    Raises:
        CheckpointError: the file is missing, or is no profile.
    """
    try:
        profile: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if profile.pop("schema") != SCHEMA:
            raise KeyError(f"its schema is not {SCHEMA}")
        curves = profile.pop("latency")
        latency = Latency(
            tuple(curves["prefill"]),
            curves["pad"],
            tuple(Decode(*entry) for entry in curves["decode"]),
            curves["error"],
        )
        accuracy = tuple(Accuracy(*entry) for entry in profile.pop("accuracy"))
        watts = profile.pop("watts")
        device = Device(profile.pop("model"), latency, None if watts is None else tuple(watts), accuracy)
        return replace(device, **profile)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"cannot read a profile in {path}: {error}; make one: budgeteer profile device"
        ) from error


def device_of(method: str, given: str) -> Device:
    """What ``device=`` on a command line means: a profile's file, or the name of a published one.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    return PUBLISHED[given] if given in PUBLISHED else load(Path(given))
