"""Length and number of samples under a deadline, and accuracy at lengths worked by hand."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from budgeteer import cli
from budgeteer.check.scripted import Scripted
from budgeteer.core.errors import InvalidInput
from budgeteer.lab.capped import Drawn, curves, draw
from budgeteer.lab.questions import load as load_questions
from budgeteer.ledger import Allowance, Limit, MemoryLedger
from budgeteer.models.device import Accuracy, Device, save
from budgeteer.models.device import load as load_profile
from budgeteer.models.latency import Decode, Latency
from budgeteer.solve import Budgeted, Question, StoppedBy, Style, Task
from budgeteer.strategies import deadline
from budgeteer.strategies.kit.samples import Sample

STYLE = Style(lambda text: text, lambda text: text.strip()[:1] or None, "=", complete=lambda text: len(text) > 0)
LATENCY = Latency((0.0, 0.0, 1.0), 1, (Decode(1, 0.1, 0.0), Decode(3, 0.2, 0.0)))
PLAIN = Device("scripted", LATENCY)


def solve(device: Device, seconds: float, budget: int = 10_000, **options: int) -> tuple[object, Scripted]:
    model = Scripted(lambda prompt, rng: rng.choice(["12=4", "12=4", "1=5"]))
    ledger = MemoryLedger()
    ledger.open("q", [Limit("output", budget)])
    task = Task(Question("q", "ask"), Budgeted(model, Allowance(ledger, "q", {"output": budget})), STYLE, 3)
    return asyncio.run(deadline(device, seconds, **options).solve(task)), model


def test_one_greedy_trace_of_the_longest_length_that_fits() -> None:
    answer, model = solve(PLAIN, 3.05)  # 1 s, then 20 steps of 0.1 s
    assert [(request.max_tokens, request.n, request.temperature) for request in model.requests] == [(21, 1, 0.0)]
    assert answer.answer in ("4", "5")
    assert [request.max_tokens for request in solve(PLAIN, 3.05, max_tokens=7)[1].requests] == [7]


def test_the_pair_with_the_best_measured_accuracy_among_those_in_time() -> None:
    seen = (Accuracy(10, 1, 0.6, 0, 1, 1, 1), Accuracy(10, 3, 0.7, 0, 1, 1, 1), Accuracy(40, 3, 0.9, 0, 1, 1, 1))
    device = replace(PLAIN, accuracy=seen, prompt=3)
    for seconds, pair in ((2.0, (10, 1)), (3.0, (10, 3)), (9.0, (40, 3))):
        _, model = solve(device, seconds)
        assert [(request.max_tokens, request.n) for request in model.requests] == [pair]


def test_no_time_for_a_token_asks_nothing_and_a_small_budget_cuts_the_trace() -> None:
    answer, model = solve(PLAIN, 0.9)
    assert (answer.answer, answer.stopped_by, model.requests) == (None, StoppedBy.CAP, [])
    _, model = solve(PLAIN, 30.0, budget=6)
    assert [request.max_tokens for request in model.requests] == [6]
    with pytest.raises(InvalidInput, match="seconds=0"):
        deadline(seconds=0)


def grade(question: Question, answer: str | None) -> float:
    return float(answer == "4")


def test_accuracy_at_a_length_counts_what_was_complete_by_then() -> None:
    four, late, five = Sample("", "4", 5), Sample("", "4", 30), Sample("", "5", 8)
    first = Drawn(Question("a", ""), 7, (late,), (four, five, four, late))
    second = Drawn(Question("b", ""), 9, (five,), (five, five, four, four))
    found = {(one.parallel, one.tokens): one for one in curves([first, second], [10, 40], [1, 2, 4], grade)}
    assert found[1, 10].right == 0
    assert found[1, 40].right == 0.5
    assert (found[1, 10].used, found[1, 10].longest) == (9, 9)  # 10 and 8 of the greedy traces
    # pairs at 10: (4, 5) is a tie for the first one: right; (4, nothing): right; (5, 5): wrong; (4, 4): right
    assert found[2, 10].right == pytest.approx((1 + 0.5) / 2)
    assert found[4, 40].right == pytest.approx((1 + 0) / 2)  # 4 5 4 4, and 5 5 4 4 whose tie goes to the first one
    assert found[4, 40].longest == pytest.approx((30 + 8) / 2)
    with pytest.raises(InvalidInput, match="votes of 5"):
        curves([first], [10], [5], grade)


def test_samples_are_drawn_once_for_all_lengths() -> None:
    asked = load_questions("chains:max_steps=2", limit=4)
    model = Scripted(lambda prompt, rng: rng.choice(["12=4", "1=5"]))
    drawn = asyncio.run(draw(model, STYLE, asked, tokens=9, samples=3))
    assert [(len(one.greedy), len(one.warm)) for one in drawn] == [(1, 3)] * 4
    assert [one.prompt for one in drawn] == [len(question.text) for question in asked.questions]
    assert len(model.requests) == 8


def test_a_profile_gets_its_accuracy_and_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "reasoner.json"
    save(Device("reasoner", Latency((0.0, 0.0, 0.01), 1, (Decode(1, 0.001, 0.0), Decode(2, 0.002, 0.0)))), path)
    assert cli.main(["plan", str(path), "--deadline", "1s"]) == 2
    assert "--prompt-tokens" in capsys.readouterr().err
    accuracy = ["accuracy", "chains:max_steps=2", "--profile", str(path), "--limit", "6", "--tokens", "4,64"]
    assert cli.main(["profile", *accuracy, "--samples", "4"]) == 0
    one = load_profile(path)
    assert [(a.parallel, a.tokens) for a in one.accuracy] == [(1, 4), (1, 64), (2, 4), (2, 64)]
    assert one.accuracy[1].right > one.accuracy[0].right == 0
    capsys.readouterr()
    assert cli.main(["plan", str(path), "--deadline", "100ms", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert (rows[0]["samples"], rows[0]["tokens"]) == (1, 64)
    assert (2, 64) not in [(row["samples"], row["tokens"]) for row in rows]  # 0.01 + 63 * 0.002 s
    assert cli.main(["plan", str(path), "--deadline", "5ms"]) == 1
    assert cli.main(["plan", str(path), "--deadline", "100ms"]) == 0
    said = capsys.readouterr().out
    assert f"--strategy deadline:device={path},seconds=0.1" in said


def test_published_profiles_can_be_planned_with(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["jetson-orin-1.5b", "jetson-orin-8b"]
    assert cli.main(["plan", *names, "--deadline", "5s", "--prompt-tokens", "200"]) == 0
    said = capsys.readouterr().out
    # (5 - 0.0468 - 256^2 * 1.56e-7) / 0.0239 = 207 steps
    assert "208" in said
    assert "a machine that is not here: budgeteer profile device" in said
    assert "to use it" not in said
