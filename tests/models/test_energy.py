"""Joules per token: fits against scipy's non-negative least squares, the meter by hand, a budget that holds, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from budgeteer import Budgets, Usage, cli
from budgeteer.core.errors import InvalidInput
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.device import PUBLISHED, save
from budgeteer.models.energy import Energy, Reading, fit, readings_of, token_rate


def made_up(prefill, decode, noise, seed=0, n=30):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 2000, size=(n, 2))
    joules = tokens @ [prefill, decode] * np.exp(noise * rng.normal(size=n))
    return [Reading(*row, j) for row, j in zip(tokens.tolist(), joules.tolist(), strict=True)]


def test_exact_readings_give_the_rates_back():
    found = fit(made_up(0.02, 0.4, 0.0))
    assert (found.prefill, found.decode) == pytest.approx((0.02, 0.4))
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.alike > 0.2  # one rate for all tokens is far off


@pytest.mark.parametrize("rates", [(0.05, 0.3), (0.0, 0.3), (0.3, 0.0), (0.001, 0.5)])
@pytest.mark.parametrize("seed", range(4))
def test_noisy_readings_give_the_non_negative_least_squares(rates, seed):
    optimize = pytest.importorskip("scipy.optimize")
    readings = made_up(*rates, 0.2, seed)
    table = np.array(readings)
    best, _ = optimize.nnls(table[:, :2] / table[:, 2:], np.ones(len(table)))
    found = fit(readings)
    assert (found.prefill, found.decode) == pytest.approx(tuple(best), abs=1e-12)
    rest = table[1:]
    without, _ = optimize.nnls(rest[:, :2] / rest[:, 2:], np.ones(len(rest)))
    assert abs(table[0, :2] @ without / table[0, 2] - 1) <= found.error * len(table) + 1e-9


def test_the_meter_counts_cached_input_as_nothing_and_rounds_up():
    meter = Energy(0.05, 0.5, 0, 0).meter()
    assert meter(Usage(input=100, cached=40, output=10)) == 8  # 60 * 0.05 + 10 * 0.5
    assert meter(Usage(input=1, output=0)) == 1
    assert meter.worst(Usage(input=100, output=10)) == 10  # nothing is known to be cached
    assert Energy(0.0, 0.5, 0, 0).meter()(Usage(input=100, output=10)) == 5


def test_a_budget_in_joules_is_a_budget():
    kind = Energy(0.05, 0.5, 0, 0).kind
    (budget,) = Budgets.parse(f"{kind}:500")
    assert (budget.kind, budget.amount) == (kind, 500)
    ledger = MemoryLedger()
    ledger.open("run", [Limit(kind, 500)])
    allowance = Allowance(ledger, "run", {kind: 500})
    with allowance.reserve({kind: Energy(0.05, 0.5, 0, 0).meter().worst(Usage(input=2000, output=400))}) as held:
        assert allowance.remaining == {kind: 200}
        held.settle({kind: 250})
    assert allowance.remaining == {kind: 250}


def test_wrong_readings_are_refused():
    for wrong in (
        made_up(1, 1, 0)[:2],
        [Reading(1, 1, 0)] * 5,
        [Reading(-1, 1, 1)] * 5,
        [Reading(1, 2, float("nan"))] * 3,
    ):
        with pytest.raises(InvalidInput):
            fit(wrong)
    with pytest.raises(InvalidInput, match="same ratio"):
        fit([Reading(k, 2 * k, 3.0 * k) for k in range(1, 9)])


def test_a_profile_with_power_gives_readings():
    device = replace(PUBLISHED["jetson-orin-8b"], watts=(20.0, 30.0))
    readings = readings_of(device, (16, 512), (16, 64))
    assert [row[:2] for row in readings] == [(16, 16), (16, 64), (512, 16), (512, 64)]
    assert readings[0].joules == pytest.approx(device.joules(16, 16))
    with pytest.raises(InvalidInput, match="does not know its power"):
        readings_of(PUBLISHED["jetson-orin-8b"], (16,), (16,))


def test_the_bound_changes_where_both_terms_are_equal():
    at = {"flops": 1e12, "flops_a_token": 1e9, "joules_a_token": 0.5}  # 1000 tokens a second need 500 W
    assert token_rate(watts=499, **at).bound == "energy"
    assert token_rate(watts=501, **at) == (1000, "compute")
    cheaper = at | {"joules_a_token": 0.25}
    assert token_rate(watts=600, **cheaper) == token_rate(watts=600, **at)  # bound by compute: energy does not matter
    assert token_rate(watts=250, efficiency=2, used=0.5, **at).tokens == pytest.approx(500)


def test_the_command(tmp_path, capsys):
    path = tmp_path / "readings.csv"
    lines = [f"{r.fresh + 5},5,{r.output},{r.joules}" for r in made_up(0.02, 0.4, 0.0)]
    path.write_text("input,cached,output,joules\n" + "\n".join(lines) + "\n")
    assert cli.main(["profile", "energy", str(path), "--watts", "80"]) == 0
    out = capsys.readouterr().out
    assert "input*0.02+output*0.4-cached*0.02:500" in out
    assert "200 tokens of output a second at 80 W" in out
    save(replace(PUBLISHED["jetson-orin-8b"], watts=(20.0, 30.0)), tmp_path / "p.json")
    assert cli.main(["profile", "energy", str(tmp_path / "p.json")]) == 0
    assert "decode     2.9" in capsys.readouterr().out  # about 0.1 s a token at 30 W
    path.write_text("input,output,joules\n1,2,x\n")
    assert cli.main(["profile", "energy", str(path)]) == 2
    assert "give numbers" in capsys.readouterr().err
