"""The command line: instant help, errors in one line, the commands that need no training."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

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
