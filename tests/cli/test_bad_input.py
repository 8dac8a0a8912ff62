"""Bad input to every command: no traceback, the exit code, and a message that names what to change.

``data/bad_inputs.tsv`` has a line for each: command line, exit code, part of the last line on standard error. ``{tmp}``
is the folder of ``bad_inputs.write_files``. BUDGETEER_TRACEBACK is set, so that a fault fails its test.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from budgeteer import cli
from budgeteer.cli import _numbers, _outputs
from budgeteer.core.errors import Diverged, InvalidInput
from helpers.bad_inputs import TABLE, write_files

ROWS = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    write_files(folder)
    return folder


def test_the_table_has_every_command_and_250_lines() -> None:
    commands = Counter(shlex.split(line)[0] for line, *_ in ROWS if line and shlex.split(line)[0] in cli.COMMANDS)
    assert commands.keys() == cli.COMMANDS.keys()
    assert len({line for line, *_ in ROWS}) == len(ROWS) >= 250


@pytest.mark.parametrize("command", [*cli.COMMANDS, "none"])
def test_bad_input_is_refused_and_named(
    command: str, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    assert os.environ["BUDGETEER_TRACEBACK"]
    monkeypatch.chdir(files)
    wrong = []
    for line, code, part in ROWS:
        words = shlex.split(line)
        if (words[0] if words and words[0] in cli.COMMANDS else "none") != command:
            continue
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        words = [word.encode().decode("unicode_escape") if "\\x1b" in word else word for word in words]
        before = sorted(path.name for path in files.iterdir())
        try:
            found = cli.main([word.replace("{tmp}", str(files)) for word in words])
        except SystemExit as end:
            found = int(end.code or 0)
        said = (capsys.readouterr().err.strip().splitlines() or [""])[-1].replace(str(files), "{tmp}")
        if (str(found), part in said) != (code, True):
            wrong.append(f"{line}: {found}, {said}")
        left = {path.name for path in files.iterdir()} - {*before, "keys.db"}
        if left := {name for name in left if not name.endswith((".lock", ".run", ".gateway", "-wal", "-shm"))}:
            wrong.append(f"{line}: leaves {left}")
    assert not wrong


def options() -> Iterator[tuple[str, argparse.Action]]:
    """(command, option) of all commands and actions."""

    def walk(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for below in action.choices.values():
                    yield from walk(name, below)
            else:
                yield name, action

    for name, (module, _) in cli.COMMANDS.items():
        parser = argparse.ArgumentParser()
        importlib.import_module(module).add_arguments(parser)
        yield from walk(name, parser)


def test_every_number_has_its_range_and_every_output_is_tried() -> None:
    for name, action in options():
        if action.type in (int, float):
            assert action.dest in _numbers.RANGES, f"{name} {action.option_strings}"
            if action.default is not None:
                assert _numbers.RANGES[action.dest].holds(action.default)
        if action.type is Path and action.dest in ("out", "plot", "save_model"):
            assert (name, action.dest) in _outputs.OUTPUTS, f"{name} {action.option_strings}"


def test_help_shows_the_true_defaults() -> None:
    """The options' defaults are those of the library, and no help text says None."""
    pytest.importorskip("torch")
    from budgeteer.cli import lab
    from budgeteer.cli._options import add_training, spec_of
    from budgeteer.lab.pretrain import PretrainConfig
    from budgeteer.lab.run import RunSpec
    from budgeteer.lab.thinker.train import ThinkerConfig

    for name, action in options():
        assert action.help, f"{name} {action.option_strings or action.dest} has no help"
        assert not (action.default is None and "%(default)" in action.help), f"{name} {action.option_strings}"
    parser = argparse.ArgumentParser()
    add_training(parser)
    assert spec_of(parser.parse_args([]), "grpo", "100%", None, 0) == RunSpec("grpo", "100%", None)
    defaults = {(name, action.dest): action.default for name, action in options()}
    assert defaults["lab", "steps"] is None
    assert {"reasoner": PretrainConfig().steps, "thinker": ThinkerConfig().steps} == lab.STEPS


