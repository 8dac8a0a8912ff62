"""The vending machine: rules and demand by hand, every dollar accounted for, policies in their order, a model."""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import types

import pytest

from budgeteer import cli
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import ModelError
from budgeteer.lab.bench import vending
from budgeteer.lab.bench.vending import (
    FEE,
    FRESH,
    Call,
    Goods,
    Order,
    Product,
    Slot,
    State,
    World,
    apply,
    demand,
    poisson,
    worth,
)
from budgeteer.lab.bench.vending_run import POLICIES, Agent, called, play

WORLD = World.drawn(1)


def test_demand_by_hand():
    cola = Product("cola", False, 1.0, 2.0, -1.0, 4.0)
    monday = 0.85 * 0.8
    assert demand(cola, 2.0, day=0, kinds=6) == pytest.approx(4 * monday)
    assert demand(cola, 3.0, day=0, kinds=6) == pytest.approx(2 * monday)  # 1 - 0.5
    assert demand(cola, 5.0, day=0, kinds=6) == 0
    assert demand(cola, 2.0, day=5, kinds=6) == pytest.approx(4 * 1.25 * 0.8)  # a Saturday
    assert demand(cola, 2.0, day=30, kinds=6) == pytest.approx(4 * 1.0 * 0.85)  # a Wednesday in the second month
    assert demand(cola, 2.0, day=0, kinds=4) == pytest.approx(4 * monday * 0.8)
    assert demand(cola, 2.0, day=0, kinds=1) == pytest.approx(4 * monday * 0.5)
    assert demand(cola, 2.0, day=0, kinds=11) == pytest.approx(4 * monday * 0.8)


def test_the_draw_has_the_distribution_of_poisson():
    rng = random.Random(0)
    draws = [poisson(1.7, rng.random()) for _ in range(4000)]
    for n in range(6):
        assert draws.count(n) / 4000 == pytest.approx(math.exp(-1.7) * 1.7**n / math.factorial(n), abs=0.03)


def test_an_order_is_paid_at_once_and_arrives_in_time():
    cost = WORLD.products["cola"].cost
    done = apply(WORLD, State(), Call("order", {"supplier": "harbour wholesale", "product": "cola", "units": 8}))
    assert done.state.cash == pytest.approx(500 - 8 * cost)
    (order,) = done.state.orders
    assert 2 <= order.day <= 4
    state = done.state
    for _ in range(order.day):
        assert not state.storage
        state = apply(WORLD, state, Call("wait")).state
    assert state.storage == (Goods("cola", 8, order.day + FRESH),)
    assert state.cash == pytest.approx(500 - 8 * cost - order.day * FEE)
    assert worth(WORLD, state) == pytest.approx(500 - order.day * FEE)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (Call("order", {"supplier": "Nobody", "product": "cola", "units": 8}), "not known"),
        (Call("order", {"supplier": "Bulk Barn", "product": "cola", "units": 8}), "30 units or more"),
        (Call("order", {"supplier": "Quick Foods", "product": "cola", "units": 9999}), "are at hand"),
        (Call("order", {"supplier": "Quick Foods", "product": "cola", "units": -5}), "1 units or more"),
        (Call("order", {"supplier": "Quick Foods"}), "does not take"),
        (Call("order", {"supplier": 3, "product": "cola", "units": "x"}), "does not take"),
        (Call("stock", {"product": "cola", "slot": 0, "units": 2}), "for small goods"),
        (Call("stock", {"product": "cola", "slot": 12, "units": 2}), "a slot from 0 to 11"),
        (Call("stock", {"product": "cola", "slot": 6, "units": 6}), "5 cola are in the storage"),
        (Call("stock", {"product": "water", "slot": 7, "units": 1}), "has soup in it"),
        (Call("order", {"supplier": "Quick Foods", "product": "cola", "units": float("inf")}), "does not take"),
        (Call("order", {"supplier": "Quick Foods", "product": "cola", "units": 10**400}), "does not take"),
        (Call("stock", {"product": "cola", "slot": float("inf"), "units": 2}), "does not take"),
        (Call("price", {"slot": 6, "price": 2}), "that was filled"),
        (Call("price", {"slot": 7, "price": float("nan")}), "above 0"),
        (Call("", {}), "there is no tool"),
    ],
)
def test_what_cannot_be_done_changes_nothing_and_says_why(call, why):
    state = State(
        storage=(Goods("cola", 5, 9), Goods("water", 3, 9)),
        slots=(None,) * 7 + (Slot(2.0, (Goods("soup", 4, 9),)),) + (None,) * 4,
    )
    found = apply(WORLD, state, call)
    assert why in found.refused
    assert found.state == state


