"""Budget guidance: weights against scipy, what the steering does at the ends of its range, and the cap."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
stats = pytest.importorskip("scipy.stats")

from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.core.steer import Internals, Rows, Snapshot  # noqa: E402
from budgeteer.engine.head import Head  # noqa: E402
from budgeteer.lab.asking import ask as together  # noqa: E402
from budgeteer.lab.evidence.budget_guidance import plain  # noqa: E402
from budgeteer.lab.tasks.chains import Chains  # noqa: E402
from budgeteer.steer import budget_guidance as guide  # noqa: E402
from budgeteer.steer._budget_guidance import weights  # noqa: E402
from budgeteer.strategies import budget_guidance  # noqa: E402
from helpers.insides import STYLE, reasoner  # noqa: E402

PIECES = ("a", "b", "|", "\n")
INSIDE = Internals(torch.eye(4), PIECES, -1, lambda text: [PIECES.index(c) for c in text])


def inverse_softplus(x):
    return math.log(math.expm1(x - 1e-4))


def head(shape, rate):
    """Predicts these for every state."""
    flat = torch.tensor([inverse_softplus(x) for x in (*shape, *rate)], dtype=torch.double)
    zero = {"mean": torch.zeros(4), "w1": torch.zeros(4, 1), "b1": torch.zeros(1), "w2": torch.zeros(1, 8)}
    tensors = {name: tensor.double() for name, tensor in zero.items()} | {"scale": torch.ones(4).double(), "b2": flat}
    return Head(tensors, INSIDE.fingerprint, {"vocab": 4, "line_ends": ["\n"]})


def step(steer, tokens=(), cap=30, logits=(1.0, 0.5, 0.0, -1.0)):
    closed = tokens.index(2) + 1 if 2 in tokens else -1
    now = Snapshot.of(
        [len(tokens)],
        last=tokens[-1] if tokens else -1,
        cap=cap,
        closed=closed,
        close=lambda i: (2,),
        model=INSIDE,
        logits=torch.tensor([logits]),
        hidden=torch.zeros(1, 1, 4),
    )
    return steer.step(steer.init(Rows(("a",), np.array([cap]), 0)), now)[0]


def guidance(shape=(8.0, 6, 20, 30), rate=(4.0, 2, 9, 8), **changes):
    return guide(head(shape, rate), **{"reserve": 5, "min_rate": 0.0, "min_mode": 0.9} | changes)


def test_weights_are_the_gamma_cdf_of_the_log_length():
    shape, rate = torch.tensor([[8.0, 6, 20]]).double(), torch.tensor([[4.0, 2, 9]]).double()
    got = weights(shape, rate, torch.tensor([12.0]).double(), min_rate=0.0, min_mode=0.0)[0].numpy()
    want = stats.gamma.cdf(np.log(13.0), a=shape[0].numpy(), scale=1 / rate[0].numpy())
    np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize(
    ("shape", "rate", "min_rate", "min_mode", "stays"),
    [
        (20.0, 10.0, 10.0, 0.9, True),
        (20.0, 9.9, 10.0, 0.9, False),  # too uncertain
        (1.0, 0.5, 0.0, -1.0, False),  # a shape of 1 has its mode at 0
        (6.0, 8.0, 0.0, 0.86, True),  # exp(5 / 8) - 1 = 0.868
        (6.0, 8.0, 0.0, 0.87, False),
    ],
)
def test_filters_by_hand(shape, rate, min_rate, min_mode, stays):
    a = weights(
        torch.tensor([[shape]]), torch.tensor([[rate]]), torch.tensor([50.0]), min_rate=min_rate, min_mode=min_mode
    )
    assert (float(a[0, 0]) > 0) == stays


def test_the_steered_distribution_by_hand():
    """25 tokens of thinking and the marker are left: p * GammaCDF(log 27), normalised."""
    action = step(guidance())
    p = np.exp([1.0, 0.5, 0.0, -1.0])
    a = stats.gamma.cdf(np.log(27.0), a=[8, 6, 20, 30], scale=[1 / 4, 1 / 2, 1 / 9, 1 / 8])
    np.testing.assert_allclose(action.logits[0].softmax(-1).numpy(), p * a / (p * a).sum(), rtol=1e-5)
    assert action.drawn.tolist() == [True]


def test_the_rest_of_the_budget_counts_down():
    action = step(guidance(), (0, 0, 3), logits=(0.0, 0.0, 0.0, 0.0))
    a = stats.gamma.cdf(np.log(24.0), a=[8, 6, 20, 30], scale=[1 / 4, 1 / 2, 1 / 9, 1 / 8])
    np.testing.assert_allclose(action.logits[0].softmax(-1).numpy(), a / a.sum(), rtol=1e-5)


def test_an_endless_budget_changes_nothing_but_masked_tokens():
    """The second token has a rate below the filter."""
    action = step(guidance(rate=(4.0, 0.01, 9, 8), min_rate=1.0), cap=10**9)
    p = np.exp([1.0, -np.inf, 0.0, -1.0])
    np.testing.assert_allclose(action.logits[0].softmax(-1).numpy(), p / p.sum(), atol=1e-6)


def test_where_all_is_masked_the_likeliest_token_is_taken():
    action = step(guidance(min_rate=10.0))
    assert action.logits[0].softmax(-1).tolist() == [1, 0, 0, 0]


def test_within_a_line_and_after_the_thinking_nothing_is_steered():
    for tokens in ((0,), (3, 1), (0, 2), (0, 2, 3)):
        action = step(guidance(), tokens)
        assert action.logits is None, tokens


def test_on_the_reasoner_guided_thinking_ends_by_itself_more_often():
    model, env = reasoner(), Chains(40, 3, min_steps=5, max_steps=5)
    guided, forced = (
        together(model, strategy, env, env.items, output=41, seed=0)
        for strategy in (budget_guidance(), plain(STYLE.answer_tokens))
    )
    ended = [sum(answer.stopped_by == "done" for answer in side.answers) for side in (guided, forced)]
    assert ended[0] > ended[1]
    assert all(answer.answer is not None for answer in guided.answers)
    assert max(guided.output) <= 41


def test_bad_settings_are_refused():
    with pytest.raises(InvalidInput, match="min_rate=-1"):
        budget_guidance(min_rate=-1)
