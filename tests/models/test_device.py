"""What fits a deadline, against all options tried one by one; profiles survive their file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from budgeteer.core.errors import CheckpointError, InvalidInput
from budgeteer.models.device import PUBLISHED, Accuracy, Device, configurations, device_of, load, save
from budgeteer.models.latency import Decode, Latency

LATENCY = Latency((0.0, 1e-4, 0.01), 1, (Decode(1, 0.01, 0.0), Decode(4, 0.02, 0.0)), error=0.2)
SEEN = tuple(
    Accuracy(tokens, parallel, right, right - 0.1, right + 0.1, 9.0, 9.0)
    for parallel, rights in ((1, (0.3, 0.5, 0.6)), (4, (0.2, 0.7, 0.8)))
    for tokens, right in zip((10, 20, 40), rights, strict=True)
)
DEVICE = Device("m", LATENCY, (10.0, 20.0), SEEN, "chains", 100)


def worked(tokens: int, parallel: int) -> float:
    """0.02 s of reading and the steps, over 0.8."""
    return (0.02 + (tokens - 1) * (0.01 if parallel == 1 else 0.02)) / 0.8


@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.3, 0.5, 1.0])
def test_the_best_that_fits(seconds: float) -> None:
    fits = [one for one in SEEN if worked(one.tokens, one.parallel) <= seconds]
    found = configurations([DEVICE], seconds)
    assert {(one.tokens, one.parallel) for one in found} == {(one.tokens, one.parallel) for one in fits}
    assert [one.right.right for one in found if one.right] == sorted((one.right for one in fits), reverse=True)
    assert all(one.seconds == pytest.approx(worked(one.tokens, one.parallel)) for one in found)


def test_energy_is_power_times_time_and_a_limit_of_it() -> None:
    # 10 W * 0.02 s + 20 W * 9 * 0.01 s
    assert DEVICE.joules(100, 10) == pytest.approx(0.2 + 1.8)
    assert [one.tokens for one in configurations([DEVICE], 9.0, joules=2.1)] == [10]
    assert configurations([replace(DEVICE, watts=None)], 9.0, joules=2.1) == []
    assert math.isnan(configurations([replace(DEVICE, watts=None)], 9.0)[0].joules)


def test_without_accuracy_the_longest_answer_for_each_number_of_choices() -> None:
    found = configurations([replace(DEVICE, accuracy=())], 1.0)
    # 0.8 s: 0.02 + 78 steps of 0.01, or 39 of 0.02
    assert [(one.parallel, one.tokens) for one in found] == [(1, 79), (4, 40)]
    both = configurations([replace(DEVICE, accuracy=()), DEVICE], 1.0)
    assert [one.right is None for one in both[-2:]] == [True, True]
    assert both[0].right is not None


def test_the_longer_the_prompt_the_shorter_the_answer() -> None:
    bare = replace(DEVICE, accuracy=())
    assert configurations([bare], 1.0, prompt=1100)[0].tokens == 79 - 10


def test_unknown_lengths_and_no_time_are_refused() -> None:
    with pytest.raises(InvalidInput, match="--prompt-tokens"):
        configurations([replace(DEVICE, prompt=0)], 1.0)
    for seconds in (0.0, -1.0, math.nan):
        with pytest.raises(InvalidInput, match="deadline"):
            configurations([DEVICE], seconds)


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    for one in (DEVICE, replace(DEVICE, watts=None, accuracy=())):
        save(one, tmp_path / "sub" / "one.json")
        assert load(tmp_path / "sub" / "one.json") == one
        assert device_of("deadline", str(tmp_path / "sub" / "one.json")) == one


@pytest.mark.parametrize("change", ["nothing", "schema", "latency", "more"])
def test_what_is_no_profile_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "bad.json"
    save(DEVICE, path)
    data = json.loads(path.read_text())
    if change == "more":
        data["colour"] = 1
    elif change == "nothing":
        path.unlink()
    else:
        del data[change]
    if change != "nothing":
        path.write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="budgeteer profile device"):
        load(path)


def test_the_published_devices_slow_down_as_published() -> None:
    small = PUBLISHED["jetson-orin-1.5b"].latency
    step = [small.seconds(1, c + 1) - small.seconds(1, c) for c in (1024, 4096)]
    assert step[1] / step[0] == pytest.approx(1.031, abs=1e-3)
    assert step[0] == pytest.approx(0.024, rel=1e-3)