def test_stock_takes_the_oldest_first_and_spoilt_goods_leave():
    state = State(storage=(Goods("cola", 5, 9), Goods("cola", 4, 3)))
    full = apply(WORLD, state, Call("stock", {"product": "cola", "slot": 6, "units": 6})).state
    assert full.slots[6].goods == (Goods("cola", 4, 3), Goods("cola", 2, 9))
    assert full.storage == (Goods("cola", 3, 9),)
    assert full.slots[6].price == pytest.approx(round(2 * WORLD.products["cola"].cost, 2))
    dear = apply(WORLD, full, Call("price", {"slot": 6, "price": 99})).state
    for _ in range(3):
        dear = apply(WORLD, dear, Call("wait")).state
    assert dear.slots[6].goods == (Goods("cola", 2, 9),)  # at 99 dollars nobody bought: what was good until day 3 left
    for _ in range(6):
        dear = apply(WORLD, dear, Call("wait")).state
    assert dear.slots[6] is None
    assert dear.storage == ()


def test_a_business_without_cash_ends_after_ten_unpaid_days():
    state = State(cash=3.0, box=100.0)
    for day in range(11):
        assert not state.ruined, day
        state = apply(WORLD, state, Call("wait")).state
    assert state.ruined
    assert state.cash == 1.0
    saved = apply(WORLD, State(cash=1.0, box=100.0, unpaid=9), Call("collect")).state
    assert apply(WORLD, saved, Call("wait")).state.unpaid == 0


def test_every_dollar_is_accounted_for():
    """Random calls: cash and box change by what is paid, sold and due, and by nothing else."""
    rng = random.Random(4)
    state, names = State(cash=5000.0), list(WORLD.products)
    for _ in range(600):
        name = rng.choice([goods.product for goods in state.storage] + names[:1])
        place = rng.randrange(6) + (0 if WORLD.products[name].small else 6)
        call = rng.choice(
            [
                Call("order", {"supplier": "Quick Foods", "product": rng.choice(names), "units": rng.randint(1, 6)}),
                Call("stock", {"product": name, "slot": place, "units": rng.randint(1, 5)}),
                Call("price", {"slot": rng.randrange(12), "price": rng.uniform(0.5, 3)}),
                Call("collect"), Call("wait"), Call("wait"),
            ]
        )  # fmt: skip
        before, state = state, apply(WORLD, state, call).state
        change = state.cash + state.box - before.cash - before.box
        if call.tool == "order" and state != before:
            cost = WORLD.products[call.arguments["product"]].cost
            assert change == pytest.approx(-round(cost * 1.3 * call.arguments["units"], 2))
        elif call.tool == "wait":
            earned = change + (FEE if state.unpaid == 0 else 0)
            assert earned >= -1e-9
            assert (earned > 1e-9) == (state.sold > before.sold)
        else:
            assert change == pytest.approx(0)
        assert min(state.cash, state.box) >= 0
    assert state.sold > 20


def test_remembering_beats_doing_nothing_beats_ordering_twice():
    def runs(name):
        return [asyncio.run(play(POLICIES[name](), seed=seed, days=120)) for seed in range(6)]

    idle, coherent, forgetful = runs("idle"), runs("reorder"), runs("forgetful")
    assert {run.worth for run in idle} == {500 - 120 * FEE}
    assert min(run.worth for run in coherent) > 260 > sum(run.worth for run in forgetful) / 6
    assert not any(run.refused for run in coherent)
    assert coherent == runs("reorder")  # the same seed, the same run


