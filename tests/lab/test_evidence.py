"""The experiments run, and a broken method changes their verdict."""

from __future__ import annotations

import ast
import dataclasses
import gc
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from budgeteer.allocate import (
    budgeted_max_min,
    dynamic_sampling,
    greedy_marginal,
    knapsack,
    menu_knapsack,
    neyman,
    uniform,
    variance,
    water_filling,
)
from budgeteer.core.allocator import Allocator
from budgeteer.core.errors import InvalidInput, UnknownName
from budgeteer.core.steer import ABORT, Action
from budgeteer.lab import evidence
from budgeteer.lab.evidence import ABOVE_ONE, ABOVE_ZERO, Evidence, Row, duet, measured, reinforce_ada
from budgeteer.lab.evidence import adaptive_vote as votes
from budgeteer.lab.evidence import answered as answers
from budgeteer.lab.evidence import best_of_majority as best
from budgeteer.lab.evidence import budgeted_max_min as fair
from budgeteer.lab.evidence import dora as searches
from budgeteer.lab.evidence import dynamic_sampling as dapo
from budgeteer.lab.evidence import greedy_marginal as greedy
from budgeteer.lab.evidence import knapsack as sacks
from budgeteer.lab.evidence import menu_knapsack as menus
from budgeteer.lab.evidence import proportional as shares
from budgeteer.lab.evidence import scale as parts
from budgeteer.lab.evidence import selective as skips
from budgeteer.lab.evidence import split as splits
from budgeteer.lab.evidence import uniform as alikes
from budgeteer.lab.evidence import value_tree as trees
from budgeteer.lab.evidence import variance as vip
from budgeteer.lab.evidence import water_filling as water
from budgeteer.steer import answered
from budgeteer.strategies import self_consistency

PUBLISHED = Path(__file__).parents[2] / "docs" / "evidence"


def seeing(allocator: Allocator, **change) -> Allocator:
    """The allocator with columns of its items changed before it looks at them."""

    def allocate(budget, items, state, *, rng):
        columns = {name: of(items.column(name, "the test")) for name, of in change.items()}
        return allocator.allocate(budget, items.with_columns(**columns), state, rng=rng)

    return allocator._replace(allocate=allocate)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((1.1, 1.2), "shown"),
        ((0.9, 1.1), "not shown"),
        ((0.8, 0.9), "refuted here"),
        ((1.0, 1.0), "refuted here"),
        ((math.nan, math.nan), "not shown"),
    ],
)
def test_the_verdict_follows_from_the_interval(interval, verdict):
    assert Evidence("x", "", "", "", 5, 1.0, interval, ABOVE_ONE).verdict == verdict


@pytest.mark.parametrize(
    ("interval", "null", "must_fail"),
    [
        ((1.1, 1.2), "control holds", "control broken"),
        ((0.9, 1.1), "control unclear", "control unclear"),
        ((0.8, 0.9), "control broken", "control holds"),
        ((math.nan, math.nan), "control unclear", "control unclear"),
    ],
)
def test_controls_have_verdicts_of_their_own(interval, null, must_fail):
    one = Evidence("x", "", "", "", 5, 1.0, interval, ABOVE_ONE)
    for role, verdict in (("control", null), ("must fail", must_fail)):
        assert dataclasses.replace(one, row=Row(role, "simulation")).verdict == verdict


def test_known_controls_and_data():
    assert evidence.rows_of("duet")["allocation, known std, null"].role == "control"
    assert evidence.rows_of("online_knapsack")["ratio, rising, accept all"].role == "must fail"
    assert evidence.rows_of("zip_rc")["reasoner"] == Row("claim", "embedded reasoner")
    assert evidence.rows_of("zip_rc")["made-up samples, control"] == Row("control", "simulation")


def test_run_labels_its_rows_and_refuses_what_is_not_declared(monkeypatch):
    found = evidence.run("answered")
    assert [one.verdict for one in found] == ["shown", "control holds", "shown", "shown"]
    assert {one.row.data for one in found} == {"simulation"}
    declared = dict(answers.DECLARED)
    for rows in (dict(list(declared.items())[1:]), declared | evidence.declare("simulation", claims=["gone"])):
        monkeypatch.setattr(answers, "DECLARED", rows)
        with pytest.raises(InvalidInput, match="other rows than DECLARED"):
            evidence.run("answered")


