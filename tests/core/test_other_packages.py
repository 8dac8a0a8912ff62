"""Methods of another package, really installed, are found by name and run, in worker processes too."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

from budgeteer import cli
from budgeteer.check._made_up import made_up
from budgeteer.core import registry
from budgeteer.core.errors import InvalidInput, MissingExtra, UnknownName
from budgeteer.core.method import PARTS
from budgeteer.core.run import RUNS
from budgeteer.models.policy import REASONER
from budgeteer.rl.config import TrainConfig
from budgeteer.rl.control import Control
from budgeteer.solve.registered import build
from helpers import needs, theirs
from helpers.theirs import budgeteer

pytest.importorskip("torch")
recipes = pytest.importorskip("budgeteer.rl.recipes")
SIZES = {"steps": 2, "prompts": 4, "group": 2, "max-tokens": 48, "train-items": 12, "heldout-items": 12}
SMALL = ["--task", "chains", "--device", "cpu", *(word for k, v in SIZES.items() for word in (f"--{k}", str(v)))]
needs_reasoner = pytest.mark.skipif(not (REASONER / "model.safetensors").exists(), reason="no embedded reasoner yet")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    folder = theirs.install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.modules.pop("theirs_of_a_test", None)
    sys.modules.pop("theirs_evidence", None)


def test_a_package_brings_its_evidence_and_evidence_that_leads_nowhere_is_flagged(
    installed, tmp_path, capsys, monkeypatch
):
    assert cli.main(["evidence", "their-uniform", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("shown (simulation)           theirs_evidence: share spent: 0.")
    (row,) = json.loads((tmp_path / "out" / "theirs_evidence.json").read_text())
    assert (row["verdict"], row["data"]) == ("shown", "simulation")
    assert cli.main(["evidence", "their-count", "--out", str(tmp_path / "out")]) == 2
    assert 'evidence="my_package.evidence"' in capsys.readouterr().err
    theirs_module = importlib.import_module("theirs_of_a_test")
    for name, why in (("their_package.gone", "unknown evidence 'their_package.gone'"), ("json", "holds no evidence")):
        monkeypatch.setattr(theirs_module, "ALLOCATOR", replace(theirs_module.ALLOCATOR, evidence=name))
        assert cli.main(["methods", "--check", "their-uniform"]) == 1
        said = capsys.readouterr().out
        assert said.startswith(f"allocator their-uniform: broken: its evidence {name!r} leads nowhere: ")
        assert why in said


def test_a_fault_of_a_method_is_laid_to_the_package_that_brings_it(installed, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("BUDGETEER_TRACEBACK", raising=False)
    (tmp_path / "items.csv").write_text("name,value,cost\na,1,1\n")
    command = ["allocate", str(tmp_path / "items.csv"), "--budget", "1", "--method"]
    theirs_module = importlib.import_module("theirs_of_a_test")
    exec("def their_uniform(): return {}['gone']", theirs_module.__dict__)
    assert cli.main([*command, "their-uniform"]) == 70
    said = capsys.readouterr().err
    assert said.startswith("error: a fault of theirs_of_a_test (not budgeteer's), please report it: KeyError: 'gone' (")
    monkeypatch.setattr("budgeteer.allocate._uniform.uniform", lambda: {}["gone"])
    assert cli.main([*command, "uniform"]) == 70
    assert capsys.readouterr().err.startswith("error: a fault of budgeteer, please report it: ")


def test_a_recipe_of_another_package_is_got_by_name(installed):
    assert recipes.get("theirs").name == "theirs"
    assert recipes.get("duet:exact=false").name == "duet:exact=false"
    with pytest.raises(UnknownName, match="'theirs'"):
        recipes.get("their")
    with pytest.raises(InvalidInput, match=r"theirs_of_a_test:no_recipe makes a int; return a Recipe"):
        recipes.get("theirs-none")


def test_what_cannot_be_run_is_refused_with_its_entry_point(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(theirs.install(tmp_path / "site", gone="no_such_module_of_theirs:X")))
    importlib.invalidate_caches()
    error = r"entry point 'gone' of package 'theirs-of-a-test' .* cannot be loaded \(ModuleNotFoundError"
    with pytest.raises(InvalidInput, match=error + ".*pip uninstall theirs-of-a-test"):
        registry.get("strategy", "gone")
    assert recipes.get("grpo").name == "grpo"  # names of this package look at no entry point
    assert build("direct").needs == frozenset()  # nor does a strategy, though it may be one of many questions
    assert registry.get("strategy", "their-direct").name == "their-direct"  # the others of the package are there
    sys.modules.pop("theirs_of_a_test", None)


def test_check_gives_a_broken_entry_point_a_line_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(theirs.install(tmp_path / "site", gone="no_such_module_of_theirs:X")))
    importlib.invalidate_caches()
    monkeypatch.setattr("budgeteer.check.check_method", lambda method: None)
    assert cli.main(["methods", "--check"]) == 1
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("entry point gone: broken: entry point 'gone' of package 'theirs-of-a-test'")
    assert len(others) == len(theirs.NAMES)
    assert all(line.endswith(": ok") for line in others)
    assert cli.main(["methods", "strategy"]) == 0
    assert "pip uninstall theirs-of-a-test" in capsys.readouterr().err
    sys.modules.pop("theirs_of_a_test", None)


def test_they_have_a_method_of_every_part_and_each_is_listed_and_checked(installed, capsys):
    mine = [method for method in registry.methods() if method.path.startswith("theirs_of_a_test:")]
    assert {method.part for method in mine} == set(PARTS)
    assert cli.main(["methods"]) == 0
    listed = capsys.readouterr().out
    for method in mine:
        if method.name not in ("theirs-broken", "theirs-none"):
            assert f"{method.name} " in listed
            assert cli.main(["methods", "--check", method.name]) == 0
            assert capsys.readouterr().out == f"{method.part} {method.name}: ok\n"


def test_an_option_without_a_type_takes_any_value(installed, capsys):
    assert cli.main(["methods", "their-router"]) == 0
    assert "  rate  any value, must be given\n" in capsys.readouterr().out


def test_all_of_other_packages_are_checked_and_one_line_says_what_is_broken(installed, capsys):
    assert cli.main(["methods", "--check"]) == 1
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert len(lines) == len(theirs.NAMES)
    assert {name: said for name, said in lines.items() if said != "ok"} == {
        "recipe theirs-broken": "broken: it raised ValueError: their advantage is broken",
        "recipe theirs-none": "broken: the factory made 7, no Recipe",
    }


def test_a_part_is_checked_with_theirs_and_no_methods_of_others_are_ok(installed, capsys, monkeypatch):
    assert cli.main(["methods", "aggregator", "--check"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "aggregator their-count: ok"
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    assert cli.main(["methods", "--check"]) == 0
    assert "no other package registers a method" in capsys.readouterr().out


def test_what_cannot_be_checked_is_not_ok(installed, capsys, monkeypatch):
    def check(method):
        raise MissingExtra("scipy", "lab")

    monkeypatch.setattr("budgeteer.check.check_method", check)
    assert cli.main(["methods", "--check", "their-matching"]) == 1
    assert capsys.readouterr().out.startswith("matching their-matching: not checked: this needs 'scipy'")


@needs_reasoner
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("their-direct", []),
        ("their-turns", ["--total"]),
        ("best-of-n:scorer=their-brevity,n=2", []),
        ("split:aggregate=their-count,most=3", ["--total"]),
        ("split:allocator=their-uniform,show=agreement,most=3", ["--total"]),
        ("best-of-n:scorer=verifier,n=2", ["--oracle", "--verifier", "their-caseless"]),
    ],
)
def test_solve_runs_their_strategies_splits_scorers_aggregators_and_verifiers(installed, strategy, options, tmp_path):
    out = tmp_path / "answers.jsonl"
    needs.reasoning_gym()
    asked = ["chains", "--limit", "1", "--strategy", strategy, "--budget", "4000", "--out", str(out), *options]
    assert cli.main(["solve", *asked]) == 0
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["calls"] > 0


@needs_reasoner
def test_solve_and_frontier_ask_their_task_in_their_style(installed, tmp_path):
    out = tmp_path / "answers.jsonl"
    asked = ["their-sums:most=4", "--style", 'their-plain:lead=""', "--limit", "3"]
    assert cli.main(["solve", *asked, "--strategy", "direct", "--budget", "200", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3
    assert all(row["calls"] > 0 and max(map(int, row["id"].split("+"))) <= 4 for row in rows)
    assert all(row["correct"] == (row["answer"] == str(sum(map(int, row["id"].split("+"))) % 11)) for row in rows)
    folder = tmp_path / "frontier"
    assert cli.main(["frontier", "direct", *asked, "--budgets", "150", "--seeds", "1", "--out", str(folder)]) == 0
    config = json.loads((folder / "frontier.json").read_text())["config"]
    assert (config["task"], config["style"]) == ("their-sums:most=4", 'their-plain:lead=""')


@needs_reasoner
def test_train_takes_their_task_and_names_options_that_it_lacks(installed, tmp_path, capsys):
    needs.reasoning_gym()
    small = ["--task", "their-sums", *SMALL[2:]]
    assert cli.main(["train", "grpo", "--budget", "600", "--out", str(tmp_path / "one"), *small]) == 0
    assert cli.main(["solve", "their-sums:mots=4", "--strategy", "direct", "--budget", "200"]) == 2
    assert "unknown option of their-sums 'mots'; did you mean 'most'?" in capsys.readouterr().err


@needs_reasoner
def test_train_fills_every_slot_of_a_recipe_with_theirs(installed, tmp_path, capsys):
    needs.reasoning_gym()
    text = (
        "grpo:steer=their-steer,reward=their-short,advantage=their-signs,importance=their-first,ratio=their-unclipped,"
        "stream=their-order,carry=their-nothing,lr=their-half,token_weight=their-rows"
    )
    out = tmp_path / "one"
    assert cli.main(["train", text, "--budget", "600", "--out", str(out), *SMALL]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"trained policy: {out / 'policy'}"


@needs_reasoner
def test_their_reward_and_weight_read_a_column_of_their_own_and_one_of_their_task(installed, tmp_path):
    text = "theirs:reward=their-thrift,token_weight=their-late,variant=their-words"
    small = ["--task", "their-sums", *SMALL[2:]]
    assert cli.main(["train", text, "--budget", "600", "--out", str(tmp_path / "one"), *small]) == 0


@needs_reasoner
def test_solve_counts_a_budget_by_their_meter(installed, tmp_path):
    out = tmp_path / "answers.jsonl"
    asked = ["their-sums", "--style", "their-plain", "--limit", "1", "--strategy", "direct"]
    assert cli.main(["solve", *asked, "--budget", "letters:400", "--out", str(out)]) == 0
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["budget"] == {"letters": 400}
    assert 0 < row["units"]["letters"] == 4 * row["tokens"]["output"] <= 400


def test_a_gateway_serves_with_their_policy(installed, tmp_path):
    for needed in ("aiohttp", "orjson", "prometheus_client", "starlette", "uvicorn"):
        pytest.importorskip(needed)
    headers, sent = theirs.capped(installed, tmp_path / "gateway.toml", "their-policy")
    assert headers["x-budgeteer-policy"] == "short=20"
    assert sent["max_tokens"] == 20


RUN_IN_PYTHON = {
    "their-threshold": "0 (297.0,)",
    "their-search": "[1 0]",
    "their-rounding": "[False  True  True]",
    "their-matching": "3.5 0",
    "their-router": "(8, 1) (8, 1)",
    "their-allowance": "{'all': 980}",
    "letters": "80",
    "their-shortest": "2",
}
"""Method of a part that no command resolves by itself -> what the lines that budgeteer methods shows print."""


def test_what_no_command_runs_is_run_by_the_lines_that_methods_shows(installed, capsys):
    mine = {method.name: method for method in registry.methods() if method.path.startswith("theirs_of_a_test:")}
    assert {mine[name].part for name in RUN_IN_PYTHON} == {
        part for part, run in RUNS.items() if not run.startswith("budgeteer ")
    }
    for name, printed in RUN_IN_PYTHON.items():
        assert cli.main(["methods", f"{mine[name].part}/{name}"]) == 0
        lines = capsys.readouterr().out.partition("\nrun:\n")[2]
        exec(textwrap.dedent(lines), {})
        assert capsys.readouterr().out.strip() == printed, name


def test_columns_that_their_reward_reads_are_shown_and_computed(installed, capsys):
    assert cli.main(["methods", "their-thrift"]) == 0
    assert "columns   correct, their_digits, their_larger" in capsys.readouterr().out
    rollouts = made_up(0)[0].take(np.arange(3))
    texts = np.array(["7 + 12 = 19", "none", "1"], object)
    rollouts = replace(rollouts.scored(np.ones(3)), more={"text": texts})
    rows = rollouts.columns(registry.make("reward", "their-thrift").needs, {"their_larger": np.array([2, 0, 0])})
    assert rows.column("their_digits", "test").tolist() == [5, 0, 1]
    np.testing.assert_allclose(registry.make("reward", "their-thrift").score((), rows), [0.97, 1.0, 0.99])
    said = (
        r"reads the column 'their_larger' of rollouts \(the larger number of the sum\), and nobody gives it here; train"
    )
    with pytest.raises(InvalidInput, match=said):
        Control(recipes.get("grpo:reward=their-thrift"), TrainConfig(), [(1,)], ["a"], offers=["text"])


@needs_reasoner
def test_train_compare_allocate_and_solve_run_them(installed, tmp_path):
    needs.reasoning_gym()
    trained = budgeteer(installed, "train", "theirs", "--budget", "600", "--out", str(tmp_path / "one"), *SMALL)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.splitlines()[-1] == f"trained policy: {tmp_path / 'one' / 'policy'}"
    out = tmp_path / "many"
    compared = budgeteer(
        installed, "compare", "theirs@600", "--seeds", "1", "--workers", "1", "--out", str(out), *SMALL
    )
    assert compared.returncode == 0, compared.stderr
    (run,) = json.loads((out / "results.json").read_text())["runs"]
    assert run["recipe"] == "theirs"
    assert 0 < run["tokens"]["used"] <= 600
    items = '{"key": "a", "cost": 10}\n{"key": "b", "cost": 10}\n'
    split = budgeteer(installed, "allocate", "-", "--method", "their-uniform", "--budget", "40", "--json", stdin=items)
    assert json.loads(split.stdout)["plan"] == {"a": 2, "b": 2}, split.stderr
    solved = budgeteer(
        installed, "solve", "chains", "--limit", "1", "--strategy", "their-direct", "--budget", "200",
        "--out", str(tmp_path / "answers.jsonl"),
    )  # fmt: skip
    assert solved.returncode == 0, solved.stderr


@pytest.mark.slow
@needs_reasoner
def test_the_first_failure_ends_a_comparison_and_the_busy_run_pauses_at_a_checkpoint(installed, tmp_path):
    needs.reasoning_gym()
    small = [*SMALL, "--steps", "5000"]
    out = tmp_path / "out"
    done = budgeteer(
        installed,
        "compare",
        "theirs@90m",
        "theirs-broken@90m",
        "--seeds",
        "1",
        "--workers",
        "2",
        "--out",
        str(out),
        *small,
    )
    assert done.returncode == 2
    assert "their advantage is broken" in done.stderr
    assert " paused  theirs@90m-seed0" in done.stderr
    assert "the other runs pause" in done.stderr
    assert "the same command continues" in done.stderr
    assert (out / "checkpoints" / "theirs@90m-seed0" / "checkpoint.pt").exists()


def test_a_package_that_is_installed_while_a_process_runs_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs_of_a_test", raising=False)
    assert "their-short" not in registry.of("reward")
    theirs.install(tmp_path)
    assert registry.get("reward", "their-short").path == "theirs_of_a_test:their_short"
    assert "their-short" in registry.of("reward")
    monkeypatch.delitem(sys.modules, "theirs_of_a_test")
