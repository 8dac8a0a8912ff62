"""Latency curves against sums worked step by step, and the calls that they are fitted to."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls

from budgeteer.core.errors import InvalidInput, MissingExtra
from budgeteer.core.usage import Usage
from budgeteer.models import timing
from budgeteer.models.chat import Prompt
from budgeteer.models.latency import Decode, Latency, Timed, fit, mean_error, nonnegative
from budgeteer.models.model import Choice, Finish, Request, Response
from budgeteer.models.power import counters, gpu_meter, meter, together

TRUE = Latency((2e-6, 3e-4, 0.02), 64, (Decode(1, 0.01, 2e-5), Decode(4, 0.015, 5e-5)))


def slowly(prompt: int, tokens: int, parallel: int) -> float:
    """Step by step, from the definition of the curves."""
    padded = next(p for p in itertools.count(0, 64) if p >= prompt)
    step, grows = {1: (0.01, 2e-5), 4: (0.015, 5e-5)}[parallel]
    return 2e-6 * padded**2 + 3e-4 * padded + 0.02 + sum(step + grows * (prompt + t) for t in range(1, tokens))


def calls() -> list[Timed]:
    kinds = [(p, 1, 1) for p in (5, 64, 100, 130, 300, 500)]
    kinds += [(p, t, k) for p in (5, 100, 300) for t in (10, 40, 90) for k in (1, 4)]
    return [Timed(*kind, slowly(*kind)) for kind in kinds]


@pytest.mark.parametrize("kind", [(1, 1, 1), (64, 1, 4), (65, 2, 1), (200, 30, 4)])
def test_the_time_of_a_call_is_the_sum_of_its_steps(kind: tuple[int, int, int]) -> None:
    assert TRUE.seconds(*kind) == pytest.approx(slowly(*kind))


def test_the_published_fit_of_an_orin() -> None:
    # 1,024 tokens: 1.56e-7 * 1024^2 + 2.31e-6 * 1024 + 0.046 = 0.1636 + 0.0024 + 0.046
    assert Latency((1.56e-7, 2.31e-6, 0.046), 128, ()).first(1000) == pytest.approx(0.21194, abs=1e-4)


def test_exact_calls_give_their_curves_and_their_padding_back() -> None:
    found = fit(calls())
    assert found.pad == 64
    assert found.prefill == pytest.approx(TRUE.prefill, rel=1e-6)
    for have, want in zip(found.decode, TRUE.decode, strict=True):
        assert have == pytest.approx(want, rel=1e-6)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert mean_error(found, calls()) == pytest.approx(0, abs=1e-9)


def test_the_error_is_that_of_calls_held_out() -> None:
    noisy = [call._replace(seconds=call.seconds * (1.5 if i % 4 == 0 else 1.0)) for i, call in enumerate(calls())]
    assert 0.15 < fit(noisy).error < 0.5


def test_too_few_calls_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 3 lengths"):
        fit([call for call in calls() if call.prompt in (5, 100)])
    with pytest.raises(InvalidInput, match="several tokens"):
        fit([call for call in calls() if call.tokens == 1])


def test_nonnegative_least_squares_as_scipy_has_it() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        matrix, target = rng.normal(size=(7, 3)), rng.normal(size=7)
        x, norm = nnls(matrix, target)
        error, found = nonnegative(matrix, target)
        assert found == pytest.approx(x, abs=1e-9)
        assert error == pytest.approx(norm**2, abs=1e-9)


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.3, 2.0])
@pytest.mark.parametrize("parallel", [1, 4])
def test_the_most_tokens_are_the_last_that_fit(seconds: float, parallel: int) -> None:
    slow = max((n for n in range(1, 300) if slowly(70, n, parallel) <= seconds), default=0)
    assert TRUE.most_tokens(70, seconds, parallel, most=299) == slow


def test_a_number_of_choices_that_was_not_timed_is_refused() -> None:
    with pytest.raises(InvalidInput, match="timed: 1, 4"):
        TRUE.seconds(10, 10, 2)


class Clocked:
    """A model that takes as long as ``slowly`` says, on a clock of its own."""

    name, capabilities = "clocked", frozenset({"prefix"})

    def __init__(self, longest: int = 10_000) -> None:
        self.now, self.longest, self.prompts = 0.0, longest, []

    def clock(self) -> float:
        return self.now

    def count(self, prompt: Prompt) -> int:
        return len(str(prompt).split())

    async def generate(self, request: Request) -> Response:
        self.prompts.append(request.prompt)
        tokens = min(request.max_tokens, self.longest)
        self.now += slowly(self.count(request.prompt), tokens, request.n)
        choice = Choice("x", tokens, Finish.LENGTH)
        return Response((choice,) * request.n, Usage(input=1, output=tokens * request.n))


def test_calls_are_timed_and_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Clocked()
    monkeypatch.setattr(timing.time, "perf_counter", model.clock)
    measured = asyncio.run(
        timing.measure(model, prompts=[5, 70, 200, 300], tokens=[8, 40], parallel=[1, 4], repeats=2)  # type: ignore[arg-type]
    )
    assert measured.watts is None
    assert all(call.seconds == pytest.approx(slowly(*call[:3])) for call in measured.calls)
    assert len(set(model.prompts)) == len(model.prompts)  # no prompt could be in a cache
    found = fit(measured.calls)
    assert found.decode[1] == pytest.approx(TRUE.decode[1], rel=1e-6)
    assert found.seconds(120, 60, 4) == pytest.approx(slowly(120, 60, 4), rel=1e-6)


def test_answers_that_end_early_count_as_long_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Clocked(longest=20)
    monkeypatch.setattr(timing.time, "perf_counter", model.clock)
    measured = asyncio.run(timing.measure(model, prompts=[5, 70, 200], tokens=[8, 40], repeats=1))  # type: ignore[arg-type]
    assert {call.tokens for call in measured.calls} == {1, 8, 20}
    with pytest.raises(InvalidInput, match="after one token"):
        asyncio.run(timing.measure(Clocked(longest=1), prompts=[5], tokens=[8]))  # type: ignore[arg-type]


def test_power_of_reading_and_of_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    model, last = Clocked(), 0.0
    monkeypatch.setattr(timing.time, "perf_counter", model.clock)

    def joules() -> float:  # 30 W, whatever runs
        nonlocal last
        used, last = 30 * (model.now - last), model.now
        return used

    measured = asyncio.run(timing.measure(model, prompts=[5], tokens=[8], repeats=1, joules=joules))  # type: ignore[arg-type]
    assert measured.watts == pytest.approx((30, 30))


def zone(folder: Path, name: str, used: int, wraps: int = 999_999) -> Path:
    (folder / name).mkdir()
    (folder / name / "energy_uj").write_text(f"{used}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{wraps}\n")
    return folder / name / "energy_uj"


def test_energy_of_all_packages_over_a_wrap(tmp_path: Path) -> None:
    first, second = zone(tmp_path, "intel-rapl:0", 900_000), zone(tmp_path, "intel-rapl:1", 5)
    zone(tmp_path, "intel-rapl:0:0", 7)  # a part of the first package
    assert [path.name for path in counters(tmp_path)] == ["intel-rapl:0", "intel-rapl:1"]
    since = meter(tmp_path)
    first.write_text("100000")  # wrapped at 1,000,000
    second.write_text("50005")
    assert since() == pytest.approx(0.25)
    assert since() == 0


def test_a_machine_without_counters_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="give --watts"):
        meter(tmp_path)


class NVMLError(Exception):
    pass


class Nvml:
    """The functions of pynvml that are called, on two GPUs whose millijoules are here."""

    NVMLError = NVMLError

    def __init__(self, *millijoules: int, fails: str = "") -> None:
        self.millijoules, self.fails = list(millijoules), fails

    def nvmlInit(self) -> None:
        if self.fails == "init":
            raise NVMLError("NVML Shared Library Not Found")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.millijoules)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        return ("handle", index)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: tuple[str, int]) -> int:
        if self.fails == "energy":
            raise NVMLError("Not Supported")
        return self.millijoules[handle[1]]


def test_energy_of_gpus_is_what_nvml_counted_since() -> None:
    nvml = Nvml(5_000, 70_000_000_000)
    both, second = gpu_meter(nvml=nvml), gpu_meter([1], nvml)
    nvml.millijoules = [6_500, 70_000_000_250]
    assert (both(), second()) == (1.75, 0.25)
    assert both() == 0.0
    nvml.millijoules[0] += 40
    assert together([both, second])() == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("nvml", "gpus", "why"),
    [
        (Nvml(fails="init"), None, "NVML cannot be used here: NVML Shared Library Not Found; install"),
        (Nvml(), None, "NVML sees no GPU here; give --watts"),
        (Nvml(1, 2), [], "no GPU to read: there are 2, from 0 to 1"),
        (Nvml(1, 2), [0, 2], "no GPU 2: there are 2, from 0 to 1"),
        (Nvml(1, 2), [1, 1], "have one twice"),
        (
            Nvml(1, fails="energy"),
            None,
            "no energy counter that can be read: Not Supported; GPUs have one from Volta on",
        ),
    ],
)
def test_gpus_that_cannot_be_read_are_told_what_to_do(nvml: Nvml, gpus: list[int] | None, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        gpu_meter(gpus, nvml)


def test_the_stand_in_has_the_functions_of_pynvml() -> None:
    pynvml = pytest.importorskip("pynvml")
    for name in dir(Nvml):
        if name.startswith("nvml"):
            theirs = list(inspect.signature(getattr(pynvml, name)).parameters)
            assert list(inspect.signature(getattr(Nvml, name)).parameters)[1:] == theirs, name
    assert issubclass(pynvml.NVMLError, Exception)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingExtra, match="nvml"):
        gpu_meter()
