"""What a training run logs: files that survive a kill, loggers by name, and the report of a log."""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import sys
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch")

from budgeteer.cli import main
from budgeteer.core.errors import InvalidInput, MissingExtra, UnknownName
from budgeteer.lab import runlog, trl_log
from budgeteer.lab.runlog import RunLog, names_of


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_steps_that_come_again_take_the_place_of_the_earlier_ones(tmp_path, monkeypatch) -> None:
    log = RunLog(tmp_path, "run", {"seed": 1})
    for step in (1, 2, 3):
        log.step(step, {"reward": step / 4, "loss": math.nan}, [{"text": f"first {step}"}, {"text": "x"}])
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')  # killed while it wrote
    again = RunLog(tmp_path, "run", {"seed": 1})
    again.step(2, {"reward": 0.75}, [{"text": "again 2"}])
    again.step(3, {"reward": 1.0}, [])
    assert [row["reward"] for row in again.rows("metrics")] == [0.25, 0.75, 1.0]
    again.close()
    assert rows(tmp_path / "metrics.jsonl")[0] == {"step": 1, "reward": 0.25, "loss": None}
    assert [row["text"] for row in rows(tmp_path / "samples.jsonl")] == ["first 1", "x", "again 2"]
    begun: list[str] = []
    monkeypatch.setitem(runlog.LOGGERS, "wandb", lambda folder, name, config: begun.append(name))
    with pytest.raises(InvalidInput, match=r"of another run \(seed: 2 here, 1 there\)"):
        RunLog(tmp_path, "run", {"seed": 2}, ["wandb"])
    assert not begun  # nobody is told of a run that is refused


def test_loggers_are_named_and_what_is_not_installed_is_said(tmp_path, monkeypatch) -> None:
    assert names_of("") == []
    assert names_of("wandb, tensorboard,wandb") == ["wandb", "tensorboard"]
    with pytest.raises(UnknownName, match="tensorboard"):
        names_of("tensorbord")
    for name in runlog.LOGGERS:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None)
            with pytest.raises(MissingExtra, match=r"budgeteer\[log\]"):
                RunLog(tmp_path, "run", {}, [name])


class Calls(list):
    """A run of a logger that keeps what it is told."""

    def log(self, *args: Any, **kwargs: Any) -> None:
        self.append(("log", args, kwargs))

    def define_metric(self, *args: Any, **kwargs: Any) -> None:
        self.append(("define_metric", args, kwargs))

    def finish(self) -> None:
        self.append(("finish", (), {}))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_logger_gets_every_step_by_calls_that_the_library_has(tmp_path, monkeypatch, name) -> None:
    """A module in the library's place; where the library is there, its own functions must take the same calls."""
    made, begun = Calls(), []

    def init(**given: Any) -> Calls:
        begun.append(given)
        return made

    fake: Any = ModuleType(name)
    fake.init = init
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, name, fake)
        for _ in range(2):  # the same folder goes on with the same run
            log = RunLog(tmp_path, "run", {"seed": 1}, [name])
            log.step(1, {"reward": 0.5, "loss": math.inf}, [])
            log.close()
    logged = [call for call in made if call[0] == "log"]
    assert [({**call[1][0], **call[2]}) for call in logged] == [{"reward": 0.5, "step": 1}] * 2
    assert begun[0] == begun[1]
    assert begun[0]["resume"] == "allow"
    assert begun[0]["config"] == {"seed": 1}
    assert made[-1][0] == "finish"
    if importlib.util.find_spec(name):
        library = importlib.import_module(name)
        inspect.signature(library.init).bind(**begun[0])
        kind: Any = library.Run
        for called, args, kwargs in made:
            inspect.signature(getattr(kind, called)).bind(None, *args, **kwargs)


def test_wandb_offline(tmp_path, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log = RunLog(tmp_path, "run", {"seed": 1}, ["wandb"])
    log.step(1, {"reward": 0.5}, [])
    log.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_tensorboard_shows_the_steps(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in ((1, 2, 3), (3, 4)):
        log = RunLog(tmp_path, "run", {"seed": 1}, ["tensorboard"])
        for step in steps:
            log.step(step, {"reward": step / 10}, [])
        log.close()
    seen = EventAccumulator(str(tmp_path / "tensorboard"))
    seen.Reload()
    assert [(event.step, round(event.value, 3)) for event in seen.Scalars("reward")] == [
        (1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4),
    ]  # fmt: skip


HISTORY = [
    {"step": i, "loss": 1 / i, "reward": i / 20, "num_tokens": 100.0 * i, "rewards/<b>/mean": 0.5} for i in range(1, 21)
]


def test_a_log_of_trl_is_read_from_its_last_checkpoint(tmp_path, capsys) -> None:
    for last in (10, 20):
        folder = tmp_path / f"checkpoint-{last}"
        folder.mkdir()
        state = {"log_history": [*HISTORY[:last], {"step": last, "train_runtime": 3.0}]}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    assert main(["report", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert ["mean", "reward", "0.075", "0.975"] in [line.split() for line in said.splitlines()]  # steps 1, 2; 19, 20
    assert "20 steps\n2,000 tokens, prompts included" in said
    page = (tmp_path / "log.html").read_text()
    assert page.count("<svg") == 2  # lengths were not logged
    assert "Reward by tokens" in page
    assert "<b>/mean" not in page
    assert main(["report", str(tmp_path / "checkpoint-10" / "trainer_state.json")]) == 0
    assert "10 steps" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"log_history": 3}', '{"log_history": [{"step": 1}]}', "\xff"])
def test_what_is_no_log_is_refused(tmp_path, content) -> None:
    (tmp_path / "trainer_state.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidInput, match="trainer_state"):
        trl_log.read(tmp_path)


def test_a_run_of_an_embedded_policy_logs_its_steps(tmp_path, capsys) -> None:
    pytest.importorskip("numba")
    arguments = "train uniform-stop --task chains --steps 2 --prompts 4 --group 2 --train-items 16 --heldout-items 8"
    assert main([*arguments.split(), "--max-tokens", "24", "--out", str(tmp_path)]) == 0
    logged = rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in logged] == [1, 2]
    used = json.loads((tmp_path / "results.json").read_text())["runs"][0]["tokens"]["used"]
    assert logged[-1]["budget/used"] == used > 0
    assert rows(tmp_path / "samples.jsonl")[0].keys() == {"step", "prompt", "completion", "status", "reward", "tokens"}
    assert json.loads((tmp_path / "config.json").read_text())["recipe"] == "uniform-stop"
    capsys.readouterr()
    assert main(["report", str(tmp_path)]) == 0
    assert "2 steps" in capsys.readouterr().out
