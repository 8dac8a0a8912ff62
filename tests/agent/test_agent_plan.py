"""One agent, many or none: the formulas by hand and by simulation, and what is read from runs made from them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from budgeteer.agent.plan import AgentRun, advised, lines, read
from budgeteer.agent.scaling import ARCHITECTURES, Configuration, fitted, gate, turns_of
from budgeteer.agent.transition import (
    Ability,
    ability_of,
    exponent,
    leaf_tokens,
    organisations,
    root,
    shared_errors,
    slope,
    vote,
)
from budgeteer.cli import main
from budgeteer.core.errors import InvalidInput


@pytest.mark.parametrize("fan_in", [3, 5, 7])
@pytest.mark.parametrize("bias", [-0.4, 0.0, 0.2, 0.9])
def test_a_vote_is_what_counting_all_outcomes_gives(fan_in: int, bias: float) -> None:
    p = (1 + bias) / 2
    right = sum(
        math.prod(p if one else 1 - p for one in outcome)
        for outcome in itertools.product((0, 1), repeat=fan_in)
        if sum(outcome) * 2 > fan_in
    )
    assert vote(bias, fan_in) == pytest.approx(2 * right - 1)


@pytest.mark.parametrize("fan_in", [3, 5, 7, 9])
def test_the_slope_is_the_derivative_at_zero(fan_in: int) -> None:
    step = 1e-6
    for fidelity, shared in ((1.0, 0.0), (0.9, 0.4)):
        numeric = (root(step, fan_in, 1, fidelity, shared) - root(-step, fan_in, 1, fidelity, shared)) / (2 * step)
        assert slope(fan_in, fidelity, shared) == pytest.approx(numeric, rel=1e-6)


def test_below_a_slope_of_one_the_signal_dies_and_above_it_grows_to_a_fixed_point() -> None:
    for fidelity, dies in ((0.6, True), (0.62, True), (0.7, False), (0.9, False)):  # alpha = 1.5 fidelity
        end = root(0.05, 3, 400, fidelity)
        assert (slope(3, fidelity) < 1) is dies is (end < 1e-3)
        if not dies:
            assert root(end, 3, 1, fidelity) == pytest.approx(end)
    assert root(0.05, 3, 400, 0.9) == pytest.approx(math.sqrt((3 * 0.9 / 2 - 1) * 2 / 0.9**3))  # m(3 - m^2)/2 = mu


def test_trees_win_exactly_above_beta_while_the_signal_is_small() -> None:
    s = exponent(3)
    for beta, wins in ((s - 0.05, True), (s + 0.05, False)):
        one, *trees = organisations(Ability(1e-5, beta), 3**6, message=1, fidelity=1.0, shared=0.0)
        # overhead is paid by trees, so compare where it is small beside a leaf
        tree = next(tree for tree in trees if (tree.fan_in, tree.levels) == (3, 1))
        assert (tree.predicted > one.predicted) is wins


def test_the_best_leaf_is_the_maximum_of_the_signal() -> None:
    beta, s, overhead, budget = 0.2, 0.35, 150.0, 1e6
    x = np.arange(1.0, 2000.0)
    signal = (budget / (x + overhead)) ** s * x**beta
    assert leaf_tokens(beta, s, overhead) == pytest.approx(x[signal.argmax()], abs=1)


def test_shared_errors_are_found_in_runs_that_were_made_with_them() -> None:
    rng = np.random.default_rng(0)
    for rho in (0.0, 0.3, 0.8):
        common = rng.random(4000) < 0.6
        runs = [
            [float(common[i] if rng.random() < math.sqrt(rho) else rng.random() < 0.6) for _ in range(4)]
            for i in range(4000)
        ]
        assert shared_errors(runs) == pytest.approx(rho, abs=0.03)


def test_the_power_law_leaves_out_guessing_and_weighs_its_points() -> None:
    fitted_ = ability_of([10, 100, 1000, 50], [0.55, 0.6, 0.7, 0.5], [1, 1, 1, 99])
    assert (fitted_.beta, fitted_.scale) == (pytest.approx(math.log10(2)), pytest.approx(0.1 / 10 ** math.log10(2)))
    with pytest.raises(InvalidInput, match="fewer than two budgets"):
        ability_of([10, 100], [0.7, 0.5], [1, 1])


def made(
    ability: Ability, rho: float, *, questions: int = 400, budgets: Sequence[int] = (50, 200, 800, 3200)
) -> list[AgentRun]:
    """Runs of one agent from the formula, four samples a question."""
    rng = np.random.default_rng(1)
    runs = []
    for budget, q in itertools.product(budgets, range(questions)):
        p = (1 + ability.bias(budget)) / 2
        common = rng.random() < p
        for _ in range(4):
            right = common if rng.random() < math.sqrt(rho) else rng.random() < p
            runs.append(AgentRun(f"q{q}", float(right), budget, str(budget)))
    return runs


def test_fidelity_is_the_bias_of_readers_over_that_of_writers() -> None:
    """Writers are right in 80 % (bias 0.6), readers in 65 % (0.3): half is kept, and a tree of three dies at 0.75."""
    runs = [
        AgentRun(f"q{i}", float(i % 5 > 0), tokens, str(tokens), relayed=float(i % 20 < 13))
        for tokens in (100, 400) for i in range(200)
    ]  # fmt: skip
    advice = advised(runs, 400, shared=0.0)
    assert advice.fidelity.mean == pytest.approx(0.5)
    assert 0.1 < advice.fidelity.low < 0.5 < advice.fidelity.high < 0.9
    assert advice.exponents[3] == pytest.approx(exponent(3, 0.5, 0.0))
    assert advice.exponents[3] < 0
    assert "fidelity    0.50 [" in "\n".join(lines(advice, 400))
    free = advised(runs, 400, shared=0.0, guess=0.0)  # 0.65 of 0.8
    assert free.fidelity.mean == pytest.approx(0.8125)
    assert advised(runs, 400, shared=0.0, fidelity=1.0).exponents[3] == pytest.approx(exponent(3))
    silent = [run._replace(relayed=math.nan) for run in runs]
    assert math.isnan(advised(silent, 400, shared=0.0).fidelity.mean)
    assert advised(silent, 400, shared=0.0).exponents[3] == pytest.approx(
        exponent(3)
    )  # nothing is lost where none says so


def test_relayed_is_read_as_correct_is(tmp_path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text(
        '{"correct": true, "tokens": 9, "relayed": false}\n{"correct": 1, "tokens": 9, "relayed": null}\n'
        '{"correct": 1, "tokens": 9}\n'
    )
    first, *others = read(str(file))
    assert first.relayed == 0.0
    assert all(math.isnan(run.relayed) for run in others)
    file.write_text('{"correct": true, "tokens": 9, "relayed": 3}\n')
    with pytest.raises(InvalidInput, match="relayed is 3; give true, false or 0 to 1"):
        read(str(file))


def test_what_runs_were_made_with_lies_in_the_intervals() -> None:
    advice = advised(made(Ability(0.08, 0.2), 0.3), 3200)
    assert advice.beta.low < 0.2 < advice.beta.high
    assert advice.beta.high - advice.beta.low < 0.3
    assert advice.shared.mean == pytest.approx(0.3, abs=0.05)
    assert advice.shared.low < 0.3 < advice.shared.high
    assert advice.exponents[3] == pytest.approx(exponent(3, 1.0, advice.shared.mean))


def test_one_many_or_none() -> None:
    flat, steep = Ability(0.15, 0.05), Ability(0.004, 0.6)
    assert advised(made(flat, 0.0), 20_000, message=10).decision == "many"
    assert advised(made(flat, 1.0), 20_000, message=10).decision == "one"  # all share their errors
    assert advised(made(flat, 0.0), 20_000, message=10, fidelity=0.2).decision == "one"  # nothing arrives
    assert advised(made(steep, 0.0), 3200, message=10).decision == "one"
    assert advised(made(steep, 0.0), 3200, worth=5000).decision == "none"
    assert advised(made(Ability(-1.0, 0.1), 0.0), 3200).decision == "none"
    assert advised(made(flat, 0.0), 20_000, message=1000, window=500).best is None


def test_where_guessing_does_worse_the_bias_is_the_way_from_there_to_one() -> None:
    halves = [r._replace(right=r.right * float(i % 2)) for i, r in enumerate(made(Ability(0.15, 0.05), 0.0))]
    assert advised(halves, 3200).decision == "none"  # right with 0.3, below guessing
    advice = advised(halves, 3200, guess=0.0, shared=1.0)
    assert advice.decision == "one"
    assert advice.one is not None
    assert advice.one.predicted == pytest.approx(0.3, abs=0.03)


def test_the_gate_and_the_published_figures() -> None:
    assert [gate(p, sequential=False).kind for p in (0.449, 0.45)] == ["centralized", "single"]
    assert gate(0.1, sequential=False, tools=16).kind == "single"
    assert turns_of(3) == pytest.approx(2.72 * 3.5**1.724)
    assert max(ARCHITECTURES, key=lambda kind: ARCHITECTURES[kind].efficiency) == "single"


def test_a_regression_finds_the_coefficients_that_runs_were_made_with() -> None:
    rng = np.random.default_rng(0)
    cases = [(n, t, p) for n in (2, 3, 5, 8) for t in (1, 4, 12) for p in (0.1, 0.3, 0.6)]

    def success(n: int, t: int, p: float) -> float:
        return 0.3 + 0.05 * math.log1p(t) + 0.9 * p - 0.4 * p * math.log1p(n)

    fit = fitted([Configuration(n, t, p, success(n, t, p)) for n, t, p in cases])
    assert fit.explained > 0.999
    assert fit.predicted(4, 6, 0.5) == pytest.approx(success(4, 6, 0.5), abs=1e-3)
    raw = {name: fit.coefficients[name][0] / fit.scale[i] for i, name in enumerate(fit.coefficients)}
    assert raw["single x log(1 + agents)"] == pytest.approx(-0.4, abs=1e-2)
    noise = fitted([Configuration(n, t, p, float(rng.random())) for n, t, p in cases])
    assert noise.explained < 0.1
    low, high = noise.coefficients["log(1 + tools)"][1:]
    assert low < 0 < high
    with pytest.raises(InvalidInput, match="too few"):
        fitted([Configuration(2, 1, 0.5, 0.5)] * 7)


def test_rows_of_solve_and_rows_by_hand_are_read(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    given = [
        {"id": "a", "correct": True, "tokens": {"input": 10, "output": 5}, "budget": {"all": 64}, "tools": {"look": 2}},
        {"id": "b", "score": 0.5, "tokens": 7, "agents": 3, "task": "t", "tools": 4},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in given))
    assert read(str(file)) == [
        AgentRun("a", 1.0, 15.0, "{'all': 64}", 1, "", 1),
        AgentRun("b", 0.5, 7.0, "", 3, "t", 4),
    ]
    for wrong, said in [
        ({"agents": 0}, "agents from 1"),
        ({"agents": 2.5}, "whole numbers"),
        ({"tools": -3}, "tools from 0"),
        ({"tokens": {"total": 12}}, "give input and output"),
        ({"score": "nan"}, "give true, false or 0 to 1"),
    ]:
        file.write_text(json.dumps({"id": "a", "correct": True, "tokens": 12} | wrong) + "\n")
        with pytest.raises(InvalidInput, match=said):
            read(str(file))


def test_the_command_prints_the_decision_and_writes_all_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "runs.jsonl", tmp_path / "advice.json"
    runs = made(Ability(0.08, 0.2), 0.3, questions=40)
    file.write_text(
        "".join(
            json.dumps({"id": r.id, "correct": bool(r.right), "tokens": r.tokens, "budget": r.at}) + "\n" for r in runs
        )
    )
    assert main(["agent", "plan", str(file), "--budget", "3k", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    numbers = json.loads(out.read_text())
    assert text.startswith(f"decision    {numbers['decision']}: ")
    assert "regression  none: 0 configurations" in text
    assert numbers["beta"]["low"] < numbers["beta"]["mean"] < numbers["beta"]["high"]


@pytest.mark.parametrize(("questions", "decision"), [(1, "none"), (5, "none"), (6, "one")])
def test_a_few_right_answers_are_no_proof(questions: int, decision: str) -> None:
    """0.025^(1/5) = 0.478 and 0.025^(1/6) = 0.541: the interval of so many coins that all fell on one side."""
    advice = advised([AgentRun(str(i), 1.0, 100.0) for i in range(questions)], 1000)
    assert advice.decision == decision
    assert advice.single == pytest.approx((1.0, 0.025 ** (1 / questions), 1.0))
    wrong = advised([AgentRun(str(i), 0.0, 100.0) for i in range(5)], 1000).single
    assert wrong == pytest.approx((0.0, 0.0, 1 - 0.478), abs=1e-3)


def test_what_an_answer_is_worth_counts_without_a_power_law_too() -> None:
    runs = [AgentRun(str(i), float(i % 10 > 1), 100.0) for i in range(40)]  # 80 % at one budget
    assert advised(runs, 1000, worth=3334).decision == "one"  # 0.3 above guessing
    found = advised(runs, 1000, worth=3333)
    assert found.decision == "none"
    assert found.why.startswith("right answers of 80.0% are not worth 1,000 tokens")
    team = [AgentRun(str(i), float(i % 10 > 6), 100.0) for i in range(40)]  # 30 %: the rules say a team
    assert [advised(team, 1000, guess=0.0, worth=w).decision for w in (999, 1000)] == ["none", "many"]


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"correct": "yes", "tokens": 5}, "correct is 'yes'; give a number"),
        ({"correct": 1, "tokens": {"input": -5, "output": 10}}, "tokens are .*; give what the run used, 0 or more"),
        ({"correct": 1, "tokens": {"input": "x"}}, "tokens.input is 'x'; give a number"),
        ({"correct": 1, "tokens": 5, "tools": "many"}, "tools is 'many'; give a number"),
    ],
)
def test_a_row_that_is_no_run_is_named_with_what_to_give(tmp_path: Path, row: dict[str, object], match: str) -> None:
    (tmp_path / "runs.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InvalidInput, match=f"line 1: {match}"):
        read(str(tmp_path / "runs.jsonl"))
