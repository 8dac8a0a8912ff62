"""DiffAdapt's probe: bundles by hand, and what the probe of the reasoner knows."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from budgeteer.core.errors import InvalidInput  # noqa: E402
from budgeteer.engine.head import Head, load_head  # noqa: E402
from budgeteer.engine.hook import Internals, Row  # noqa: E402
from budgeteer.models.model import Request  # noqa: E402
from budgeteer.strategies import diffadapt_probe  # noqa: E402
from budgeteer.strategies._diffadapt_probe import BUNDLES, Adapt, Bundle  # noqa: E402
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
    hook = Adapt("|", 4, head=PROBE, bundles=BUNDLES)
    row = Row(Request("p", max_tokens=24, hook=hook), 0, [0])
    forced = []
    for t in range(24):
        hidden = torch.zeros(1, 2, 3)
        hidden[0, -1, kind if t == 0 else (kind + 1) % 3] = 1.0
        hidden[0, 0, (kind + 2) % 3] = 5.0  # another layer, not read
        action = hook.step(INSIDE, [row], torch.tensor([[1.0, 2, 0]]), hidden)
        assert action.logits[0].tolist() == pytest.approx([1 / temperature, 2 / temperature, 0])
        forced.append(int(action.force[0]))
        row.tokens.append(forced[-1] if forced[-1] >= 0 else 0)
    assert forced.index(2) == thinking
    assert forced.count(2) == 1
    assert hook.record["class"] == kind


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
            hook = Adapt("</think>", 5, head=load_head("diffadapt_probe"), bundles=BUNDLES)
            asyncio.run(model.generate(Request(text, 1, hook=hook)))
            hard[name] += hook.record["class"] == 2
    assert hard["chain"] <= 3
    assert hard["filter"] >= 12


def test_shares_of_one_and_one_temperature_make_it_a_plain_trace():
    model, same = reasoner(), Bundle(1.0, 1.0)
    answer, _ = ask(diffadapt_probe(bundles=(same, same, same)), model, output=90, seed=5)
    assert answer.stopped_by == "done"


def test_bad_bundles_are_refused():
    with pytest.raises(InvalidInput, match=r"share=1\.5"):
        diffadapt_probe(bundles=(Bundle(1.0, 1.5), *BUNDLES[1:]))
