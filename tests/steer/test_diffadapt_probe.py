"""DiffAdapt's probe: bundles by hand, and what the probe of the reasoner knows."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.core.steer import FINISH, Internals, Rows, Snapshot  # noqa: E402
from budgeteer.engine.head import Head, load_head  # noqa: E402
from budgeteer.models.model import Request  # noqa: E402
from budgeteer.steer import diffadapt_probe as adapt  # noqa: E402
from budgeteer.steer._diffadapt_probe import BUNDLES, Bundle  # noqa: E402
from budgeteer.strategies import diffadapt_probe  # noqa: E402
from helpers.insides import ask, reasoner  # noqa: E402

INSIDE = Internals(torch.eye(3), ("a", "b", "|"), -1, lambda text: ["ab|".index(c) for c in text])
EYE = {"mean": torch.zeros(3), "scale": torch.ones(3), "w1": 9 * torch.eye(3), "b1": torch.zeros(3)}
PROBE = Head(
    {name: tensor.double() for name, tensor in (EYE | {"w2": torch.eye(3), "b2": torch.zeros(3)}).items()},
    INSIDE.fingerprint,
    {},
)


@pytest.mark.parametrize(("kind", "temperature", "thinking"), [(0, 0.5, 8), (1, 0.8, 20), (2, 0.4, 10)])
def test_bundles_by_hand(kind, temperature, thinking):
    """20 tokens of thinking; the class is the largest entry of the last layer's state at the first step only."""
    steer = adapt(PROBE, reserve=4)
    state, closed, finished = steer.init(Rows(("a",), np.array([24]), 0)), -1, []
    for t in range(24):
        hidden = torch.zeros(1, 2, 3)
        hidden[0, -1, kind if t == 0 else (kind + 1) % 3] = 1.0
        hidden[0, 0, (kind + 2) % 3] = 5.0  # another layer, not read
        now = Snapshot.of([t], cap=24, closed=closed, model=INSIDE, logits=torch.tensor([[1.0, 2, 0]]), hidden=hidden)
        action, state = steer.step(state, now)
        assert action.logits[0].tolist() == pytest.approx([1 / temperature, 2 / temperature, 0])
        if action.decision[0] == FINISH:
            finished.append(t)
            closed = t + 1
    assert finished == [thinking]
    assert steer.report(state) == [{"class": kind}]


def test_the_probe_of_the_reasoner_tells_what_it_can_do():
    """Chains of one step are mostly right, filters of six numbers hardly ever."""
    model, rng = reasoner(), np.random.default_rng(0)
    hard = {"chain": 0, "filter": 0}
    for _ in range(15):
        a, b, op = rng.integers(11), rng.integers(1, 11), rng.choice(["+", "-", "*"])
        numbers = [str(x) for x in rng.integers(-20, 21, 6)]
        texts = {
            "chain": f"Modulo 11, from left to right: {a} {op} {b} =",
            "filter": f"Keep all numbers larger than {rng.integers(-9, 10)} in this list: {numbers}\n"
            "Return the new list in the same format.",
        }
        for name, text in texts.items():
            steer = adapt(load_head("diffadapt_probe"), reserve=5)
            response = asyncio.run(model.generate(Request(text, 1, steer=steer, close="</think>")))
            hard[name] += response.choices[0].notes["class"] == 2
    assert hard["chain"] <= 3
    assert hard["filter"] >= 12


def test_shares_of_one_and_one_temperature_make_it_a_plain_trace():
    model, same = reasoner(), Bundle(1.0, 1.0)
    answer, _ = ask(diffadapt_probe(bundles=(same, same, same)), model, output=90, seed=5)
    assert answer.stopped_by == "done"


def test_bad_bundles_are_refused():
    with pytest.raises(InvalidInput, match=r"share=1\.5"):
        diffadapt_probe(bundles=(Bundle(1.0, 1.5), *BUNDLES[1:]))