def test_rows_without_a_label_are_not_published(tmp_path):
    one = measured("x", [1.0, 2.0], ABOVE_ONE, claim="", baseline="", budget="")
    with pytest.raises(InvalidInput, match="no role"):
        evidence.write("x", tmp_path, [one])


def test_relabelling_changes_labels_alone_and_refuses_rows_that_the_code_dropped(tmp_path, monkeypatch):
    stored = json.loads((PUBLISHED / "duet.json").read_text())
    stale = [row | {"role": "claim", "data": "real model", "verdict": "refuted here"} for row in stored]
    path = tmp_path / "duet.json"
    path.write_text(json.dumps(stale))
    evidence.relabel(tmp_path)
    assert json.loads(path.read_text()) == stored
    before = (tmp_path / "README.md").read_text()
    assert "9 rows. 6 claims: 4 shown, 2 refuted here; 3 controls: 2 hold, 1 broken." in before
    path.write_text(json.dumps([*stale[1:], stale[0] | {"name": "a claim of last year"}]))
    with pytest.raises(InvalidInput, match="a claim of last year"):
        evidence.relabel(tmp_path)
    assert (tmp_path / "README.md").read_text() == before


def test_what_is_published_is_what_the_code_declares(tmp_path):
    for path in PUBLISHED.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    evidence.relabel(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        assert path.read_text() == (PUBLISHED / path.name).read_text(), f"{path.name}: run budgeteer evidence --page"
    assert {path.stem for path in PUBLISHED.glob("*.json")} == set(evidence.names())


def pattern(node: ast.expr) -> str:
    """Regular expression of all texts that an expression of strings can give."""
    match node:
        case ast.Constant(str(text)):
            return re.escape(text)
        case ast.JoinedStr(values):
            return "".join(map(pattern, values))
        case ast.FormattedValue(value):
            return pattern(value)
        case ast.BinOp(left, ast.Add(), right):
            return pattern(left) + pattern(right)
        case ast.BinOp(ast.Constant(str(text)), ast.Mult()):
            return f"(?:{re.escape(text)})?"
        case ast.Call(ast.Attribute(ast.JoinedStr() as text)):
            return pattern(text)
        case ast.IfExp(_, body, orelse):
            return f"(?:{pattern(body)}|{pattern(orelse)})"
    return ".*"


def claims(path: Path) -> list[str]:
    """Regular expressions of the claims that a module can make: of the arguments and variables of that name."""
    tree = ast.parse(path.read_text())
    given = [
        keyword.value for node in ast.walk(tree) if isinstance(node, ast.Call)
        for keyword in node.keywords if keyword.arg == "claim"
    ]  # fmt: skip
    given += [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "claim" for target in node.targets)
    ]  # fmt: skip
    return [pattern(node) for node in given if not isinstance(node, ast.Name)]


def test_published_claims_are_still_made_by_the_code():
    gc.collect()  # what is collected while Python 3.11 builds a tree can break it ("recursion depth mismatch")
    for name in evidence.names():
        made = claims(Path(evidence.__path__[0], f"{name}.py"))
        for row in json.loads((PUBLISHED / f"{name}.json").read_text()):
            assert any(re.fullmatch(one, row["claim"]) for one in made), (name, row["claim"])


def test_a_simulation_says_so_and_the_page_counts_language_models():
    page = (PUBLISHED / "README.md").read_text()
    rows = [row for path in PUBLISHED.glob("*.json") for row in json.loads(path.read_text())]
    simulated = sum(row["data"] == "simulation" for row in rows)
    assert page.count("** (simulation) |") == simulated
    assert f"{len(rows) - simulated} of the {len(rows)} rows use a language model" in page
    assert len(rows) - simulated >= 6


def test_one_seed_shows_nothing():
    one = measured("x", [2.0], ABOVE_ONE, claim="", baseline="", budget="")
    assert one.verdict == "not shown"


