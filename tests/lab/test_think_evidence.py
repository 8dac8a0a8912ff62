"""The evidence of the strategies of one trace can come out against them, and its oracles hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from budgeteer.lab.evidence import budget_forcing as forcing
from budgeteer.lab.evidence import conciseness as concise
from budgeteer.lab.evidence import convergence as early
from budgeteer.lab.evidence import elastic as phases
from budgeteer.lab.evidence import length_filtered_vote as lengths
from budgeteer.lab.evidence import plan_and_budget as plans
from budgeteer.lab.thinkers import STYLE, Thought, thinker
from budgeteer.strategies import convergence, direct, truncate
from budgeteer.strategies._plan_and_budget import divide
from budgeteer.strategies.kit.planner import Part


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (forcing, phases, early, concise, plans):
        monkeypatch.setattr(module, "QUESTIONS", 30)
    monkeypatch.setattr(phases, "REFERENCE", phases.REFERENCE[:30])


def test_a_thinker_is_the_same_however_it_is_cut() -> None:
    import random

    model = thinker(lambda rng: Thought(closes=20, knows=10), seed=0)
    rng = random.Random(0)
    whole = model.write("q:", rng)
    assert whole == "." * 20 + "|R\n"
    assert all(model.write("q:" + whole[:i], rng) == whole[i:] for i in range(22))
    assert model.write("q:" + "." * 9 + "|", rng) != "R\n" == model.write("q:" + "." * 10 + "|", rng)
    assert STYLE.read(whole) == "R"


def test_forcing_can_fail() -> None:
    assert forcing.forcing("early", 40, seeds=3).verdict == "shown"
    assert forcing.forcing("early", 40, ours=truncate(), seeds=3).verdict == "refuted here"


def test_elastic_can_fail() -> None:
    assert phases.gain("direct", 60, seeds=10).verdict == "shown"
    assert phases.gain("direct", 60, ours=direct(), seeds=3).verdict == "refuted here"


def test_convergence_can_fail() -> None:
    assert early.accuracy("unsteady", seeds=3).estimate > -0.1
    hasty = convergence(every=1, agree=2)
    assert early.accuracy("unsteady", strategy=hasty, seeds=3).verdict == "refuted here"


def test_the_filtered_vote_can_fail() -> None:
    assert lengths.vote("sharp", 100, seeds=3).verdict == "shown"
    assert lengths.vote("sharp", 100, minimum=101, seeds=3).verdict == "refuted here"  # no filter, no gain


def test_plans_can_fail() -> None:
    assert plans.total("water-filling", "polynomial", "falling", seeds=3).verdict == "shown"
    assert plans.total("polynomial", "constant", "rising", seeds=3).verdict == "refuted here"


def test_the_reminder_can_fail() -> None:
    assert concise.saturation("follows", seeds=10).verdict == "shown"
    assert concise.saturation("follows", ours=direct(concise.MOST), seeds=4).verdict == "refuted here"


@pytest.mark.parametrize(("scale", "decay"), [((4.0, 1.0, 2.0), (1.0, 1.0, 1.0)), ((9.0, 3.0, 0.5), (0.4, 1.1, 0.8))])
def test_water_filling_is_the_optimum_that_scipy_finds(scale: tuple[float, ...], decay: tuple[float, ...]) -> None:
    """Whole tokens lie within one of the continuous optimum, and no swap of two tokens improves them."""
    c, a, total = np.array(scale), np.array(decay), 300
    tokens = np.array(divide(total, [Part("", *pair) for pair in zip(scale, decay, strict=True)], "water-filling"))
    assert tokens.sum() == total
    found = minimize(
        lambda b: np.sum(c * b**-a), np.full(3, total / 3), bounds=[(1, total)] * 3, method="SLSQP",
        constraints={"type": "eq", "fun": lambda b: b.sum() - total}, options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert np.abs(tokens - found.x).max() < 1.01
    for i, j in ((0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)):
        other = tokens + np.eye(3, dtype=int)[i] - np.eye(3, dtype=int)[j]
        assert np.sum(c * other**-a) >= np.sum(c * tokens**-a) - 1e-12


def test_equal_decays_have_the_papers_closed_form() -> None:
    """b_j in proportion to c_j^(1 / 2) for a = 1: 9, 4, 1 give 3 : 2 : 1 of 120."""
    assert divide(120, [Part("", c) for c in (9.0, 4.0, 1.0)], "water-filling") == [60, 40, 20]


@pytest.mark.parametrize(
    ("schedule", "want"),
    [
        ("constant", [25, 25, 25, 25]),
        ("linear", [40, 30, 20, 10]),
        ("exponential", [29, 26, 24, 21]),  # 1, 0.9, 0.81, 0.729 of 3.439: 29.08, 26.17, 23.55, 21.20
        ("cosine", [46, 35, 15, 4]),  # 1.1, 0.85, 0.35, 0.1 of 2.4: 45.83, 35.42, 14.58, 4.17
    ],
)
def test_schedules_by_hand(schedule: str, want: list[int]) -> None:
    assert divide(100, [Part("")] * 4, schedule) == want  # type: ignore[arg-type]


def test_the_polynomial_schedule_by_hand() -> None:
    """16, 9, 4, 1 of 30, and 60 tokens; credits 1, 2, 1, 4 make it 16, 18, 4, 4 of 42, and 84 tokens."""
    assert divide(60, [Part("")] * 4, "polynomial") == [32, 18, 8, 2]
    assert divide(84, [Part("", c) for c in (1.0, 2.0, 1.0, 4.0)], "polynomial") == [32, 36, 8, 8]
