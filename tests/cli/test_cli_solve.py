"""budgeteer solve and budgeteer frontier, as they are used."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from budgeteer import cli
from budgeteer.cli import _solving
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput
from budgeteer.core.method import Method
from budgeteer.core.spec import parse
from budgeteer.models.chat import THINK
from budgeteer.models.model import PREFILL
from budgeteer.solve import registered
from budgeteer.solve.runner import Progress
from helpers.cli_child import STRATEGIES, Slow, loader
from helpers.strategies import once

TESTS = Path(__file__).parents[1]
PRICES = "[models.reasoner]\ninput = 1\noutput = 2\n"


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(registry, "METHODS", (*registry.METHODS, *STRATEGIES))
    made = Slow()
    monkeypatch.setitem(sys.modules, "budgeteer.models.load", loader(made))
    return made


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_solve_a_task_into_a_file_and_again(model, tmp_path, capsys):
    out = tmp_path / "answers.jsonl"
    command = ["solve", "chains:max_steps=2", "--strategy", "vote:n=3", "--budget", "200", "--limit", "10"]
    assert cli.main([*command, "--out", str(out), "--traces"]) == 0
    said = capsys.readouterr()
    rows = rows_of(out)
    assert len(rows) == 10
    assert all(row["units"]["all"] <= 200 for row in rows)
    right = sum(row["correct"] for row in rows)
    assert f"accuracy    {100 * right / 10:g}%" in said.out
    assert "overshoot   0 all" in said.out
    assert f"calls       {sum(row['calls'] for row in rows)}" in said.out
    assert model.closed
    asked = len(model.requests)
    assert cli.main([*command, "--out", str(out), "--traces"]) == 0
    assert len(model.requests) == asked
    assert cli.main([*command, "--out", str(out), "--seed", "1"]) == 2
    assert "begun with seed = '0', not '1'" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "answers.jsonl.run" / "traces.jsonl")) == 10


def test_without_a_file_rows_go_to_standard_output(model, tmp_path, capsys):
    (tmp_path / "q.jsonl").write_text('{"id": "a", "question": "Modulo 11, from left to right: 3 + 4 ="}\n')
    command = [
        "solve",
        str(tmp_path / "q.jsonl"),
        "--strategy",
        "once",
        "--budget",
        "1k",
        "--total",
        "--style",
        "direct",
    ]
    assert cli.main(command) == 1  # the scripted model cannot read the examples of this style: nothing is answered
    said = capsys.readouterr()
    (row,) = map(json.loads, said.out.splitlines())
    assert (row["id"], row["correct"]) == ("a", None)
    assert "questions   1" in said.err
    assert "\nerror       ValueError: invalid literal" in said.err
    assert "accuracy" not in said.err


def test_money(model, tmp_path, capsys):
    (tmp_path / "prices.toml").write_text(PRICES)
    out = tmp_path / "a.jsonl"
    command = ["solve", "chains", "--limit", "4", "--strategy", "once", "--prices", str(tmp_path / "prices.toml")]
    assert cli.main([*command, "--budget", "$0.001", "--out", str(out)]) == 0
    rows = rows_of(out)
    micro = sum(row["tokens"]["input"] + 2 * row["tokens"]["output"] for row in rows)
    assert sum(row["units"]["money"] for row in rows) == micro * 10**6
    assert f"spent       ${micro / 1e6:.4f} of $0.0040" in capsys.readouterr().out
    assert cli.main([*command, "--budget", "1k", "--out", str(tmp_path / "b.jsonl")]) == 0
    assert f"cost        ${micro / 1e6:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chains", "--strategy", "vot", "--budget", "1k"], "did you mean 'vote'"),
        (["chains", "--strategy", "neyman", "--budget", "1k"], "unknown strategy 'neyman'"),
        (["chains", "--strategy", "vote:m=3", "--budget", "1k"], "unknown option of vote 'm'"),
        (["chains", "--strategy", "vote,once", "--budget", "1k"], "names 2 where one is wanted"),
        (["chains", "--strategy", "inside", "--budget", "1k"], "needs internals, which reasoner does not have"),
        (["chains", "--strategy", "once", "--budget", "50%"], "no amount"),
        (["chain", "--strategy", "once", "--budget", "1k"], "did you mean 'chains'"),
        (["chains", "--strategy", "once", "--budget", "1k", "--style", "fewshot"], "did you mean 'few-shot'"),
        (["chains", "--strategy", "once", "--budget", "1k", "--traces"], "--traces needs --out"),
        (["chains", "--strategy", "once", "--budget", "1k", "--limit", "0"], "give 1 or more"),
        (["chains", "--strategy", "once", "--budget", "1k", "--timeout", "-1"], "timeout is -1"),
        (["chains", "--strategy", "once", "--budget", "1k", "--probe"], "--probe asks an endpoint"),
        (["chains", "--strategy", "vote:n=2.5", "--budget", "1k"], "n is a whole number"),
        (["chains", "--strategy", "vote:n=many", "--budget", "1k"], "n is a whole number"),
        (
            ["chains", "--strategy", "best-of-n:scorer=programmatic", "--budget", "1k"],
            "since it needs check;",
        ),
        (["chains", "--strategy", "best-of-n:scorer=verifier", "--budget", "1k"], "--oracle"),
        (["chains", "--strategy", "conciseness:inner=elastik", "--budget", "1k"], "did you mean 'elastic'"),
        (["chains", "--strategy", "plan-and-budget:schedule=soon", "--budget", "1k"], "water-filling"),
        (["chains", "--strategy", "value-tree:horizon=0", "--budget", "1k"], "horizon=0"),
        (["chains", "--strategy", "direct:temperature=-1", "--budget", "1k"], "temperature=-1"),
    ],
)
def test_errors_are_one_line_before_anything_is_asked(model, capsys, arguments, message):
    assert cli.main(["solve", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert model.requests == []


def test_strategies_are_built_by_name(model):
    assert registered.build("once:tokens=9").needs == once().needs


def test_the_line_of_progress():
    progress = Progress(
        12,
        40,
        6,
        10,
        11,
        {"input": 1500, "output": 2600, "reasoning": 0},
        {"all": 4100},
        {"all": 20_000},
        0.0123,
        30,
        70,
    )
    assert _solving.line(progress, "x") == (
        "x: 12 of 40, 11 answered, 60% right, 1.5k tokens in, 2.6k out, 4.1k all of 20k all, $0.0123, 70 s left"
    )


def test_frontier(model, tmp_path, capsys):
    command = ["frontier", "once,vote:n=4,tokens=50", "chains:max_steps=3", "--limit", "6", "--budgets", "80,200"]
    command += ["--seeds", "2", "--out", str(tmp_path / "f")]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    numbers = json.loads((tmp_path / "f" / "frontier.json").read_text())
    assert [(p["strategy"], p["budget"]) for p in numbers["points"]] == [
        ("once", "80"), ("vote:n=4,tokens=50", "80"), ("once", "200"), ("vote:n=4,tokens=50", "200"),
    ]  # fmt: skip
    assert "vote:n=4,tokens=50" in said
    assert "vote:n=4,tokens=50" in (tmp_path / "f" / "report.html").read_text()
    asked = len(model.requests)
    assert asked >= 2 * 2 * 2 * 6
    assert cli.main(command) == 0
    assert len(model.requests) == asked


def test_a_frontier_draws_a_line_for_each_effort(model, tmp_path, capsys):
    model.tags = THINK
    model.write = lambda prompt, rng: "<think>" + "x" * (60 if prompt.startswith("high") else 20) + "</think>7"
    (tmp_path / "q.jsonl").write_text('{"question": "3 + 4", "answer": "7"}\n{"question": "4 + 4", "answer": "8"}\n')
    command = ["frontier", "direct", str(tmp_path / "q.jsonl"), "--budgets", "output:900", "--seeds", "2"]
    command += ["--style", 'think:effort=low|high,said="{effort}: "', "--out", str(tmp_path / "f")]
    assert cli.main(command) == 0
    numbers = json.loads((tmp_path / "f" / "frontier.json").read_text())
    used = {point["strategy"]: point["used"]["mean"] for point in numbers["points"]}
    # the tags and the answer are 16 letters
    assert used == {"direct, effort=low": 36, "direct, effort=high": 76}
    assert [(d["a"], d["b"]) for d in numbers["differences"]] == [("direct, effort=high", "direct, effort=low")]
    assert "direct, effort=high" in capsys.readouterr().out
    asked = len(model.requests)
    assert cli.main(command) == 0
    assert len(model.requests) == asked == 2 * 2 * 2
    assert cli.main([*command[:-4], "--style", "think:effort=low|low", "--out", str(tmp_path / "g")]) == 2
    assert "each effort once" in capsys.readouterr().err


def test_a_frontier_draws_a_line_for_each_beginning_of_an_answer_and_for_thinking_on_and_off(model, tmp_path, capsys):
    model.tags, model.capabilities = THINK, model.capabilities | {PREFILL}
    model.write = lambda prompt, rng: "x" * (60 if prompt.endswith("<think>\n[Hard]") else 20) + "</think>7"
    (tmp_path / "q.jsonl").write_text('{"question": "3 + 4", "answer": "7"}\n')
    command = ["frontier", "direct", str(tmp_path / "q.jsonl"), "--budgets", "output:900", "--style"]
    tags = [*command, 'think:begun="{open}[Easy]|{open}[Hard]"', "--out", str(tmp_path / "f")]
    assert cli.main(tags) == 0
    numbers = json.loads((tmp_path / "f" / "frontier.json").read_text())
    used = {point["strategy"]: point["used"]["mean"] for point in numbers["points"]}
    assert used == {"direct, begun={open}[Easy]": 29, "direct, begun={open}[Hard]": 69}
    asked = len(model.requests)
    assert cli.main([*command, "think:on=true|false", "--out", str(tmp_path / "g")]) == 0
    numbers = json.loads((tmp_path / "g" / "frontier.json").read_text())
    assert [point["strategy"] for point in numbers["points"]] == ["direct, on=true", "direct, on=false"]
    assert list(dict.fromkeys(request.prompt.thinking.on for request in model.requests[asked:])) == [True, False]
    capsys.readouterr()
    assert cli.main([*command, "think:on=true|false,effort=low|high", "--out", str(tmp_path / "h")]) == 2
    assert "has alternatives of effort and of on; give them of one option" in capsys.readouterr().err


def test_a_frontier_on_a_cluster_goes_on_with_the_rows_of_every_effort(model, tmp_path, monkeypatch):
    from budgeteer.lab import on_ray

    model.tags = THINK
    model.write = lambda prompt, rng: "<think>" + "x" * 20 + "</think>7"
    (tmp_path / "q.jsonl").write_text('{"question": "3 + 4", "answer": "7"}\n')
    command = ["frontier", "direct", str(tmp_path / "q.jsonl"), "--budgets", "output:900", "--seeds", "2"]
    command += ["--style", 'think:effort=low|high,said="{effort}: "', "--out", str(tmp_path / "f")]
    assert cli.main(command) == 0
    asked = len(model.requests)
    monkeypatch.setattr(on_ray, "cluster", contextlib.nullcontext)
    monkeypatch.setattr(on_ray, "cores", lambda ray: 1)
    monkeypatch.setattr(on_ray, "cells", lambda ray, jobs, at_once, task: [task(*job) for job in jobs])
    assert cli.main([*command, "--ray", "auto"]) == 0
    assert len(model.requests) == asked == 2 * 2


def test_a_frontier_of_an_endpoint_that_never_answers_says_so_and_prints_no_zeros(tmp_path, capsys):
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"question": "1 + 1", "answer": "2"}\n')
    asked = ["frontier", "direct", str(questions), "--budgets", "2000", "--model", "http://127.0.0.1:9/v1#m"]
    assert cli.main([*asked, "--timeout", "0.3", "--seeds", "1", "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert "error: direct@2k: none of 1 questions was answered: no answer within 0.3 s" in shown.err
    assert shown.out == ""


def test_a_frontier_may_ask_the_references(model, tmp_path, capsys):
    command = ["frontier", "once,best-of-n:scorer=verifier,n=4", "chains:max_steps=2", "--budgets", "400", "--seeds"]
    command += ["1", "--limit", "12", "--out", str(tmp_path)]
    assert cli.main(command) == 2
    assert "--oracle" in capsys.readouterr().err
    assert model.requests == []
    assert cli.main([*command, "--oracle"]) == 0
    found = json.loads((tmp_path / "frontier.json").read_text())
    accuracy = {point["strategy"]: point["accuracy"]["mean"] for point in found["points"]}
    assert accuracy["best-of-n:scorer=verifier,n=4"] >= accuracy["once"]


def test_a_frontier_needs_references(model, tmp_path, capsys):
    (tmp_path / "q.jsonl").write_text('{"question": "Why?"}\n')
    assert cli.main(["frontier", "once", str(tmp_path / "q.jsonl"), "--budgets", "80"]) == 2
    assert "have no answer" in capsys.readouterr().err
    assert model.requests == []


def start(arguments, seconds):
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    return subprocess.Popen(
        [sys.executable, str(TESTS / "helpers" / "cli_child.py"), str(seconds), *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )


def wait_for_a_row(out):
    deadline = time.monotonic() + 60
    while not (out.exists() and out.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.parametrize("per", [pytest.param("--per-question", marks=pytest.mark.slow), "--total"])
def test_a_killed_local_run_ends_as_if_it_had_not_been(tmp_path, per):
    out, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    arguments = ["solve", "chains:max_steps=2", "--strategy", "vote:n=3", "--limit", "30", "--concurrency", "3", per]
    arguments += ["--budget", "200" if per == "--per-question" else "3k"]
    child = start([*arguments, "--out", str(out)], 0.05)
    wait_for_a_row(out)
    child.kill()
    child.communicate()
    assert 0 < len(rows_of(out)) < 30
    for path in (out, whole):
        child = start([*arguments, "--out", str(path)], 0)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0, errors
    plain = [
        sorted(json.dumps({k: v for k, v in row.items() if k != "seconds"}) for row in rows_of(path))
        for path in (out, whole)
    ]
    assert plain[0] == plain[1]


def test_an_interrupt_pauses_and_prints_the_command_that_goes_on(tmp_path):
    out = tmp_path / "answers.jsonl"
    arguments = ["solve", "chains:max_steps=2", "--strategy", "vote:n=3", "--budget", "200", "--limit", "30"]
    arguments += ["--concurrency", "2", "--out", str(out)]
    child = start(arguments, 0.05)
    wait_for_a_row(out)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    done = len(rows_of(out))
    assert 0 < done < 30
    again = shlex.split(errors.strip().splitlines()[-1].removeprefix("paused; to go on: "))
    assert again[0] == "budgeteer"
    child = start(again[1:], 0)
    printed, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert len(rows_of(out)) == 30
    assert "questions   30" in printed


def test_a_bool_is_true_or_false_and_no_text(monkeypatch) -> None:
    def factory(exact=False, curve: str = "power"):
        return exact, curve

    method = Method("x", "allocator", "here:factory", "nothing")
    monkeypatch.setattr(registry, "load", lambda method: factory)
    options = parse("x:exact=False,curve=maybe", "allocator").values
    assert registry.arguments_of(method, options) == {"exact": False, "curve": "maybe"}
    for wrong in ("maybe", "1", "none"):
        with pytest.raises(InvalidInput, match=r"x:exact=.* is not possible: exact is true or false"):
            registry.arguments_of(method, parse(f"x:exact={wrong}", "allocator").values)


def test_runs_whose_tools_have_a_price_keep_their_record() -> None:
    """Else a run on a local model that was killed would pay for the calls of its open questions once more."""
    from budgeteer.cli import _solving
    from budgeteer.lab import questions

    paid, free = (questions.load(f"lookups{price}", limit=2) for price in (":price=0.0005", ""))
    assert _solving.durable("thinker", asked=paid)
    assert not _solving.durable("thinker", asked=free)
    assert not _solving.durable("reasoner", asked=questions.load("chains", limit=2))
    assert _solving.durable("http://127.0.0.1:9/v1#m", asked=free)