def test_duet_allocation_can_fail():
    assert duet.allocation(seeds=5).verdict == "shown"
    inverted = seeing(neyman(), std=lambda std: 1 / std)
    assert duet.allocation(inverted, seeds=5).verdict == "refuted here"
    assert duet.allocation(uniform(), seeds=5).verdict != "shown"
    # On alike prompts nothing can be gained, but a split by cost alone can lose.
    assert duet.allocation(seeds=5, alike=True).verdict == "shown"
    by_cost = seeing(neyman(), std=np.ones_like)
    assert duet.allocation(by_cost, seeds=5, alike=True).verdict == "refuted here"


def test_duet_gate_bias_can_fail(monkeypatch):
    size = {"seeds": 20, "n": 200_000}
    assert duet.gate_bias(weighted=True, **size).verdict in ("shown", "not shown")
    assert duet.gate_bias(weighted=False, **size).verdict == "shown"
    honest = duet.marker_gate

    def unweighted(*args, **kwargs):
        return honest(*args, **kwargs)._replace(kept_weight=lambda state: np.ones(len(state.kept)))

    monkeypatch.setattr(duet, "marker_gate", unweighted)
    assert duet.gate_bias(weighted=True, **size).verdict == "refuted here"


def test_duet_gate_at_certainty_is_no_gate():
    gradient, weight, full, cut = duet.gated(1.0, 0, 1000)
    assert np.all(weight == 1)
    assert np.array_equal(full, cut)
    assert abs(gradient.mean() - duet.true_gradient()) < 0.05


def test_knapsack_gain_can_fail():
    assert sacks.gain("value", "oracle", seeds=5).verdict == "shown"
    reversed_rates = seeing(knapsack(), pass_rate=lambda rate: 1 - rate)
    assert sacks.gain("value", "oracle", allocator=reversed_rates, seeds=5).verdict != "shown"
    assert sacks.gain("value", "oracle", allocator=uniform(), seeds=5).verdict == "refuted here"
    assert sacks.gain("mixed", "oracle", alike=True, seeds=5).verdict == "shown"


def test_knapsack_fallback_can_fail(monkeypatch):
    assert sacks.fallback(seeds=8).verdict == "shown"
    monkeypatch.setattr(sacks, "knapsack", lambda fallback: knapsack(fallback=False))
    assert sacks.fallback(seeds=8).verdict == "refuted here"


def test_reinforce_ada_mixed_groups_can_fail():
    assert reinforce_ada.mixed_groups("balance", seeds=30).verdict == "shown"
    never_out = uniform(reinforce_ada.ROUND)
    assert reinforce_ada.mixed_groups("balance", allocator=never_out, seeds=30).verdict != "shown"


def test_downsampling_agrees_with_the_bias_known_in_closed_form():
    fixed = reinforce_ada.downsampling(weighted=True, stops=False, seeds=8)
    low, high = fixed.interval
    assert low - 0.002 < -1 / 32 < high + 0.002  # the pool's own mean in the advantage costs a factor 1 - 1/32
    assert reinforce_ada.downsampling(weighted=False, seeds=5, prompts=2000).verdict == "refuted here"


def test_uniform_and_variance_can_fail():
    assert alikes.against_neyman(alike=True, seeds=5).verdict == "shown"
    assert alikes.against_neyman(alike=True, allocator=seeing(neyman(), std=lambda s: s**3), seeds=5).verdict != "shown"
    assert vip.lower("known", seeds=5).verdict == "shown"
    assert vip.lower("known", allocator=uniform(), seeds=5).verdict != "shown"
    confident = seeing(variance(), pass_rate=lambda p: np.where(p < 0.5, 0.5, 0.99))
    assert vip.lower("known", allocator=confident, seeds=5).verdict == "refuted here"


def test_selective_and_dynamic_sampling_can_fail():
    assert skips.teaches("true rates", 3, seeds=4).verdict == "shown"
    assert skips.teaches("true rates", 3, allocator=uniform(), seeds=4).verdict != "shown"
    assert dapo.full_batch(seeds=5).verdict == "shown"
    assert dapo.full_batch(allocator=dynamic_sampling(target=40), seeds=5).verdict == "refuted here"