def test_a_trial_of_an_output_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "answers.jsonl").write_text("old\n")
    for command, name, path in (
        ("train", "out", "runs/a/b"), ("train", "out", "there"), ("solve", "out", "new/answers.jsonl"),
        ("solve", "out", "answers.jsonl"), ("allocate", "plot", "plan.svg"),
    ):  # fmt: skip
        _outputs.check(command, argparse.Namespace(**{name: tmp_path / path}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "there"]
    assert (tmp_path / "answers.jsonl").read_text() == "old\n"
    with pytest.raises(InvalidInput, match="--out"):
        _outputs.check("train", argparse.Namespace(out=tmp_path / "answers.jsonl", save_model=None))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("line", ["papers", "--help", "methods"])
def test_a_full_standard_output_is_one_line(line: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "budgeteer", *shlex.split(line)], stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "error: an output cannot be written (No space left on device); free space, or send it elsewhere\n"
    )


CLOSED = [
    ("methods >&-", 2, "error: standard output is closed; send it to a file, or to /dev/null where nobody reads it\n"),
    ("nope 2>&-", 2, ""),
    ("nope >&- 2>&-", 2, ""),
    (
        "allocate - --method neyman --budget 9 <&-", 2,
        "error: standard input is closed; send rows to it, or name a file instead of -\n",
    ),
    (
        "solve - --strategy direct --budget 9 <&-", 2,
        "error: standard input is closed; send rows to it, or name a file instead of -\n",
    ),
]  # fmt: skip


@pytest.mark.skipif(not Path("/bin/sh").exists(), reason="no shell")
@pytest.mark.parametrize(("line", "code", "said"), CLOSED, ids=[line for line, *_ in CLOSED])
def test_a_closed_stream_is_one_line(line: str, code: int, said: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.quote(sys.executable)} -m budgeteer {line}"], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, said)


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """What is printed to standard error, which is closed, would be in the ledger."""
    ledger = tmp_path / "l.db"
    command = f"{shlex.quote(sys.executable)} -m budgeteer ledger init --ledger {shlex.quote(str(ledger))} <&- 2>&-"
    inside = "import os; from budgeteer import cli; cli._keep_numbers(); print(os.open(os.devnull, 0) > 2)"
    done = subprocess.run(
        ["/bin/sh", "-c", f"{command} && {shlex.quote(sys.executable)} -c {shlex.quote(inside)} <&- 2>&-"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.endswith("True\n")
    assert ledger.exists()


def test_a_fault_is_one_line_and_its_traceback_is_there_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from budgeteer.cli import methods

    def fail(_: object) -> int:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr(methods, "run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["methods"])
    monkeypatch.delenv("BUDGETEER_TRACEBACK")
    assert cli.main(["methods"]) == 70
    assert capsys.readouterr().err == (
        "error: a fault of budgeteer, please report it: ZeroDivisionError: a b "
        "(BUDGETEER_TRACEBACK=1 shows where it came from)\n"
    )


def test_a_training_whose_gradient_is_no_number_stops_with_the_step() -> None:
    torch = pytest.importorskip("torch")
    from helpers.training import build

    trainer = build()
    trainer.step()
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    next(iter(trainer.model.parameters())).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(Diverged, match=r"step 2: the norm of the gradient is nan; .* Lower --lr \(0.01\)") as caught:
        trainer.step()
    assert caught.value.step == 2
    assert all(torch.equal(weight, before[name]) for name, weight in trainer.model.named_parameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", float("inf")), ("lr", float("nan")), ("kl", float("nan")), ("kl", -1.0), ("steps", -1), ("group", 0)],
)
def test_a_training_is_not_configured_with_what_is_no_number(name: str, value: float) -> None:
    pytest.importorskip("torch")
    from budgeteer.rl.config import TrainConfig

    with pytest.raises(InvalidInput, match=f"TrainConfig.{name} is"):
        TrainConfig(**{name: value})  # type: ignore[arg-type]
