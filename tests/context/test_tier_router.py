"""BudgetMem's router: its reward and gradient, what it learns on a made-up memory, and the reducer that it steers."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from budgeteer.context import budget_mem
from budgeteer.context._budget_mem import router_of
from budgeteer.context.protocol import counter
from budgeteer.context.tier_router import (
    TierPolicy,
    Training,
    _chosen,
    _slopes,
    _softmax,
    load,
    reward,
    save,
    state_of,
    trained,
)
from budgeteer.core.errors import CheckpointError, InvalidInput

PRICES = np.array([1.0, 3.0, 10.0])


class Memory:
    """Three modules; the kind of a query, which its vector shows with noise, says which one needs its high tier.

    Attributes:
        states: [n, 3, 3].
    """

    def __init__(self, n: int, seed: int, *, shuffled: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.kinds = rng.integers(0, 3, n)
        self.states = np.repeat((np.eye(3)[self.kinds] + 0.2 * rng.normal(size=(n, 3)))[:, None], 3, axis=1)
        if shuffled:
            self.states = self.states[rng.permutation(n)]

    def play(self, query: int, tiers) -> tuple[float, float]:
        return (0.2, 0.5, 1.0)[tiers[self.kinds[query]]], float(PRICES[tiers].sum())

    def measured(self, tiers) -> tuple[float, float]:
        played = np.array([self.play(query, one) for query, one in enumerate(tiers)])
        return float(played[:, 0].mean()), float(played[:, 1].mean())


def test_reward_and_state_by_hand() -> None:
    # costs 0, 1, 4, 9, 16: roots 0 to 4, quantiles 0.2 and 3.8; cheapness 1, 1 - 0.8/3.6, 0.5, 0.8/3.6, 0
    quality, cost = np.array([0.0, 1.0]), np.array([4.0, 0.0])
    known = np.array([1, 1 - 0.8 / 3.6, 0.5, 0.8 / 3.6, 0])
    alpha = 0.5 / known.std()  # the qualities 0, 1 have a deviation of 0.5
    got = reward(quality, cost, np.array([0.0, 1.0]), np.array([0.0, 1, 4, 9, 16]), 2.0)
    assert got == pytest.approx([2 * alpha * 0.5, 1 + 2 * alpha])
    assert reward(quality, cost, np.array([1.0, 1.0]), np.array([0.0, 9.0]), 2.0).tolist() == [0, 1]  # alpha is 0
    assert state_of(np.array([3.0, 4.0]), np.array([[1.0, 0], [3, 0]])).tolist() == [0.6, 0.8, 1, 0]
    assert state_of(np.array([3.0, 4.0]), np.zeros((0, 2))).tolist() == [0.6, 0.8, 0, 0]


def test_the_gradient_is_that_of_ppos_objective() -> None:
    rng = np.random.default_rng(0)
    logits, drawn, better = rng.normal(size=(4, 2, 3)), rng.integers(0, 3, (4, 2)), np.array([1.0, -2.0, 0.5, -0.5])
    before = _chosen(_softmax(logits), drawn) + np.array([0.05, -0.05, -0.4, 0.4])  # the last two ratios are clipped
    training = Training(entropy=0.3)

    def objective(logits) -> float:
        chances = _softmax(logits)
        ratio = np.exp(_chosen(chances, drawn) - before)
        gain = np.minimum(ratio * better, np.clip(ratio, 0.8, 1.2) * better)
        entropy = -(chances * np.log(chances)).sum(axis=2).mean(axis=1)
        return float((gain + 0.3 * entropy).sum())

    slope = _slopes(_softmax(logits), drawn, better, before, training)
    for place in np.ndindex(logits.shape):
        moved = [logits.copy(), logits.copy()]
        for one, sign in zip(moved, (1, -1), strict=True):
            one[place] += sign * 1e-5
        assert slope[place] == pytest.approx((objective(moved[0]) - objective(moved[1])) / 2e-5, abs=1e-6)


def test_a_router_beats_what_ignores_the_query_at_its_cost() -> None:
    training, held = Memory(256, 0), Memory(300, 1)
    policy = trained(training.states, training.play, Training(thrift=0.5, epochs=8, rate=0.05))
    quality, cost = held.measured(policy.tiers(held.states))
    # without looking, a module is high for at most (cost - 3) / 27 of the queries, each module alike
    share = (cost - 3 * PRICES[0]) / (3 * (PRICES[2] - PRICES[0]))
    assert quality > 0.2 + 0.8 * share + 0.2
    assert quality > 0.85
    blind = Memory(256, 0, shuffled=True)
    policy = trained(blind.states, blind.play, Training(thrift=0.5, epochs=8, rate=0.05))
    other, paid = held.measured(policy.tiers(held.states))
    assert other - (0.2 + 0.8 * (paid - 3) / 27) < 0.2  # nothing can be learnt of shuffled vectors


def test_more_thrift_costs_less() -> None:
    memory = Memory(128, 2)
    costs = []
    for thrift in (0.0, 0.5, 4.0):
        policy = trained(memory.states, memory.play, Training(thrift=thrift, epochs=8, rate=0.1))
        costs.append(memory.measured(policy.tiers(memory.states))[1])
    assert costs[0] > costs[1] > costs[2]
    assert costs[2] < 4  # nearly all low


def test_the_reducer_takes_the_tier_that_the_router_says(tmp_path) -> None:
    vectors = {"near": [1.0, 0.0], "far": [0.0, 1.0]}

    def encode(texts):
        return np.array([vectors["far" if "far" in text else "near"] for text in texts])

    def rerank(question, texts):
        return np.array([float("gold" in text) for text in texts])

    talk = [{"role": "user", "content": "near words\nasked words asked\ngold words here"}]
    weights = np.zeros((1, 3, 5))
    weights[0, 0, 0], weights[0, 2, 1] = 5.0, 5.0  # near questions: low; far ones: high
    save(TierPolicy(weights, np.zeros(5)), tmp_path / "router.json")
    find = budget_mem(encode, rerank, router_of("budget-mem", str(tmp_path / "router.json")))
    count = counter(partial(lambda text: len(text.split())))

    def kept(question: str) -> str:
        found = find([*talk, {"role": "user", "content": question}], 19, count)
        return found[0]["content"].strip()

    assert kept("asked near words it is") == "asked words asked"
    assert kept("asked far words it is") == "gold words here"


def test_bad_input(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="give low, mid, high"):
        budget_mem(lambda texts: np.zeros((len(texts), 1)), lambda q, t: np.zeros(len(t)), "best")
    policy = TierPolicy(np.zeros((1, 3, 5)), np.zeros(5))
    for other in ((1, 1, 6), (1, 2, 4)):
        with pytest.raises(InvalidInput, match="use the encoder and the modules that it was trained with"):
            policy.tiers(np.zeros(other))
    for played in (0.5, None, (1, 2, 3)):
        with pytest.raises(InvalidInput, match="give its quality and its cost"):
            trained(np.zeros((4, 1, 2)), lambda query, tiers, played=played: played)
    with pytest.raises(InvalidInput, match="finite vectors"):
        trained(np.zeros((0, 1, 2)), lambda query, tiers: (0, 0))
    with pytest.raises(InvalidInput, match="no number; costs are 0 or more"):
        trained(np.zeros((4, 1, 2)), lambda query, tiers: (0.5, -1))
    for wrong in ({"thrift": -1}, {"batch": 1}, {"rate": 0}):
        with pytest.raises(InvalidInput, match="give"):
            Training(**wrong)
    file = tmp_path / "r.json"
    for text in ("", "[]", json.dumps({"weights": [1], "value": [1]})):
        file.write_text(text)
        with pytest.raises(CheckpointError, match="holds no router of tiers"):
            load(file)
    with pytest.raises(CheckpointError, match="gone"):
        router_of("budget-mem", str(tmp_path / "gone.json"))


def test_vectors_of_two_encoders_and_no_numbers_choose_no_tier():
    with pytest.raises(InvalidInput, match=r"of shape \(4,\) and memories of shape \(3, 5\)"):
        state_of(np.ones(4), np.zeros((3, 5)))
    with pytest.raises(InvalidInput, match="not finite"):
        state_of(np.full(4, np.nan), np.zeros((3, 4)))