def test_answered_can_fail():
    assert answers.tokens(tail=30, seeds=4).verdict == "shown"
    never = answered()._replace(step=lambda state, now: (Action(np.zeros(len(now.row), np.int8)), state))
    assert answers.tokens(tail=30, steer=never, seeds=4).verdict == "refuted here"
    early = answered()._replace(
        step=lambda state, now: (Action(np.where(now.length > 40, ABORT, 0).astype(np.int8)), state)
    )
    assert answers.reward(steer=early, seeds=4).verdict == "refuted here"


def test_menus_can_fail():
    assert menus.gain(0.0, seeds=4).verdict == "shown"
    assert menus.gain(0.0, allocator=budgeted_max_min(), seeds=4).verdict == "refuted here"
    exact = (1 - 1e-12, 1 + 1e-12)
    assert greedy.share("samples", 32, exact, seeds=4).verdict == "shown"
    assert greedy.share("samples", 32, exact, allocator=budgeted_max_min(), seeds=4).verdict == "refuted here"
    assert fair.worst(seeds=4).verdict == "shown"
    assert fair.worst(allocator=menu_knapsack(), seeds=4).verdict == "refuted here"
    assert menus.certificate(n=500, allocator=greedy_marginal(), seeds=4).verdict != "shown"


def test_proportional_and_water_filling_can_fail():
    assert shares.ratio(neyman(max_units=4096), "neyman", spread=0.0, seeds=4).verdict == "shown"
    assert shares.ratio(neyman(max_units=4096), "neyman", spread=0.0, ours=uniform(), seeds=4).verdict == "refuted here"
    assert water.error("uniform", "random", seeds=8).verdict == "shown"
    inverted = seeing(water_filling(), scale=lambda c: 1 / c**3)
    assert water.error("uniform", "random", allocator=inverted, seeds=8).verdict == "refuted here"


def test_names_and_unknown_names():
    assert {"duet", "dual_descent", "knapsack", "reinforce_ada"} <= set(evidence.names())
    with pytest.raises(UnknownName, match="duet"):
        evidence.run("duett")


def test_write_makes_strict_json_and_a_page(tmp_path):
    result = duet.allocation(seeds=3)
    path = evidence.write("duet", tmp_path / "evidence", [dataclasses.replace(result, row=Row("claim", "simulation"))])
    row = json.loads(path.read_text())[0]
    assert row["verdict"] == result.verdict
    assert row["region"] == [None, 1.0]
    text = (tmp_path / "evidence" / "README.md").read_text()
    assert f"**{result.verdict}**" in text
    assert "2605.08441" in text


def test_votes_and_rewards_can_fail():
    assert votes.against(self_consistency(32), "all", (0.0, 0.5), seeds=2)[0].verdict == "refuted here"
    accuracy = votes.against(self_consistency(1), "one", (0.0, 0.5), seeds=3)[1]
    assert accuracy.verdict == "refuted here"
    assert votes.over_greedy(self_consistency(1), seeds=3).verdict == "refuted here"
    worse = best.strategy("majority", "inflated", 50)
    assert best.gain("inflated", 50, "majority", ABOVE_ZERO, ours=worse, seeds=3).verdict != "shown"


def test_searches_can_fail():
    assert searches.gain("unrelated", ABOVE_ZERO, seeds=5).verdict == "shown"
    assert searches.gain("unrelated", ABOVE_ZERO, rule=searches.rebase_rule, seeds=5).verdict == "refuted here"
    everything = parts.strategy(0.0, 1.0)  # nothing is thought about but the last part
    assert parts.gain(0.0, ABOVE_ZERO, ours=everything, seeds=3).verdict != "shown"
    assert splits.gain("uniform", 4, ABOVE_ZERO, ours="uniform", seeds=3).verdict == "refuted here"
    one = splits.ONE_REQUEST
    assert splits.gain(one, 4, ABOVE_ZERO, ours=one, seeds=2).verdict == "refuted here"
    assert trees.gain("exponent 1", (0.25,), ABOVE_ZERO, horizon=10**9, seeds=2).verdict == "refuted here"