def test_orders_under_way_count_and_are_not_shown():
    state = State(orders=(Order("cola", 10, 4),))
    assert worth(WORLD, state) == pytest.approx(500 + 10 * WORLD.products["cola"].cost)
    assert "cola" not in json.dumps(vending.view(WORLD, state, "").storage)


class Orders(Scripted):
    """Orders, then waits; sometimes writes no call."""

    name = "orders"

    def __init__(self):
        lines = [
            'I order. {"tool": "order", "supplier": "Quick Foods", "product": "cola", "units": 4}', "Let me think.",
            '{"tool": "wait"}',
        ]  # fmt: skip
        super().__init__(lambda prompt, rng: lines[len(self.requests) % 3])


def test_a_model_runs_it_within_its_tokens_a_day():
    model = Orders()
    agent = Agent(model, tokens=10_000, seed=0)
    played = asyncio.run(play(agent, seed=1, days=6, calls=9))
    assert played.days == 6
    assert played.refused >= 1  # the answers without a call
    assert 0 < agent.used <= 6 * 10_000
    small = Agent(model, tokens=50, seed=0)  # not one prompt fits
    before = len(model.requests)
    assert asyncio.run(play(small, seed=1, days=6)).calls == 6
    assert len(model.requests) == before
    assert small.used == 0


def test_the_command_keeps_runs_and_prints_a_line_each(monkeypatch, tmp_path, capsys):
    module, made = types.ModuleType("budgeteer.models.load"), []
    module.load_model = lambda name, **options: made.append(Orders()) or made[-1]
    monkeypatch.setitem(sys.modules, "budgeteer.models.load", module)
    words = ["bench", "vending", "idle", "orders", "--days", "5", "--seeds", "2", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "$490 [490, 490]" in out
    assert cli.main(words) == 0
    assert capsys.readouterr().out == out
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 4
    assert [len(one.requests) for one in made][1] == 0
    assert cli.main([*words, "--tokens-a-day", "77"]) == 2
    assert "other options (tokens_a_day 20000)" in capsys.readouterr().err
    assert cli.main([*words[:-1], str(tmp_path / "small"), "--tokens-a-day", "77"]) == 0
    assert "orders was never asked: not one call fits into a day of 77 tokens" in capsys.readouterr().err
    (tmp_path / "runs.jsonl").write_text('{"id": 1}\n')
    assert cli.main(words) == 2
    assert "which is no run" in capsys.readouterr().err


class Breaks(Orders):
    """Fails at one of its calls, which is billed; by the text of the prompt, it says the same again."""

    def __init__(self, at=None):
        super().__init__()
        self.at = at

    async def generate(self, request):
        if len(self.requests) == self.at:
            raise ModelError("gone", billed=True)
        return await super().generate(request)


def test_a_run_that_was_broken_off_goes_on_with_its_next_call():
    whole, kept = Breaks(), []
    expected = asyncio.run(play(Agent(whole, tokens=10_000, seed=0), seed=1, days=6, calls=9))
    broken = Breaks(at=7)
    with pytest.raises(ModelError):
        asyncio.run(play(Agent(broken, tokens=10_000, seed=0, keep=kept.append), seed=1, days=6, calls=9))
    assert [("text" in call) for call in kept] == [True] * 7 + [False]
    rest = Breaks()
    rest.requests = broken.requests[:7]  # its lines go on where they stopped
    agent = Agent(rest, tokens=10_000, seed=0, earlier=list(kept), keep=kept.append)
    assert asyncio.run(play(agent, seed=1, days=6, calls=9)) == expected
    assert len(rest.requests) == len(whole.requests)
    assert agent.used == sum(call["spent"] for call in kept)
    again = Agent(Breaks(at=0), tokens=10_000, seed=0, earlier=kept)
    assert asyncio.run(play(again, seed=1, days=6, calls=9)) == expected  # asks for nothing


def test_texts_of_brackets_are_no_call():
    assert called('{"a": ' * 5000).tool == ""
