"""Mirostat: the controller's arithmetic by hand, and the mean surprise it holds."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.core.steer import Rows, Snapshot  # noqa: E402
from budgeteer.steer import mirostat as hold  # noqa: E402
from budgeteer.steer._mirostat import top_k  # noqa: E402
from budgeteer.strategies import mirostat  # noqa: E402
from helpers.insides import ask, reasoner  # noqa: E402


class One:
    """One row of the steer: its logits in, the changed ones out."""

    def __init__(self, **changes):
        self.steer = hold(**{"target": 1.5, "rate": 0.5} | changes)
        self.state = self.steer.init(Rows(("a",), np.array([9999]), 0))
        self.last, self.length = -1, 0

    def step(self, logits, forced=False):
        now = Snapshot.of([self.length], last=self.last, logits=logits, forced=forced)
        action, self.state = self.steer.step(self.state, now)
        return action.logits

    def take(self, token):
        self.last, self.length = token, self.length + 1


def test_the_second_version_by_hand():
    """p = 1/2, 1/4, 1/8, 1/8 have 1, 2, 3, 3 bits; mu starts at 3: all stay; after a draw of 3 bits mu = 3 - 0.75 =
    2.25: two stay; after a draw of 1 bit mu = 2.25 + 0.25 = 2.5."""
    row = One()
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    assert torch.isfinite(row.step(logits)).tolist() == [[True] * 4]
    row.take(2)
    assert torch.isfinite(row.step(logits)).tolist() == [[True, True, False, False]]
    row.take(0)
    row.step(logits)
    assert row.state.mu[0] == pytest.approx(2.5)


def test_the_likeliest_token_always_stays():
    assert torch.isfinite(One(target=0.01).step(torch.tensor([[0.0, 1, 0, 0]]))).sum() == 1


@pytest.mark.parametrize("s", [0.7, 1.0, 1.3, 2.0])
def test_the_first_version_on_an_exact_zipf_law(s):
    """On p_i ~ i^-s the fitted exponent is s, so k is that of the formula."""
    n, mu = 5000, 6.0
    logits = -s * torch.arange(1, n + 1).double().log()
    kept = int(torch.isfinite(One(version=1, target=mu / 2).step(logits[None])).sum())
    e = s - 1
    bracket = 2**mu / math.log(n) if s == 1 else e * 2**mu / (1 - n**-e)
    assert kept == top_k(s, mu, n) == min(n, round(bracket ** (1 / s)) + 1)


def drawn_surprise(version, target, rate, steps=600):
    """Mean surprise of a long text in a made-up language: Zipf's law of a new exponent at every step."""
    rng = np.random.default_rng(0)
    row, n = One(version=version, target=target, rate=rate), 3000
    total = 0.0
    for _ in range(steps):
        logits = torch.tensor(-rng.uniform(0.9, 1.4) * np.log(np.arange(1, n + 1)) + 0.2 * rng.normal(size=n))
        weights = row.step(logits[None])[0].exp().double().numpy()
        token = int(rng.choice(n, p=weights / weights.sum()))
        row.take(token)
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
    row = One()
    row.step(torch.zeros(1, 3), forced=True)
    row.take(1)
    row.step(torch.zeros(1, 3))
    assert row.state.mu[0] == 3.0
    row.take(1)
    row.step(torch.zeros(1, 3))
    assert row.state.mu[0] == pytest.approx(3.0 - 0.5 * (math.log2(3) - 1.5))


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
