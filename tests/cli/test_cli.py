"""The command line: instant help, errors in one line, the commands that need no training."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from budgeteer import Items, Menu, Plan, __version__, cli
from budgeteer.allocate.kit.margins import margin_of
from budgeteer.cli.allocate import margins
from budgeteer.core import registry
from budgeteer.core.allocator import stateless
from budgeteer.lab import results
from helpers.results_fixture import ARMS, make

HEAVY = ("numba", "numpy", "reasoning_gym", "scipy", "tokenizers", "torch", "transformers")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["trian"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from budgeteer.cli import main; main({arguments}); sys.stderr.write(repr([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "'budgeteer.cli'" in done.stderr
    assert not [name for name in HEAVY if f"'{name}'" in done.stderr]


def test_help_names_every_command_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, (_, line) in cli.COMMANDS.items():
        assert name in text
        assert line in text
    assert text.count("  budgeteer ") >= 2
    assert max(map(len, text.splitlines())) <= 100
    assert cli.main([]) == 2


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_its_three_parts_and_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(cli.COMMANDS[name][0])
    assert callable(module.add_arguments)
    assert callable(module.run)
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    assert f"budgeteer {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["agent", "bench", "cache", "heads", "keys", "lab", "ledger", "profile", "route"])
def test_a_command_without_its_action_lists_the_actions(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(cli.COMMANDS[name][0]).add_arguments(parser)
    (actions,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    assert cli.main([name]) == 2
    said = capsys.readouterr().err
    assert said.endswith(f"error: budgeteer {name} needs one of the actions above\n")
    for action in actions._choices_actions:
        assert re.search(rf"^ +{action.dest}\s+\S", said, re.MULTILINE), action.dest
        assert action.help
        assert " ".join(str(action.help).split()) in " ".join(said.split())
    assert len(actions._choices_actions) == len(actions.choices)  # none without a help of its own


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["profile", "device"], "time calls of a model here, and fit prefill and decode times"),
        (["cache", "plan"], "what of weights and cache fits into a memory"),
        (["heads", "train"], "The same command goes on where it was stopped."),  # longer than its line in the list
    ],
)
def test_the_help_of_an_action_says_what_it_does(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([*words, "--help"])
    assert says in " ".join(capsys.readouterr().out.partition("options:")[0].split())


def test_help_of_train_says_how_a_reward_is_named_and_when_a_checkpoint_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("trl")
    from budgeteer.lab.posttrain.build import SAVE_EVERY as OF_HF
    from budgeteer.rl.trainer import SAVE_EVERY

    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "grpo:reward=NAME" in said
    assert "A checkpoint is written every eight steps" in said
    assert SAVE_EVERY == OF_HF == 8


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"budgeteer {__version__}\n"


def test_unknown_command_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["comapre"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: unknown command 'comapre'; did you mean 'compare' or 'probe' or 'cache'?\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "{tmp}/none.json"], "cannot read"),
        (["report", "{tmp}/bad.json"], "schema is 7"),
        (["evidence"], "give one name or --all or --page"),
        (["evidence", "duet", "--page"], "give one name or --all or --page"),
        (["evidence", "duet", "--all"], "give one name or --all"),
        (["evidence", "grpo"], "has no evidence yet"),
        (["evidence", "knapsak"], "did you mean"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text('{"schema": 7, "runs": []}')
    assert cli.main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_interrupt_says_that_it_can_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from budgeteer.cli import methods

    def stop(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(methods, "run", stop)
    assert cli.main(["methods"]) == 130
    assert "continues" in capsys.readouterr().err


def test_methods_lists_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods"]) == 0
    text = capsys.readouterr().out
    assert all(method.name in text for method in registry.methods())
    assert cli.main(["methods", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [method.name for method in registry.methods()]
    assert {"name", "part", "arxiv", "decides", "verdict"} <= rows[0].keys()


def test_methods_explains_the_one_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["methods", "neyman"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("allocator neyman: ")
    assert "columns   std, cost\n" in text
    assert "arXiv 2605.08441" in text
    assert "When it helps: " in text
    assert "  min_units  a whole number, default 1: least units an item" in text
    assert cli.main(["methods", "neyman", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["columns"] == ["std", "cost"]
    options = [(option["name"], option["default"]) for option in row["options"]]
    assert options == [("min_units", 1), ("max_units", 32), ("published", False)]
    assert cli.main(["methods", "allocator", "--json"]) == 0
    assert all("options" not in row for row in json.loads(capsys.readouterr().out))


def test_methods_shows_the_published_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(__file__).parents[2] / "docs" / "evidence"
    cli.main(["methods", "--json"])
    for row in json.loads(capsys.readouterr().out):
        published = folder / f"{row['evidence']}.json"
        if published.exists():
            for entry in json.loads(published.read_text()):
                claims, _, controls = row["verdict"].partition(" control")
                kind, word = (
                    (claims, entry["verdict"]) if entry["role"] == "claim" else (controls, entry["verdict"][8:])
                )
                assert word.removesuffix("s") in kind
                assert entry["data"] in row["verdict"]


def test_report_writes_the_page_beside_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results.write(make(2), tmp_path / "results.json")
    assert cli.main(["report", str(path)]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ARMS)
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert cli.main(["report", str(path), "--out", str(tmp_path / "other" / "page.html")]) == 0
    assert (tmp_path / "other" / "page.html").exists()


MENU = [
    {"key": "a", "cost": [2, 6], "value": [3.0, 7.0]},
    {"key": "b", "cost": [3, 5], "value": [4.0, 5.0]},
]


def written(tmp_path: Path, rows: list[dict[str, object]]) -> str:
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_allocate_prints_the_plan_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, MENU)
    assert cli.main(["allocate", "--method", "menu-knapsack:exact=true", "--budget", "9", "--json", path]) == 0
    found = json.loads(capsys.readouterr().out)
    price = found.pop("price")
    assert found == {
        "method": "menu-knapsack:exact=true",
        "budget": 9,
        "cost": 9.0,
        "value": 11.0,
        "gap": 0.0,
        "plan": {"a": 2, "b": 1},
    }
    assert price == 0.5  # the next step, b from 3 to 5 tokens, gains 1 for 2
    units = written(tmp_path, [{"key": "a", "cost": 1, "std": 1.0}, {"key": "b", "cost": 1, "std": 3.0}])
    assert cli.main(["allocate", "--method", "proportional", "--budget", "8", "--json", units]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plan"] == {"a": 2, "b": 6}
    assert found["value"] is None


@pytest.mark.parametrize(
    ("units", "cost", "rule"),
    [
        ([100, 100], 5.0, "the plan costs 23,000.0 tokens, over its budget of 1,000"),
        ([4, 1], 5.0, "Plan.expected_cost is 5.000, but units * cost sum to 470.000"),
        ([-(2**63), 1], 5.0, "Plan.units has -9223372036854775808; units are 0 or more"),
        ([1.0, math.nan], 5.0, "Plan.units have dtype float64; units are integers"),
    ],
)
@pytest.mark.parametrize("printed", [[], ["--json"]])
def test_allocate_refuses_a_plan_that_breaks_a_rule(
    units: list[float], cost: float, rule: str, printed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    broken = stateless(lambda budget, items: Plan(items.keys, np.array(units), cost))
    monkeypatch.setattr(registry, "make", lambda part, name, **options: broken)
    path = tmp_path / "items.jsonl"
    path.write_text('{"key": "a", "cost": 80}\n{"key": "b", "cost": 150}\n')
    assert cli.main(["allocate", str(path), "--method", "theirs", "--budget", "1k", *printed]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "allocator 'theirs' made a plan that breaks a rule: " + rule in said.err


def test_allocate_shows_the_caps_of_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capping = stateless(lambda budget, items: Plan(items.keys, np.array([2, 1]), 310.0, np.array([70, 0])))
    monkeypatch.setattr(registry, "make", lambda part, name, **options: capping)
    path = tmp_path / "items.jsonl"
    path.write_text('{"key": "a", "cost": 80}\n{"key": "b", "cost": 150}\n')
    command = ["allocate", str(path), "--method", "theirs", "--budget", "1k"]
    assert cli.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["max_tokens"] == {"a": 70, "b": 0}
    assert cli.main(command) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[:3]] == [
        ["key", "units", "tokens", "max_tokens"], ["a", "2", "160", "70"], ["b", "1", "150", "-"],
    ]  # fmt: skip


def test_allocate_explains_from_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(Path(written(tmp_path, MENU)).read_text()))
    assert cli.main(["allocate", "--method", "menu-knapsack", "--budget", "7", "--explain", "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["key", "option", "tokens", "why"]
    assert "option 1 is worth 3 for 2 tokens; option 2 would gain 1 a token" in lines[1]
    assert any(line.startswith("cost   5 of 7 tokens") or line.startswith("cost   7 of 7") for line in lines)
    assert any(line.startswith("price  1 a token") for line in lines)
    units = written(tmp_path, [{"key": "a", "cost": 10, "std": 1.0}, {"key": "b", "cost": 10, "std": 3.0}])
    assert cli.main(["allocate", "--method", "neyman", "--budget", "45", "--explain", units]) == 0
    text = capsys.readouterr().out
    # the third unit of b removed 9 / (2 * 3) of variance for 10 tokens, the fourth would remove 9 / (3 * 4)
    said = "3 x 10 tokens for std 3; the last one gained 0.15 a token, the next one would gain 0.075 (price 0.07901)"
    assert f"{said}; one more does not fit the 5 tokens left" in text  # 1 + 3 = sqrt(price) * 10^1.5 / 4.5 at 45 tokens
    assert "1 x 10 tokens for std 1; no less than 1 (min_units), the next one would gain 0.05 (price" in text
    assert "value  -4" in text
    command = ["allocate", "--method", "neyman:max_units=4", "--budget", "90", "--explain", units]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert "the last one gained 0.075 a token, no more than 4 (max_units)" in text


def test_allocate_explains_and_draws_the_next_of_equal_gains_whose_sums_are_rounded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cost, value = [100, 200, 300, 400, 500, 600, 700], np.cumsum([0.01] * 7).tolist()
    path = written(tmp_path, [{"key": "a", "cost": cost, "value": value}, {"key": "b", "cost": [100], "value": [1.0]}])
    command = ["allocate", "--method", "greedy-marginal", "--budget", "350", "--explain", "--plot"]
    assert cli.main([*command, str(tmp_path / "plot.svg"), path]) == 0
    text = capsys.readouterr().out
    said = "option 2 is worth 0.02 for 200 tokens; option 3 would gain 0.0001 a token (at or above the price)"
    assert f"{said}, its 100 more tokens do not fit the 50 left" in text
    items = Items(("a", "b"), menu=Menu.of([cost, [100]], [value, [1.0]]))
    spent, slope = margins(items, Plan(items.keys, np.zeros(2, np.int64), 0.0), None)
    assert spent.tolist() == [100 * k for k in range(1, 9)]
    assert slope.tolist() == pytest.approx([0.01, *[0.0001] * 7], rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        # 4 e^-b: the first unit removes 4 (1 - 1/e), the fifth would 4 (e^-4 - e^-5), over 2 tokens
        (["water-filling:curve=exponential", "--budget", "8"], "gained 0.06294 a token, the next one"),
        (["water-filling:curve=exponential", "--budget", "8"], "would gain 0.02316 (price 0.02316)"),
        (["water-filling", "--budget", "8"], "the last one gained 0.1667 a token, the next one would gain 0.1"),
        (["variance", "--budget", "8"], "the last one gained 0.01042 a token, the next one would gain 0.00625"),
        (["knapsack-allocator", "--budget", "8"], "gained 0.007812 a token, the next one would gain 0.003906"),
        (["selective", "--budget", "8"], "the last one gained 0.01562 a token, the next one would gain 0.007812"),
        (["selective", "--budget", "4"], "its first 3 would gain 0.03125 a token"),
        (["selective", "--budget", "6"], "its first 3 gained 0.03125 a token, the next one would gain 0.01562"),
        (["variance", "--budget", "3"], "the budget does not pay 2 (min_units) for everybody"),
        (["uniform", "--budget", "8"], "4 x 2 tokens for pass_rate 0.5, scale 4, decay 1; one more does not fit"),
    ],
)  # fmt: skip
def test_allocate_explains_units_by_their_gains(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, [{"key": "a", "cost": 2, "pass_rate": 0.5, "scale": 4, "decay": 1}])
    assert cli.main(["allocate", "--method", *arguments, "--explain", path]) == 0
    assert said in capsys.readouterr().out
    assert cli.main(["allocate", "--method", *arguments, "--explain", "--json", path]) == 0
    assert said in json.loads(capsys.readouterr().out)["why"]["a"]


@pytest.mark.parametrize(
    ("method", "settings", "curve"),
    [
        ("neyman", {}, lambda n: 4 / (n * (n - 1))),
        ("water-filling", {"curve": "power"}, lambda n: 3 / (n - 1) ** 0.5 - 3 / n**0.5),
        ("water-filling", {"curve": "exponential"}, lambda n: 3 * np.exp(-0.5 * (n - 1)) - 3 * np.exp(-0.5 * n)),
    ],
)
def test_the_curve_of_margins_is_the_methods_and_counts_the_first_units(
    method: str, settings: dict[str, str], curve: Callable[[float], float]
) -> None:
    items = Items(
        ("a", "b"), np.array([2.0, 2.0]), std=np.array([2.0, 2.0]), scale=np.full(2, 3.0), decay=np.full(2, 0.5)
    )
    allocator = registry.make("allocator", method, **settings)
    plan = allocator.allocate(40, items, (), rng=np.random.default_rng(0))
    spent, slope = margins(items, plan, margin_of(method, items, settings))
    first = 0 if settings.get("curve") == "exponential" else 1  # that one begins with nothing
    expected = [curve(n) / 2 for n in range(first + 1, 11) for _ in items.keys]
    assert slope[: len(expected)] == pytest.approx(expected)
    assert spent[: len(expected)] == pytest.approx([4 * first + 2 * (k + 1) for k in range(len(expected))])
    # where the budget is, the margins pass the price
    before, after = slope[spent <= 40][-1], slope[spent > 40][0]
    assert after <= plan.price * (1 + 1e-9)
    assert before >= plan.price * (1 - 1e-9)


def test_the_curve_of_margins_where_items_may_go_without() -> None:
    items = Items(("a", "b"), np.array([2.0, 1.0]), pass_rate=np.array([0.5, 0.5]))
    plan = registry.make("allocator", "selective").allocate(9, items, (), rng=np.random.default_rng(0))
    spent, slope = margins(items, plan, margin_of("selective", items, {}))
    # blocks of three, 3/16 each: b's for 3 tokens, a's for 6; then 1/32 of b for 1, 1/32 of a for 2, 1/64 of b for 1
    assert slope[:5] == pytest.approx([1 / 16, 1 / 32, 1 / 32, 1 / 64, 1 / 64])
    assert spent[:5] == pytest.approx([3, 9, 10, 12, 13])
    assert margin_of("uniform", items, {}) is None
    assert len(margins(items, plan, None)[0]) == 0


def test_allocate_prints_keys_that_the_terminal_cannot(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"key": "half \\ud800", "cost": 1}\n{"key": "\u00e9", "cost": 1}\n', encoding="utf-8")
    code = "import sys; from budgeteer.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "allocate", "--method", "uniform", "--budget", "4", str(path)]
    for encoding, shown in (("utf-8", "\u00e9"), ("ascii", "\\xe9")):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, timeout=60, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert "half \\ud800" in done.stdout.decode(encoding)
        assert shown in done.stdout.decode(encoding)


@pytest.mark.parametrize("word", ["False", "FALSE", "false"])
def test_false_in_any_case_is_false(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, gaps = written(tmp_path, MENU), {}
    for value in (word, "true"):
        command = ["allocate", "--method", f"menu-knapsack:exact={value}", "--budget", "7", "--json", path]
        assert cli.main(command) == 0
        gaps[value] = json.loads(capsys.readouterr().out)["gap"]
    assert gaps == {word: 1.0, "true": 0.0}  # only the exact one closes it


def test_allocate_plots_without_torch(tmp_path: Path) -> None:
    path, out = written(tmp_path, MENU), tmp_path / "plan.svg"
    code = (
        "import sys; from budgeteer.cli import main; "
        f"code = main(['allocate', '--method', 'greedy-marginal', '--budget', '9', '--plot', {str(out)!r}, {path!r}]); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0
    root = ElementTree.fromstring(out.read_text())
    assert len(root.findall(".//{http://www.w3.org/2000/svg}polyline")) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "neymann", "--budget", "5", "{path}"], "did you mean 'neyman'"),
        (["--method", "neyman", "--budget", "50%", "{path}"], "must be a number of tokens"),
        (["--method", "neyman", "--budget", "5", "{path}"], "for a menu of options use menu-knapsack"),
        (
            ["--method", "menu-knapsack:exactly=1", "--budget", "5", "{path}"],
            "did you mean 'exact'?",
        ),
        (["--method", "menu-knapsack:exact", "--budget", "5", "{path}"], "write NAME:key=value"),
        (["--method", "menu-knapsack", "--budget", "5", "{path}.none"], "cannot read"),
        (["--method", "menu-knapsack", "--budget", "5", "{bad}"], "line 2: cost 1 is -1"),
        (["--method", "menu-knapsack", "--budget", "7/day", "{path}"], "has a window"),
        (["--method", "menu-knapsack", "--budget", "5", "--seed", "-1", "{path}"], "--seed is -1"),
        (
            ["--method", "menu-knapsack", "--budget", "5", "--plot", "/tmp", "{path}"],
            "--plot /tmp is not a regular file",
        ),
        (["--method", "menu-knapsack", "--budget", "5", "--plot", "{path}/x.svg", "{path}"], "there is no folder"),
        (["--method", "menu-knapsack", "--budget", "1" + 20 * "0", "{path}"], "budget is 1000"),
        (
            ["--method", "menu-knapsack:compiled=true", "--budget", "1" + 20 * "0", "{path}"],
            "budget is 1000",
        ),
        (
            ["--method", "menu-knapsack:exact=maybe", "--budget", "5", "{path}"],
            "exact=maybe is not possible: exact is true or false",
        ),
        (
            ["--method", "menu-knapsack:exact=1", "--budget", "5", "{path}"],
            "exact=1 is not possible: exact is true or false",
        ),
        (["--method", "neyman:max_units=2.5", "--budget", "5", "{path}"], "max_units=2.5 is not possible"),
    ],
)
def test_allocate_errors_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(MENU[0]) + "\n" + json.dumps({"key": "c", "cost": [-1], "value": [1]}))
    path = written(tmp_path, MENU)
    assert cli.main(["allocate", *(argument.format(path=path, bad=bad) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_closed_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from budgeteer.cli import main; sys.exit(main(['methods']))"
    # buffered output, as users have it, fails only at the flush; an unbuffered one fails inside the command
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for environment in (buffered, {**buffered, "PYTHONUNBUFFERED": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, env=environment
        )
        assert (done.returncode, done.stderr) == (0, "")
    os.close(writer)


def test_compare_says_what_it_does_before_it_imports_what_takes_seconds():
    code = (
        "import sys\n"
        "sys.modules['torch'] = None  # importing it fails from here on\n"
        "from budgeteer.cli import main\n"
        "main(['compare', 'duet@50%', '--seeds', '3', '--out', 'runs/x'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.startswith("duet@50%: 3 seeds, in runs/x; what is finished there is kept\n")


@pytest.mark.parametrize(
    "command",
    ["solve chains --strategy direct --budget 32 --out {}/rows.jsonl", "frontier direct chains --budgets 32 --out {}"],
)
def test_an_embedded_model_needs_no_package_of_an_endpoint(command: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['openai'] = sys.modules['anthropic'] = None  # importing them fails from here on\n"
        "from budgeteer.cli import main\n"
        f"sys.exit(main({[*command.format(tmp_path).split(), '--limit', '1']!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_page_of_methods_is_generated(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    assert cli.main(["methods", "--markdown"]) == 0
    assert capsys.readouterr().out == page, "run: budgeteer methods --markdown > docs/methods.md"
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(registry.METHODS)
    assert cli.main(["methods", "allocator", "--markdown"]) == 2
    assert "leave out the name" in capsys.readouterr().err


def test_a_warning_of_this_package_is_one_line_and_that_of_another_says_where_it_arose() -> None:
    import budgeteer.core.plan
    from budgeteer.cli import _remark

    assert _remark("too small", UserWarning, budgeteer.core.plan.__file__, 3) == "note: too small\n"
    assert "json.py:3: UserWarning: too small" in _remark("too small", UserWarning, "/else/json.py", 3)
    assert "FutureWarning" in _remark("old", FutureWarning, budgeteer.core.plan.__file__, 3)
