"""The command line: instant help, errors in one line, the commands that need no training."""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from budgeteer import __version__, cli, registry
from budgeteer.lab import results
from results_fixture import ARMS, make

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


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"budgeteer {__version__}\n"


def test_unknown_command_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["comapre"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: unknown command 'comapre'; did you mean 'compare'?\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "{tmp}/none.json"], "cannot read"),
        (["report", "{tmp}/bad.json"], "schema is 7"),
        (["evidence"], "give one name or --all"),
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
    assert all(method.name in text for method in registry.methods().values())
    assert cli.main(["methods", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [method.name for method in registry.methods().values()]
    assert {"name", "part", "arxiv", "decides", "verdict"} <= rows[0].keys()


def test_methods_shows_the_published_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(__file__).parents[1] / "docs" / "evidence"
    cli.main(["methods", "--json"])
    for row in json.loads(capsys.readouterr().out):
        published = folder / f"{row['evidence']}.json"
        if published.exists():
            for entry in json.loads(published.read_text()):
                assert entry["verdict"] in row["verdict"]


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
    assert (
        cli.main(["allocate", "--method", "menu-knapsack", "--budget", "9", "--set", "exact=true", "--json", path]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    price = found.pop("price")
    assert found == {
        "method": "menu-knapsack", "budget": 9, "cost": 9.0, "value": 11.0, "gap": 0.0, "plan": {"a": 2, "b": 1},
    }  # fmt: skip
    assert price == 0.5  # the next step, b from 3 to 5 tokens, gains 1 for 2
    units = written(tmp_path, [{"key": "a", "cost": 1, "std": 1.0}, {"key": "b", "cost": 1, "std": 3.0}])
    assert cli.main(["allocate", "--method", "proportional", "--budget", "8", "--json", units]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plan"] == {"a": 2, "b": 6}
    assert found["value"] is None


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
    assert "3 x 10 tokens for std 3; one more does not fit the 5 tokens left" in text
    assert "value  -4" in text


def test_allocate_plots_without_torch(tmp_path: Path) -> None:
    path, out = written(tmp_path, MENU), tmp_path / "deep" / "plan.svg"
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
            ["--method", "menu-knapsack", "--budget", "5", "--set", "exactly=1", "{path}"],
            "does not take these arguments",
        ),
        (["--method", "menu-knapsack", "--budget", "5", "--set", "exact", "{path}"], "is not NAME=VALUE"),
        (["--method", "menu-knapsack", "--budget", "5", "{path}.none"], "cannot read"),
        (["--method", "menu-knapsack", "--budget", "5", "{bad}"], "line 2: cost 1 is -1"),
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
