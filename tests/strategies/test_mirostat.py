"""Mirostat: the controller's arithmetic by hand, and the mean surprise it holds."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.engine.hook import Internals, Row  # noqa: E402
from budgeteer.models.model import Request  # noqa: E402
from budgeteer.strategies import mirostat  # noqa: E402
from budgeteer.strategies._mirostat import Mirostat, top_k  # noqa: E402
from helpers.insides import ask, reasoner  # noqa: E402


def hook(**changes):
    return Mirostat("", 0, **{"target": 1.5, "rate": 0.5, "version": 2, "temperature": 1.0} | changes)


def inside(size):
    return Internals(torch.zeros(size, 1), tuple(map(str, range(size))), -1, lambda text: [])


def test_the_second_version_by_hand():
    """p = 1/2, 1/4, 1/8, 1/8 have 1, 2, 3, 3 bits; mu starts at 3: all stay; after a draw of 3 bits mu = 3 - 0.75 =
    2.25: two stay; after a draw of 1 bit mu = 2.25 + 0.25 = 2.5."""
    it = hook()
    row = Row(Request("p", max_tokens=9, hook=it), 0, [0])
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    assert torch.isfinite(it.step(inside(4), [row], logits, None).logits).tolist() == [[True] * 4]
    row.tokens.append(2)
    assert torch.isfinite(it.step(inside(4), [row], logits, None).logits).tolist() == [[True, True, False, False]]
    row.tokens.append(0)
    it.step(inside(4), [row], logits, None)
    assert row.state.own[0] == pytest.approx(2.5)


def test_the_likeliest_token_always_stays():
    it = hook(target=0.01)
    row = Row(Request("p", max_tokens=9, hook=it), 0, [0])
    assert torch.isfinite(it.step(inside(4), [row], torch.tensor([[0.0, 1, 0, 0]]), None).logits).sum() == 1


@pytest.mark.parametrize("s", [0.7, 1.0, 1.3, 2.0])
def test_the_first_version_on_an_exact_zipf_law(s):
    """On p_i ~ i^-s the fitted exponent is s, so k is that of the formula."""
    n, mu = 5000, 6.0
    it = hook(version=1, target=mu / 2)
    row = Row(Request("p", max_tokens=9, hook=it), 0, [0])
    logits = -s * torch.arange(1, n + 1).double().log()
    kept = int(torch.isfinite(it.step(inside(n), [row], logits[None], None).logits).sum())
    e = s - 1
    bracket = 2**mu / math.log(n) if s == 1 else e * 2**mu / (1 - n**-e)
    assert kept == top_k(s, mu, n) == min(n, round(bracket ** (1 / s)) + 1)


def drawn_surprise(version, target, rate, steps=600):
    """Mean surprise of a long text in a made-up language: Zipf's law of a new exponent at every step."""
    rng = np.random.default_rng(0)
    it, n = hook(version=version, target=target, rate=rate), 3000
    row = Row(Request("p", max_tokens=steps, hook=it), 0, [0])
    total = 0.0
    for _ in range(steps):
        logits = torch.tensor(-rng.uniform(0.9, 1.4) * np.log(np.arange(1, n + 1)) + 0.2 * rng.normal(size=n))
        weights = it.step(inside(n), [row], logits[None], None).logits[0].exp().double().numpy()
        token = int(rng.choice(n, p=weights / weights.sum()))
        row.tokens.append(token)
        total -= float(torch.log_softmax(logits, -1)[token]) / math.log(2)
    return total / steps


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("target", [2.5, 4.0, 5.5])
def test_mean_surprise_is_within_a_tenth_of_a_bit(version, target):
    assert abs(drawn_surprise(version, target, 1.0) - target) < 0.1


@pytest.mark.parametrize("version", [1, 2])
def test_without_feedback_it_drifts(version):
    assert abs(drawn_surprise(version, 4.0, 0.0) - 4.0) > 0.3


def test_rows_that_are_forced_leave_the_controller_alone():
    it = Mirostat("b", 1, target=1.5, rate=0.5, version=2, temperature=1.0)
    box = Internals(torch.zeros(3, 1), ("a", "b", "c"), -1, lambda text: [1])
    row = Row(Request("p", max_tokens=1, hook=it), 0, [0])  # no room to think: "b" is forced at once
    assert it.step(box, [row], torch.zeros(1, 3), None).force.tolist() == [1]
    row.tokens.append(1)
    assert it.step(box, [row], torch.zeros(1, 3), None).force.tolist() == [-1]
    assert row.state.own[0] == 3.0


def test_on_the_reasoner():
    model = reasoner()
    answer, budgeted = ask(mirostat(0.2), model, output=120)
    assert answer.stopped_by == "done"
    assert answer.answer is not None
    assert 0 < budgeted.spend.usage.output <= 120
    assert ask(mirostat(0.2), model, output=120)[0] == answer


def test_bad_settings_are_refused():
    with pytest.raises(InvalidInput, match="target=0"):
        mirostat(0)
